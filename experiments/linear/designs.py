"""The designs of the experiment, and their predicted and simulated runs, which several parts look at.

Predictions are the mode equations, started from the population's numbers. Simulations are gradient descent on finite
samples that were drawn at random, one draw a seed. Settings that share a design compile once, as one family.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rdm_jax import dynamics, spectra
from rdm_jax.dynamics import FeatureDesign, LagParameters, LinearDesign, Statistics
from rdm_jax.experiment import Tell

LEVELS = FEATURES, BRANCHES = "free features", "linear branches"
PERSISTENT_NOISE, FREE_NOISE = 0.02, 0.15  # variances, beside a largest m of 2
WEIGHT_DECAY = 0.04
RECORDS = 100
DONE = 1e6  # progress of a predictor that has been trained to the end, in the unit of 1 / lambda


class Sizes(NamedTuple):
    """How large the runs are: modes d, samples n, seeds, discrete steps, and the steps from one record to the next."""

    modes: int
    samples: int
    seeds: int
    steps: int
    every: int
    seed: int


class Observed(NamedTuple):
    """Recorded of a simulation: statistics, E[z z^T], and the growth rates that theory gives the measured state."""

    statistics: Statistics
    moment: jax.Array
    rates: jax.Array


class Run(NamedTuple):
    """One setting at T times: the prediction (T, ...), and the simulations (seeds, T, ...)."""

    name: str
    level: str
    times: np.ndarray
    predicted: Statistics
    simulated: Observed


class Family(NamedTuple):
    """Settings of one design: their names, the time to run to, and what predicts and simulates all of them."""

    names: tuple[str, ...]
    level: str
    horizon: float
    predict: Callable[[Sizes, jax.Array], dynamics.Solution]
    simulate: Callable[[Sizes, jax.Array, float], dynamics.Solution]


def runs(options: Any, tell: Tell, *levels: str) -> Iterator[Run]:
    """All settings of the designs that the options name, at the given levels; computed once for equal sizes."""
    chosen = [name for name in options.designs or FAMILIES if FAMILIES[name].level in (levels or LEVELS)]
    for number, name in enumerate(chosen):
        tell(name, number / len(chosen))
        yield from family_runs(FAMILIES[name], options.sizes)


@cache
def family_runs(family: Family, sizes: Sizes) -> list[Run]:
    """Prediction and simulation of the settings of a family."""
    times = jnp.linspace(0.0, family.horizon, RECORDS + 1)
    keys = jax.random.split(jax.random.key(sizes.seed), sizes.seeds)
    predicted = dynamics.require_success(family.predict(sizes, times))
    simulated = dynamics.require_success(family.simulate(sizes, keys, family.horizon / sizes.steps))
    pick = [
        jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), (predicted.record, simulated.record))
        for i in range(len(family.names))
    ]
    return [Run(name, family.level, np.asarray(times), *found) for name, found in zip(family.names, pick, strict=True)]


# ------------------------------------------------------------------------------------------------------ feature flow


def population(modes: int) -> jax.Array:
    """m: what the views share, a geometric sequence from 2 to about 0.06."""
    return 2 * 0.6 ** jnp.linspace(0, 7, modes)


def rotation(key: jax.Array, size: int) -> jax.Array:
    """A random orthogonal matrix."""
    return jnp.linalg.qr(jax.random.normal(key, (size, size)))[0]


def drawn_views(key: jax.Array, sizes: Sizes, noise: float) -> tuple[jax.Array, jax.Array]:
    """Two views of normal data with the population's m, in a random basis, with noise of its own each."""
    data, first, second, basis = jax.random.split(key, 4)
    shape = (sizes.samples, sizes.modes)
    clean = jax.random.normal(data, shape) * jnp.sqrt(population(sizes.modes))[None]
    views = (clean + noise**0.5 * jax.random.normal(k, shape) for k in (first, second))
    turn = rotation(basis, sizes.modes)
    return tuple(view @ turn.T for view in views)


def feature_family(
    names: tuple[str, ...],
    design: FeatureDesign,
    horizon: float,
    *,
    online: Any = (),
    target: Any = (),
    simulated: FeatureDesign | None = None,
) -> Family:
    """Settings of a design on free features; ``online`` and ``target`` have one entry a setting."""
    noise = FREE_NOISE if design.noise == "free" else PERSISTENT_NOISE
    acting = simulated or design
    start = 0.1 if design.learns_predictor else None
    settings = (np.arange(len(names)), online, target)

    def parameters(online: Any, target: Any) -> dynamics.FeatureParameters:
        return dynamics.FeatureParameters(noise if design.noise == "persistent" else 0.0, online, target)

    def predict(sizes: Sizes, times: jax.Array) -> dynamics.Solution:
        signal = population(sizes.modes)
        gains = None if start is None else jnp.full(sizes.modes, start)
        state = dynamics.Modes(signal + noise, signal if design.noise == "free" else None, gains)
        field, record = dynamics.mode_field(design), dynamics.mode_statistics(design)
        return over(lambda _, *a: dynamics.solve(field, state, parameters(*a), times, record=record), *settings)

    def simulate(sizes: Sizes, keys: jax.Array, rate: float) -> dynamics.Solution:
        def one(key: jax.Array, online: Any, target: Any) -> dynamics.Solution:
            first, second = drawn_views(key, sizes, noise)
            predictor = None if start is None else start * jnp.eye(sizes.modes)
            state = dynamics.ViewFeatures(first, second if design.noise == "free" else None, predictor)
            return descend(dynamics.feature_field(acting), state, parameters(online, target), sizes, rate, record)

        return over(lambda _, *a: over(lambda key: one(key, *a), keys), *settings)

    statistics = dynamics.feature_statistics(acting)

    def record(t: Any, state: dynamics.ViewFeatures, args: dynamics.FeatureParameters) -> Observed:
        found = statistics(t, state, args)
        return Observed(found, state.first.T @ state.first / len(state.first), found.rates)

    return Family(names, FEATURES, horizon, predict, simulate)


# --------------------------------------------------------------------------------------------------- linear branches


def inputs(modes: int) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues x of X and xi of X': strong directions of the data have little view noise."""
    return jnp.linspace(1.0, 0.6, modes), jnp.linspace(0.1, 0.5, modes)


def branch_start(design: LinearDesign, modes: int) -> dynamics.Eigenmodes:
    """Balanced modes, the encoder's a geometric sequence from 0.5 to about 0.014."""
    encoder = 0.5 * 0.6 ** jnp.linspace(0, 7, modes)
    balanced = dynamics.balanced_eigenmodes(encoder)
    ratio = jnp.ones(modes) if design.target == "average" else None
    return dynamics.Eigenmodes(balanced.predictor if design.learns_predictor else None, encoder, ratio)


def branch_family(name: str, design: LinearDesign, horizon: float, **numbers: float) -> Family:
    """One linear dual-branch design; ``numbers`` are parameters other than the data's."""
    numbers = {"weight_decay": WEIGHT_DECAY, **numbers}

    def predict(sizes: Sizes, times: jax.Array) -> dynamics.Solution:
        signal, noise = inputs(sizes.modes)
        args = dynamics.EigenmodeParameters(signal=signal, noise=noise, **numbers)
        field, record = dynamics.eigenmode_field(design), dynamics.eigenmode_statistics(design)
        start = branch_start(design, sizes.modes)
        return over(lambda _: dynamics.solve(field, start, args, times, record=record), np.arange(1))

    def simulate(sizes: Sizes, keys: jax.Array, rate: float) -> dynamics.Solution:
        def one(key: jax.Array) -> dynamics.Solution:
            views, left, right = jax.random.split(key, 3)
            turns = rotation(left, sizes.modes), rotation(right, sizes.modes)
            args = dynamics.SampleParameters(*drawn_inputs(views, sizes, turns[1]), **numbers)
            state = dynamics.aligned_branches(branch_start(design, sizes.modes), *turns)
            return descend(dynamics.sample_branch_field(design), state, args, sizes, rate, record)

        return over(lambda _: over(one, keys), np.arange(1))

    statistics = dynamics.branch_statistics(design)

    def record(t: Any, state: dynamics.Branches, args: dynamics.SampleParameters) -> Observed:
        moment = state.encoder @ args.first.T @ args.first @ state.encoder.T / len(args.first)
        return Observed(statistics(t, state, args), moment, branch_rates(design, state, args))

    return Family((name,), BRANCHES, horizon, predict, simulate)


def drawn_inputs(key: jax.Array, sizes: Sizes, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two views x of normal data with X = V diag(x) V^T and X' = V diag(xi) V^T."""
    data, *noises = jax.random.split(key, 3)
    shape, (signal, noise) = (sizes.samples, sizes.modes), inputs(sizes.modes)
    clean = jax.random.normal(data, shape) * jnp.sqrt(signal)[None]
    return tuple((clean + jax.random.normal(k, shape) * jnp.sqrt(noise)[None]) @ basis.T for k in noises)


def branch_rates(design: LinearDesign, state: dynamics.Branches, args: dynamics.SampleParameters) -> jax.Array:
    """Theory's growth rates at a measured state, mode by mode in the eigenbasis of E[z z^T].

    r_i = a_i f p_i (tau_i m_i / lambda_i - kappa p_i) - eta: those of the feature flow, times the variance a_i =
    lambda_i / s_i of the inputs that feed the mode, less weight decay.
    """
    first, second = (view @ state.encoder.T for view in (args.first, args.second))
    moment, cross = first.T @ first / len(first), second.T @ first / len(first)
    values, vectors = spectra.eigensystem(moment)

    def diagonal(matrix: jax.Array) -> jax.Array:
        return jnp.sum(vectors * (matrix @ vectors), axis=0)

    shared = diagonal(cross)
    size = diagonal(state.encoder @ state.encoder.T)
    target = args.target_ratio * state.encoder if state.target is None else state.target
    pull = diagonal(target @ args.second.T @ first / len(first))
    ratio = pull / shared
    predictor = jnp.ones_like(values)
    if state.predictor is not None:
        predictor = diagonal(state.predictor)
    elif callable(design.predictor):
        predictor = design.predictor(values, jnp.maximum(shared, 0), args.predictor)
    kappa, factor = 1.0, 1.0
    if design.loss == "cosine":
        energy = jnp.sum(predictor**2 * values)
        kappa = jnp.sum(predictor * pull) / energy
        factor = 1 / jnp.sqrt(energy * jnp.sum(ratio**2 * values))
    lead = 1.0 if design.isotropic else predictor
    rates = factor * lead * (pull / values - kappa * predictor)
    if not design.stop_gradient:
        rates = rates + args.target_ratio * (predictor * shared / values - args.target_ratio)
    return values / size * rates - args.weight_decay


# ------------------------------------------------------------------------------------------------------------ shared


def over(run: Callable[..., Any], *settings: Any) -> Any:
    """Run with each entry of the settings' leading axes, all in one compiled program."""
    return jax.jit(jax.vmap(run))(*jax.tree.map(jnp.asarray, settings))


def descend(field: Any, state: Any, args: Any, sizes: Sizes, rate: float, record: Any) -> dynamics.Solution:
    """Gradient descent as all simulations here do it."""
    return dynamics.descend(field, state, args, learning_rate=rate, steps=sizes.steps, every=sizes.every, record=record)


def _filters(loss: str) -> Family:
    names = ("symmetric", "online s", "target 1/√s")
    design = FeatureDesign(loss, online=dynamics.power_gains, target=dynamics.power_gains, noise="persistent")
    return feature_family(
        tuple(f"{name}, {loss}" for name in names),
        design,
        {"cosine": 30.0, "squared": 8.0}[loss],
        online=np.array([0.0, 1.0, 0.0]),
        target=np.array([0.0, 0.0, -0.5]),
    )


def _sampled(names: tuple[str, ...], branch: Any, horizon: float, **settings: Any) -> Family:
    """Both views free, each sample's cosine in the simulation; the prediction is the mean field's."""
    exact, mean_field = (FeatureDesign(loss, online=branch, noise="free") for loss in ("sample cosine", "cosine"))
    return feature_family(names, mean_field, horizon, simulated=exact, **settings)


def _lagging() -> Family:
    return feature_family(
        ("lagging predictor, cosine", "ridge predictor, cosine"),
        FeatureDesign("cosine", online=dynamics.lagging_gains, noise="persistent"),
        30.0,
        online=LagParameters(ridge=np.array([0.0, 0.3]), progress=np.array([1.0, DONE])),
    )


FAMILIES: Mapping[str, Family] = {
    "filters-cosine": _filters("cosine"),
    "filters-squared": _filters("squared"),
    "learned": feature_family(
        ("learned predictor, cosine",), FeatureDesign("cosine", online="learned", noise="persistent"), 30.0
    ),
    "shrinking": _lagging(),
    "filters-sample": _sampled(
        ("symmetric, each sample", "online s, each sample"), dynamics.power_gains, 30.0, online=np.array([0.0, 1.0])
    ),
    "learned-sample": _sampled(("learned predictor, each sample",), "learned", 30.0),
    "linear": branch_family("learned predictor", LinearDesign(), 60.0),
    "linear-ema": branch_family("learned predictor, EMA target", LinearDesign(target="average"), 60.0, target_rate=0.1),
    "linear-cosine": branch_family("learned predictor, cosine", LinearDesign(loss="cosine"), 30.0, weight_decay=0.0),
    "directpred": branch_family(
        "DirectPred, cosine",
        LinearDesign(predictor=dynamics.direct_pred_gains, loss="cosine"),
        30.0,
        weight_decay=0.0,
        predictor=0.01,
    ),
    "directcopy": branch_family("DirectCopy", LinearDesign(predictor=dynamics.direct_copy_gains), 60.0, predictor=0.05),
    "isoloss": branch_family(
        "IsoLoss", LinearDesign(predictor=dynamics.isoloss_gains, isotropic=True), 30.0, predictor=0.5
    ),
    "isoloss-cosine": branch_family(
        "IsoLoss, cosine",
        LinearDesign(predictor=dynamics.isoloss_gains, isotropic=True, loss="cosine"),
        30.0,
        weight_decay=0.0,
        predictor=0.5,
    ),
    "no-predictor": branch_family("no predictor", LinearDesign(predictor="none"), 20.0),
    "no-stop-gradient": branch_family("no stop-gradient", LinearDesign(stop_gradient=False), 10.0),
}
