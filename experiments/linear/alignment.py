"""How the eigenspaces of encoder and predictor align, and the rate that T14 guarantees."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from linear.designs import over
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdm_jax import dynamics
from rdm_jax.dynamics import LinearDesign
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

WIDTH = 6
NOISE = 0.25
SYMMETRIC, LEARNED = LinearDesign(predictor="symmetric"), LinearDesign()
EQUAL, UNEQUAL = np.ones(WIDTH), np.linspace(1.0, 0.4, WIDTH)  # variances of the inputs
LONG = 300.0
# Weight decays below the threshold of 0.133, between it and the critical 0.2, and above both, and until when.
DECAYS = {0.02: 60.0, 0.15: 30.0, 0.25: 30.0}
OTHERS = {
    "symmetrised, isotropic": (SYMMETRIC, 0.02, LONG, EQUAL),
    "symmetrised, anisotropic": (SYMMETRIC, 0.02, LONG, UNEQUAL),
    "not symmetrised, isotropic": (LEARNED, 0.02, LONG, EQUAL),
}
INSTANTS = 241
RESOLVED = 1e-12  # what rounding leaves of a commutator is not the flow's
SHOWN = 5


class Observed(NamedTuple):
    """|L|, |L| / (|W W^T| |W_p|), and the rate that T14 guarantees (NaN for a predictor that is not symmetric)."""

    norm: np.ndarray
    relative: np.ndarray
    guaranteed: np.ndarray


def compute(options: Any, tell: Tell) -> Outcome:
    """Commutators over time from generic starts, with the bound, and cases that the bound is not about."""
    tell("symmetrised", 0.0)
    cases = [(SYMMETRIC, eta, end, EQUAL) for eta, end in DECAYS.items()] + list(OTHERS.values())
    found = trajectories(SYMMETRIC, [case for case in cases if case[0] is SYMMETRIC], options)
    tell("not symmetrised", 0.6)
    found += trajectories(LEARNED, [case for case in cases if case[0] is LEARNED], options)
    bounded = [under_bound(*case) for case in zip(DECAYS, *zip(*found, strict=True), strict=False)]
    others = [
        {"title": title, "time": times, "relative": seen.relative}
        for title, (times, seen) in zip(OTHERS, found[len(DECAYS) :], strict=True)
    ]
    findings = [finding for case in bounded for finding in judge(case)]
    findings += [
        Finding(f"misalignment at the end: {c['title']}", float(np.mean(c["relative"][:, -1]))) for c in others
    ]
    return Outcome({"bounded": bounded, "others": others}, findings)


def trajectories(design: LinearDesign, cases: list[Any], options: Any) -> list[tuple[np.ndarray, Observed]]:
    """Times and what is observed at them, (seeds, times), of each case, from the same generic starts."""
    keys = jax.random.split(jax.random.key(options.seed), options.seeds)
    starts = jax.vmap(lambda key: dynamics.random_branches(key, WIDTH, WIDTH, scale=1.0, design=design))(keys)
    field = dynamics.branch_field(design)

    def one(branches: dynamics.Branches, eta: jax.Array, end: jax.Array, variances: jax.Array) -> dynamics.Solution:
        args = dynamics.LinearParameters(jnp.diag(variances), NOISE * jnp.eye(WIDTH), weight_decay=eta)
        return dynamics.solve(field, branches, args, jnp.linspace(0.0, 1.0, INSTANTS) * end, record=observe)

    settings = [np.stack(values) for values in list(zip(*cases, strict=True))[1:]]
    found = over(lambda *setting: over(lambda branches: one(branches, *setting), starts), *settings)
    dynamics.require_success(found)
    return [
        (np.asarray(found.times[i, 0]), Observed(*(np.asarray(part[i]) for part in found.record)))
        for i in range(len(cases))
    ]


def observe(t: Any, branches: dynamics.Branches, args: dynamics.LinearParameters) -> Observed:
    """What is recorded."""
    correlation = branches.encoder @ branches.encoder.T
    norm = jnp.linalg.norm(dynamics.commutator(correlation, branches.predictor))
    bound = dynamics.alignment_bound(branches.predictor, branches.encoder, noise=NOISE, weight_decay=args.weight_decay)
    scale = jnp.linalg.norm(correlation) * jnp.linalg.norm(branches.predictor)
    return Observed(norm, norm / scale, bound.decay)


def under_bound(eta: float, times: np.ndarray, seen: Observed) -> dict[str, Any]:
    """|L| and its bound exp(-integral of the guaranteed rate), for each seed."""
    steps = np.diff(times) * (seen.guaranteed[:, 1:] + seen.guaranteed[:, :-1]) / 2
    exponent = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
    share, bound = seen.norm / seen.norm[:, :1], np.exp(-exponent)
    resolved = seen.norm > RESOLVED
    last = resolved.cumprod(axis=1).sum(axis=1) - 1
    late = last * 4 // 5
    seeds = np.arange(len(steps))
    fallen, guaranteed = (values[seeds, late] - values[seeds, last] for values in (np.log(share), -exponent))
    return {
        "eta": eta,
        "time": times,
        "norm": share,
        "bound": bound,
        "excess": np.where(resolved, share / bound, 0)[:, 1:].max(axis=1),
        "faster": fallen / guaranteed,
        "unconditional": 3 * eta - 2 * float(dynamics.critical_weight_decay(NOISE)),
    }


def judge(case: Mapping[str, Any]) -> list[Finding]:
    """Whether the bound holds, and how much faster than guaranteed the commutator falls in the end."""
    faster = case["faster"]
    return [
        Finding(f"eta = {case['eta']}: largest |L| / bound after the start", float(np.max(case["excess"]))),
        Finding(
            f"eta = {case['eta']}: late rate / guaranteed rate", float(np.mean(faster)), spread=float(np.std(faster))
        ),
    ]


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """|L| under its bound at three weight decays; misalignment without scale, also where T14 does not apply."""
    axes = figure.subplots(2, 2)
    for ax, case in zip(axes.flat, data["bounded"], strict=False):
        bounded(ax, case)
    handles = {label: line for ax in axes.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, fontsize=8)
    last = axes[1, 1]
    for colour, case in zip(PALETTE[2:], data["others"], strict=False):
        for number, values in enumerate(case["relative"][:SHOWN]):
            last.plot(case["time"], values, color=colour, linewidth=0.9, label=None if number else case["title"])
    last.set(title="eta = 0.02, also where T14 does not apply", yscale="log", xlabel="time", ylim=(1e-9, 1e3))
    last.set_ylabel("|L| / (|W W^T| |W_p|)")
    last.legend(loc="upper right", fontsize=7.5)


def bounded(ax: Axes, case: Mapping[str, Any]) -> None:
    """|L| of some seeds, each with its own bound, and the bound that holds for all starts."""
    for number, (values, bound) in enumerate(list(zip(case["norm"], case["bound"], strict=True))[:SHOWN]):
        labels = (None, None) if number else ("simulated, one line a seed", "bound of T14 for that seed")
        ax.plot(case["time"], values, color=PALETTE[0], linewidth=0.9, label=labels[0])
        ax.plot(case["time"], bound, "--", color=PALETTE[1], linewidth=0.9, label=labels[1])
    if case["unconditional"] > 0:
        line = np.exp(-case["unconditional"] * np.array(case["time"]))
        ax.plot(case["time"], line, "k:", label="bound for any start")
    ax.set(title=f"eta = {case['eta']:g}", yscale="log", ylim=(1e-9, 1e2), xlabel="time", ylabel="|L(t)| / |L(0)|")


PART = Part(
    "alignment",
    "Encoder and predictor come to share their eigenspaces",
    "The commutator L = [W W^T, W_p] of the symmetrised dynamics from generic starts, and the bound that T14 derives "
    "from each trajectory, at weight decays below the threshold 0.133, between it and the critical 0.2, and above "
    "both. Below, right: the commutator without scale, for longer, also where T14 does not apply.",
    compute,
    draw,
    (6.8, 5.6),
)
