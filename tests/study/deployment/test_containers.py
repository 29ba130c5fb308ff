"""What the containers mount: laid out by ``containers`` at both ends, and all of it run once."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from wardround.privacy.errors import BadInput
from wardround.study.deployment.containers import (
    DASHBOARD,
    FLEET_PROXY,
    SUPEREXEC,
    SUPERLINK,
    HospitalUsers,
    give,
    prepare_coordinator,
    prepare_hospital,
)
from wardround.study.deployment.shipping import bundle_sha256
from wardround.study.provisioning.authority import found
from wardround.study.provisioning.hospital import HospitalFolder, install_kit
from wardround.study.provisioning.roster import ConsortiumFolder, fingerprint_of, read_roster

ROOT = Path(__file__).resolve().parents[3]
PLAIN = Path(__file__).with_name("plain")
HOSPITALS = {"north": 10011, "south": 10021, "west": 10031}
NOW = datetime.now(UTC).replace(microsecond=0)
HOST = "coordinator.example.org"


class Owners(dict[Path, int]):
    """Remembers who was given what, where only root could give."""

    def __call__(self, path: Path, user: int) -> None:
        self[path] = user


def provision(project: Path, port: int = 8443) -> ConsortiumFolder:
    """A coordinator's folder and three hospitals', with the names that the compose file has."""
    project.mkdir(exist_ok=True)
    names = "".join(f'[[hospitals]]\nname = "{name}"\n' for name in HOSPITALS)
    terms = project / "consortium.toml"
    where = f'[coordinator]\nhosts = ["{HOST}"]\nport = {port}\n'
    terms.write_text(f'[consortium]\nname = "trial"\n{where}{names}', encoding="utf-8")
    place = ConsortiumFolder(project / "consortium")
    found(terms, place, NOW, with_keys=True)
    for name in HOSPITALS:
        home = HospitalFolder(project / "hospitals" / name)
        install_kit(place.kit(name), home, NOW, fingerprint_of(place))
        shutil.copyfile(ROOT / "examples/medical-editing/policy.toml", home.path / "policy.toml")
    return place


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Owners]:
    """A whole project, and who owns what in it."""
    project, owners = tmp_path_factory.mktemp("project"), Owners()
    prepare_coordinator(provision(project), project / "runs", NOW, owners)
    for name, user in HOSPITALS.items():
        home = HospitalFolder(project / "hospitals" / name)
        prepare_hospital(home, f"supernode-{name}", HospitalUsers(user), NOW, owners)
    return project, owners


def compose() -> dict:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def test_every_secret_of_the_compose_file_is_there_for_its_reader_alone(
    laid_out: tuple[Path, Owners],
) -> None:
    (project, owners), file = laid_out, compose()
    for service in file["services"].values():
        for use in service.get("secrets", ()):
            path = project / file["secrets"][use["source"]]["file"]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert f"{owners[path]}:{owners[path]}" == service["user"], path


def test_every_folder_of_the_compose_file_is_there(laid_out: tuple[Path, Owners]) -> None:
    project, _ = laid_out
    sources = {
        line.split(":")[0]
        for service in compose()["services"].values()
        for line in service.get("volumes", ())
        if line.startswith("./") and not line.startswith(("./data", "./studies"))
    }
    assert len(sources) == 9
    for source in sources:
        assert (project / source).is_dir(), source


def test_what_commands_read_is_mounted(laid_out: tuple[Path, Owners]) -> None:
    """Every path in a command or health check below a mounted folder leads to something."""
    project, _ = laid_out
    looked = 0
    for service in compose()["services"].values():
        mounts = [line.split(":")[:2] for line in service.get("volumes", ())]
        for word in service["command"]:
            path = word.split("=")[-1]
            for source, target in mounts:
                if path.startswith(f"{target}/") and source.startswith(("./cons", "./hosp")):
                    assert (project / source / path[len(target) + 1 :]).exists(), word
                    looked += 1
    assert looked == 3 + 1 + 1 + 3 * (2 + 2 + 1) - 1


def test_public_files_hold_nothing_private_and_private_ones_are_few(
    laid_out: tuple[Path, Owners],
) -> None:
    project, owners = laid_out
    for folder in project.glob("**/containers/public"):
        for path in folder.rglob("*"):
            assert path.stat().st_mode & 0o044 == 0o044, path
            if path.is_file():
                assert "PRIVATE KEY" not in path.read_text(encoding="utf-8")
                assert path not in owners
    assert {user for path, user in owners.items() if "consortium" in path.parts} == {
        FLEET_PROXY,
        SUPERLINK,
        SUPEREXEC,
        DASHBOARD,
    }


def test_ledger_and_keys_are_given_to_the_custodian(laid_out: tuple[Path, Owners]) -> None:
    project, owners = laid_out
    home = project / "hospitals" / "south"
    kept = [path for path in (home, *home.rglob("*")) if "containers" not in path.parts]
    assert home / "keys" / "signing.pem" in kept
    assert {owners[path] for path in kept} == {10023}


def test_the_executors_copy_opens_as_the_coordinators_folder(
    laid_out: tuple[Path, Owners],
) -> None:
    project, _ = laid_out
    theirs = ConsortiumFolder(project / "consortium" / "containers" / "superexec")
    assert read_roster(theirs) == read_roster(ConsortiumFolder(project / "consortium"))
    assert not theirs.authority_key.exists()


def test_a_relay_is_given_this_releases_bundle(laid_out: tuple[Path, Owners]) -> None:
    project, _ = laid_out
    public = project / "hospitals" / "north" / "containers" / "public"
    assert (public / "bundles.txt").read_text(encoding="utf-8").startswith(bundle_sha256())


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_accepts_its_configuration(laid_out: tuple[Path, Owners], tmp_path: Path) -> None:
    """With container paths and names replaced by those of this machine."""
    project, _ = laid_out
    made = project / "consortium" / "containers"
    text = (made / "public" / "nginx.conf").read_text(encoding="utf-8")
    assert text.count("listen ") == 2
    for old, new in (
        (" /tmp/", f" {tmp_path}/"),
        ("/run/secrets", str(made / "secrets")),
        ("/etc/wardround", str(made / "public")),
        ("superlink:8600", "127.0.0.1:8600"),
        ("dashboard:8050", "127.0.0.1:8050"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["nginx", "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_doing_it_again_renews_and_keeps_the_token(tmp_path: Path) -> None:
    place, owners = provision(tmp_path), Owners()
    made = prepare_coordinator(place, tmp_path / "runs", NOW, owners) / "secrets"
    token, inner = (made / "dashboard.token").read_text(), (made / "superlink.pem").read_text()
    prepare_coordinator(place, tmp_path / "runs", NOW, owners)
    assert (made / "dashboard.token").read_text() == token
    assert (made / "superlink.pem").read_text() != inner


def test_without_root_nothing_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(BadInput, match=r"only root can give .* user 10001; .* \(sudo\)"):
        give(tmp_path, 10001)


@pytest.mark.parametrize("user", [0, -1, 2**31])
def test_no_container_runs_as_root(user: int) -> None:
    with pytest.raises(BadInput, match=f"--user is {user};"):
        HospitalUsers(user)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    home = HospitalFolder(tmp_path / "none")
    with pytest.raises(BadInput, match=r"kit\.json"):
        prepare_hospital(home, "supernode", HospitalUsers(10011), NOW, Owners())
    place = provision(tmp_path, port=9443)
    with pytest.raises(BadInput, match=r"port is 9443; docker-compose\.yml publishes 8443"):
        prepare_coordinator(place, tmp_path / "runs", NOW, Owners())
    home = HospitalFolder(tmp_path / "hospitals" / "north")
    (home.path / "policy.toml").unlink()
    with pytest.raises(BadInput, match=r"policy\.toml: no such file"):
        prepare_hospital(home, "supernode", HospitalUsers(10011), NOW, Owners())
