"""Do the branches share their eigenspaces, and do the eigenvectors stand still, as theory supposes: over training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from nonlinear.designs import Run, runs, warm
from nonlinear.panels import spread

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

SHARE = 0.999  # of the target's trace, which the leading eigenvectors carry
LINES = ("-", "--")


def compute(options: Any, tell: Tell) -> Outcome:
    """Mean alignment of the leading eigenvectors, and how far they turn from probe to probe, over time."""
    found = list(runs(options, tell))
    entries = [
        {"name": run.name, "step": run.steps, "alignment": spread(mean(run)), "drift": spread(drift(run))}
        for run in found
    ]
    by_chance = random_drift(options.modes, options.seed)
    return Outcome({"designs": entries}, [finding for run in found for finding in judge(run, by_chance)])


def judge(run: Run, by_chance: float) -> list[Finding]:
    """At the end, and how far eigenvectors turn in the scored part of a run."""
    last, turned = mean(run)[:, -1], drift(run)[:, warm(run.steps) :].mean(1)
    return [
        Finding(f"alignment at the end: {run.name}", float(last.mean()), spread=float(last.std())),
        Finding("  turn of its eigenvectors between probes", float(turned.mean()), 0.0, by_chance, float(turned.std())),
    ]


def drift(run: Run) -> np.ndarray:
    """1 - the squared cosine of a leading eigenvector of the features and the next probe's nearest, (seeds, T - 1)."""
    vectors, spectrum = run.record.vectors, run.record.features.eigenvalues[:, :-1]
    overlap = np.max(np.einsum("stij,stik->stjk", vectors[:, :-1], vectors[:, 1:]) ** 2, -1)
    leading = np.cumsum(spectrum, -1) - spectrum < SHARE * spectrum.sum(-1, keepdims=True)
    return np.sum(np.where(leading, 1 - overlap, 0), -1) / leading.sum(-1)


def random_drift(modes: int, seed: int) -> float:
    """The same of two random bases; one pair in 20 turns less."""
    rng = np.random.default_rng(seed)
    turned = [1 - np.max(np.linalg.qr(rng.normal(size=(modes, modes)))[0] ** 2, -1).mean() for _ in range(200)]
    return float(np.quantile(turned, 0.05))


def mean(run: Run) -> np.ndarray:
    """cos(C_online v, v) averaged over the target's leading eigenvectors v, (seeds, T)."""
    spectrum = run.record.target.eigenvalues
    before = np.cumsum(spectrum, -1) - spectrum
    leading = (before < SHARE * spectrum.sum(-1, keepdims=True)) & np.isfinite(run.record.alignment)
    return np.sum(np.where(leading, run.record.alignment, 0), -1) / np.maximum(leading.sum(-1), 1)


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A line for each design: alignment on the left, drift on the right."""
    left, right = figure.subplots(1, 2)
    for number, one in enumerate(data["designs"]):
        style = {"color": PALETTE[number % 7], "linestyle": LINES[number // 7 % 2]}
        left.plot(one["step"], one["alignment"]["mean"], label=one["name"], **style)
        right.semilogy(one["step"][:-1], one["drift"]["mean"], **style)
    left.set(xlabel="step", ylabel="mean cosine of C_online v and v", ylim=(None, 1.01))
    right.set(xlabel="step", ylabel="turn of eigenvectors to the next probe")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)


PART = Part(
    "alignment",
    "Eigenspace alignment",
    "Left: mean cosine between C_online v and v over the leading eigenvectors v of the target's second moment (those "
    "that carry 99.9% of its trace): 1 if the branches share their eigenspaces, as the theory of filters supposes. "
    "Right: how far the leading eigenvectors of the features turn from one probe to the next, 1 minus the squared "
    "cosine with the nearest; theory has them stand still. Chance in the table: two random bases. Mean over the seeds.",
    compute,
    draw,
    (6.8, 3.9),
)
