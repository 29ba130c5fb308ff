"""The workbench: base model, adapter and engine, put together once and used by many rounds.

Hospitals that share a process share one workbench and therefore one frozen base; each writes its
own starting values before it trains. Knows nothing of records or privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch

from wardround.client.engine import choose_engine
from wardround.client.gradients import Workload
from wardround.client.models import Base, load_base
from wardround.client.tasks.registry import find_task
from wardround.privacy.signing import canonical


class Workbench:
    """Holds the last workload made; asking for the same one again costs nothing.

    A context manager: on exit the base is without an adapter again, as others expect to find it.
    """

    def __init__(self, engine: str = "auto", device: str = "cpu") -> None:
        self._engine = engine
        self._device = device
        self._key = b""
        self._workload: Workload | None = None

    def __enter__(self) -> Self:
        """The workbench itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the adapter off."""
        self.clear()

    def base(self, name: str, revision: str = "", sha256: str = "") -> Base:
        """The frozen base; refused when its hash is not ``sha256``."""
        return load_base(name, revision=revision, sha256=sha256, device=self._device)

    def prepare(
        self,
        base: str,
        base_sha256: str,
        adapter: Mapping[str, Any],
        task: str,
        task_config: Mapping[str, Any],
        revision: str = "",
        seed: int = 0,
    ) -> Workload:
        """Task, trainable and engine for these settings.

        Args:
            base: Name of the base model.
            base_sha256: Hash its weights must have.
            adapter: What trains, for the task.
            task: Registered task name.
            task_config: The task's settings.
            revision: Of a hub model.
            seed: Public seed of the initial adapter; a round overwrites what it drew.
        """
        key = canonical(
            {"b": [base, base_sha256, revision], "a": adapter, "t": [task, task_config], "s": seed}
        )
        if self._workload is None or key != self._key:
            self.clear()
            found = find_task(task)
            loaded = self.base(base, revision, base_sha256)
            generator = torch.Generator().manual_seed(seed)
            trainable = found.adapt(loaded.model, adapter, task_config, generator)
            engine = choose_engine(trainable, self._engine)
            self._workload = Workload(found, task_config, trainable, engine, loaded.tokenizer)
            self._key = key
        return self._workload

    def clear(self) -> None:
        """Take the adapter off the base, so that another can be attached."""
        if self._workload is not None:
            self._workload.trainable.detach()
            self._workload = None
