"""Noise: as much as promised, charged before it is drawn, and nothing else may leave."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy import stats

from wardround.privacy._seal import SEAL
from wardround.privacy.clipping import Clipped, ClippedSum
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import NOTHING, Gaussian, PoissonSampled, Repeated, Unprotected
from wardround.privacy.noise import (
    Noised,
    add_gaussian,
    add_joint_gaussian,
    from_coordinator,
    lattice_step,
    pass_unprotected,
    release,
)
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Adjacency, Unit

ADD_REMOVE = Adjacency.ADD_REMOVE
ALARM = 1e-9
TWO = Gaussian(2.0)


def zeros(size=100_000, bound=1.5):
    return Clipped({"w": torch.zeros(size)}, bound, Unit.RECORD, seal=SEAL)


@pytest.mark.statistical
@pytest.mark.parametrize("sampled", [False, True])
def test_each_coordinate_gets_the_promised_variance(reserve, stream, sampled):
    """Deviation 2 x 1.5 = 3; chi-square and KS at a false-alarm rate of 1e-9 each."""
    event = PoissonSampled(0.1, TWO) if sampled else TWO
    noised = add_gaussian(zeros(), event, 2.0, ADD_REMOVE, reserve(event), stream)
    values = noised.value["w"].double() / 3
    assert stats.kstest(values.numpy(), "norm").pvalue > ALARM
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], len(values))
    assert low < float(values.square().sum()) < high
    assert noised.event == event


@pytest.mark.statistical
def test_many_arrays_get_noise_of_their_own_each(reserve, stream):
    """Small arrays are drawn for together; KS and correlation, 1e-9 each."""
    shapes = {f"small-{i}": (3, 5) for i in range(2000)} | {"large": (300, 301), "one": ()}
    value = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    clipped = Clipped(value, 1.5, Unit.RECORD, seal=SEAL)
    noised = add_gaussian(clipped, TWO, 2.0, ADD_REMOVE, reserve(TWO), stream).value
    assert {name: tuple(array.shape) for name, array in noised.items()} == shapes
    small = torch.cat([noised[f"small-{i}"].flatten() for i in range(2000)]).double() / 3
    assert stats.kstest(small.numpy(), "norm").pvalue > ALARM
    pairs = torch.stack([small, noised["large"].flatten()[: len(small)].double()])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < stats.norm.isf(ALARM / 2) / math.sqrt(30_000)


@pytest.mark.statistical
def test_replacing_a_unit_costs_twice_the_noise(reserve, stream):
    noised = add_gaussian(zeros(), TWO, 2.0, Adjacency.REPLACE_ONE, reserve(TWO), stream)
    assert float(noised.value["w"].std()) == pytest.approx(6.0, rel=0.02)


@pytest.mark.statistical
def test_hospitals_and_restarts_draw_independent_noise(reserve):
    """Broken twin: a generator that everybody seeds alike gives everybody the same noise."""
    draws = [
        add_gaussian(zeros(), TWO, 2.0, ADD_REMOVE, reserve(TWO), SecureStream.from_os()).value["w"]
        for _ in range(3)
    ]
    bound = stats.norm.isf(ALARM / 6) / math.sqrt(100_000)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pair = torch.stack([draws[one], draws[other]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < bound
    seeded = [torch.randn(1000, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert float(torch.corrcoef(torch.stack(seeded))[0, 1]) > 1 - 1e-6


def test_noised_values_lie_on_a_lattice_that_hides_the_last_bits(reserve, stream):
    """The step is a power of two, 2**-10 to 2**-11 deviations, whatever value lies below."""
    value = Clipped({"w": torch.linspace(-5, 5, 70_000)}, 0.37, Unit.RECORD, seal=SEAL)
    noised = add_gaussian(value, TWO, 2.0, ADD_REMOVE, reserve(TWO), stream)
    step = lattice_step(0.74)
    assert step == 2.0**-11
    assert 2**10 <= 0.74 / step < 2**11
    steps = noised.value["w"].double() / step
    assert torch.equal(steps, steps.round())
    assert float((noised.value["w"] - value.value["w"]).std()) == pytest.approx(0.74, rel=0.02)


def test_the_noise_must_be_what_the_event_speaks_of(reserve, stream):
    for event in (Gaussian(3.0), Repeated(TWO, 1), Unprotected()):
        with pytest.raises(ValueError, match="but the event is"):
            add_gaussian(zeros(), event, 2.0, ADD_REMOVE, reserve(event), stream)


def test_what_was_not_charged_is_not_drawn(reserve, stream):
    reservation = reserve(Repeated(TWO, 2))
    for _ in range(2):
        add_gaussian(zeros(3), TWO, 2.0, ADD_REMOVE, reservation, stream)
    before = stream._left_bytes
    with pytest.raises(LedgerError, match="charged no more"):
        add_gaussian(zeros(3), TWO, 2.0, ADD_REMOVE, reservation, stream)
    assert stream._left_bytes == before


def test_a_sum_without_a_bound_is_refused(reserve, stream):
    with pytest.raises(ValueError, match="has no bound"):
        add_gaussian(zeros(3, math.inf), TWO, 2.0, ADD_REMOVE, reserve(TWO), stream)


@pytest.mark.statistical
def test_several_sums_share_one_budget(reserve, stream):
    """1/2² = 1/2.5² + 1/(10/3)²: each sum gets its own noise, together they cost multiplier 2."""
    count = Clipped({"n": torch.zeros(50_000)}, 0.5, Unit.RECORD, seal=SEAL)
    parts = [(zeros(50_000, 1.0), 2.5), (count, 10 / 3)]
    noised = add_joint_gaussian(parts, TWO, 2.0, ADD_REMOVE, reserve(TWO), stream)
    assert float(noised.value["w"].std()) == pytest.approx(2.5, rel=0.03)
    assert float(noised.value["n"].std()) == pytest.approx(5 / 3, rel=0.03)
    with pytest.raises(ValueError, match=r"the parts only give 1\.97"):
        add_joint_gaussian(
            [(zeros(3), 2.45), (count, 10 / 3)], TWO, 2.0, ADD_REMOVE, reserve(TWO), stream
        )


def test_unprotected_data_pass_under_their_own_charge(reserve):
    value = Clipped({"w": torch.ones(3).double()}, math.inf, Unit.RECORD, seal=SEAL)
    passed = pass_unprotected(value, Unprotected(), reserve(Unprotected()))
    assert passed.value["w"].dtype == torch.float32
    assert passed.event == Unprotected()


# --- values that may leave ----------------------------------------------------------------------


def test_a_history_is_kept_through_whatever_is_computed(reserve, stream):
    reservation = reserve(Repeated(TWO, 3))
    model = from_coordinator({"w": torch.zeros(4)})
    for _ in range(3):
        step = add_gaussian(zeros(4), TWO, 2.0, ADD_REMOVE, reservation, stream)
        model = model.combine(step, lambda a, b: {"w": a["w"] - b["w"]})
    model = model.then(lambda a: {"w": 2 * a["w"]})
    assert model.event == Repeated(TWO, 3)
    assert set(release(model, reservation)) == {"w"}


def test_only_noised_values_that_were_paid_for_are_released(reserve, stream):
    reservation = reserve(TWO)
    with pytest.raises(TypeError, match="only Noised values leave; this is dict"):
        release({"w": torch.zeros(3)}, reservation)
    step = add_gaussian(zeros(3), TWO, 2.0, ADD_REMOVE, reservation, stream)
    twice = step.combine(step, lambda a, b: a)
    with pytest.raises(LedgerError, match="costs more than was charged"):
        release(twice, reservation)
    broken = step.then(lambda a: {"w": a["w"] * math.nan})
    with pytest.raises(ValueError, match="not finite"):
        release(broken, reservation)
    assert torch.equal(release(step, reservation)["w"], step.value["w"])
    assert from_coordinator({}).event == NOTHING


def test_nobody_else_can_make_what_leaves():
    for make in (
        lambda: Noised({}, NOTHING),
        lambda: Reservation("r", 1, "0" * 64, NOTHING),
    ):
        with pytest.raises(TypeError, match="only be made inside"):
            make()


def test_a_noised_value_takes_no_further_arrays(reserve, stream):
    noised = from_coordinator({"w": torch.zeros(1)})
    with pytest.raises(TypeError):
        noised.value["secret"] = torch.ones(1)


@pytest.mark.slow
def test_sending_what_is_not_noised_is_a_type_error(tmp_path: Path):
    """Law 1 before anything runs: mypy on a hospital that adds noise, and on two that forget."""
    snippet = (
        "from wardround.privacy.clipping import ClippedSum\n"
        "from wardround.privacy.noise import release\n"
        "from wardround.privacy.plan import PrivacyPlan\n"
        "from wardround.privacy.reservation import Reservation\n"
        "from wardround.privacy.stream import SecureStream\n"
        "def send(p: PrivacyPlan, s: ClippedSum, r: Reservation, n: SecureStream) -> None:\n"
        "    release(p.privatise(s.close(), r, n), r)\n"
        "    release(s.close(), r)\n"
        "    release(s.close().value, r)\n"
    )
    (tmp_path / "snippet.py").write_text(snippet)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"),
         str(tmp_path / "snippet.py")],
        capture_output=True, text=True, cwd=root, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if "snippet.py" in line]
    assert [line.split(":")[1] for line in errors] == ["8", "9"], done.stdout
    assert all("[arg-type]" in line for line in errors)


def test_the_bound_of_a_sum_reaches_its_noise():
    total = ClippedSum({"w": torch.Size([1])}, 0.25, Unit.RECORD)
    assert total.close().sensitivity(ADD_REMOVE) == 0.25
