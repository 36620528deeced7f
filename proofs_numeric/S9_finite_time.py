"""S9. The statements about an instant over finite time: which of their assumptions the flow keeps, step by step."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flint import arb

from proofs_numeric import _common, _growth, _trajectories
from rdm_jax import spectra, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    Stratum,
    at_least,
    balls,
    families,
    nonincreasing,
    on,
)
from rdm_jax.claims.predicates import is_exact
from rdm_jax.types import Array

STEPS = 3


class Descent(NamedTuple):
    """Eigenvalues (descending), |a|, noise nu, learning rate eta, gains of old, and how much of them is remembered.

    ``side`` 1: online filter g = s^|a|, -1: target filter h = s^-|a|; ``squared`` 1: squared error, 0: cosine.
    """

    spectrum: Array
    strength: Array
    noise: Array
    rate: Array
    old: Array
    memory: Array
    side: Array
    squared: Array


class RawDescent(NamedTuple):
    """Free parameters of a `Descent`: ``room`` of the smallest eigenvalue, ``part`` of the largest learning rate."""

    spectrum: families.Sequence
    old: families.Sequence
    log_strength: Array
    room: Array
    part: Array
    memory: Array
    noisy: Array
    side: Array
    squared: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    old = families.sample_spectrum(tape, d)
    scalars = [tape.scalar(*bounds) for bounds in ((-2.0, 1.2), (-1.0, 2.0), (-4.0, 4.0), (0.0, 1.0))]
    side, squared = 2 * tape.integer(0, 2) - 1, tape.integer(0, 2)
    return RawDescent(spectrum, old, *scalars, tape.scalar() < 0.5, side, squared)


def build(raw, dropped):
    shape, a = families.descending(raw.spectrum), jnp.exp(jnp.clip(raw.log_strength, -2.0, 1.2))
    smallest, room = shape[raw.spectrum.keep - 1], jnp.maximum(raw.room, 0.0) ** 2
    half = (raw.squared > 0) & (raw.side > 0)
    above = jnp.where(dropped["gains below a half"], -(raw.room**2), room)
    spectrum = jnp.where(half, shape / smallest * 0.5 ** (2 / a) * jnp.exp(above), shape)
    share = jnp.where(dropped["noise above the level"], a + 2 - 2 * jnp.exp(-room), a * jnp.exp(-room)) / (a + 2)
    allowed = (raw.squared == 0) | dropped["noise and squared error"] & (raw.side < 0)
    noise = jnp.where(raw.noisy & allowed & ~dropped["the wrong way"], share * smallest, 0.0)
    squared = jnp.where(dropped["the wrong way"], 0, raw.squared)
    rate = jax.nn.sigmoid(raw.part) * largest_rate(spectrum, a, raw.side, squared)
    rate = rate * jnp.where(dropped["long steps"], jnp.exp(8 * jnp.abs(raw.memory)), 1.0)
    memory = jnp.where(dropped["a filter that remembers"], jnp.clip(raw.memory, 0.0, 1.0), 0.0)
    fall = families.descending(raw.old)
    old = jnp.where(raw.side > 0, fall / fall[0], fall[0] / jnp.maximum(fall, 1e-6 * fall[0]))
    strength = jnp.where(dropped["the wrong way"], -a, a)
    return Descent(spectrum, strength, noise, rate, old, memory, raw.side, squared)


def largest_rate(spectrum, strength, side, squared):
    """Up to here a learning rate is small enough for all steps, by the spectrum at the start alone."""
    last = jnp.maximum(jnp.sum(spectrum > 0) - 1, 0)
    ratio = (spectrum[last] / spectrum[0]) ** strength
    cosine = jnp.sum(spectrum) * ratio / ((1 + 2 * strength) * jnp.sum(spectrum > 0) ** 1.5)
    first = jnp.maximum(spectrum[0] ** (strength / 2), 1.0)
    smallest = jnp.maximum(spectrum[last] ** (-strength / 2), 1.0)
    error = jnp.where(side > 0, 1 / ((1 + 2 * strength) * first**2), 1 / (1 + strength * smallest))
    return jnp.where(squared > 0, error, cosine)


def path(c):
    """The spectrum at the start and after each step, (STEPS + 1, d)."""
    alive = c.spectrum > 0

    def step(state, _):
        spectrum, old = state
        own = jnp.where(alive, spectrum, 1.0) ** (c.side * c.strength / 2)
        gains = c.memory * old + (1 - c.memory) * own
        online, target = jnp.where(c.side > 0, gains, 1.0), jnp.where(c.side > 0, 1.0, gains)
        signal = jnp.where(alive, spectrum - c.noise, 0.0)
        rates = theory.growth_rates(spectrum, online_gains=online, target_gains=target, signal=signal)
        power = jnp.sum(online**2 * spectrum)
        kappa = jnp.sum(online * target * signal) / power
        cosine = rates / jnp.sqrt(power * jnp.sum(target**2 * spectrum))
        squared = rates + (kappa - 1) * online**2  # two calls of the library would cost twice as much
        later = spectrum * (1 + c.rate * jnp.where(c.squared > 0, squared, cosine)) ** 2
        return (later, gains), later

    later = jax.lax.scan(step, (c.spectrum, c.old), None, length=STEPS)[1]
    return jnp.concatenate([c.spectrum[None], later])


def margin(c):
    walk = path(c)
    alive = c.spectrum > 0
    logs = jnp.log(jnp.where(alive[None], walk, 1.0))
    pairs = alive[1:]
    gaps = jnp.where(pairs[None], logs[1:, :-1] - logs[1:, 1:], jnp.inf)
    order = jnp.where(pairs[0], jnp.min(gaps), 0.0)
    extremes = logs[:, 0] - logs[:, jnp.maximum(jnp.sum(alive) - 1, 0)]
    ranks = jnp.log(spectra.effective_rank(walk))
    return jnp.stack([order, jnp.min(jnp.diff(ranks)), jnp.min(-jnp.diff(extremes))])


def ball_path(c):
    alive = balls.support(c.spectrum)
    x, gains, ones = [c.spectrum[i] for i in alive], [c.old[i] for i in alive], [arb(1)] * len(alive)
    out = [x]
    for _ in range(STEPS):
        own = [v ** (c.side * c.strength / 2) for v in x]
        gains = [c.memory * a + (1 - c.memory) * b for a, b in zip(gains, own, strict=True)]
        online, target = (gains, ones) if c.side > 0 else (ones, gains)
        loss = _growth.SQUARED if c.squared else _growth.COSINE
        rates = _growth.table_rates(x, online, target, [v - c.noise for v in x], loss)
        powers = [balls.total([g * g * v for g, v in zip(side, x, strict=True)]) for side in (online, target)]
        factor = arb(1) if c.squared else 1 / (powers[0] * powers[1]).sqrt()
        x = [v * (1 + c.rate * factor * r) ** 2 for v, r in zip(x, rates, strict=True)]
        out.append(x)
    return out


def ball_margin(c):
    steps = ball_path(c)
    order = _common.least([(a / b).log() for x in steps[1:] for a, b in itertools.pairwise(x)])
    rises = [balls.entropy(b) - balls.entropy(a) for a, b in itertools.pairwise(steps)]
    extremes = [(x[0] / x[-1]).log() for x in steps]
    falls = [a - b for a, b in itertools.pairwise(extremes)]
    return [order, _common.least(rises), _common.least(falls)]


def distance(c):
    """The smallest gap at the start; how far the shares move in the step in which they move least, squared and not."""
    shares = path(c)
    shares = shares / jnp.sum(shares, axis=1, keepdims=True)
    moved = jnp.min(jnp.sum(jnp.abs(jnp.diff(shares, axis=0)), axis=1))
    logs = jnp.log(jnp.where(c.spectrum > 0, c.spectrum, 1.0))
    gaps = jnp.where(c.spectrum[1:] > 0, logs[:-1] - logs[1:], jnp.inf)
    return jnp.stack([jnp.where(c.spectrum[1] > 0, jnp.min(gaps), 0.0), moved**2, moved])


def equality(c):
    x = [c.spectrum[i] for i in balls.support(c.spectrum)]
    flat = _common.constant(x)
    return [flat or any(a == b for a, b in itertools.pairwise(x)), flat, flat]


def _at_least_half(c):
    """g >= 1/2 on the support, where that is assumed: squared error, online."""
    if is_exact(c.spectrum):
        gains = [arb(x) ** (arb(c.strength) / 2) for x in c.spectrum if x != 0]
        return c.squared == 0 or c.side < 0 or all(2 * gain >= 1 for gain in gains)
    gains = jnp.where(c.spectrum > 0, c.spectrum, 1.0) ** (c.strength / 2)
    return at_least(2 * gains, 1) | (c.squared == 0) | (c.side < 0)


def _small_steps(c):
    """0 < eta <= `largest_rate`."""
    if not is_exact(c.spectrum):
        bound = largest_rate(c.spectrum, abs(c.strength), c.side, c.squared)
        return (c.rate > 0) & at_least(bound, c.rate)
    x, a = [arb(value) for value in c.spectrum if value != 0], abs(arb(c.strength))
    if not c.squared:
        bound = balls.total(x) * (x[-1] / x[0]) ** a / ((1 + 2 * a) * arb(len(x)) ** arb(1.5))
    elif c.side > 0:
        bound = 1 / ((1 + 2 * a) * (x[0] ** (a / 2)).max(arb(1)) ** 2)
    else:
        bound = 1 / (1 + a * (x[-1] ** (-a / 2)).max(arb(1)))
    return bool(c.rate > 0) and bool(arb(c.rate) <= bound)


def _above_the_level(c):
    level = at_least(c.strength * c.spectrum, (c.strength + 2) * c.noise) | ~on(c.spectrum)
    return (c.noise >= 0) & (level | (c.noise == 0))


DESCENT = Claim(
    name="S9",
    statement=(
        f"Gradient descent under a power filter, {STEPS} steps with a learning rate that the spectrum at the start allows: "
        "in each the order is kept, erank rises and the extremes come closer."
    ),
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("the right way", "g = s^|a| online, or h = s^-|a| on the target", lambda c: c.strength > 0),
        Hypothesis("above lambda*", "no noise, or all lambda >= nu (1 + 2/|a|) at the start", _above_the_level),
        Hypothesis(
            "noise with the cosine only", "nu = 0 with squared error", lambda c: (c.noise == 0) | (c.squared == 0)
        ),
        Hypothesis("at least a half", "squared error, online: g >= 1/2 at the start", _at_least_half),
        Hypothesis("small steps", "0 < eta <= its bound at the start", _small_steps),
        Hypothesis("no memory", "the filter follows the spectrum", lambda c: c.memory == 0),
    ),
    conclusions=(
        Conclusion("order kept", 1e-12),
        Conclusion("erank rises in every step", 1e-12),
        Conclusion("the extremes come closer in every step", 1e-12),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("the wrong way", "high-pass online, low-pass on the target", drops=("the right way",)),
        Ablation("noise above the level", "lambda >= nu only", drops=("above lambda*",)),
        Ablation(
            "noise and squared error", "a noisy target with the squared error", drops=("noise with the cosine only",)
        ),
        Ablation("gains below a half", "any gains", drops=("at least a half",)),
        Ablation("long steps", "up to exp(8) times the bound", drops=("small steps",)),
        Ablation(
            "a filter that remembers", "part of the filter is an older low-pass one of each mode", drops=("no memory",)
        ),
    ),
    domain=(DomainCondition("finite rate", lambda: _trajectories.walk(jnp.inf)),),
    strata=(Stratum((2, 3, 4), 4, 0.79), Stratum((32,), 32, 0.21, searched=False)),
)

STATEMENT = Statement(
    name="S9",
    title="finite time",
    text=(
        "Features free, the filter a fixed locally Lipschitz function of lambda that follows C_z, isotropic noise or "
        "none: eigenvalues never cross and ties stay, as lambda' is one function of lambda for all modes. The "
        "assumptions of the following hold at every time if they do at the start, so that erank is monotone along the "
        "whole flow: T5 and T7 without noise; T6 with g >= share/2, as modes below g = share grow and those above "
        "shrink to it; T9, and T7 with noise under the cosine, with lambda_min >= lambda* = nu (1 + 2/|a|), as the "
        "last mode has the largest theta and never shrinks; T4 at repeated steps, whatever their eta in [0, 1]; S3; S2 "
        "for a ridge, or a predictor trained for a fixed while on the present features, whatever the noise does, as "
        "nothing is asked of the spectrum. T8 has its closed form. The flow leaves the other assumptions: under T6 "
        "with g <= share/2 erank falls and, for powers, later rises (S6); with all lambda <= lambda* it falls at "
        "first, and may rise once modes are lost; with theta(lambda_min) >= kappa (T9) it rises, but kappa may "
        "overtake: (3.4, 2.4, 1.5), nu = 1, g = s^2 loses its last mode (certified); with noise on the target's side "
        "and the squared error lambda_min >= lambda* stays only if h m/lambda >= 1 at lambda*. A filter with memory "
        "keeps nothing: a predictor that learns along (g' = alpha (m - lambda g)) lags behind its own optimum, "
        "eigenvalues cross, and erank falls; from (2, 1), without noise, alpha = .03, it does (certified). Gradient "
        "descent with powers g = s^a or h = s^-a, a > 0, raises erank in every step, with the order kept and "
        "lambda_1/lambda_d falling, if eta <= Lambda (lambda_d/lambda_1)^a/((1 + 2a) d^(3/2)) (cosine, with lambda_d "
        ">= lambda*), 1/((1 + 2a) max(1, g_1)^2) (squared error online, g >= 1/2) or 1/(1 + a max(1, h_d)) (target), d "
        "the number of modes on the support: bounds at the start, which do not shrink on the way. As eta falls, it "
        "follows the flow to O(eta)."
    ),
    source=(
        "Uniqueness for lambda_i' = F(lambda_i; t). Steps: lambda (1 + eta f r)^2. Order: s (1 + eta f r(s)) "
        "increases. On the target's side 1 + eta f r falls with lambda, so L1 applies; so it does for the squared "
        "error with g >= 1/2. Online cosine: S7, whose third condition follows from E_q[r^2] <= 2 max|r| E_q[r_+] and "
        "r_i <= (g_i/g_d)^2 r_d, its first two from f kappa g_1^2 <= (Lambda/lambda_1)^(3/2)/Lambda. The trace does "
        "not fall, nor does g_d/g_1."
    ),
    not_checked=(
        "Filters other than powers, and flows: by the source. That S2, S3 and T4 need nothing of the spectrum is their "
        "own claim. Other step sizes: the bounds are sufficient, not sharp. Stochastic gradients."
    ),
    claims=(DESCENT,),
    orders=_trajectories.ORDERS,
    figure=Figure(
        caption=(
            "Assumptions that the flow keeps, and some it leaves. Left: g = s^a, cosine, noise nu = 1: effective rank "
            "over its value at the start, for spectra above and below lambda* and one whose last mode grows at first. "
            "Right: two eigenvalues without noise, under a predictor with ridge 1 and one that learns along from "
            "almost 0 (alpha = .03)."
        ),
        record=_trajectories.record,
        draw=_trajectories.draw,
    ),
)
