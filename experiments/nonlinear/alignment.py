"""Do the branches share their eigenspaces: the alignment over training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from nonlinear.designs import Run, runs
from nonlinear.scores import spread

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

SHARE = 0.999  # of the target's trace, which the leading eigenvectors carry
LINES = ("-", "--")


def compute(options: Any, tell: Tell) -> Outcome:
    """Mean alignment of the leading eigenvectors, over time."""
    found = list(runs(options, tell))
    entries = [{"name": run.name, "step": run.steps, "alignment": spread(mean(run))} for run in found]
    findings = [
        Finding(
            f"alignment at the end: {run.name}", float(mean(run)[:, -1].mean()), spread=float(mean(run)[:, -1].std())
        )
        for run in found
    ]
    return Outcome({"designs": entries}, findings)


def mean(run: Run) -> np.ndarray:
    """cos(C_online v, v) averaged over the target's leading eigenvectors v, (seeds, T)."""
    spectrum = run.record.target.eigenvalues
    before = np.cumsum(spectrum, -1) - spectrum
    leading = (before < SHARE * spectrum.sum(-1, keepdims=True)) & np.isfinite(run.record.alignment)
    return np.sum(np.where(leading, run.record.alignment, 0), -1) / np.maximum(leading.sum(-1), 1)


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A line for each design."""
    ax = figure.subplots()
    for number, one in enumerate(data["designs"]):
        style = {"color": PALETTE[number % 7], "linestyle": LINES[number // 7 % 2]}
        ax.plot(one["step"], one["alignment"]["mean"], label=one["name"], **style)
    ax.set(xlabel="step", ylabel="mean cosine of C_online v and v", ylim=(None, 1.01))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8)


PART = Part(
    "alignment",
    "Eigenspace alignment",
    "Mean cosine between C_online v and v over the leading eigenvectors v of the target's second moment (those that "
    "carry 99.9% of its trace): 1 if the branches share their eigenspaces, as the theory of filters supposes. Mean "
    "over the seeds.",
    compute,
    draw,
    (6.8, 3.6),
)
