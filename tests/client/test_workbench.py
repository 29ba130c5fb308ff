"""A workbench is shared by runs: what one of them trained must not be where another starts."""

from __future__ import annotations

import torch

from wardround.client.models import embedded_bases
from wardround.client.workbench import Workbench

ADAPTER = {"targets": ["layers.5.mlp.down_proj"], "rank": 2}


def test_a_used_workload_is_shared_and_its_first_values_are_kept() -> None:
    base = ("drugs", embedded_bases()["drugs"])
    with Workbench() as workbench:
        used = workbench.prepare(*base, ADAPTER, "editing", {}, seed=3)
        fresh = used.trainable.read()
        used.trainable.write({name: value + 1 for name, value in fresh.items()})
        assert workbench.prepare(*base, ADAPTER, "editing", {}, seed=3) is used
        kept = workbench.first_values()
        assert kept.keys() == fresh.keys()
        assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
        assert not torch.equal(used.trainable.read()[next(iter(fresh))], kept[next(iter(fresh))])
        # Another seed is another start.
        workbench.prepare(*base, ADAPTER, "editing", {}, seed=4)
        factor = next(name for name in fresh if ".lora_A." in name)
        assert not torch.equal(workbench.first_values()[factor], fresh[factor])
