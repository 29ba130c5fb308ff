"""Bases are loaded by name or folder, pinned by hash, from safetensors alone, without a network."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys

import pytest
import torch

from wardround.client.models import BASES, WrongBase, embedded_bases, load_base, weights_sha256
from wardround.privacy.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BASES / "drugs", tmp_path / "copy")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_embedded_base_is_frozen_and_named(capfd):
    base = load_base("drugs")
    assert base.sha256 == embedded_bases()["drugs"]
    assert base.source == "embedded:drugs"
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.tokenizer.padding_side == "right"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_local_folder_gives_the_same_model(folder):
    ids = torch.tensor([[1, 70, 71, 72]])
    local, embedded = load_base(str(folder)), load_base("drugs")
    assert local.sha256 == embedded.sha256
    assert local.source == str(folder)
    assert torch.equal(local.model(ids).logits, embedded.model(ids).logits)


def test_one_frozen_base_serves_all_hospitals():
    assert load_base("drugs").model is load_base("drugs").model
    other = load_base("drugs", dtype="bfloat16").model
    assert next(other.parameters()).dtype == torch.bfloat16
    assert next(load_base("drugs").model.parameters()).dtype == torch.float32


def test_other_weights_are_refused_naming_both_hashes():
    wanted = "ab" * 32
    with pytest.raises(WrongBase) as caught:
        load_base("drugs", sha256=wanted)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert "base drugs" in message
    assert embedded_bases()["drugs"][:12] in message
    assert wanted[:12] in message
    assert wanted[:13] not in message


def test_changed_weights_are_never_taken_from_memory(folder):
    before = load_base(str(folder))
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WrongBase):
        load_base(str(folder), sha256=before.sha256)
    assert load_base(str(folder)).model is not before.model


def test_hash_covers_all_parts_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "config.json").write_bytes(b"not weights")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name_or_path": "drug"}, "'drug': neither a folder nor an embedded base; did you mean"),
        ({"name_or_path": "./absent"}, "'./absent': neither a folder nor an embedded base"),
        ({"name_or_path": "/a/b/c"}, "'/a/b/c': neither a folder nor an embedded base"),
        ({"name_or_path": "drugs", "sha256": "abc"}, "sha256 is 'abc'; expected 64 hexadecimal"),
        ({"name_or_path": "drugs", "dtype": "int8"}, "dtype is 'int8'; expected one of"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_bases_that_cannot_be_named_are_refused(settings, message):
    with pytest.raises(BadInput, match=message) as caught:
        load_base(**settings)
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("no_network")
def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"holds no \.safetensors file"):
        load_base(str(folder))


@pytest.mark.usefixtures("no_network")
def test_code_that_comes_with_a_base_is_not_run(folder):
    marker = folder / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {
            "AutoConfig": "modeling_evil.Config",
            "AutoModelForCausalLM": "modeling_evil.Model",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_base(str(folder))
    assert not marker.exists()


@pytest.mark.usefixtures("no_network")
def test_damaged_weights_are_one_line_of_error(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(BadInput, match="cannot be loaded") as caught:
        load_base(str(folder))
    assert "\n" not in str(caught.value)


def test_hub_names_are_fetched_by_commit_and_pinned(folder, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(folder.rename(folder.with_name("0123abcd")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    base = load_base("some-lab/some-model", revision="main", sha256=embedded_bases()["drugs"])
    assert base.source == "some-lab/some-model@0123abcd"
    assert asked["name"] == "some-lab/some-model"
    assert asked["revision"] == "main"
    assert not any(p.endswith((".bin", ".py", ".pt", "*")) for p in asked["patterns"])


def test_unreachable_hub_is_one_line_of_error(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(*_, **__):
        raise LocalEntryNotFoundError("no connection\nand much advice")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(BadInput, match=r"'some-lab/some-model'.*no connection$"):
        load_base("some-lab/some-model")


def test_importing_models_does_not_import_torch():
    code = (
        "import sys; from wardround.client.models import embedded_bases; "
        "assert embedded_bases(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
