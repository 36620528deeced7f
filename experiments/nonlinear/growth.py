"""Growth rates of the modes: predicted from the measured state, of free features, of the flow, and as measured."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nonlinear.designs import Run, runs, warm
from nonlinear.panels import rows

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE
from rdm_jax.training import Rates, follow, judge_rates, ladder, relative_rates
from rdm_jax.training.judging import STEPS

APART = 0.05  # of the largest spread of a run's growth: below it the modes have stopped moving apart
SHOWN = 200


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
    record, start = run.record, warm(run.steps)
    own = slice(start, -1)
    before, after = (jax.tree.map(lambda leaf, cut=cut: leaf[:, cut], record) for cut in (own, slice(start + 1, None)))
    followed = follow(before, after)
    gap = np.diff(run.steps[start:])[None, :, None]
    growth, spectrum = np.asarray(followed.growth) / (2 * gap), before.features.eigenvalues
    shares = spectrum / spectrum.sum(-1, keepdims=True)
    speed = np.sqrt(np.sum(shares * (growth - np.sum(shares * growth, -1, keepdims=True)) ** 2, -1))
    moving = speed > APART * speed.max()
    seeds = np.broadcast_to(np.arange(len(spectrum))[:, None], moving.shape)
    four = {"predicted": before.rates, "free": run.free[:, own], "flow": run.flow[:, own], "measured": growth}
    chosen = {name: values[moving] for name, values in four.items()}
    return relative_rates(spectrum[moving], np.asarray(followed.kept)[moving], seeds[moving], **chosen)


def entry(run: Run, seed: int) -> dict[str, Any]:
    """What is drawn and found of a design."""
    rate = rates(run)
    counted = np.flatnonzero(rate.mask)
    shown = counted[:: -(-len(counted) // SHOWN)]
    scatter = {"predicted": rate.predicted.ravel()[shown], "measured": rate.measured.ravel()[shown]}
    return {"name": run.name, "scores": judge_rates(rate, seed), "ladder": ladder(rate), "scatter": scatter}


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
