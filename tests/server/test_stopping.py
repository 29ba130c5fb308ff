"""When a study ends early: the rule by itself, and the coordinator that goes by it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.privacy.errors import BadInput
from wardround.server.stopping import StopRule

SCORES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0, 1), max_size=3)


@pytest.mark.parametrize(
    ("rule", "value", "stops"),
    [
        (StopRule("a", at_least=0.5), 0.5, True),
        (StopRule("a", at_least=0.5), 0.499, False),
        (StopRule("a", at_most=0.5), 0.5, True),
        (StopRule("a", at_most=0.5), 0.501, False),
        (StopRule("a", at_most=0.0), 0.0, True),
    ],
)
def test_a_bound_that_is_met_ends_the_study(rule: StopRule, value: float, stops: bool) -> None:
    assert bool(rule.reason({"a": value, "b": 1.0})) is stops


def test_the_reason_names_score_value_and_bound() -> None:
    found = StopRule("loss", at_most=0.25).reason({"loss": 0.125})
    assert found == "loss is 0.125; the study stops at 0.25 or less"


@given(SCORES, SCORES, st.floats(0, 1))
def test_nothing_but_the_named_score_decides(
    some: dict[str, float], others: dict[str, float], bound: float
) -> None:
    rule = StopRule("a", at_least=bound)
    mixed = (
        others | {"a": some["a"]} if "a" in some else {n: v for n, v in others.items() if n != "a"}
    )
    assert rule.reason(some) == rule.reason(mixed)
    assert bool(rule.reason(some)) == (some.get("a", -1.0) >= bound)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": ""}, "score is empty"),
        ({"score": "a"}, "either at_least or at_most"),
        ({"score": "a", "at_least": 0.1, "at_most": 0.2}, "not both"),
        ({"score": "a", "at_least": math.inf}, "at_least is inf; it must be a finite number"),
        ({"score": "a", "at_most": math.nan}, "at_most is nan"),
    ],
)
def test_rules_that_say_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StopRule(**settings)  # type: ignore[arg-type]


def test_a_rule_without_its_score_or_met_from_the_start_is_refused() -> None:
    rule = StopRule("exact.sen", at_least=0.5)
    with pytest.raises(
        BadInput, match=r"\[stop\] score is 'exact\.sen'.*did you mean 'exact\.seen'"
    ):
        rule.check({"exact.seen": 0.1}, "study.toml [stop]")
    with pytest.raises(BadInput, match=r"exact\.sen is 0\.5; .*untouched base has come so far"):
        rule.check({"exact.sen": 0.5}, "study.toml [stop]")
    rule.check({"exact.sen": 0.25}, "study.toml [stop]")
