"""Every mechanism from study.toml through custodian to report, and what it is charged as."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from wardround.privacy.accountant import epsilon
from wardround.privacy.errors import BadInput
from wardround.privacy.events import Event, Gaussian, PoissonSampled, Repeated
from wardround.study.config import Study

Command = Callable[..., Any]

SITE = {"unit": "site", "sampling_rate": 1.0}
SAMPLED = PoissonSampled(0.1, Gaussian(1.0))
CASES: dict[str, tuple[dict[str, Any], Event]] = {
    # Two rounds of two steps with noise multiplier 1, written down by hand from the definitions.
    # Andrew et al. (2021), theorem 1: sum and count together cost what the sum alone cost.
    "adaptive": ({"adaptive": {"target_quantile": 0.6, "count_noise": 4.0}}, Repeated(SAMPLED, 4)),
    "patients": (
        {"unit": "patient", "max_records": 1, "clip_rule": "automatic"},
        Repeated(SAMPLED, 4),
    ),
    # The steps at home cost nothing: one Gaussian a round.
    "whole-update": (SITE | {"mechanism": "whole-update"}, Repeated(Gaussian(1.0), 2)),
    # Displacement 2 for a record and two factors: sigma 4 is worth 4 / (2 sqrt 2) = sqrt 2.
    "reconstruction": (
        {"mechanism": "reconstruction", "noise_multiplier": 4.0},
        Repeated(PoissonSampled(0.1, Gaussian(4.0 / (2 * 2**0.5))), 4),
    ),
    "reconstruction of a site": (
        SITE | {"mechanism": "reconstruction", "noise_multiplier": 4.0, "max_records": 8},
        Repeated(PoissonSampled(1.0, Gaussian(4.0 / 2**0.5)), 4),
    ),
}


def rewrite(study: Path, privacy: dict[str, Any]) -> None:
    """Change ``[privacy]``, and the policy so that it allows that much."""
    tables = tomllib.loads(study.read_text(encoding="utf-8"))
    tables["privacy"] |= privacy
    study.write_text(tomli_w.dumps(tables), encoding="utf-8")
    path = study.parent / "policy.toml"
    policy = tomllib.loads(path.read_text(encoding="utf-8"))
    policy["budget"] |= {"unit": tables["privacy"]["unit"], "epsilon": 1000.0}
    policy["allow"]["mechanisms"] = ["dp-sgd", "whole-update", "reconstruction"]
    policy["allow"]["min_units"] = 1  # the example's records belong to few patients
    path.write_text(tomli_w.dumps(policy), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_study_runs_and_is_charged(
    wardround: Command, small_study: Path, tmp_path: Path, case: str
) -> None:
    privacy, event = CASES[case]
    rewrite(small_study, privacy)
    ended = wardround("run", small_study, "--json", "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    found = [hospital["epsilon"] for hospital in ended.document()["hospitals"]]
    assert found == [pytest.approx(epsilon(event, 1e-5), rel=1e-12)] * 2


@pytest.mark.parametrize("case", CASES)
def test_a_study_written_and_read_again_is_the_same(small_study: Path, case: str) -> None:
    rewrite(small_study, CASES[case][0])
    study = Study.read(small_study)
    again = small_study.with_name("again.toml")
    again.write_text(tomli_w.dumps(study.to_tables()), encoding="utf-8")
    assert Study.read(again).privacy == study.privacy


def test_noise_is_calibrated_for_the_mechanism(small_study: Path) -> None:
    """Rounds alone cost in a whole update, and sigma is worth less in the reconstruction."""
    tables = tomllib.loads(small_study.read_text(encoding="utf-8"))
    del tables["privacy"]["noise_multiplier"]
    small_study.write_text(tomli_w.dumps(tables), encoding="utf-8")
    for privacy, event in (
        (SITE | {"mechanism": "whole-update"}, lambda z: Repeated(Gaussian(z), 2)),
        (
            {"unit": "record", "sampling_rate": 0.5, "mechanism": "reconstruction"},
            lambda z: Repeated(PoissonSampled(0.5, Gaussian(z / 8**0.5)), 4),
        ),
    ):
        rewrite(small_study, privacy | {"epsilon": 5.0})
        noise = Study.read(small_study).noise_multiplier()
        assert epsilon(event(noise), 1e-5) <= 5.0
        assert epsilon(event(noise * 0.999), 1e-5) > 5.0


@pytest.mark.parametrize(
    ("privacy", "says"),
    [
        ({"mechanism": "whole-update"}, "unit is record; it must be site"),
        ({"unit": "site"}, "only a whole update or the reconstruction protects it"),
        ({"adaptive": {"target_quantil": 0.5}}, "adaptive: unknown key 'target_quantil'; did you"),
        ({"adaptive": {"target_quantile": 1.5}}, "target_quantile is 1.5"),
        ({"max_records": 0}, "max_records is 0; it must be 1 or more"),
        ({"mechanism": "reconstructed"}, "did you mean 'reconstruction'"),
        (SITE | {"mechanism": "whole-update", "adaptive": {}}, "goes with private dp-sgd only"),
    ],
)
def test_settings_that_do_not_go_together(
    small_study: Path, privacy: dict[str, Any], says: str
) -> None:
    rewrite(small_study, privacy)
    with pytest.raises(BadInput, match=rf"study.toml \[privacy\].*{says}"):
        Study.read(small_study)


def test_the_audit_says_what_it_watches(wardround: Command, small_study: Path) -> None:
    rewrite(small_study, SITE | {"mechanism": "whole-update"})
    ended = wardround("audit", small_study)
    assert ended.code == 2
    assert "mechanism is 'whole-update'; the audit watches steps of 'dp-sgd'" in ended.err


def test_a_device_that_is_not_there(
    wardround: Command, small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = wardround("run", small_study, "--device", "cuda", "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert "device is 'cuda'" in ended.err
    assert not (tmp_path / "runs").exists()
    ended = wardround("run", small_study, "--device", "cuda", "--engine", "ray")
    assert ended.code == 2
    assert "--engine ray trains on the CPU" in ended.err


def test_noise_that_leaves_nothing_for_the_count(small_study: Path) -> None:
    rewrite(small_study, {"adaptive": {"count_noise": 0.4}})
    study = Study.read(small_study)
    with pytest.raises(BadInput, match=r"\[privacy\] count_noise is 0.4; .* greater than 0.5"):
        study.privacy_plan(study.noise_multiplier(), 60)
