"""What one correction is: the question, the answer it should get, how to tell whether it worked.

Field names are those of EasyEdit and MedCF. Knows nothing of files, models or hospitals. Source: Xu
et al. (2024), "Editing factual knowledge and explanatory ability of medical LLMs", released data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wardround.client.tasks.base import Record
from wardround.privacy import Unit

# The benchmark's own sub-metrics; only these enter the published average.
PUBLISHED_LOCALITY = (
    "target_distribution",
    "entity_mapping",
    "structural",
    "textual",
    "consistent_topic",
)


@dataclass(frozen=True)
class Probe:
    """A question whose answer an edit must not change."""

    prompt: str
    answer: str

    def __post_init__(self) -> None:
        if not self.prompt.strip() or not self.answer.strip():
            raise ValueError(
                "a locality probe needs a prompt and a ground_truth that are not empty"
            )


@dataclass(frozen=True)
class Edit:
    """One correction.

    Attributes:
        prompt: A question or the beginning of a sentence; contains the subject.
        subject: What the fact is about.
        target_new: The answer to learn.
        ground_truth: The answer before; may be empty.
        paraphrases: Trained together with ``prompt``; all of them are one record, one privacy unit.
        rephrase_prompts: Never trained: they show whether the correction generalises.
        locality: Probes by kind, see ``PUBLISHED_LOCALITY``.
        support: A label for tables, such as how many records say the same; may be empty.
    """

    prompt: str
    subject: str
    target_new: str
    ground_truth: str = ""
    paraphrases: tuple[str, ...] = ()
    rephrase_prompts: tuple[str, ...] = ()
    locality: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)
    support: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "subject", "target_new"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty")
        for name in ("paraphrases", "rephrase_prompts"):
            if not all(text.strip() for text in getattr(self, name)):
                raise ValueError(f"{name} holds an empty text")
        # EasyEdit stops here too: an edit whose subject is elsewhere cannot be located in a model.
        if self.subject not in self.prompt:
            raise ValueError("subject does not occur in prompt")

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every phrasing that may be trained on."""
        return (self.prompt, *self.paraphrases)

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every phrasing, those never trained too: all should get the same answer."""
        return (*self.prompts, *self.rephrase_prompts)

    @property
    def relation(self) -> str:
        """The question with its subject taken out: equal for edits that ask the same of others."""
        return self.prompt.replace(self.subject, "…")


def edit_record(name: str, edit: Edit, patient: str = "", clinician: str = "") -> Record:
    """A record that belongs to itself and, where known, to a patient and to a clinician."""
    owners = {Unit.RECORD: name}
    if patient:
        owners[Unit.PATIENT] = patient
    if clinician:
        owners[Unit.CLINICIAN] = clinician
    return Record(id=name, owners=owners, content=edit)
