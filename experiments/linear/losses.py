"""Squared error against cosine: a low-pass online filter can lower the rank under the first, not under the second."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from linear.designs import RECORDS, descend
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdm_jax import dynamics, theory
from rdm_jax.dynamics import FeatureDesign
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE
from rdm_jax.spectra import effective_rank, feature_effective_rank

LOSSES = ("squared", "cosine")
LABELS = {"squared": "squared error", "cosine": "cosine"}
PAIR = (2.0, 1.0)
DIMENSIONS = (2, 5, 10, 30)
WIDTH = max(DIMENSIONS)
INSTANT = 1e-4  # a step short enough to show the sign of d erank/dt
END = 20.0


def given_gains(spectrum: Any, signal: Any, gains: jax.Array) -> jax.Array:
    """Gains as they are given, largest eigenvalue first."""
    return gains


def compute(options: Any, tell: Tell) -> Outcome:
    """The plane of two gains, trajectories of a power filter, and random filters."""
    grid = np.linspace(0.02, 1.0, options.grid)
    planes, findings = {}, []
    for number, loss in enumerate(LOSSES):
        tell(f"two modes, {LABELS[loss]}", 0.15 * number)
        planes[loss] = plane(loss, grid)
        findings.append(sign_finding(loss, grid, planes[loss]))
    tell("power filter", 0.4)
    paths = {loss: trajectory(loss, options) for loss in LOSSES}
    findings += [
        Finding(
            f"g(s) = s: lowest rank on the way, {LABELS[loss]}",
            float(np.min(path["simulated"])),
            predicted=float(np.min(path["predicted"])),
        )
        for loss, path in paths.items()
    ]
    falls = {}
    for number, loss in enumerate(LOSSES):
        tell(f"random filters, {LABELS[loss]}", 0.6 + 0.2 * number)
        falls[loss] = random_filters(loss, 10 * options.grid, options.seed)
        findings += [
            Finding(f"lowers the rank: share, {LABELS[loss]}, {d} modes", measured, predicted=predicted)
            for d, measured, predicted in zip(DIMENSIONS, *reversed(falls[loss].values()), strict=True)
        ]
    return Outcome({"gain": grid, "planes": planes, "paths": paths, "dimensions": DIMENSIONS, "falls": falls}, findings)


def plane(loss: str, grid: np.ndarray) -> np.ndarray:
    """d erank/dt from features that take one short step, (second gain, first gain)."""
    gains = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    return rank_rates(loss, gains, np.broadcast_to(PAIR, gains.shape)).reshape(2 * [grid.size])


def rank_rates(loss: str, gains: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """d erank/dt, measured on features with exactly these spectra."""
    gains, spectra = (np.pad(values, ((0, 0), (0, WIDTH - values.shape[1]))) for values in (gains, spectra))
    ranks = np.asarray(dynamics.require_success(short_step(loss)(gains, spectra)).record)
    return (ranks[:, 1] - ranks[:, 0]) / INSTANT


@cache
def short_step(loss: str) -> Callable[..., dynamics.Solution]:
    """One step of many features, from their gains and spectra; compiled once for equal numbers of them."""
    field = dynamics.feature_field(FeatureDesign(loss, online=given_gains))
    shape = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (2 * WIDTH, WIDTH)))[0] * (2 * WIDTH) ** 0.5

    def one(gains: jax.Array, spectrum: jax.Array) -> dynamics.Solution:
        state = dynamics.ViewFeatures(shape * jnp.sqrt(spectrum)[None])
        args = dynamics.FeatureParameters(online=gains)
        return dynamics.descend(field, state, args, learning_rate=INSTANT, steps=1, record=rank)

    return jax.jit(jax.vmap(one))


def rank(t: Any, state: dynamics.ViewFeatures, args: Any) -> jax.Array:
    """Effective rank of the features."""
    return feature_effective_rank(state.first)


def sign_finding(loss: str, grid: np.ndarray, measured: np.ndarray) -> Finding:
    """Share of the low-pass points whose sign is as predicted: that of g1 + g2 - 1, or positive."""
    first, second = np.meshgrid(grid, grid)
    predicted = np.sign(first + second - 1) if loss == "squared" else np.ones_like(first)
    strict = (first > second + 1e-9) & (np.abs(first + second - 1) > 1e-9)
    return Finding(
        f"two modes: share with the predicted sign, {LABELS[loss]}",
        float(np.mean(np.sign(measured)[strict] == predicted[strict])),
    )


def trajectory(loss: str, options: Any) -> dict[str, Any]:
    """g = s on a spectrum so small that all gains are below 1/2."""
    design = FeatureDesign(loss, online=dynamics.power_gains)
    spectrum = 0.2 * 0.6 ** jnp.linspace(0, 7, options.modes)
    args = dynamics.FeatureParameters(online=1.0)
    times = jnp.linspace(0.0, END, RECORDS + 1)
    predicted = dynamics.solve(dynamics.mode_field(design), dynamics.Modes(spectrum), args, times)
    first, _ = dynamics.views_with_spectrum(jax.random.key(options.seed), options.samples, spectrum, spectrum)
    state = dynamics.ViewFeatures(first)
    simulated = descend(dynamics.feature_field(design), state, args, options.sizes, END / options.steps, rank)
    return {"time": times, "predicted": effective_rank(predicted.record.spectrum), "simulated": simulated.record}


def random_filters(loss: str, draws: int, seed: int) -> dict[str, list[float]]:
    """Of random spectra and low-pass gains in [0, 1]: the share that lowers the rank, in theory and in a step."""
    predicted, simulated = [], []
    for d in DIMENSIONS:
        rng = np.random.default_rng([seed, d])
        # modes beyond d are absent, so that one program serves all
        pair = np.zeros((2, draws, WIDTH))
        pair[0, :, :d] = -np.sort(-rng.exponential(size=(draws, d)), axis=-1)
        pair[1, :, :d] = -np.sort(-rng.uniform(size=(draws, d)), axis=-1)
        predicted.append(float(np.mean(np.asarray(theory_of(loss)(*pair)) < 0)))
        simulated.append(float(np.mean(rank_rates(loss, pair[1], pair[0]) < 0)))
    return {"predicted": predicted, "simulated": simulated}


@cache
def theory_of(loss: str) -> Callable[..., jax.Array]:
    """d erank/dt from spectra and gains."""

    def rate(spectrum: jax.Array, gains: jax.Array) -> jax.Array:
        return theory.effective_rank_rate(spectrum, theory.growth_rates(spectrum, online_gains=gains, loss=loss))

    return jax.jit(jax.vmap(rate))


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """The planes above, trajectories and frequencies below."""
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    planes = top.subplots(1, 2)
    limit = max(np.abs(np.array(plane, float)).max() for plane in data["planes"].values())
    for ax, loss in zip(planes, LOSSES, strict=True):
        image = map_of_signs(ax, data, loss, limit)
    top.colorbar(image, ax=list(planes), label="d erank/dt (1 / time)", shrink=0.9)
    left, right = bottom.subplots(1, 2)
    for colour, loss in zip(PALETTE, LOSSES, strict=False):
        path, falls = data["paths"][loss], data["falls"][loss]
        left.plot(path["time"], path["predicted"], color=colour, label=LABELS[loss])
        left.plot(path["time"][::5], path["simulated"][::5], "o", color=colour, markersize=3)
        right.plot(data["dimensions"], falls["predicted"], color=colour, label=LABELS[loss])
        right.plot(data["dimensions"], falls["simulated"], "o", color=colour, markersize=4)
    left.set(xlabel="time", ylabel="effective rank", title="g(s) = s, all gains below 1/2 at the start")
    right.set(
        xlabel="modes", ylabel="share that lowers the rank", title="random low-pass gains in [0, 1]", xscale="log"
    )
    right.set_xticks(data["dimensions"], map(str, data["dimensions"]), minor=False)
    right.minorticks_off()
    left.legend(loc="lower right")
    right.legend(loc="upper right")


def map_of_signs(ax: Axes, data: Mapping[str, Any], loss: str, limit: float) -> Any:
    """d erank/dt over the two gains; low-pass filters are those below the diagonal."""
    image = ax.pcolormesh(
        data["gain"], data["gain"], np.array(data["planes"][loss], float), cmap="PuOr", vmin=-limit, vmax=limit
    )
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.9)
    written = {"ha": "center", "va": "bottom", "fontsize": 7.5, "rotation_mode": "anchor"}
    ax.text(0.25, 0.27, "low-pass below", rotation=45, **written)
    if loss == "squared":
        ax.plot([0.5, 1], [0.5, 0], "k--")
        ax.text(0.77, 0.25, "T6: g1 + g2 = 1", rotation=-45, **written)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=LABELS[loss], xlabel="g1, of the larger eigenvalue")
    ax.set_ylabel("g2")
    return image


PART = Part(
    "losses",
    "Squared error against cosine",
    "Above: the speed of the effective rank of two modes (2, 1) under fixed gains, measured on features that take one "
    "short step; with the squared error a low-pass filter lowers it where g1 + g2 < 1. Below, left: a power filter "
    "from a small start. Below, right: how often random low-pass filters lower the rank. Lines: theory. Points: "
    "simulation. No noise.",
    compute,
    draw,
    (6.8, 6.0),
)
