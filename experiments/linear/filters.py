"""The filter of learned predictors: measured from both branches' outputs, and predicted by the mode equations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from linear.designs import FAMILIES, Run, family_runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from rdm_jax import agreement
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

# Other filters are built in, so that their agreement would be no evidence.
LEARNED = {
    "learned": "free features",
    "learned-sample": "free features, each sample",
    "linear": "linear branches",
    "linear-ema": "linear branches, EMA target",
}
MOMENTS = {"at the start": 0.0, "after 10% of the time": 0.1, "after 30%": 0.3, "at the end": 1.0}
FLAT = 0.05  # a standard deviation of log gains below which a filter has no shape to compare


def compute(options: Any, tell: Tell) -> Outcome:
    """Gains against eigenvalues at a few times, and how well they agree at all times."""
    found, findings = [], []
    chosen = {family: title for family, title in LEARNED.items() if family in (options.designs or FAMILIES)}
    for number, (family, title) in enumerate(chosen.items()):
        tell(title, number / len(chosen))
        (run,) = family_runs(FAMILIES[family], options.sizes)
        found.append(snapshots(run, title))
        findings += compare(run, title, options.seed)
    return Outcome({"runs": found}, findings)


def by_eigenvalue(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted target spectrum, gains and Wiener gains (T, d), largest eigenvalue first at every time."""
    order = np.argsort(-run.predicted.target, axis=-1)
    wiener = run.predicted.signal / run.predicted.spectrum
    parts = (run.predicted.target, run.predicted.gains, wiener)
    return tuple(np.take_along_axis(values, order, -1) for values in parts)


def snapshots(run: Run, title: str) -> dict[str, Any]:
    """Filters at some moments."""
    spectrum, gains, wiener = by_eigenvalue(run)
    seen = run.simulated.statistics
    last = len(run.times) - 1
    return {
        "title": title,
        "wiener": {"spectrum": spectrum[-1], "gains": wiener[-1]},
        "snapshots": [
            {
                "time": run.times[at],
                "predicted": {"spectrum": spectrum[at], "gains": gains[at]},
                "measured": {"spectrum": seen.target[:, at], "gains": seen.gains[:, at]},
            }
            for at in (round(share * last) for share in MOMENTS.values())
        ],
    }


def compare(run: Run, title: str, seed: int) -> list[Finding]:
    """Agreement of log gains, mode by mode, wherever the predicted filter is not flat; not of the filter put in."""
    _, gains, _ = by_eigenvalue(run)
    logs = np.log(gains)
    shaped = np.std(logs, axis=-1) > FLAT
    shaped[0] = False
    measured = np.log(run.simulated.statistics.gains[:, shaped])
    predicted = np.broadcast_to(logs[shaped], measured.shape)
    return [
        Finding(
            f"{name}: {title}",
            statistic(predicted, measured),
            chance=agreement.chance(statistic, predicted, measured, seed=seed),
        )
        for name, statistic in (
            ("explained variance", agreement.explained_variance),
            ("rank correlation", agreement.rank_correlation),
        )
    ]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A panel for each predictor, a colour for each moment."""
    axes = figure.subplots(2, 2)
    for ax in axes.flat[len(data["runs"]) :]:
        ax.remove()
    for ax, run in zip(axes.flat, data["runs"], strict=False):
        for colour, moment, shot in zip(PALETTE, MOMENTS, run["snapshots"], strict=False):
            predicted, measured = shot["predicted"], shot["measured"]
            ax.plot(np.ravel(measured["spectrum"]), np.ravel(measured["gains"]), "o", color=colour, markersize=2.6)
            ax.plot(predicted["spectrum"], predicted["gains"], color=colour, label=moment)
        ax.plot(run["wiener"]["spectrum"], run["wiener"]["gains"], "k:", label="Wiener filter, at the end")
        ax.set(xscale="log", yscale="log", title=f"{run['title']}, to t = {run['snapshots'][-1]['time']:g}")
        few_ticks(ax)
        ax.set(xlabel="eigenvalue of the target output", ylabel="gain of the predictor")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)


def few_ticks(ax: Axes) -> None:
    """1, 2, 5 in each decade, as plain numbers."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(NullFormatter())


PART = Part(
    "filters",
    "The filter that a predictor learns",
    "Gains on singular values against eigenvalues, at four times. Lines: the mode equations, from the population's "
    "numbers. Points: measured from the two branches' outputs, every mode of every seed. Dotted: the Wiener filter, "
    "where an exact predictor would be. Rising curves are low-pass. Agreement is that of log gains.",
    compute,
    draw,
    (6.8, 5.8),
)
