"""The numbers of a run for TensorBoard, where tensorboardX is installed."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = ["Board", "open_board", "scalars"]

_RANKED = ("online", "target", "features")


@runtime_checkable
class Board(Protocol):
    """What is used of tensorboardX's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Note a number."""

    def close(self) -> None:
        """Write what was noted."""


def open_board(folder: Path, after: int | None = None) -> Board | None:
    """A writer of event files, or None where tensorboardX is not installed.

    Args:
        folder: for the files.
        after: the step after which a resumed run goes on; what was noted later is dropped. None: a new run.

    Returns:
        The writer.

    >>> import tempfile
    >>> board = open_board(Path(tempfile.mkdtemp()))
    >>> board is None or board.close()
    """
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), purge_step=None if after is None else after + 1)


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a line of a run's metrics, by tag.

    Args:
        line: of ``metrics.jsonl``.

    Returns:
        Numbers; what is unknown is left out.

    >>> scalars({"kind": "train", "step": 5, "loss": -0.5, "accuracy": None})
    {'train/loss': -0.5}
    """
    kind = line["kind"]
    found = {name: value for name, value in line.items() if isinstance(value, int | float)}
    found |= {f"{name} rank": line[name]["rank"] for name in _RANKED if name in line}
    found |= {f"{name} rank": stage["rank"] for name, stage in line.get("stages", {}).items()}
    if "predicted" in line and isinstance(line["predicted"], Mapping):
        found["predicted rank_difference"] = line["predicted"]["rank_difference"]
    return {
        f"{kind}/{name}": value for name, value in found.items() if name not in ("step", "since") and value is not None
    }
