"""How figures with a panel, or a row, for each design look."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS = 3
Entry = Mapping[str, Any]


def panels(
    figure: Figure, found: Sequence[Entry], draw: Callable[[Axes, Entry], None], xlabel: str, ylabel: str
) -> None:
    """A grid with a panel for each, under one key."""
    axes = figure.subplots(-(-len(found) // COLUMNS), COLUMNS, squeeze=False, sharex=True)
    for ax, one in zip(axes.flat, found, strict=False):
        draw(ax, one)
    for ax in axes.flat[len(found) :]:
        ax.remove()
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)


def rows(ax: Axes, names: Sequence[str], fontsize: float = 8) -> np.ndarray:
    """Name the rows of a figure, from above; returns their heights."""
    heights = -np.arange(len(names))
    ax.set_yticks(heights, names, fontsize=fontsize)
    ax.grid(axis="y", linewidth=0.4)
    return heights


def spread(values: np.ndarray) -> Mapping[str, np.ndarray]:
    """Mean, least and largest over the seeds, the first axis."""
    return {"mean": np.mean(values, 0), "low": np.min(values, 0), "high": np.max(values, 0)}
