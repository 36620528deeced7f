"""Effective ranks of both branches over training, and the rank difference that each method's own response predicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nonlinear.designs import Run, runs, warm
from nonlinear.panels import panels, spread

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

ONLINE, TARGET = PALETTE[1], PALETTE[0]


def compute(options: Any, tell: Tell) -> Outcome:
    """Ranks over time; the rank difference at the end, its sign, and how far off the prediction is."""
    found = list(runs(options, tell))
    findings = [finding for run in found for finding in judge(run)]
    built_in = ", ".join(run.name for run in found if run.design.built_in)
    remarks = [f"The rank difference is built in, so that agreement is no evidence: {built_in or 'none'}."]
    return Outcome({"runs": [series(run) for run in found]}, findings, remarks)


def series(run: Run) -> dict[str, Any]:
    """Ranks over time, with the target's measured rank less the predicted difference as the predicted online rank."""
    record = run.record
    return {
        "name": run.name,
        "built_in": run.design.built_in,
        "step": run.steps,
        "online": spread(record.online.rank),
        "target": spread(record.target.rank),
        "predicted": np.mean(record.target.rank - record.predicted.rank_difference, 0),
        "features": spread(record.features.rank),
        "null": record.features.null[0, 0],
    }


def judge(run: Run) -> list[Finding]:
    """The difference at the end of a run, and how often its sign was right after the warm-up."""
    settled = slice(warm(run.steps), None)
    measured, predicted = run.record.rank_difference, run.record.predicted.rank_difference
    end = Finding(
        f"rank difference at the end: {run.name}",
        float(np.mean(measured[:, -1])),
        predicted=float(np.mean(predicted[:, -1])),
        spread=float(np.std(measured[:, -1])),
    )
    if run.design.built_in:
        return [end]
    hits = np.sign(measured[:, settled]) == np.sign(predicted[:, settled])
    error = np.linalg.norm((predicted - measured)[:, settled]) / np.linalg.norm(measured[:, settled])
    return [
        end,
        Finding("  share of probes with the predicted sign", float(np.mean(hits)), spread=float(np.std(hits.mean(1)))),
        Finding("  relative error of the prediction", float(error)),
    ]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A panel for each design."""
    panels(figure, data["runs"], panel, "step", "effective rank")


def panel(ax: Axes, run: Mapping[str, Any]) -> None:
    """Both branches with their range over the seeds, and the predicted online rank."""
    for branch, colour in (("target", TARGET), ("online", ONLINE)):
        ax.plot(run["step"], run[branch]["mean"], color=colour, label=branch)
        ax.fill_between(run["step"], run[branch]["low"], run[branch]["high"], color=colour, alpha=0.2, linewidth=0)
    predicted = np.array(run["predicted"], float)
    ax.plot(run["step"], predicted, color="black", linestyle=":", linewidth=1.2, label="online, predicted")
    ax.set_title(run["name"] + (" *" if run["built_in"] else ""), fontsize=8.5)
    ax.set_ylim(bottom=0)


PART = Part(
    "ranks",
    "Effective rank of both branches during training",
    "Effective rank (of eigenvalues) of the online and the target output, mean and range over the seeds. Dotted: the "
    "target's rank less the difference that the method's own response predicts from the measured features: the Wiener "
    "filter for a learned predictor, centering in the linear regime for assignments. With * the filter is fixed, and "
    "the prediction no more than a check. SwAV and DINO are measured on assignments without their constant mode.",
    compute,
    draw,
    (6.8, 7.6),
)
