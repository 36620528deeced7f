"""S4. How large the rank difference of a low-pass online filter is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from proofs_numeric import _common
from rdm_jax import plotting, spectra, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Order,
    Statement,
    balls,
    families,
    nearly_nonincreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues of the target (descending), gains of a low-pass filter, and gains in no order (for the identity)."""

    spectrum: Array
    gains: Array
    any_gains: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``passes`` says where the filter in no order is not 0."""

    spectrum: families.Sequence
    gains: families.Sequence
    any_gains: Array
    passes: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    gains = families.sample_filter(tape, spectrum, d)
    passes = (tape.vector() < 0.9) | (jnp.arange(tape.width) == 0)
    return Raw(spectrum, gains, tape.scalar(0.0, 3.0) * logistic(tape.vector()), passes)


def build(raw, dropped):
    gains = families.descending(raw.gains)
    gains = jnp.where(dropped["any order"], families.unordered(raw.gains), gains)
    gains = jnp.where(dropped["one gain 1% out of order"], families.out_of_order(gains, raw.gains), gains)
    return Instance(families.descending(raw.spectrum), gains, jnp.where(raw.passes, jnp.exp(raw.any_gains), 0.0))


def distributions(spectrum, gains):
    """q_t and q_p, of equal shapes."""
    filtered = gains**2 * spectrum
    return tuple(x / jnp.sum(x, axis=-1, keepdims=True) for x in (jnp.broadcast_to(spectrum, filtered.shape), filtered))


def log_rank_difference(spectrum, gains):
    filtered = gains**2 * spectrum
    ranks = spectra.effective_rank(jnp.stack([jnp.broadcast_to(spectrum, filtered.shape), filtered]))
    return jnp.log(ranks[0] / ranks[1])


def margin(c):
    spectrum, gains = jnp.stack([c.spectrum, c.spectrum]), jnp.stack([c.gains, c.any_gains])
    target, online = distributions(spectrum, gains)
    kl, covariance = theory.rank_difference_decomposition(spectrum, gains)
    difference = log_rank_difference(spectrum, gains)
    pinsker = difference[0] - jnp.sum(jnp.abs(online[0] - target[0])) ** 2 / 2
    residual = difference[1] - (kl[1] + covariance[1])
    return jnp.stack([pinsker, covariance[0], kl[0], -jnp.abs(residual) / (1 + kl[1] + jnp.abs(covariance[1]))])


def ball_terms(spectrum, gains):
    """KL(q_p || q_t), Cov_{q_t}(w, log lambda) / E_{q_t}[w], the log-rank difference and ||q_p - q_t||_1."""
    alive = balls.support(spectrum)
    target = balls.normalised(spectrum)
    weights = [gains[i] ** 2 for i in alive]
    online = [w * q for w, q in zip(weights, target, strict=True)]
    mass = balls.total(online)
    online = [value / mass for value in online]
    kl = balls.total([p * (p / t).log() for p, t in zip(online, target, strict=True) if p != 0])
    covariance = balls.covariance(target, weights, [spectrum[i].log() for i in alive]) / mass
    difference = balls.entropy(target) - balls.entropy(online)
    return kl, covariance, difference, balls.total([abs(p - t) for p, t in zip(online, target, strict=True)])


def ball_margin(c):
    kl, covariance, difference, gap = ball_terms(c.spectrum, c.gains)
    any_kl, any_covariance, any_difference, _ = ball_terms(c.spectrum, c.any_gains)
    residual = any_difference - any_kl - any_covariance
    return [difference - gap * gap / 2, covariance, kl, residual / (1 + any_kl + abs(any_covariance))]


def distance(c):
    """With V = ||q_p - q_t||_1: KL >= V^2 / 2 + V^4 / 36, and the covariance as in `_common.joint_spread`."""
    target, online = distributions(c.spectrum, c.gains)
    gap = jnp.sum(jnp.abs(online - target))
    logs = jnp.log(jnp.where(c.spectrum > 0, c.spectrum, 1.0))
    weights = c.gains**2 / jnp.sum(c.gains**2 * target)
    return jnp.stack([gap**4, _common.joint_spread(weights, logs, target), gap**2, jnp.ones(())])


def equality(c):
    alive = balls.support(c.spectrum)
    constant = _common.constant([c.gains[i] for i in alive])
    return [constant, constant or _common.constant([c.spectrum[i] for i in alive]), constant, None]


def sharpness(key, sizes):
    """(log-rank difference) / ||q_p - q_t||_1^2 - 1/2 for two bands of equal mass and gains sqrt(1 +- delta)."""
    uniform = jax.random.uniform(key, (64, 9), minval=0.5)
    heights = -jnp.sort(uniform[:, :8], axis=1)

    def error(amplitude, height, size):
        delta = size * amplitude
        spectrum = jnp.exp(delta**3 * height)
        gains = jnp.sqrt(1 + delta * jnp.where(jnp.arange(8) < 4, 1.0, -1.0))
        target, online = distributions(spectrum, gains)
        return log_rank_difference(spectrum, gains) / jnp.sum(jnp.abs(online - target)) ** 2 - 0.5

    over_sizes = jax.vmap(error, in_axes=(None, None, 0))
    return jax.vmap(over_sizes, in_axes=(0, 0, None))(uniform[:, 8], heights, jnp.asarray(sizes))


def record(seed):
    """Log-rank differences of random low-pass filters, their KL part, and Pinsker's bound."""
    random, modes = np.random.default_rng(seed), np.repeat([2, 8, 32], 60)[:, None]
    alive = np.arange(32) < modes

    def fall(reach):
        return np.exp(-np.sort(random.exponential(1.0, alive.shape), axis=1) * random.uniform(0, reach, modes.shape))

    spectrum, gains = fall(3.0) * alive, fall(1.0)

    def rows(spectrum, gains):
        target, online = distributions(spectrum, gains)
        terms = theory.rank_difference_decomposition(spectrum, gains)
        return jnp.sum(jnp.abs(online - target), axis=-1) ** 2 / 2, terms.kl, log_rank_difference(spectrum, gains)

    bound, kl, difference = (column.tolist() for column in jax.jit(rows)(spectrum, gains))
    return {"modes": modes[:, 0].tolist(), "bound": bound, "kl": kl, "log_rank_difference": difference}


def draw(figure, record):
    axes = figure.subplots()
    modes, bound, kl, difference = (np.array(record[k]) for k in ("modes", "bound", "kl", "log_rank_difference"))
    for number, colour, marker in zip(np.unique(modes), plotting.PALETTE, "osv", strict=False):
        mine = modes == number
        axes.loglog(bound[mine], difference[mine], marker, ms=4, color=colour, label=f"d = {number}")
        axes.loglog(bound[mine], kl[mine], "_", ms=6, color=colour)
    ends = [bound.min(), bound.max()]
    axes.loglog([], [], "_", color="grey", label="its KL part")
    axes.loglog(ends, ends, "k-", lw=1, label="Pinsker's bound")
    axes.set_xlabel(r"half the squared distance, $\frac{1}{2}\|q_p - q_t\|_1^2$")
    axes.set_ylabel("log erank(target) - log erank(online)  (nats)")
    axes.legend()


LOW_PASS = Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.gains, on(c.spectrum)))
NEARLY_LOW_PASS = Hypothesis(
    "nearly low-pass", "low-pass within 1%", lambda c: nearly_nonincreasing(c.gains, on(c.spectrum))
)

STATEMENT = Statement(
    name="S4",
    title="size of the rank difference",
    text=(
        "Let the online output be the target's features under gains g >= 0, not all 0 on the support, and w = g^2. Then, "
        "for eigenvalues, log erank(target) - log erank(online) = KL(q_p || q_t) + Cov_{q_t}(w, log lambda) / E_{q_t}[w]. "
        "KL >= 0, with equality iff g is constant on the support. For low-pass g the covariance is >= 0 too, with equality "
        "iff g is constant or lambda is flat on the support; so the log-rank difference is at least "
        "(1/2) ||q_p - q_t||_1^2, with equality iff g is constant on the support. The constant 1/2 can't be raised."
    ),
    source=(
        "log q_p = log q_t + log w - log E[w] inserted in the two entropies; Chebyshev's sum inequality; Pinsker's. "
        "Sharp: two bands of equal mass, nearly equal eigenvalues, w = 1 +- delta give 1/2 + O(delta^2)."
    ),
    not_checked="Singular values (the identity holds for them with w = g, by the same algebra); infinitely many modes.",
    claims=(
        Claim(
            name="S4",
            statement=(
                "The log-rank difference is KL plus covariance for all gains; for low-pass gains both are >= 0 and the "
                "sum is at least half the squared l1 distance."
            ),
            hypotheses=(
                Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
                Hypothesis("nonnegative gains", "g >= 0 on the support", lambda c: (c.gains >= 0) | ~on(c.spectrum)),
                LOW_PASS,
            ),
            conclusions=(
                Conclusion("Pinsker's bound", 1e-13),
                Conclusion("covariance", 1e-13),
                Conclusion("KL", 1e-13),
                Conclusion("sum of the terms", 1e-14, "identity"),
            ),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("any order", "gains in any order", drops=("low-pass",)),
                Ablation(
                    "one gain 1% out of order",
                    "one gain 1% above its predecessor",
                    drops=("low-pass",),
                    instead=(NEARLY_LOW_PASS,),
                ),
            ),
            domain=(
                DomainCondition(
                    "g >= 0",
                    lambda: theory.rank_difference_decomposition(jnp.array([2.0, 1.0]), jnp.array([1.0, -1.0])),
                ),
                DomainCondition(
                    "g not all 0",
                    lambda: theory.rank_difference_decomposition(jnp.array([2.0, 0.0]), jnp.array([0.0, 1.0])),
                ),
            ),
        ),
    ),
    orders=(
        Order(
            "S4 sharpness",
            "the log-rank difference over ||q_p - q_t||_1^2 tends to 1/2 like delta^2 for two bands with gains^2 = 1 +- delta",
            2.0,
            (0.4, 0.2, 0.1, 0.05),
            sharpness,
        ),
    ),
    figure=Figure(
        "Log-rank difference of random low-pass filters (symbols) and its KL part (dashes) against Pinsker's bound.",
        record,
        draw,
    ),
)
