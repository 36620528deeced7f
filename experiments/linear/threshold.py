"""The Wiener threshold in motion (S1): a positive rank difference beside a falling rank, and what lifts it (S2)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from linear.designs import DONE, RECORDS, descend, over
from matplotlib.figure import Figure

from rdm_jax import agreement, dynamics, theory
from rdm_jax.dynamics import FeatureDesign, LagParameters, Statistics
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

SIGNAL, NOISE = np.array([4.0, 2.0, 1.0, 0.3]), 1.0
END = 20.0
CASES = {
    # the exponents of s and of a shrinking predictor, and how that predictor shrinks
    "g(s) = s": (1.0, 0.0, LagParameters(0.0, DONE)),
    "Wiener predictor": (0.0, 1.0, LagParameters(0.0, DONE)),
    "ridge predictor": (0.0, 1.0, LagParameters(1.0, DONE)),
    "lagging predictor": (0.0, 1.0, LagParameters(0.0, 0.3)),
}


def either(spectrum: jax.Array, signal: jax.Array, parameters: tuple[jax.Array, jax.Array, LagParameters]) -> jax.Array:
    """A power of s times a power of a predictor's gain, so that one program serves all cases."""
    power, share, lag = parameters
    return dynamics.power_gains(spectrum, signal, power) * dynamics.lagging_gains(spectrum, signal, lag) ** share


DESIGN = FeatureDesign("cosine", online=either, noise="persistent")


def compute(options: Any, tell: Tell) -> Outcome:
    """Four online filters from the same features."""
    tell("four filters", 0.0)
    times = np.linspace(0.0, END, RECORDS + 1)
    found, findings = [], []
    for number, (name, predicted, simulated) in enumerate(zip(CASES, *both(times, options), strict=True)):
        found.append(entry(name, times, predicted, simulated))
        findings += judge(name, times, predicted, simulated)
        if number == 0:
            findings += published(times, simulated)
    return Outcome({"designs": found}, findings)


def both(times: np.ndarray, options: Any) -> tuple[list[Statistics], list[Statistics]]:
    """Of each case the mode equation, and gradient descent of features with exactly this spectrum."""
    spectrum = jnp.asarray(SIGNAL + NOISE)
    features, _ = dynamics.views_with_spectrum(jax.random.key(options.seed), options.samples, spectrum, spectrum)
    field, steps = dynamics.mode_field(DESIGN), dynamics.feature_field(DESIGN)

    def predict(*parameters: Any) -> dynamics.Solution:
        args = dynamics.FeatureParameters(noise=NOISE, online=parameters)
        return dynamics.solve(field, dynamics.Modes(spectrum), args, times, record=dynamics.mode_statistics(DESIGN))

    def simulate(*parameters: Any) -> dynamics.Solution:
        args = dynamics.FeatureParameters(noise=NOISE, online=parameters)
        record = dynamics.feature_statistics(DESIGN)
        return descend(steps, dynamics.ViewFeatures(features), args, options.sizes, END / options.steps, record)

    settings = jax.tree.map(lambda *values: np.stack(values), *CASES.values())
    found = (dynamics.require_success(over(run, *settings)).record for run in (predict, simulate))
    return tuple([jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), r) for i in range(len(CASES))] for r in found)


def entry(name: str, times: np.ndarray, predicted: Statistics, simulated: Statistics) -> dict[str, Any]:
    """What the figure needs."""
    return {
        "name": name,
        "time": times,
        "rank": {"predicted": predicted.effective_rank, "simulated": simulated.effective_rank},
        "difference": {"predicted": predicted.rank_difference, "simulated": simulated.rank_difference},
        "spectrum": simulated.spectrum[0],
        "theta": simulated.threshold[0],
    }


def judge(name: str, times: np.ndarray, predicted: Statistics, simulated: Statistics) -> list[Finding]:
    """Rank difference at the start, speed at the start, rank at the end."""
    speed = (simulated.effective_rank[1] - simulated.effective_rank[0]) / (times[1] - times[0])
    return [
        Finding(
            f"{name}: rank difference at the start",
            float(simulated.rank_difference[0]),
            float(predicted.rank_difference[0]),
        ),
        Finding(f"{name}: d erank/dt at the start", float(speed), float(predicted.rank_rate[0])),
        Finding(
            f"{name}: effective rank at the end",
            float(simulated.effective_rank[-1]),
            float(predicted.effective_rank[-1]),
        ),
        Finding(
            f"{name}: relative error of erank",
            agreement.relative_error(predicted.effective_rank, simulated.effective_rank),
        ),
    ]


def published(times: np.ndarray, simulated: Statistics) -> list[Finding]:
    """The two numbers that docs/theory.md S1 gives for g(s) = s, from the simulation."""
    online, target = simulated.online_rank[0], simulated.target_rank[0]
    speed = np.log(simulated.effective_rank[1] / simulated.effective_rank[0]) / (times[1] - times[0])
    factor = theory.common_factor(SIGNAL + NOISE, online_gains=np.sqrt(SIGNAL + NOISE))
    return [
        Finding("g(s) = s: log-rank difference at the start", float(np.log(target / online)), 0.275),
        Finding("g(s) = s: dH/dt at the start, without common factor", float(speed / factor), -0.042),
    ]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """Rank, rank difference, and theta at the start."""
    axes = figure.subplots(1, 3)
    for colour, marker, design in zip(PALETTE, "os^D", data["designs"], strict=False):
        for ax, name in zip(axes, ("rank", "difference"), strict=False):
            ax.plot(design["time"], design[name]["predicted"], color=colour, label=design["name"])
            ax.plot(design["time"][::10], design[name]["simulated"][::10], marker, color=colour, markersize=3)
        theta = np.array(design["theta"], float)
        axes[2].plot(design["spectrum"], theta / theta[0], f"{marker}-", color=colour, markersize=4)
    axes[0].set(xlabel="time", title="effective rank of the features")
    axes[1].set(xlabel="time", title="rank difference")
    axes[1].axhline(0, color="grey", linewidth=0.8)
    axes[2].set(xlabel="eigenvalue lambda", title="theta / theta of the largest", xscale="log")
    axes[2].set_xticks([1.3, 2, 3, 5], ["1.3", "2", "3", "5"])
    axes[2].minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)


PART = Part(
    "threshold",
    "A positive rank difference does not suffice",
    "Features with m = (4, 2, 1, 0.3) under view noise 1 and the cosine loss. All four online filters make a rank "
    "difference. With g(s) = s the rank falls all the same (until the last mode has sunk to the noise, at the kink), "
    "with the Wiener predictor it stands still, and a ridge or a lagging predictor lifts it. What decides is whether "
    "theta = m / (lambda g) falls with lambda (right). Lines: mode equations. Points: gradient descent.",
    compute,
    draw,
    (6.8, 3.2),
)
