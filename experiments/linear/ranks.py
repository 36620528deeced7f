"""Effective rank of both branches over time, design by design."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from linear.designs import BRANCHES, FEATURES, Run, runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from rdm_jax import agreement
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

ONLINE, TARGET = PALETTE[1], PALETTE[0]
COLUMNS = 3


def compute(options: Any, tell: Tell, level: str) -> Outcome:
    """The ranks of one level's designs, with the errors of the predictions at all times."""
    found = list(runs(options, tell, level))
    data = {"runs": [series(run) for run in found]}
    findings = [
        Finding(
            f"error of the ranks: {run.name}",
            float(np.mean(errors)),
            spread=float(np.std(errors)),
        )
        for run in found
        for errors in [[rank_error(run, seed) for seed in range(options.seeds)]]
    ]
    falling = [run.name for run in found if run.predicted.target_rank[-1] < run.predicted.target_rank[0] - 1e-6]
    remark = f"The target's effective rank ends lower than it began for: {'; '.join(falling) or 'none'}."
    return Outcome(data, findings, [remark])


def series(run: Run) -> dict[str, Any]:
    """Ranks over time, and by which factor the trace changes."""
    measured = run.simulated.statistics
    trace = run.predicted.spectrum.sum(-1)
    return {
        "name": run.name,
        "time": run.times,
        "predicted": {"online": run.predicted.online_rank, "target": run.predicted.target_rank},
        "simulated": {"online": spread(measured.online_rank), "target": spread(measured.target_rank)},
        "trace": trace[-1] / trace[0],
    }


def spread(values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, least and largest over the seeds."""
    return {"mean": values.mean(0), "low": values.min(0), "high": values.max(0)}


def rank_error(run: Run, seed: int) -> float:
    """Of the online and the target rank of one seed, at all times."""
    measured = run.simulated.statistics
    return agreement.relative_error(
        np.stack([run.predicted.online_rank, run.predicted.target_rank]),
        np.stack([measured.online_rank[seed], measured.target_rank[seed]]),
    )


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A panel for each design: lines are predictions, points simulations."""
    found = data["runs"]
    rows = -(-len(found) // COLUMNS)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    top = max(max(run["predicted"]["target"]) for run in found) * 1.06
    for ax, run in zip(axes.flat, found, strict=False):
        panel(ax, run, top)
    for ax in axes.flat[len(found) :]:
        ax.remove()
    for ax in axes[:, 0]:
        ax.set_ylabel("effective rank")
    for ax in axes[-1]:
        ax.set_xlabel("time")
    key(figure, axes.flat[0])


def panel(ax: Axes, run: Mapping[str, Any], top: float) -> None:
    """One design."""
    chosen = slice(None, None, 10)
    for branch, colour, marker in (("target", TARGET, "o"), ("online", ONLINE, "s")):
        ax.plot(run["time"], run["predicted"][branch], color=colour, label=f"{branch}, predicted")
        seen = run["simulated"][branch]
        middle, low, high = (np.array(seen[name], float)[chosen] for name in ("mean", "low", "high"))
        ax.errorbar(
            run["time"][chosen],
            middle,
            [middle - low, high - middle],
            color=colour,
            fmt=marker,
            markersize=3.2,
            elinewidth=0.8,
            label=f"{branch}, simulated",
        )
    ax.set_title(run["name"], fontsize=8.5)
    ax.set_ylim(0.8, top)
    ax.yaxis.set_major_locator(MultipleLocator(2))
    if run["trace"] < 0.05:
        ax.text(
            0.97, 0.95, f"total variance x {run['trace']:.0e}", transform=ax.transAxes, ha="right", va="top", size=7.5
        )


def key(figure: Figure, ax: Axes) -> None:
    """One legend for all panels."""
    handles, labels = ax.get_legend_handles_labels()
    order: Sequence[int] = sorted(range(len(labels)), key=lambda i: labels[i])
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="outside upper center", ncols=4, fontsize=8
    )


def _part(name: str, title: str, level: str, caption: str, height: float) -> Part:
    return Part(name, title, caption, lambda options, tell: compute(options, tell, level), draw, (6.8, height))


PARTS = (
    _part(
        "ranks_features",
        "Effective rank over time: free features",
        FEATURES,
        "Effective rank (of eigenvalues) of the online and the target output. Lines: the mode equations, from the "
        "population's spectrum. Points: gradient descent on samples drawn at random, mean and range over the seeds. "
        "Panels are named by what the online or the target branch does to singular values s, and by the loss; in the "
        "last row each sample's cosine is simulated, with noise that moves along, and the mean field's is predicted.",
        7.6,
    ),
    _part(
        "ranks_branches",
        "Effective rank over time: linear branches",
        BRANCHES,
        "The same for a linear encoder with a linear predictor. Lines: the eigenmode equations. Points: gradient "
        "descent of the loss on samples, mean and range over the seeds. Without predictor or without stop-gradient "
        "both the rank and the total variance go down: complete collapse.",
        6.0,
    ),
)
