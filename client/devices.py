"""Where tensors live: a device by name, checked before anything is loaded onto it.

A hospital's own matter: the same plan gives the same kind of update on any device, only sooner or
later. Importing this module does not import torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from wardround.privacy.errors import BadInput

_NAME = re.compile(r"cpu|cuda(:(?P<index>\d+))?")


def find_device(name: str) -> str:
    """The device called ``name``; ``auto`` takes a GPU where there is one.

    Raises:
        BadInput: No such kind of device, or this machine lacks it.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadInput(f"device is {name!r}; expected cpu, cuda, cuda:N or auto")
    if name == "cpu":
        return name
    if not torch.cuda.is_available():
        raise BadInput(
            f"device is {name!r}; PyTorch {torch.__version__} finds no CUDA device here: "
            "install a build for CUDA and its driver, or say cpu"
        )
    count, index = torch.cuda.device_count(), int(match["index"] or 0)
    if index >= count:
        raise BadInput(f"device is {name!r}; this machine has cuda:0 to cuda:{count - 1}")
    return name


def free_bytes(device: str) -> int:
    """Memory that could be taken on a device now, in bytes; of its own group on a Linux CPU."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return _free_on_linux(Path("/"))


def _free_on_linux(root: Path) -> int:
    """What the kernel calls available, or what a container's limit leaves if that is less.

    Raises:
        BadInput: The kernel does not say, as outside Linux.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration) as error:
        raise BadInput("micro_batch is 'auto', and this system does not say how much "
                       "memory is free; give a number") from error  # fmt: skip
    free = int(available.split()[1]) * 1024
    group = root / "sys/fs/cgroup"
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except OSError:  # no group of its own
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))
