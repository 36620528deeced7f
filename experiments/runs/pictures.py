"""The figure of a design, nine panels from numbers alone, and the one that holds designs side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter
from runs.reading import Design, Run, column, epochs
from runs.scoring import RESOLVED, Score, rates

from rdm_jax.plotting import PALETTE

ONLINE, TARGET, FEATURES = PALETTE[1], PALETTE[0], PALETTE[2]
SHOWN = 300  # points of a scatter
MODES = 60  # of a spectrum
PREDICTED = {"color": "black", "linestyle": ":", "linewidth": 1.2}
SIZE = (7.2, 7.4)

CAPTION = (
    "Top: eigenvalues at the end of the first run, of the target, of the online branch, and of the online branch as "
    "predicted from the features; gains of the online filter over the features' eigenvalues, measured and predicted, "
    "each over its largest; the threshold theta over its mean: where it falls towards large eigenvalues theory has the "
    "effective rank rise. Middle: effective ranks, and the rank difference, over training, mean and range over the "
    "seeds, with the prediction dotted and two standard errors (over samples) as bars; alignment: cosine between C_p v "
    "and v for the target's modes v, weighted by the spectrum. Bottom: growth rates over the few steps after each "
    "probe, each side on its own scale; the ladder from prediction to measurement, rank correlation of neighbouring "
    "rates; accuracy of a classifier trained along on the backbone, and kNN at both ends."
)


def gathered(design: Design, ladder: Mapping[str, float]) -> dict[str, Any]:
    """What the figure of a design is drawn from."""
    return {
        "end": last(design.runs[0]),
        "time": [over_time(run) for run in design.runs],
        "growth": growth(design, ladder),
    }


def last(run: Run) -> dict[str, Any]:
    """Spectra, gains and theta at the last probe."""
    line = run.probes[-1:]
    spectrum = column(line, "features", "eigenvalues")[0]
    gains, expected, theta = (
        column(line, *path)[0] for path in (("gains",), ("predicted", "online_gains"), ("theta",))
    )
    alive = spectrum > RESOLVED * spectrum[0]
    weights = (gains**2 * spectrum)[alive]
    mean = np.sum(weights * theta[alive]) / np.sum(weights)
    return {
        "online": column(line, "online", "eigenvalues")[0][:MODES],
        "target": column(line, "target", "eigenvalues")[0][:MODES],
        "predicted": scaled(np.sort(expected**2 * spectrum)[::-1], column(line, "online", "eigenvalues")[0])[:MODES],
        "spectrum": (spectrum / spectrum[0])[alive],
        "gains": (gains / np.max(gains[alive]))[alive],
        "expected": (expected / np.max(expected[alive]))[alive],
        "theta": theta[alive] / mean,
    }


def scaled(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """With the trace of another spectrum: a method's scale is not predicted."""
    return values * (np.sum(like) / np.sum(values))


def over_time(run: Run) -> dict[str, Any]:
    """Ranks, alignment and accuracy of a run."""
    target = column(run.probes, "target", "eigenvalues")
    cosines = column(run.probes, "alignment")
    weights = np.where(np.isfinite(cosines), target, 0)
    results = run.results["scores"] if run.results else None
    stride = max(1, len(run.train) // 60)
    return {
        "epoch": epochs(run, run.probes),
        "online": column(run.probes, "online", "rank"),
        "target": column(run.probes, "target", "rank"),
        "features": column(run.probes, "features", "rank"),
        "difference": column(run.probes, "rank_difference"),
        "error": column(run.probes, "errors", "rank_difference"),
        "predicted": column(run.probes, "predicted", "rank_difference"),
        "alignment": np.sum(weights * np.nan_to_num(cosines), -1) / np.sum(weights, -1),
        "trained": epochs(run, run.train[::stride]),
        "accuracy": column(run.train[::stride], "accuracy"),
        "knn": None if results is None else [results["untrained"]["knn"], results["trained"]["knn"]],
    }


def growth(design: Design, ladder: Mapping[str, float]) -> dict[str, Any]:
    """A sample of the rates, and the ladder."""
    rate = rates(design)
    counted = np.flatnonzero(rate.mask)
    shown = counted[:: -(-len(counted) // SHOWN) or 1]
    return {
        "predicted": rate.predicted.ravel()[shown],
        "measured": rate.measured.ravel()[shown],
        "ladder": dict(ladder),
    }


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """Nine panels."""
    axes = figure.subplots(3, 3)
    spectra(axes[0, 0], data["end"])
    gain(axes[0, 1], data["end"])
    threshold(axes[0, 2], data["end"])
    time = data["time"]
    effective_ranks(axes[1, 0], time)
    differences(axes[1, 1], time)
    alignment(axes[1, 2], time)
    scatter(axes[2, 0], data["growth"])
    steps(axes[2, 1], data["growth"]["ladder"])
    accuracy(axes[2, 2], time)


def spectra(ax: Axes, end: Mapping[str, Any]) -> None:
    """Eigenvalues by their place."""
    for name, style in (
        ("target", {"color": TARGET, "label": "target"}),
        ("online", {"color": ONLINE, "label": "online"}),
        ("predicted", {**PREDICTED, "label": "online, predicted"}),
    ):
        ax.semilogy(np.arange(1, len(end[name]) + 1), positive(end[name]), **style)
    top = max(end["target"][0], end["online"][0])
    ax.set(title="spectra at the end", xlabel="place of the eigenvalue", ylim=(1e-5 * top, 2 * top))
    ax.legend(fontsize=7)


def gain(ax: Axes, end: Mapping[str, Any]) -> None:
    """The filter of the online branch."""
    ax.loglog(end["spectrum"], positive(end["gains"]), "o-", color=ONLINE, markersize=3, label="measured")
    ax.loglog(end["spectrum"], positive(end["expected"]), **PREDICTED, label="predicted")
    ax.set(title="online filter", xlabel="eigenvalue of the features", ylabel="gain")
    plain_ticks(ax.yaxis)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.5), max(high, 1.2))  # a flat filter is not magnified to its rounding
    ax.legend(fontsize=7)


def threshold(ax: Axes, end: Mapping[str, Any]) -> None:
    """theta over the spectrum."""
    ax.semilogx(end["spectrum"], np.array(end["theta"], float), "o-", color=FEATURES, markersize=3)
    ax.axhline(1, color="grey", linewidth=0.6)
    ax.set(title="Wiener threshold", xlabel="eigenvalue of the features", ylabel="theta over its mean")


def effective_ranks(ax: Axes, time: list[Mapping[str, Any]]) -> None:
    """Of both branches."""
    for name, colour in (("target", TARGET), ("online", ONLINE)):
        band(ax, time, name, colour, name)
    expected = [np.array(run["target"], float) - np.array(run["predicted"], float) for run in time]
    ax.plot(time[0]["epoch"], np.mean(expected, 0), **PREDICTED, label="online, predicted")
    ax.set(title="effective rank", xlabel="epoch", yscale="log")
    plain_ticks(ax.yaxis)
    ax.legend(fontsize=7)


def differences(ax: Axes, time: list[Mapping[str, Any]]) -> None:
    """Target less online."""
    mean = band(ax, time, "difference", PALETTE[3], "measured")
    error = np.mean([np.array(run["error"], float) for run in time], 0)
    ax.errorbar(time[0]["epoch"], mean, 2 * error, color=PALETTE[3], linestyle="", linewidth=0.8)
    ax.plot(
        time[0]["epoch"],
        np.mean([np.array(run["predicted"], float) for run in time], 0),
        **PREDICTED,
        label="predicted",
    )
    ax.axhline(0, color="grey", linewidth=0.6)
    ax.set_yscale("symlog", linthresh=1)
    ax.set(title="rank difference", xlabel="epoch")
    plain_ticks(ax.yaxis, signed=True)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -0.2), max(high, 0.6))
    ax.legend(fontsize=7)


def alignment(ax: Axes, time: list[Mapping[str, Any]]) -> None:
    """Of the branches' eigenspaces."""
    band(ax, time, "alignment", PALETTE[0], "")
    ax.set(title="alignment", xlabel="epoch", ylim=(0, 1.03))


def scatter(ax: Axes, data: Mapping[str, Any]) -> None:
    """Predicted against measured growth."""
    ax.set(title="growth of modes", xlabel="predicted rate (own scale)", ylabel="measured rate (own scale)")
    if not data["predicted"]:
        ax.text(0.5, 0.5, "too few modes\ncould be followed", ha="center", va="center", transform=ax.transAxes)
        return
    sides = [np.array(data[side], float) for side in ("predicted", "measured")]
    first, second = (side / max(float(np.sqrt(np.mean(side**2))), 1e-30) for side in sides)
    ax.plot(first, second, ".", color=PALETTE[0], markersize=3)
    ax.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    ax.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))


def steps(ax: Axes, ladder: Mapping[str, float | None]) -> None:
    """Where the prediction is lost."""
    names = [name.replace(" -> ", "\nto ") for name in ladder]
    values = np.array(list(ladder.values()), float)
    ax.bar(range(len(values)), np.nan_to_num(values), color=PALETTE[5], width=0.6)
    ax.axhline(0, color="grey", linewidth=0.6)
    ax.set(title="where it is lost", ylabel="rank correlation", ylim=(-0.4, 1.03))
    ax.set_xticks(range(len(values)), names, fontsize=7)


def accuracy(ax: Axes, time: list[Mapping[str, Any]]) -> None:
    """On the backbone."""
    for number, run in enumerate(time):
        label = "online classifier" if number == 0 else None
        ax.plot(run["trained"], run["accuracy"], color=PALETTE[0], linewidth=0.8, alpha=0.7, label=label)
        if run["knn"] is not None:
            ends = [run["epoch"][0], run["epoch"][-1]]
            ax.plot(ends, run["knn"], "D", color=PALETTE[1], markersize=4, label="kNN" if number == 0 else None)
    ax.set(title="accuracy", xlabel="epoch")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=7)


def band(ax: Axes, time: list[Mapping[str, Any]], name: str, colour: str, label: str) -> np.ndarray:
    """Mean and range over the seeds; the mean."""
    values = np.array([run[name] for run in time], float)
    mean = np.mean(values, 0)
    ax.plot(time[0]["epoch"], mean, color=colour, label=label)
    ax.fill_between(time[0]["epoch"], values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    return mean


def plain_ticks(axis: Axis, *, signed: bool = False) -> None:
    """1, 2 and 5 of each decade, as plain numbers."""
    ticks = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
    within = [tick for tick in ticks if not signed or tick >= 0.5]
    axis.set_major_locator(FixedLocator([0.0, *within, *(-tick for tick in within)] if signed else within))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def positive(values: list[float]) -> np.ndarray:
    """NaN where a logarithm has no place."""
    array = np.array(values, float)
    return np.where(array > 0, array, np.nan)


def compared(names: list[str], found: list[Mapping[str, Score]]) -> dict[str, Any]:
    """What the figure of all designs is drawn from."""
    wanted = ("rank difference", "sign, next probe", "rank correlation", "kNN")
    return {
        "names": names,
        **{name: [one[name]._asdict() if name in one else None for one in found] for name in wanted},
        "untrained": [one["kNN, untrained"].measured if "kNN, untrained" in one else None for one in found],
    }


def draw_compared(figure: Figure, data: Mapping[str, Any]) -> None:
    """Four columns of dots, a row for each design."""
    axes = figure.subplots(1, 4, sharey=True)
    heights = -np.arange(len(data["names"]))
    axes[0].set_yticks(heights, data["names"], fontsize=8)
    for ax, name in zip(axes, ("rank difference", "sign, next probe", "rank correlation", "kNN"), strict=True):
        ax.grid(axis="y", linewidth=0.4)
        for height, score in zip(heights, data[name], strict=True):
            if score is None:
                continue
            ax.errorbar(score["measured"], height, xerr=score["spread"], color=PALETTE[0], marker="o", markersize=4)
            if score["predicted"] is not None:
                ax.plot(score["predicted"], height, "x", color="black", markersize=6)
            if score["chance"] is not None:
                ax.plot(score["chance"], height, "|", color="grey", markersize=9)
    for untrained, height in zip(data["untrained"], heights, strict=True):
        if untrained is not None:
            axes[3].plot(untrained, height, "|", color="grey", markersize=9)
    axes[0].axvline(0, color="grey", linewidth=0.6)
    axes[0].set_xlabel("rank difference\n(x: predicted)")
    axes[1].set(xlabel="d erank/dt: right sign\n(|: chance)", xlim=(0, 1.04))
    axes[2].set(xlabel="growth: rank\ncorrelation (|: chance)", xlim=(-1.04, 1.04))
    axes[3].set_xlabel("kNN accuracy\n(|: untrained)")
