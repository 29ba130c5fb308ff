"""What couples records is refused with its reason; every bound is named."""

from __future__ import annotations

import pytest

from wardround.client.tasks.ranking.config import REFUSED, ranking_config
from wardround.client.tasks.registry import find_task
from wardround.privacy.errors import BadInput, PolicyRefused


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_couples_records_is_refused_with_the_reason(name, value):
    with pytest.raises(PolicyRefused) as caught:
        find_task("ranking").check({name: value})
    assert f"[task] {name} is {value!r}: {REFUSED[name, value]}" == str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"negatives": "random"}, "negatives is 'random'; expected one of listed"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"group": 1}, "group is 1; it must be between 2"),
        ({"max_query": 0}, "max_query is 0"),
        ({"max_length": 40}, "max_length is 40; expected 48"),
        ({"ntp_weight": -1.0}, "ntp_weight is -1.0"),
        ({"scorer": "head", "reference_kl_weight": 1.0}, "needs scorer 'likelihood'"),
        ({"loss": "lambda"}, "loss is 'lambda'"),
        ({"measures": ["nDCG@x"]}, "measures"),
        ({"max_probes": 0}, "max_probes is 0"),
        ({"lists": {"depth": 0}}, "depth is 0"),
        ({"lists": {"probe_share": 100}}, "probe_share is 100"),
        ({"generated": {"pool": 13}}, "pool is 13; it must exceed"),
        ({"generated": {"chart_findings": 2}}, "chart_findings is 2; at least 3"),
    ],
)
def test_bounds_are_named(table, message):
    with pytest.raises(BadInput, match=message):
        ranking_config(table)


def test_published_settings_are_accepted():
    config = ranking_config(
        {
            "score": "probability",
            "temperature": 0.001,
            "group": 48,
            "ntp_weight": 1,
            "reference_kl_weight": 1,
        }
    )
    assert (config.score, config.temperature, config.group) == ("probability", 0.001, 48)
