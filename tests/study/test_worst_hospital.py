"""Group-robust tuning from study file to checkpoint: losses leave noised, and cost nothing more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from wardround.privacy.loss_report import LOSS
from wardround.strategies.checkpoint import load_checkpoint
from wardround.strategies.worst_hospital import WEIGHT

EXAMPLE = Path(__file__).parents[2] / "examples" / "preference"
LOSSES = "[privacy.losses]\nlargest = 2.0\n\n[training]"


def study(folder: Path, *changes: tuple[str, str]) -> Path:
    folder.mkdir()
    shutil.copy(EXAMPLE / "policy.toml", folder / "policy.toml")
    text = (EXAMPLE / "study.toml").read_text()
    for old, new in (
        ("count = 4", "count = 2"),
        ("rounds = 10", "rounds = 2"),
        ("steps_per_round = 10", "steps_per_round = 2"),
        ("epsilon = 8.0", "noise_multiplier = 1.0"),
        ("records_per_hospital = 240", "records_per_hospital = 60\nprobes = 2"),
        ("max_tokens = 48", "max_tokens = 4"),
        *changes,
    ):
        assert old in text, old
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def test_losses_leave_noised_and_the_charge_stays_what_it_was(
    tmp_path: Path, wardround: Any
) -> None:
    weighed = ('name = "fedavg"', 'name = "fedavg"\nworst_hospital = 0.5')
    robust = wardround("run", study(tmp_path / "one", ("[training]", LOSSES), weighed), "--json")
    plain = wardround("run", study(tmp_path / "two"), "--json")
    assert robust.code == 0, robust.err
    assert plain.code == 0, plain.err
    documents = [ran.document() for ran in (robust, plain)]
    spent = [[h["epsilon"] for h in d["hospitals"]] for d in documents]
    assert spent[0] == spent[1]
    run = tmp_path / documents[0]["run_dir"]
    state = load_checkpoint(run / "checkpoint").arrays
    logarithms = [float(a) for name, a in state.items() if name.startswith(WEIGHT)]
    # Two noised losses are never equal; the larger one's hospital is at 0.
    assert len(logarithms) == 2
    assert max(logarithms) == 0.0 > min(logarithms)
    assert LOSS not in load_file(run / "adapter" / "adapter_model.safetensors")
    verified = wardround("report", run, "--verify")
    assert verified.code == 0, verified.err


def test_one_without_the_other_is_refused(tmp_path: Path, wardround: Any) -> None:
    lone = wardround("run", study(tmp_path / "one", ("[training]", LOSSES)))
    assert (lone.code, "worst_hospital is missing" in lone.err) == (2, True)
    weighed = ('name = "fedavg"', 'name = "fedavg"\nworst_hospital = 0.5')
    blind = wardround("run", study(tmp_path / "two", weighed))
    assert (blind.code, "say in [privacy.losses]" in blind.err) == (2, True)
