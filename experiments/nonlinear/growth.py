"""Growth rates of the modes: predicted from the measured state, of free features, of the flow, and as measured."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nonlinear import scores
from nonlinear.designs import Run, runs, warm
from nonlinear.panels import rows

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE
from rdm_jax.training import follow

RESOLVED = 1e-3  # of the largest eigenvalue: smaller ones are not followed
APART = 0.05  # of the largest spread of a run's growth: below it the modes have stopped moving apart
SHOWN = 200
RUNGS = ("predicted", "free", "flow", "measured")
STEPS = tuple(f"{before} -> {after}" for before, after in pairwise(RUNGS))


class Rates(NamedTuple):
    """Rates (instants, d) less their mean under the spectrum, which count, log lambda, and the instants' seeds."""

    predicted: np.ndarray
    free: np.ndarray
    flow: np.ndarray
    measured: np.ndarray
    mask: np.ndarray
    logs: np.ndarray
    seed: np.ndarray


def compute(options: Any, tell: Tell) -> Outcome:
    """Rates and their agreement, design by design."""
    found = [entry(run, options.seed) for run in runs(options, tell)]
    findings = []
    for one in found:
        for quantity in ("rank correlation", "explained variance"):
            score = one["scores"][quantity]
            title = f"{quantity}: {one['name']}" if quantity.startswith("rank") else f"  {quantity}"
            findings.append(Finding(title, score["measured"], chance=score["chance"], spread=score["spread"]))
        findings.append(Finding("  rank correlation beyond the order of the modes", **one["scores"]["beyond"]))
    return Outcome({"designs": found}, findings)


def rates(run: Run) -> Rates:
    """All four rates of all seeds at the instants at which the modes move apart."""
    record = run.record
    start = warm(run.steps)
    before, after = (_cut(record, cut) for cut in (slice(start, -1), slice(start + 1, None)))
    followed = follow(before, after)
    spectrum = before.features.eigenvalues
    shares = spectrum / spectrum.sum(-1, keepdims=True)
    gap = np.diff(run.steps[start:])[None, :, None]
    own = slice(start, -1)
    all_four = (before.rates, run.free[:, own], run.flow[:, own], np.asarray(followed.growth) / (2 * gap))
    apart = [values - np.sum(shares * values, -1, keepdims=True) for values in all_four]
    mask = np.asarray(followed.kept) & (spectrum > RESOLVED * spectrum[..., :1])
    moving = np.sqrt(np.sum(shares * apart[3] ** 2, -1))
    moving = moving > APART * moving.max()
    logs = np.log(np.maximum(spectrum, 1e-30))
    seeds = np.broadcast_to(np.arange(len(spectrum))[:, None], moving.shape)
    return Rates(*(values[moving] for values in (*apart, mask, logs, seeds)))


def _cut(record: Any, cut: slice) -> Any:
    return jax.tree.map(lambda leaf: leaf[:, cut], record)


def entry(run: Run, seed: int) -> dict[str, Any]:
    """What is drawn and found of a design."""
    rate = rates(run)
    ladder = {
        step: scores.rank_correlation(getattr(rate, first), getattr(rate, second), rate.mask)
        for step, (first, second) in zip(STEPS, pairwise(RUNGS), strict=True)
    }
    counted = np.flatnonzero(rate.mask)
    shown = counted[:: -(-len(counted) // SHOWN)]
    scatter = {"predicted": rate.predicted.ravel()[shown], "measured": rate.measured.ravel()[shown]}
    return {"name": run.name, "scores": judge(rate, seed), "ladder": ladder, "scatter": scatter}


def judge(rate: Rates, seed: int) -> dict[str, dict[str, float]]:
    """Agreement of predicted and measured rates, what shuffled modes reach, and the spread over the seeds."""
    beyond = scores.partial_rank_correlation(rate.logs)
    found = {}
    for name, statistic in (
        ("rank correlation", scores.rank_correlation),
        ("explained variance", scores.explained),
    ):
        by_seed = [statistic(rate.predicted[own], rate.measured[own], rate.mask[own]) for own in _seeds(rate)]
        found[name] = {
            "measured": statistic(rate.predicted, rate.measured, rate.mask),
            "chance": scores.chance(statistic, rate.predicted, rate.measured, rate.mask, seed),
            "spread": float(np.nanstd(by_seed)),
        }
    by_seed = [
        scores.partial_rank_correlation(rate.logs[own])(rate.predicted[own], rate.measured[own], rate.mask[own])
        for own in _seeds(rate)
    ]
    found["beyond"] = {
        "measured": beyond(rate.predicted, rate.measured, rate.mask),
        "chance": scores.chance(beyond, rate.predicted, rate.measured, rate.mask, seed),
        "spread": float(np.nanstd(by_seed)),
    }
    return found


def _seeds(rate: Rates) -> list[np.ndarray]:
    return [rate.seed == seed for seed in np.unique(rate.seed)]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A scatter of all designs, their agreement beside chance, and the ladder of rates."""
    found = data["designs"]
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.35])
    left, right = top.subplots(1, 2, width_ratios=[1, 1.2])
    for number, one in enumerate(found):
        cloud(left, one["scatter"], PALETTE[number % 7])
    left.axline((0, 0), slope=1, color="grey", linewidth=0.8, zorder=0)
    left.set(xlabel="predicted rate (own scale)", ylabel="measured rate (own scale)", xlim=(-4, 4), ylim=(-4, 4))
    bars(right, found)
    axes = bottom.subplots(1, 3, sharey=True)
    for ax, quantity in zip(axes, ("rank correlation", "beyond", "explained variance"), strict=True):
        dots(ax, found, quantity)
    bottom.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)


def cloud(ax: Axes, scatter: Mapping[str, Any], colour: str) -> None:
    """One design, each side over its root mean square."""
    sides = [np.array(scatter[side], float) for side in ("predicted", "measured")]
    ax.plot(*(side / np.sqrt(np.mean(side**2)) for side in sides), ".", color=colour, markersize=2)


def bars(ax: Axes, found: list[Mapping[str, Any]]) -> None:
    """Rank correlation of each pair of neighbouring rates, median over the designs, with every design as a point."""
    for place, step in enumerate(STEPS):
        values = np.array([one["ladder"][step] for one in found], float)
        ax.bar(place, np.nanmedian(values), color=PALETTE[5], width=0.6)
        ax.plot(place + np.linspace(-0.2, 0.2, len(values)), values, ".", color="black", markersize=4)
    ax.set(xticks=range(len(STEPS)), ylabel="rank correlation", ylim=(-0.5, 1.02))
    ax.set_xticklabels([step.replace(" -> ", "\nto ") for step in STEPS], fontsize=8)


def dots(ax: Axes, found: list[Mapping[str, Any]], quantity: str) -> None:
    """One agreement of every design beside what chance reaches."""
    heights = rows(ax, [one["name"] for one in found])
    for side, style in (("chance", {"marker": "|", "color": "grey", "markersize": 8}), ("measured", {"marker": "o"})):
        values = np.array([one["scores"][quantity][side] for one in found], float)
        label = {"chance": "shuffled modes (95% quantile)", "measured": "prediction"}[side]
        ax.plot(values, heights, **({"color": PALETTE[0], "markersize": 4} | style), linestyle="", label=label)
    title = {"beyond": "rank correlation\nbeyond the order of modes"}.get(quantity, quantity)
    ax.set(xlabel=title, xlim=(-0.55, 1.05))
    ax.axvline(0, color="grey", linewidth=0.6)


PART = Part(
    "growth",
    "Growth rates of the modes",
    "The rate of each mode's eigenvalue relative to the whole spectrum, from probe to probe, followed by its "
    "eigenvector. Above left: predicted from the measured spectrum, filter and view noise, against measured, each "
    "design on its own scale. Above right, the ladder that shows where a prediction is lost, each design a point: from "
    "theory to the loss's real gradient in free features, from that to the gradient through the network, from that to "
    "what steps of the optimiser did. Below, for each design, predicted against measured: rank correlation; the same "
    "once the order of the modes by size is regressed out of both; and the variance that is explained after one scale "
    "factor for the whole run. The first tenth of training is left out, here and in all scores.",
    compute,
    draw,
    (6.8, 7.8),
)
