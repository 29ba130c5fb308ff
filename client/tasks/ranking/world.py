"""A generated ward's notes and questions, in two vocabularies that share no word.

Notes name findings in clinical words; questions name most of them in lay words. The public half of
the lay vocabulary occurs in public pairs of note and question; the other half only in the questions
that hospitals hold, so that only they can teach a ranker what it means. Every such word is made up
of syllables. Knows nothing of models, records or hospitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

from wardround.client.tasks.draws import Draws

SYLLABLES = tuple("".join(pair) for pair in product("bdfgklmnprstvz", "aeiou"))
FILLERS = (
    "patient", "with", "stable", "noted", "since", "admission", "reports", "mild", "today", "plan",
    "review", "again", "ward", "after", "night", "without", "change", "advised", "follow", "daily",
    "history", "known", "exam", "unchanged", "family", "informed", "clinic", "before", "during",
    "morning", "course", "found", "treated", "discussed", "later", "recent", "further", "under",
    "improved", "continues",
)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """What a clinician wrote: its words, and the findings behind them."""

    text: str
    findings: tuple[int, int]


@dataclass(frozen=True)
class RankingWorld:
    """Words and the rules by which notes and questions are written.

    Attributes:
        seed: Which words.
        findings: How many things a note can be about.
        public_findings: The first so many have a public lay word.
        lay_share: In percent, how often a question uses the lay word where it has one.
        note_fillers: Everyday words in a note.
        question_fillers: Everyday words in a question.
    """

    seed: int = 0
    findings: int = 40
    public_findings: int = 20
    lay_share: int = 65
    note_fillers: int = 7
    question_fillers: int = 1

    def __post_init__(self) -> None:
        if not 4 <= self.findings <= 500:
            raise ValueError(f"findings is {self.findings}; it must be between 4 and 500")
        if not 0 <= self.public_findings <= self.findings:
            raise ValueError(
                f"public_findings is {self.public_findings}; expected 0 to {self.findings}"
            )
        if not 0 <= self.lay_share <= 100:
            raise ValueError(f"lay_share is {self.lay_share}; it must be between 0 and 100")

    @cached_property
    def words(self) -> tuple[tuple[str, str], ...]:
        """Of each finding, the clinical and the lay word; all different."""
        draws = Draws(self.seed, "ranking/words")
        spelled = draws.sample(["".join(pair) for pair in product(SYLLABLES, repeat=2)],
                               2 * self.findings)  # fmt: skip
        return tuple(zip(spelled[::2], spelled[1::2], strict=True))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Every two findings a note can be about."""
        return tuple(combinations(range(self.findings), 2))

    def note(self, findings: tuple[int, int], draws: Draws) -> Note:
        """A note about two findings; each is named once, or twice in one note of three."""
        words = [
            self.words[finding][0]
            for finding in findings
            for _ in range(2 if draws.below(3) == 0 else 1)
        ]
        words += [draws.choice(FILLERS) for _ in range(self.note_fillers)]
        return Note(" ".join(draws.shuffled(words)), findings)

    def question(self, findings: tuple[int, int], draws: Draws, public: bool) -> str:
        """A question that a note about these findings answers.

        Args:
            findings: What is asked about.
            draws: Choice and order of words.
            public: Written outside hospitals: findings without a public lay word get their
                clinical one.
        """
        words = [self._asked(finding, draws, public) for finding in findings]
        words += [draws.choice(FILLERS) for _ in range(self.question_fillers)]
        return " ".join(draws.shuffled(words))

    def _asked(self, finding: int, draws: Draws, public: bool) -> str:
        """The word a question uses for a finding."""
        lay = draws.below(100) < self.lay_share
        has_lay_word = finding < self.public_findings or not public
        return self.words[finding][1 if lay and has_lay_word else 0]


def weak_pairs(
    world: RankingWorld, count: int, seed: int, wrong_percent: int = 15
) -> list[tuple[str, str]]:
    """Public notes and questions as one finds them in the open: some pairs do not belong together.

    Returns:
        ``(note, question)``; ``wrong_percent`` of the questions were asked about something else.
    """
    draws = Draws(seed, "ranking/weak")
    found = []
    for _ in range(count):
        about = draws.choice(world.pairs)
        asked = draws.choice(world.pairs) if draws.below(100) < wrong_percent else about
        found.append((world.note(about, draws).text, world.question(asked, draws, public=True)))
    return found
