"""The Wiener threshold in motion (S1): which way the effective rank goes, and what the rank difference says of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from nonlinear.designs import Run, runs, warm
from nonlinear.panels import rows

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE
from rdm_jax.training import entropy_speed, judge_signs
from rdm_jax.training.judging import RESOLVED

STILL = 0.02  # of a run's fastest change of rank: slower ones have no sign to speak of
SHOWN = ("SymSimSiam", "SimSiam", "RDM-SimSiam online")


def compute(options: Any, tell: Tell) -> Outcome:
    """Signs of d erank/dt, against theory's, shuffled modes', and the more frequent sign; theta of some designs."""
    found = list(runs(options, tell))
    entries = [entry(run, options.seed) for run in found]
    findings = [finding for one in entries for finding in judge(one)] + together([speeds(run) for run in found])
    shown = [theta(run) for run in found if run.name in SHOWN]
    return Outcome({"designs": entries, "theta": shown}, findings)


class Speeds(NamedTuple):
    """d log erank/dt of all seeds at the instants at which it moves: by theory, by the flow, and as measured."""

    predicted: np.ndarray
    flow: np.ndarray
    measured: np.ndarray
    difference: np.ndarray
    spectrum: np.ndarray
    rates: np.ndarray
    seed: np.ndarray


def speeds(run: Run) -> Speeds:
    """After the warm-up; ``difference`` is the rank difference at the instant."""
    own, record = slice(warm(run.steps), -1), run.record
    measured = np.diff(np.log(record.features.rank), axis=1) / np.diff(run.steps)
    measured, spectrum, rates = measured[:, own.start :], record.features.eigenvalues[:, own], record.rates[:, own]
    moving = np.abs(measured) > STILL * np.abs(measured).max()
    flow = entropy_speed(spectrum, run.flow[:, own])
    seeds = np.broadcast_to(np.arange(len(measured))[:, None], measured.shape)
    both = (record.entropy_rate[:, own], flow, measured, record.rank_difference[:, own], spectrum, rates, seeds)
    return Speeds(*(values[moving] for values in both))


def entry(run: Run, seed: int) -> dict[str, Any]:
    """How often the signs agree, and how much of the speed is explained."""
    speed = speeds(run)
    right = np.sign(speed.predicted) == np.sign(speed.measured)
    return {
        "name": run.name,
        **judge_signs(speed.spectrum, speed.rates, speed.measured, seed),
        "spread": float(np.std([np.mean(right[speed.seed == own]) for own in np.unique(speed.seed)])),
        "flow": float(np.mean(np.sign(speed.flow) == np.sign(speed.measured))),
    }


def judge(one: Mapping[str, Any]) -> list[Finding]:
    """A design's findings."""
    return [
        Finding(f"right sign of d erank/dt: {one['name']}", one["hits"], chance=one["chance"], spread=one["spread"]),
        Finding("  share of the more frequent sign", one["frequent"]),
        Finding("  variance of d erank/dt explained, one scale factor", one["explained"]),
    ]


def together(found: list[Speeds]) -> list[Finding]:
    """All designs pooled, where both signs occur: S1, and the rank difference alone."""
    rises = np.concatenate([speed.measured for speed in found]) > 0
    says = {
        "Wiener threshold (S1)": np.concatenate([speed.predicted for speed in found]) > 0,
        "a positive rank difference": np.concatenate([speed.difference for speed in found]) > 1e-3,
    }
    hits = [Finding(f"right sign, all designs: {name}", float(np.mean(said == rises))) for name, said in says.items()]
    return [*hits, Finding("  share of the more frequent sign", float(max(rises.mean(), 1 - rises.mean())))]


def theta(run: Run) -> dict[str, Any]:
    """The threshold over the spectrum in the middle of a run, first seed, with its mean 1 under the online spectrum."""
    at = len(run.steps) // 2
    record = run.record
    spectrum, values, gains = (part[0, at] for part in (record.features.eigenvalues, record.theta, record.gains))
    alive = spectrum > RESOLVED * spectrum[0]
    mean = np.sum(values * gains**2 * spectrum) / np.sum(gains**2 * spectrum)
    return {"name": run.name, "spectrum": (spectrum / spectrum[0])[alive], "theta": (values / mean)[alive]}


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """Hits of every design beside chance, theta of some, and predicted beside measured speed of three."""
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    ax, found = left.subplots(), data["designs"]
    heights = rows(ax, [one["name"] for one in found])
    for side, label, style in (
        ("frequent", "always the more frequent sign", {"marker": "x", "color": PALETTE[1], "markersize": 5}),
        ("flow", "flow through the network", {"marker": "D", "color": PALETTE[4], "markersize": 3.5}),
        ("chance", "shuffled modes (95% quantile)", {"marker": "|", "color": "grey", "markersize": 9}),
        ("hits", "prediction", {"marker": "o", "color": PALETTE[0], "markersize": 4.5}),
    ):
        ax.plot([one[side] for one in found], heights, linestyle="", label=label, **style)
    ax.set(xlabel="share of instants with the right sign of d erank/dt", xlim=(0, 1.04))
    left.legend(*ax.get_legend_handles_labels(), loc="outside upper center", fontsize=8)
    thresholds(right, data["theta"])


def thresholds(figure: Any, shown: list[Mapping[str, Any]]) -> None:
    """theta against the eigenvalue."""
    ax = figure.subplots()
    for number, one in enumerate(shown):
        ax.loglog(one["spectrum"], one["theta"], "o-", markersize=3, color=PALETTE[number], label=one["name"])
    ax.axhline(1, color="grey", linewidth=0.6)
    ax.set(xlabel="eigenvalue of the features", ylabel="theta over its mean")
    if shown:
        ax.legend(fontsize=8)


PART = Part(
    "threshold",
    "Which way the effective rank goes",
    "Left: how often theory has the right sign of d erank/dt from one probe to the next, beside shuffled modes and "
    "beside a forecaster who always names the more frequent sign. Instants at which the rank hardly moves are left "
    "out. Right: the Wiener threshold theta over the spectrum in the middle of a run: where it falls towards large "
    "eigenvalues the filter is more low-pass than the Wiener filter, and erank rises; where it rises, erank falls.",
    compute,
    draw,
    (6.8, 4.6),
)
