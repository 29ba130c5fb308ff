"""Round records as curves in TensorBoard or MLflow, for whoever has one running anyway.

Optional: neither is needed for anything, and what is not installed is said, not guessed. Only what
stands in the public round records goes out. Knows nothing of data, tasks or folders of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wardround.privacy.errors import BadInput
from wardround.server.book import RoundRecord
from wardround.server.coordinator import Observer

_INSTALL = "run pip install 'wardround[tracking]'"
_REPORTED = ("epsilon_study", "epsilon_life")


def curves(record: RoundRecord) -> dict[str, float]:
    """What one round adds to each curve, by the curve's name; infinite epsilons are left out."""
    found = {f"score/{name}": float(value) for name, value in record.metrics.items()}
    found |= {
        "round/seconds": record.seconds,
        "round/bytes_up": float(record.bytes_up),
        "round/bytes_down": float(record.bytes_down),
        "round/answered": float(sum(answer.report is not None for answer in record.answers)),
    }
    for answer in record.answers:
        for name in _REPORTED:
            value = (answer.report or {}).get(name)
            if isinstance(value, int | float):
                found[f"{name}/{answer.hospital}"] = float(value)
    return found


class TensorBoardSink(Observer):
    """Writes event files into a folder."""

    def __init__(self, folder: str, run: str) -> None:
        """``BadInput`` when TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BadInput(f"tensorboard is not installed; {_INSTALL}") from error
        self._writer: Any = SummaryWriter(f"{folder}/{run}")

    def on_round(self, record: RoundRecord) -> None:
        """One point a curve."""
        for name, value in curves(record).items():
            self._writer.add_scalar(name, value, record.round)

    def close(self) -> None:
        """Everything is on disk on return."""
        self._writer.close()


class MlflowSink(Observer):
    """Logs to a tracking server, or to the folder or database that an MLflow address names."""

    def __init__(self, address: str, run: str) -> None:
        """``BadInput`` when MLflow is not installed."""
        try:
            import mlflow
        except ImportError as error:
            raise BadInput(f"mlflow is not installed; {_INSTALL}") from error
        self._client: Any = mlflow.MlflowClient(tracking_uri=address)
        found = self._client.get_experiment_by_name("wardround")
        experiment = found.experiment_id if found else self._client.create_experiment("wardround")
        self._run = self._client.create_run(experiment, run_name=run).info.run_id

    def on_round(self, record: RoundRecord) -> None:
        """One point a curve."""
        for name, value in curves(record).items():
            self._client.log_metric(self._run, name, value, step=record.round)

    def close(self) -> None:
        """Say that the run is over."""
        self._client.set_terminated(self._run)


Sink = TensorBoardSink | MlflowSink
SINKS: Mapping[str, Callable[[str, str], Sink]] = {
    "tensorboard": TensorBoardSink,
    "mlflow": MlflowSink,
}


def send_to(kind: str, address: str, run: str, records: Iterable[RoundRecord]) -> int:
    """Feed all records to a sink; returns how many.

    Args:
        kind: A name in ``SINKS``.
        address: A folder for TensorBoard, a tracking address for MLflow.
        run: What the sink calls the run.
        records: Rounds in order.

    Raises:
        BadInput: No such sink, or it is not installed.
    """
    if kind not in SINKS:
        raise BadInput(f"--sink is {kind!r}; expected one of {', '.join(SINKS)}")
    sink = SINKS[kind](address, run)
    count = 0
    try:
        for record in records:
            sink.on_round(record)
            count += 1
    finally:
        sink.close()
    return count
