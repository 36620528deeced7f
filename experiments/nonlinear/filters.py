"""The measured filter of the online branch against the predicted one, at three moments of training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from nonlinear.designs import Run, runs
from nonlinear.panels import panels

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

SHARES = (0.1, 0.4, 1.0)
RESOLVED = 1e-3


def compute(options: Any, tell: Tell) -> Outcome:
    """Gains of the first seed to draw; error and low-pass index over all."""
    found = [run for run in runs(options, tell) if np.isfinite(run.record.predicted.online_gains).all()]
    return Outcome({"runs": [gains(run) for run in found]}, [finding for run in found for finding in judge(run)])


def gains(run: Run) -> dict[str, Any]:
    """Both filters against the features' spectrum, largest value 1, at some moments of the first seed."""
    moments = []
    for share in SHARES:
        at = round(share * (len(run.steps) - 1))
        spectrum, measured, predicted = (values[0, at] for values in sides(run))
        alive = spectrum > RESOLVED * spectrum[0]
        moments.append({
            "step": run.steps[at],
            "spectrum": (spectrum / spectrum[0])[alive],
            "measured": (measured / measured[0])[alive],
            "predicted": (predicted * scale(measured, predicted, spectrum) / measured[0])[alive],
        })  # fmt: skip
    return {"name": run.name, "moments": moments}


def sides(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectrum of the features, measured gains and predicted ones, in the features' eigenbasis."""
    record = run.record
    return record.features.eigenvalues, record.gains, record.predicted.online_gains


def scale(measured: np.ndarray, predicted: np.ndarray, spectrum: np.ndarray) -> Any:
    """The factor that fits the predicted output best: a cosine leaves the filter's scale open."""
    top, bottom = (np.sum(g * predicted * spectrum, -1, keepdims=True) for g in (measured, predicted))
    return top / np.maximum(bottom, 1e-30)


def judge(run: Run) -> list[Finding]:
    """At the end, over the seeds: how far off the filter is, and how low-pass."""
    spectrum, measured, predicted = (values[:, -1] for values in sides(run))
    off = (measured - scale(measured, predicted, spectrum) * predicted) ** 2 * spectrum
    errors = np.sqrt(off.sum(-1) / (measured**2 * spectrum).sum(-1))
    index = run.record.low_pass[:, -1]
    return [
        Finding(f"relative error of the filter: {run.name}", float(errors.mean()), spread=float(errors.std())),
        Finding("  low-pass index", float(index.mean()), spread=float(index.std())),
    ]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A panel for each design: points measured, lines predicted, a colour for each moment."""
    panels(figure, data["runs"], panel, "eigenvalue of the features", "gain")


def panel(ax: Axes, run: Mapping[str, Any]) -> None:
    """One design."""
    for number, moment in enumerate(run["moments"]):
        colour = PALETTE[number]
        ax.loglog(moment["spectrum"], moment["predicted"], color=colour, linewidth=1)
        label = ("early", "middle", "end")[number]
        ax.loglog(moment["spectrum"], moment["measured"], "o", color=colour, markersize=3, label=label)
    ax.set_title(run["name"], fontsize=8.5)
    few_ticks(ax)


def few_ticks(ax: Axes) -> None:
    """Plain numbers, and never less than a factor of ten, so that a constant looks like one."""
    low, high = ax.get_ylim()
    middle = np.sqrt(low * high)
    ax.set_ylim(min(low, middle / 10**0.5), max(high, middle * 10**0.5))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_formatter(NullFormatter())


PART = Part(
    "filters",
    "The online branch's filter, measured and predicted",
    "Gain from the features to the online output in the features' eigenbasis, against the eigenvalue, both relative to "
    "the first mode, for one seed at a tenth, two fifths and the end of training. Points: measured. Lines: predicted, "
    "for a learned predictor the Wiener filter m / lambda of the measured spectrum and view noise, up to the scale "
    "that a cosine leaves open. The low-pass index is 1 if the filter's gains grow with the target's eigenvalues "
    "throughout, -1 if they fall.",
    compute,
    draw,
    (6.8, 7.6),
)
