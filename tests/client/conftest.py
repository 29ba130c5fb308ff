"""A hospital with a small data set and a coordinator's key, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from torch import Tensor

from wardround.client.custodian import Custodian, Surroundings
from wardround.client.hospital import Hospital
from wardround.client.tasks.registry import find_task
from wardround.client.workbench import Workbench
from wardround.privacy.envelope import open_bytes, seal_bytes
from wardround.privacy.plan import PrivacyPlan, RoundPlan
from wardround.privacy.signing import SigningKey, sha256
from wardround.privacy.units import Unit
from wardround.strategies.codec import decode, encode

ADAPTER = {"rank": 2, "alpha": 4, "targets": ["layers.7.mlp.down_proj"]}
GENERATED = {
    "generated": {
        "records_per_hospital": 60,
        "corroborated": 1,
        "corroborated_support": 8,
        "weak": 0,
        "single": 1,
        "filler_facts": 40,
        "random_probes": 1,
    }
}
TRAINING = {"optimizer": "adam", "learning_rate": 0.02}


@dataclass
class Setting:
    """Everything a test needs to ask a custodian for a round."""

    hospital: Hospital
    coordinator: SigningKey
    surroundings: Surroundings
    plan: RoundPlan
    block: bytes
    shapes: dict[str, Any]

    def open(self, surroundings: Surroundings | None = None) -> Custodian:
        """A custodian on the hospital's files."""
        return Custodian(self.hospital, surroundings or self.surroundings)

    def sealed(self, key: SigningKey | None = None, **changes: Any) -> bytes:
        """The plan with some fields changed, signed by the coordinator or by ``key``."""
        plan = replace(self.plan, **changes)
        return seal_bytes(plan.to_bytes(), key or self.coordinator, "plan")

    def ask(self, custodian: Custodian, **changes: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and arrays of the custodian's answer, its signature checked."""
        reply = custodian.train(self.sealed(**changes), self.block)
        return decode(open_bytes(reply, custodian.public_key, "reply"), "reply")

    def policy(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite the policy file."""
        import tomllib

        tables = tomllib.loads(self.hospital.policy.read_text(encoding="utf-8"))
        change(tables)
        self.hospital.policy.write_text(tomli_w.dumps(tables), encoding="utf-8")


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """One hospital of 60 records and a plan for its first round of 2 steps."""
    base = sha_of_base()
    dealt = find_task("editing").deal(None, tmp_path / "data", 1, 3, GENERATED)
    coordinator = SigningKey.generate()
    policy = tmp_path / "policy.toml"
    tables = {
        "budget": {"epsilon": 8.0, "delta": 1e-5, "unit": "record"},
        "allow": {
            "tasks": ["editing"],
            "bases": [base],
            "strategies": ["fedavg"],
            "min_noise_multiplier": 0.5,
            "max_rounds": 10,
            "min_units": 50,
        },
        "data": {"name": "notes", "declared_units": 60, "provenance": "private"},
    }
    policy.write_text(tomli_w.dumps(tables), encoding="utf-8")
    hospital = Hospital("north", tmp_path / "north", policy, dealt.records[0], coordinator.public)
    with Workbench() as workbench:
        workload = workbench.prepare("drugs", base, ADAPTER, "editing", GENERATED)
        arrays = workload.trainable.read()
        block = encode({"kind": "global"}, arrays)
        plan = RoundPlan(
            study="s",
            run="run-1",
            round=1,
            rounds=4,
            hospital="north",
            task="editing",
            strategy="fedavg",
            base="drugs",
            base_sha256=base,
            arrays_sha256=sha256(block),
            privacy=PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.1, 2, 6.0),
            adapter=ADAPTER,
            training=TRAINING,
            task_config=GENERATED,
        )
        shapes = {name: array.shape for name, array in arrays.items()}
        yield Setting(hospital, coordinator, Surroundings(workbench), plan, block, shapes)


def sha_of_base() -> str:
    """Hash of the embedded base."""
    from wardround.client.models import embedded_bases

    return embedded_bases()["drugs"]
