"""The ``[task]`` and ``[adapter]`` tables of a study of click logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.pwiser.columns import Columns, Layout, columns_of
from wardround.client.tasks.pwiser.generated import LogShape
from wardround.client.tasks.pwiser.losses import Pairwise
from wardround.privacy.errors import BadInput, PolicyRefused
from wardround.privacy.tables import from_table

_COUPLED = (
    "a pair of two units' exposures is in the gradients of both: removing one exposure would move "
    "the gradient of every conversion it was compared with; use 'within', 'anchors' or 'square'"
)


class NetKind(StrEnum):
    """How the two predictions share what they learn."""

    SINGLE = "single"
    SHARED_BOTTOM = "shared-bottom"
    MMOE = "mmoe"
    PLE = "ple"
    ESMM = "esmm"
    AITM = "aitm"


@dataclass(frozen=True)
class NetConfig:
    """The ``[adapter]`` table: the net that trains.

    Attributes:
        kind: How the two predictions share what they learn.
        embedding: Numbers a category is looked up as.
        bottom: Widths of the layers below; of each expert, where there are experts.
        tower: Widths of the layers above, one tower a prediction.
        experts: Shared experts (``mmoe``, ``ple``).
        own_experts: Experts of one prediction (``ple``).
        train_embedding: Whether look-up tables train too. Noise then goes to every row of them,
            whether anybody's data touched it or not; off, they keep their first, public values.
    """

    kind: NetKind = NetKind.SHARED_BOTTOM
    embedding: int = 8
    bottom: tuple[int, ...] = (32,)
    tower: tuple[int, ...] = (16,)
    experts: int = 4
    own_experts: int = 2
    train_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("embedding", "experts", "own_experts"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 to 4096")
        for name in ("bottom", "tower"):
            widths = getattr(self, name)
            if not widths or not all(1 <= width <= 65536 for width in widths):
                raise ValueError(f"{name} is {list(widths)}; expected widths of 1 to 65536")


@dataclass(frozen=True)
class PwiserConfig:
    """The ``[task]`` table.

    Attributes:
        layout: Whose files these are.
        vocabulary: Values of every categorical column of a foreign layout; public.
        columns: The columns, for the layout ``custom``.
        max_rows: Exposures of one unit that a step looks at, chosen by a hash of the record.
        blocks: Sessions are spread over so many blocks by a hash; a block is the unit ``list``.
        click_weight: Of the click's cross-entropy.
        conversion_weight: Of the conversion's.
        pairwise: The ranking loss.
        generated: How large a made-up log is.
    """

    layout: Layout = Layout.PROGRAMMES
    vocabulary: int = 1000
    columns: Columns | None = None
    max_rows: int = 64
    blocks: int = 64
    click_weight: float = 1.0
    conversion_weight: float = 1.0
    pairwise: Pairwise = field(default_factory=Pairwise)
    generated: LogShape = field(default_factory=LogShape)

    def __post_init__(self) -> None:
        for name, most in (("vocabulary", 10_000_000), ("max_rows", 65536), ("blocks", 10**6)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 to {most:,}")
        for name in ("click_weight", "conversion_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if (self.layout is Layout.CUSTOM) != (self.columns is not None):
            raise ValueError("columns and layout 'custom' belong together; one is missing")

    @property
    def schema(self) -> Columns:
        """The columns of the files."""
        return self.columns or columns_of(self.layout, self.vocabulary)


def pwiser_config(table: TaskConfig) -> PwiserConfig:
    """The ``[task]`` table, checked.

    Raises:
        PolicyRefused: It asks for pairs across units; says why.
        BadInput: A key or value cannot be used.
    """
    pairwise = table.get("pairwise")
    if isinstance(pairwise, dict) and pairwise.get("form") in ("in-batch", "all-pairs"):
        raise PolicyRefused(f"[task] pairwise form is {pairwise['form']!r}: {_COUPLED}")
    config = from_table(PwiserConfig, table, "[task]")
    if not config.schema.categorical and not config.schema.numerical:
        raise BadInput("[task] columns: names no feature")
    return config
