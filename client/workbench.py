"""The workbench: base model, adapter and engine, put together once and used by many rounds.

Hospitals that share a process share one workbench and therefore one frozen base; each writes its
own starting values before it trains. Knows nothing of records or privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import Tensor

from wardround.client.devices import find_device, free_bytes
from wardround.client.engine import choose_engine
from wardround.client.gradients import Workload
from wardround.client.micro_batch import bytes_per_unit, units_at_once
from wardround.client.models import Base, Loading, load_base
from wardround.client.tasks.registry import find_task
from wardround.privacy.signing import canonical
from wardround.privacy.units import Unit


class Workbench:
    """Holds the last workload made; asking for the same one again costs nothing.

    A context manager: on exit the base is without an adapter again, as others expect to find it.
    """

    def __init__(self, engine: str = "auto", device: str = "cpu") -> None:
        """Work on ``device``; ``BadInput`` when this machine lacks it."""
        self._engine = engine
        self._device = find_device(device)
        self._key = b""
        self._workload: Workload | None = None
        self._first_values: dict[str, Tensor] = {}
        self._fitting: dict[Unit, int] = {}

    def __enter__(self) -> Self:
        """The workbench itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the adapter off."""
        self.clear()

    def base(self, name: str, sha256: str = "", loading: Loading | None = None) -> Base:
        """The frozen base; refused when its hash is not ``sha256``."""
        settings = asdict(loading or Loading())
        return load_base(name, sha256=sha256, device=self._device, **settings)

    def prepare(
        self,
        base: str,
        base_sha256: str,
        adapter: Mapping[str, Any],
        task: str,
        task_config: Mapping[str, Any],
        loading: Loading | None = None,
        seed: int = 0,
    ) -> Workload:
        """Task, trainable and engine for these settings.

        Args:
            base: Name of the base model.
            base_sha256: Hash its weights must have.
            adapter: What trains, for the task.
            task: Registered task name.
            task_config: The task's settings.
            loading: How the base is put into memory.
            seed: Public seed of the initial adapter; a round overwrites what it drew.
        """
        loading = loading or Loading()
        chosen = [base, base_sha256, asdict(loading)]
        key = canonical({"b": chosen, "a": adapter, "t": [task, task_config], "s": seed})
        if self._workload is None or key != self._key:
            self.clear()
            found = find_task(task)
            loaded = self.base(base, base_sha256, loading)
            generator = torch.Generator().manual_seed(seed)
            trainable = found.adapt(loaded.model, loaded.tokenizer, adapter, task_config, generator)
            self._first_values = trainable.read()
            engine = choose_engine(trainable, self._engine)
            self._workload = Workload(found, task_config, trainable, engine, loaded.tokenizer)
            self._key = key
        return self._workload

    def first_values(self) -> dict[str, Tensor]:
        """What the last workload's trainable values were when it was made, before any round.

        A workload that was used before holds another run's values; a study must not start there.
        """
        return {name: value.clone() for name, value in self._first_values.items()}

    def units_at_once(self, kind: Unit) -> int:
        """How many units of the last workload fit into memory; measured once, on made-up records.

        Raises:
            BadInput: There are none to measure with, or the machine does not say what is free.
        """
        if self._workload is None:
            raise ValueError("prepare a workload first")
        if kind not in self._fitting:
            cost = bytes_per_unit(self._workload, kind)
            self._fitting[kind] = units_at_once(cost, free_bytes(self._device))
        return self._fitting[kind]

    def clear(self) -> None:
        """Take the adapter off the base, so that another can be attached."""
        self._fitting.clear()
        if self._workload is not None:
            self._workload.trainable.detach()
            self._workload = None
