"""The symmetric control: it collapses in dimension if the views are noisy, and only then (T8)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from nonlinear.designs import Setting, run
from nonlinear.panels import spread

from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

NOISES = (0.0, 0.03, 0.1, 0.3)
SYMMETRIC, RIVAL = "SymSimSiam", "RDM-SimSiam online"


def compute(options: Any, tell: Tell) -> Outcome:
    """The symmetric design under view noise of four sizes, and one asymmetric design beside it."""
    found = []
    for number, (name, noise) in enumerate((name, noise) for name in (SYMMETRIC, RIVAL) for noise in NOISES):
        tell(f"{name}, noise {noise:g}", number / (2 * len(NOISES)))
        done = run(name, options.sizes, setting=Setting(noise=noise))
        found.append({"name": name, "noise": noise, "step": done.steps, "rank": spread(done.record.features.rank),
                      "end": done.record.features.rank[:, -1]})  # fmt: skip
    findings = [
        Finding(f"effective rank at the end, {one['name']}, noise {one['noise']:g}", float(np.mean(one["end"])),
                spread=float(np.std(one["end"])))
        for one in found
    ]  # fmt: skip
    return Outcome({"runs": found, "modes": options.modes}, findings)


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A panel for each design, a line for each size of the noise."""
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name in zip(axes, (SYMMETRIC, RIVAL), strict=True):
        for number, one in enumerate(entry for entry in data["runs"] if entry["name"] == name):
            colour, rank = PALETTE[number], one["rank"]
            ax.plot(one["step"], rank["mean"], color=colour, label=f"noise {one['noise']:g}")
            ax.fill_between(one["step"], rank["low"], rank["high"], color=colour, alpha=0.2, linewidth=0)
        ax.set(title=name, xlabel="step", ylim=(0.9, data["modes"]))
    axes[0].set_ylabel("effective rank of the features")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)


PART = Part(
    "collapse",
    "The symmetric control under view noise",
    "Effective rank of the features that enter the loss, mean and range over the seeds, for isotropic view noise of "
    "four variances (the largest factor has variance 1). Left: centring and normalising without any asymmetry. Right: "
    "a low-pass filter on the online branch. Theory: under noise the symmetric design loses rank until one or a few "
    "modes are left; without noise it has no reason to.",
    compute,
    draw,
    (6.8, 3.4),
)
