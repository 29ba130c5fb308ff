"""A run's folder: everything a run reads and writes, laid out before it starts.

The folder appears whole or not at all, holds copies of the study and policy files, and is all that
``--resume`` needs. Hospitals simulated on this machine live in it, each with its own policy, keys,
ledger and records, exactly as a real hospital's custodian would find them.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from wardround.client.hospital import HOSPITAL_KEY, Hospital, group_units
from wardround.client.tasks.base import Dealt, Task
from wardround.privacy.errors import BadInput
from wardround.privacy.policy import Provenance
from wardround.privacy.signing import SigningKey
from wardround.privacy.tables import from_table, read_toml
from wardround.privacy.units import Unit
from wardround.strategies.checkpoint import write_atomically
from wardround.study.config import Study


@dataclass(frozen=True)
class RunFacts:
    """What was fixed when the run began, in ``run.json``.

    Attributes:
        run: Identifier that every plan carries.
        noise_multiplier: As calibrated then; never calibrated again.
        probes: Public records to evaluate on, relative to the folder.
        members: Public key of every hospital, by name.
        notes: What the task held out of the data.
        coordinator: Public key that signs plans and round records; empty in old runs.
    """

    run: str
    noise_multiplier: float
    probes: str
    members: Mapping[str, str]
    notes: tuple[str, ...] = ()
    coordinator: str = ""

    @property
    def hospitals(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.members)


@dataclass(frozen=True)
class RunFolder:
    """An existing run."""

    path: Path
    study: Study
    facts: RunFacts

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run in ``path``; ``BadInput`` when it is not one."""
        facts = path / "run.json"
        if not facts.is_file():
            raise BadInput(f"{path}: not a run folder (no run.json)")
        try:
            document = json.loads(facts.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{facts}: not JSON") from error
        return cls(
            path, Study.read(path / "study.toml"), from_table(RunFacts, document, "run.json")
        )

    @property
    def coordinator_key(self) -> SigningKey:
        """What plans and round records are signed with."""
        return SigningKey.load_or_create(self.path / "coordinator" / "signing.pem")

    def hospital(self, name: str) -> Hospital:
        """One simulated hospital's files."""
        home = self.path / "hospitals" / name
        return Hospital(
            name=name,
            folder=home,
            policy=home / "policy.toml",
            records=next(home.glob("records.*")),
            coordinator=self.coordinator_key.public,
            members=self.facts.members,
        )


def create_run_folder(
    parent: Path,
    study: Study,
    task: Task,
    noise_multiplier: float,
    data: Path | None,
    now: datetime,
    accept: Callable[[RunFolder], None],
) -> RunFolder:
    """Lay out a new run; on any error nothing is left behind.

    Args:
        parent: Folder that holds all runs; made when absent.
        study: What will run.
        task: Deals the data out.
        noise_multiplier: For every step of the study.
        data: A public file to deal out, or None for made-up data.
        now: Names the folder.
        accept: Looks at the finished draft and raises when it must not be run.
    """
    policy = read_toml(study.policy)
    made_parent = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=parent, prefix=".new-run-"))
    try:
        draft = scratch / "run"
        draft.mkdir()
        count = study.hospitals.count
        dealt = task.deal(data, draft / "dealt", count, study.study.seed, study.task)
        names = tuple(f"hospital-{i}" for i in range(1, count + 1))
        source = Provenance.GENERATED if data is None else Provenance.PUBLIC
        for i, name in enumerate(names):
            units = _declared_units(study, task, dealt, i)
            home = draft / "hospitals" / name
            _lay_out_hospital(home, policy, dealt.records[i], units, name, source)
        probes = draft / f"probes{dealt.probes.suffix}"
        dealt.probes.replace(probes)
        shutil.rmtree(draft / "dealt")
        (draft / "study.toml").write_text(tomli_w.dumps(study.to_tables()), encoding="utf-8")
        shutil.copyfile(study.policy, draft / "policy.toml")
        coordinator = SigningKey.load_or_create(draft / "coordinator" / "signing.pem").public
        name = free_name(parent, f"{study.study.name}-{now:%Y%m%d-%H%M%S}")
        keys = {n: draft / "hospitals" / n / HOSPITAL_KEY for n in names}
        members = {n: SigningKey.load_or_create(key).public for n, key in keys.items()}
        facts = RunFacts(name, noise_multiplier, probes.name, members, dealt.notes, coordinator)
        write_atomically(draft / "run.json", json.dumps(asdict(facts), indent=1).encode())
        accept(RunFolder(draft, Study.read(draft / "study.toml"), facts))
        draft.rename(parent / name)
        return RunFolder(parent / name, Study.read(parent / name / "study.toml"), facts)
    finally:
        shutil.rmtree(scratch)
        if made_parent and not any(parent.iterdir()):
            parent.rmdir()


def _lay_out_hospital(
    home: Path,
    policy: Mapping[str, Any],
    records: Path,
    units: int,
    name: str,
    source: Provenance,
) -> None:
    """One hospital's folder: its records and its own copy of the policy."""
    home.mkdir(parents=True)
    records.replace(home / f"records{records.suffix}")
    data = dict(policy.get("data", {}))
    # A policy that calls the data private stays as strict as it is.
    if data.get("provenance") != Provenance.PRIVATE:
        data["provenance"] = source.value
    data |= {"name": f"{data.get('name', 'records')}-{name}", "declared_units": units}
    (home / "policy.toml").write_text(tomli_w.dumps({**policy, "data": data}), encoding="utf-8")


def _declared_units(study: Study, task: Task, dealt: Dealt, index: int) -> int:
    """How many of the units that the study protects one hospital was dealt."""
    kind = study.privacy.unit
    if kind in (Unit.RECORD, Unit.SITE, Unit.LABEL):
        return dealt.units[index]
    return len(group_units(task.load(dealt.records[index], study.task), kind))


def free_name(parent: Path, wanted: str) -> str:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3``, … that does not exist."""
    taken = {p.name for p in parent.iterdir()}
    names = (wanted, *(f"{wanted}-{i}" for i in range(2, 10_000)))
    return next(re.sub(r"\s", "-", name) for name in names if name not in taken)
