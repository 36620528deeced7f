"""Gradient descent on features against the flow, and trajectories that leave an assumption: orders and figure of S9."""

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, ctx, fmpq

from proofs_numeric import _growth
from proofs_numeric._flow import flow
from rdm_jax import spectra
from rdm_jax.claims import Order, balls
from rdm_jax.dynamics import (
    FeatureDesign,
    FeatureParameters,
    Modes,
    ViewFeatures,
    descend,
    feature_field,
    mode_field,
    power_gains,
    ridge_gains,
)

COSINE = FeatureDesign(online=power_gains)
SAMPLE_COSINE = FeatureDesign(loss="sample cosine", online=power_gains)
POWER = FeatureParameters(online=1.0)
RATES, END = (1 / 32, 1 / 64, 1 / 128), 1.0


def _features(key):
    """8 batches of 6 samples with 3 features, each of norm 1 at least, so that no sample's own cosine is fast."""
    size, sign = jax.random.uniform(key, (2, 8, 6, 3))
    return (1 + size) * jnp.where(sign < 0.5, -1.0, 1.0) * jnp.array([1.0, 0.7, 0.4]).reshape(1, 1, 3)


def _against(exact, design, kept):
    """Errors (8, rates) of what ``kept`` keeps after gradient descent on features up to the end, g = s."""

    def measure(key, rates):
        steps = [round(END / rate) for rate in rates]

        def error(wanted, features, rate, end):
            options = {"learning_rate": rate, "steps": max(steps), "every": min(steps)}
            walk = descend(feature_field(design), ViewFeatures(features), POWER, **options)
            return jnp.linalg.norm(kept(walk.record.first[end]) - wanted)

        def errors(features):
            of_rate = jax.vmap(error, (None, None, 0, 0))
            return of_rate(exact(features), features, jnp.array(rates), jnp.array(steps) // min(steps))

        return jax.vmap(errors)(_features(key))

    return measure


def walk(rate):
    """Gradient descent for one step from one feature."""
    return descend(feature_field(COSINE), ViewFeatures(jnp.ones((2, 1))), POWER, learning_rate=rate, steps=1)


def _spectrum(features):
    return spectra.eigenvalues(spectra.second_moment(features))


def _mean_field(features):
    return flow(mode_field(COSINE), Modes(_spectrum(features)), POWER, [0.0, END], 64).spectrum[-1]


def _exact(features):
    return flow(feature_field(SAMPLE_COSINE), ViewFeatures(features), POWER, [0.0, END], 64).first[-1]


ORDERS = (
    Order(
        "S9 mean field",
        "gradient descent on features under the mean-field cosine follows the flow of the spectrum to O(eta)",
        1.0,
        RATES,
        _against(_mean_field, COSINE, _spectrum),
    ),
    Order(
        "S9 per-sample cosine",
        "gradient descent on features under each sample's own cosine follows the flow of the features to O(eta)",
        1.0,
        RATES,
        _against(_exact, SAMPLE_COSINE, lambda features: features),
    ),
)


PRECISION = 4096  # bits; every step widens the balls
ALPHA, STEP, COUNT = fmpq(3, 100), fmpq(1, 10), 1000


def _stepped(x, gains, noise, step):
    """One step of gradient descent on features under the mean-field cosine, online gains given, nu in each mode."""
    ones, signal = [1] * len(x), [value - noise for value in x]
    power = balls.total([g * g * value for g, value in zip(gains, x, strict=True)]) * balls.total(x)
    rates = _growth.table_rates(x, gains, ones, signal, _growth.COSINE)
    return [value * (1 + step * rate / power.sqrt()) ** 2 for value, rate in zip(x, rates, strict=True)]


def certified_overshoot():
    """A predictor that learns from almost 0 while (2, 1) moves: log erank before the eigenvalues cross, and after."""
    with ctx.workprec(PRECISION):
        x, gains, path = [arb(2), arb(1)], [arb(2) / 1000, arb(1) / 1000], []
        for _ in range(COUNT + 1):
            path.append(x)
            learned = [g + STEP * ALPHA * (value - value * g) for g, value in zip(gains, x, strict=True)]
            x, gains = _stepped(x, gains, 0, STEP), learned
        crossed = next(i for i, (first, second) in enumerate(path) if first < second)
        back = next(i for i, (first, second) in enumerate(path) if i > crossed and first > second)
        entropies = [balls.entropy(x) for x in path]
        lowest = min(entropies[crossed:back], key=lambda value: float(value.mid()))
        before = entropies[crossed - 1]
        changes = {"until they cross": before - entropies[0], "then": lowest - before}
        return {**_growth.certain_digits(changes), "steps to the crossing": crossed}


def certified_loss():
    """(3.4, 2.4, 1.5) under g = s^2 and nu = 1: the smallest mode grows at first, then sinks, and erank with it."""
    with ctx.workprec(PRECISION):
        path = [[arb(34) / 10, arb(24) / 10, arb(15) / 10]]
        for _ in range(90):
            path.append(_stepped(path[-1], path[-1], 1, 1))
        entropies = [balls.entropy(x) for x in path]
        highest = max(entropies, key=lambda value: float(value.mid()))
        changes = {"first step of the smallest": path[1][2] - path[0][2], "rise of log erank": highest - entropies[0]}
        return _growth.certain_digits({**changes, "then": entropies[-1] - highest, "above the noise": path[-1][2] - 1})


NOISY = FeatureDesign(online=power_gains, noise="persistent")
STARTS = {
    "all above $\\lambda^*$": ([4.0, 2.5, 2.2, 2.0], 2.0),
    "$\\theta(\\lambda_{min}) > \\kappa$": ([3.4, 2.4, 1.5, 0.0], 2.0),
    "all below $\\lambda^*$": ([1.24, 1.16, 1.12, 1.01], 5.3),
}


def _keep_spectrum(t, state, args):
    return state.spectrum


def _noisy_ranks():
    """erank over time, in units of the trace at the start, under g = s^a and persistent noise nu = 1."""
    starts, exponents = (jnp.array(values) for values in zip(*STARTS.values(), strict=True))

    def run(start, exponent):
        args = FeatureParameters(noise=1.0, online=exponent)
        rate = 0.02 * jnp.sum(start)
        walk = descend(
            mode_field(NOISY), Modes(start), args, learning_rate=rate, steps=2000, every=20, record=_keep_spectrum
        )
        return spectra.effective_rank(walk.record)

    return jax.jit(jax.vmap(run))(starts, exponents).tolist()


def _predictors():
    """(lambda_1 - lambda_2) / (lambda_1 + lambda_2) from (2, 1): a predictor with a ridge, and one that learns along."""
    start = jnp.array([2.0, 1.0])
    cases = {
        "ridge": (FeatureDesign(online=ridge_gains), Modes(start), FeatureParameters(online=1.0)),
        "learns along": (
            FeatureDesign(online="learned"),
            Modes(start, gains=start / 1000),
            FeatureParameters(predictor_rate=int(ALPHA.p) / int(ALPHA.q)),
        ),
    }
    curves = {}
    for name, (design, modes, args) in cases.items():
        walk = descend(mode_field(design), modes, args, learning_rate=0.05, steps=2000, every=10, record=_keep_spectrum)
        first, second = np.asarray(walk.record).T
        curves[name] = ((first - second) / (first + second)).tolist()
    return {"time": walk.times.tolist(), "curves": curves}


def record(seed):
    del seed  # nothing here is random
    ranks = dict(zip(STARTS, _noisy_ranks(), strict=True))
    return {
        "certified": {"learns along": certified_overshoot(), "theta of the last above kappa": certified_loss()},
        "time": (0.4 * np.arange(101)).tolist(),
        "ranks": ranks,
        "predictors": _predictors(),
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    for (name, ranks), style in zip(record["ranks"].items(), ("-", "--", ":"), strict=True):
        left.plot(record["time"], np.divide(ranks, ranks[0]), style, label=name)
    left.set(xlabel=r"time (units of $\Lambda$)", ylabel="effective rank (eig) over that at the start")
    left.legend()
    for (name, values), style in zip(record["predictors"]["curves"].items(), ("-", "--"), strict=True):
        right.plot(record["predictors"]["time"], values, style, label=name)
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="time $t$", ylabel=r"$(\lambda_1 - \lambda_2)/(\lambda_1 + \lambda_2)$")
    right.legend()
