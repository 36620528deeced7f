"""Growth rates of the modes: what theory gives a measured state, against how the eigenvalues then move."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from linear.designs import LEVELS, Run, runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdm_jax import agreement, spectra
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

SHOWN = 250  # points of each design in the scatter
RESOLVED = 1e-6  # of the largest eigenvalue of the instant: smaller ones are not followed
APART = 0.05  # of the largest spread of a run's rates: below it the modes have stopped moving apart
AT_REST = 0.02  # of the largest rate of a run: the order of slower modes is a matter of noise


def moving_correlation(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Rank correlation of the modes that are not at rest, over the instants that have three of them."""
    moving = np.abs(predicted) > AT_REST * np.abs(predicted).max()
    pairs = zip(predicted, measured, moving, strict=True)
    return float(np.nanmean([agreement.rank_correlation(p[at], m[at]) for p, m, at in pairs if at.sum() >= 3]))


QUANTITIES = {
    "rank correlation": agreement.rank_correlation,
    "explained variance": agreement.explained_variance,
}


def compute(options: Any, tell: Tell) -> Outcome:
    """Rates of all designs, and their agreement, design by design."""
    found, ranks = [], []
    for run in runs(options, tell):
        predicted, measured = rates(run)
        entry = {"name": run.name, "level": run.level} | scores(predicted, measured, options.seed)
        found.append(entry | {"predicted": thinned(predicted), "measured": thinned(measured)})
        ranks.append(rank_rates(run))
    findings = [finding for level in LEVELS for finding in judge(level, found)]
    predicted, measured = (np.concatenate(parts) for parts in zip(*ranks, strict=True))
    findings += [
        Finding("d erank/dt: share of instants with the right sign", agreement.sign_hits(predicted, measured)),
        Finding("d erank/dt: explained variance", agreement.explained_variance(predicted, measured)),
    ]
    return Outcome({"designs": found}, findings)


def rates(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured r, (instants, d), of all seeds, where all modes are resolved and move apart.

    Measured: central differences of log v^T E[z z^T] v / 2 for the eigenvectors v of the instant in the middle, which
    follows a mode through crossings and rotations.
    """
    moments = run.simulated.moment
    values, vectors = (np.asarray(part) for part in jax.vmap(jax.vmap(spectra.eigensystem))(moments[:, 1:-1]))
    before, after = (np.einsum("stij,stik,stkj->stj", vectors, m, vectors) for m in (moments[:, :-2], moments[:, 2:]))
    predicted = run.simulated.rates[:, 1:-1]
    spread = np.std(predicted, axis=-1)
    chosen = (values[..., -1] > RESOLVED * values[..., 0]) & (spread > APART * spread.max())
    gap = np.broadcast_to((run.times[2:] - run.times[:-2])[:, None], values.shape)
    return predicted[chosen], np.log(after[chosen] / before[chosen]) / (2 * gap[chosen])


def scores(predicted: np.ndarray, measured: np.ndarray, seed: int) -> dict[str, Any]:
    """Agreement, and what shuffled modes reach."""
    return {
        name: {
            "measured": statistic(predicted, measured),
            "chance": agreement.chance(statistic, predicted, measured, seed=seed),
        }
        for name, statistic in QUANTITIES.items()
    } | {"moving": moving_correlation(predicted, measured)}


def judge(level: str, found: list[dict[str, Any]]) -> list[Finding]:
    """The median of a level's designs, and the worst of them."""
    findings = []
    for quantity in QUANTITIES:
        values = {entry["name"]: entry[quantity] for entry in found if entry["level"] == level}
        middle = (float(np.median([value[side] for value in values.values()])) for side in ("measured", "chance"))
        worst = min(values, key=lambda name: values[name]["measured"])
        findings.append(Finding(f"{quantity}: {level}, median", next(middle), chance=next(middle)))
        findings.append(Finding(f"  lowest: {worst}", values[worst]["measured"], chance=values[worst]["chance"]))
    moving = {entry["name"]: entry["moving"] for entry in found if entry["level"] == level}
    worst = min(moving, key=lambda name: moving[name])
    findings.append(Finding(f"rank correlation of moving modes: {level}, median", float(np.median([*moving.values()]))))
    findings.append(Finding(f"  lowest: {worst}", moving[worst]))
    return findings


def rank_rates(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """d erank/dt of theory's rates at the measured spectrum, -2 erank Cov_q(r, log lambda), and as measured.

    Where the rank stands still its sign means nothing: speeds below a thousandth of the run's largest are left out.
    """
    seen, growth = run.simulated.statistics, run.simulated.rates[:, 1:-1]
    spectrum = seen.spectrum[:, 1:-1]
    share = spectrum / spectrum.sum(-1, keepdims=True)
    apart = growth - (share * growth).sum(-1, keepdims=True)
    predicted = -2 * seen.effective_rank[:, 1:-1] * (share * apart * np.log(np.maximum(spectrum, 1e-300))).sum(-1)
    measured = (seen.effective_rank[:, 2:] - seen.effective_rank[:, :-2]) / (run.times[2:] - run.times[:-2])
    moving = np.abs(measured) > 1e-3 * np.abs(measured).max()
    return predicted[moving], measured[moving]


def thinned(values: np.ndarray) -> np.ndarray:
    """Evenly spaced entries for the figure."""
    flat = values.ravel()
    return flat[:: -(-flat.size // SHOWN)]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A scatter for each level; below, the agreement of every design beside what chance reaches."""
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.4])
    for ax, level in zip(top.subplots(1, 2), LEVELS, strict=True):
        chosen = [entry for entry in data["designs"] if entry["level"] == level]
        for number, entry in enumerate(chosen):
            ax.plot(entry["predicted"], entry["measured"], ".", color=PALETTE[number % 7], markersize=2.5)
        ax.axline((0, 0), slope=1, color="grey", linewidth=0.8, zorder=0)
        ax.set(title=level, xlabel="predicted growth rate (1 / time)", ylabel="measured growth rate (1 / time)")
    axes = bottom.subplots(1, 2, sharey=True)
    for ax, quantity in zip(axes, QUANTITIES, strict=True):
        dots(ax, data["designs"], quantity)
    bottom.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)


def dots(ax: Axes, designs: list[Mapping[str, Any]], quantity: str) -> None:
    """One agreement of every design; values below -1 are drawn at -1."""
    heights = -np.arange(len(designs))
    for side, style in (("chance", {"marker": "|", "color": "grey", "markersize": 7}), ("measured", {"marker": "o"})):
        values = np.maximum([design[quantity][side] for design in designs], -1)
        label = {"chance": "shuffled modes (95% quantile)", "measured": "prediction"}[side]
        ax.plot(values, heights, **({"color": PALETTE[0], "markersize": 4} | style), linestyle="", label=label)
    ax.set(xlabel=quantity, xlim=(-1.06, 1.06), yticks=heights)
    ax.set_yticklabels([f"{d['name']} ({'features' if d['level'] == LEVELS[0] else 'branches'})" for d in designs])
    ax.tick_params(axis="y", labelsize=7.5, length=0)
    ax.grid(axis="y", linewidth=0.4)


PART = Part(
    "growth",
    "Growth rates of the modes",
    "Above: the rate r of lambda' = 2 r lambda that theory gives each mode of a measured state, against the rate at "
    "which its eigenvalue, followed by its eigenvector, moves in the simulation. Below: rank correlation over the "
    "modes and explained variance, design by design, beside what one in twenty shufflings of the modes reaches. "
    "Instants at which the modes have stopped moving apart are left out.",
    compute,
    draw,
    (6.8, 7.8),
)
