"""The Dockerfile's steps carried out and the compose file's services run, on this machine.

Without a container engine: an overlay for the image, namespaces for the services
(``plain/image.py``, ``plain/containers.py``). Four minutes on two cores; the image takes one and
a half of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from wardround.client.tasks.registry import find_task
from wardround.study.config import Study

ROOT = Path(__file__).resolve().parents[3]
PLAIN = Path(__file__).with_name("plain")
HOSPITALS = {"north": 10011, "south": 10021, "west": 10031}
TERMS = (
    '[consortium]\nname = "trial"\n[coordinator]\nhosts = ["coordinator.example.org"]\n'
    + "".join(f'[[hospitals]]\nname = "{name}"\n' for name in HOSPITALS)
)
NO_RIGHTS = ["0000000000000000"] * 5
pytestmark = pytest.mark.deployment


def wardround(*words: object) -> dict[str, Any]:
    """A command of ours with ``--json``; its document."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wardround.study", *map(str, words), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Below it every user may be given something; not in memory."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an image is made and services are users of their own")
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"]).returncode:
        pytest.skip("this machine makes no namespaces")
    for program in ("nginx", "ip", "setpriv", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    made = Path(tempfile.mkdtemp(prefix="wardround-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def image(folder: Path) -> Path:
    """What the Dockerfile makes."""
    built = folder / "image"
    done = subprocess.run(
        [sys.executable, str(PLAIN / "image.py"), str(built)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert "all steps, user 10000:10000, read-only root" in done.stdout
    return built


def lay_out(project: Path, small_study: Path) -> None:
    """What a coordinator and three engineers do before ``docker compose up``, by its commands."""
    project.mkdir()
    shutil.copy(ROOT / "docker-compose.yml", project)
    shutil.copytree(small_study.parent, project / "studies")
    terms = project / "consortium.toml"
    terms.write_text(TERMS, encoding="utf-8")
    consortium = project / "consortium"
    made = wardround("provision", terms, "--folder", consortium, "--with-keys")
    study = Study.read(project / "studies" / "study.toml")
    task = find_task(study.study.task)
    dealt = task.deal(None, project / "dealt", len(HOSPITALS), study.study.seed, study.task)
    for (name, user), records in zip(HOSPITALS.items(), dealt.records, strict=True):
        home = project / "hospitals" / name
        wardround("provision", "install", made["kits"][name], "--folder", home,
                  "--fingerprint", made["fingerprint"])  # fmt: skip
        shutil.copy(small_study.with_name("policy.toml"), home)
        wardround("hospital", "containers", "--folder", home,
                  "--supernode", f"supernode-{name}", "--user", user)  # fmt: skip
        (project / "data" / name).mkdir(parents=True)
        shutil.copy(records, project / "data" / name / f"records{records.suffix}")
    wardround("coordinator", "containers", "--folder", consortium, "--runs", project / "runs")


def run(project: Path, image: Path, *victim: str) -> dict[str, Any]:
    """Start everything, run the study, stop everything; what was seen."""
    words = [str(PLAIN / "scenario.py"), str(project), str(image), "/srv/studies/study.toml"]
    done = subprocess.run(
        [sys.executable, *words, *victim], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert isinstance(seen, dict)
    assert "error" not in seen, seen["error"]
    assert seen["study"]["code"] == 0, seen["study"]["err"]
    return seen


def charges(project: Path, hospital: str) -> list[str]:
    """Kinds of entries in a hospital's ledger, in order."""
    ledger = project / "hospitals" / hospital / "ledger" / "ledger.jsonl"
    lines = ledger.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["entry"]["kind"] for line in lines]


def test_the_compose_file_runs_a_study(image: Path, folder: Path, small_study: Path) -> None:
    project = folder / "project"
    lay_out(project, small_study)
    seen = run(project, image)
    services = yaml.safe_load((project / "docker-compose.yml").read_text(encoding="utf-8"))
    for name, service in services["services"].items():
        facts = seen["facts"][name]
        user, groups = service["user"].split(":")[0], service.get("group_add", [])
        assert (facts["user"], facts["groups"]) == (user, [user, *groups]), name
        assert facts["capabilities"] == NO_RIGHTS, name
        assert facts["no_new_privileges"] == "1", name
        assert "Read-only file system" in facts["writes_root"], name
        assert set(facts["secrets"]) == {use["target"] for use in service.get("secrets", ())}
        custodian = name.startswith("custodian")
        assert ("records.jsonl" in facts["sees"]) == custodian, name
        assert (facts["interfaces"] == ["lo"]) == custodian, name
    for way in ("custodian_to_superlink", "relay_to_superlink", "supernode_to_superlink"):
        assert "Network is unreachable" in seen[way], way
    assert seen["supernode_to_proxy"] == ""
    assert seen["dashboard"] == "200 ok\n"
    assert seen["control_api"].startswith("403 ")
    assert not seen["fleet_api"].startswith("403 ")
    assert not any(seen["restarts"].values())
    document = json.loads(seen["study"]["out"])
    assert document["rounds"] == 2
    assert {h["name"] for h in document["hospitals"]} == set(HOSPITALS)
    (finished,) = (project / "runs").iterdir()
    assert (finished / "adapter" / "adapter_model.safetensors").is_file()
    for name, user in HOSPITALS.items():
        assert (project / "hospitals" / name / "ledger" / "ledger.jsonl").stat().st_uid == user + 2
        assert charges(project, name) == ["open", *["reserve", "commit"] * 2]
    assert max(seen["stopped"].values()) < 60


@pytest.mark.fault
@pytest.mark.parametrize(
    ("victim", "follow"),
    [
        ("relay-north", set()),
        ("superlink", {f"supernode-{name}" for name in HOSPITALS}),  # which it no longer knows
    ],
)
def test_a_container_killed_in_a_round_comes_back_and_nothing_is_charged_twice(
    image: Path, folder: Path, small_study: Path, victim: str, follow: set[str]
) -> None:
    """No supervisor restarts a relay's SuperNode here: it misses the relay after a minute."""
    project = folder / victim
    lay_out(project, small_study)
    seen = run(project, image, victim)
    assert seen["restarts"][victim] == 1
    assert {name for name, times in seen["restarts"].items() if times} == {victim, *follow}
    assert ("starting the run again" in seen["study"]["err"]) == (victim == "superlink")
    assert json.loads(seen["study"]["out"])["rounds"] == 2
    for name in HOSPITALS:
        assert charges(project, name) == ["open", *["reserve", "commit"] * 2]
