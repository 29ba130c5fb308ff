"""Lays out a run whose hospitals are elsewhere: members come from the roster, data stays away.

Only public probes are dealt out here; the made-up records that come with them are thrown away.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import tomli_w

from wardround.client.tasks.registry import find_task
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import SigningKey
from wardround.server.book import read_failures
from wardround.server.gathering import SILENT
from wardround.strategies.checkpoint import write_atomically
from wardround.study.config import Study
from wardround.study.local import require_same_study
from wardround.study.provisioning.keys import read_private, write_private
from wardround.study.provisioning.roster import ConsortiumFolder, enrolled_keys
from wardround.study.run_folder import RunFacts, RunFolder, free_name
from wardround.study.runner import check_study


def create_deployed_run(
    study: Study, place: ConsortiumFolder, runs: Path, data: Path | None, now: datetime
) -> RunFolder:
    """A new run of ``study`` for everybody on the roster, under ``runs``.

    Args:
        study: What will run; its ``[hospitals] count`` is that of the roster.
        place: The coordinator's folder.
        runs: Folder that holds all runs; made when absent.
        data: A public file to take probes from, or None for made-up ones.
        now: Names the run; members' certificates must hold.

    Raises:
        BadInput: Nobody is enrolled, or the study cannot run.
    """
    members = enrolled_keys(place, now)
    if not members:
        raise BadInput(f"{place.roster}: nobody is enrolled; see wardround provision sign")
    study = replace(study, hospitals=replace(study.hospitals, count=len(members)))
    check_study(study)
    task = find_task(study.study.task)
    runs.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=runs, prefix=".new-run-"))
    try:
        draft = scratch / "run"
        draft.mkdir()
        dealt = task.deal(data, draft / "dealt", len(members), study.study.seed, study.task)
        probes = draft / f"probes{dealt.probes.suffix}"
        dealt.probes.replace(probes)
        shutil.rmtree(draft / "dealt")
        (draft / "study.toml").write_text(tomli_w.dumps(study.to_tables()), encoding="utf-8")
        shutil.copyfile(study.policy, draft / "policy.toml")
        key = draft / "coordinator" / "signing.pem"
        write_private(key, read_private(place.signing))
        coordinator = SigningKey.load_or_create(key).public
        name = free_name(runs, f"{study.study.name}-{now:%Y%m%d-%H%M%S}")
        noise = study.noise_multiplier()
        facts = RunFacts(name, noise, probes.name, members, dealt.notes, coordinator)
        write_atomically(draft / "run.json", json.dumps(asdict(facts), indent=1).encode())
        draft.rename(runs / name)
    finally:
        shutil.rmtree(scratch)
    return RunFolder.open(runs / name)


def reopen(study: Study, path: Path) -> RunFolder:
    """A run to go on with.

    Raises:
        BadInput: It is not a run, or not one of ``study``.
    """
    folder = RunFolder.open(path)
    require_same_study(study, folder)
    return folder


def why_refused(path: Path, before: int) -> str:
    """Why a run's newest failed round failed, if hospitals refused it; empty otherwise.

    Args:
        path: The run's folder.
        before: How many tries at rounds had failed already; they do not count.
    """
    failures = read_failures(path / "rounds")
    if len(failures) <= before or all(said.reason == SILENT for said in failures[-1].answers):
        return ""
    return failures[-1].failed
