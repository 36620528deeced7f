"""T1. A low-pass filter on the online branch gives a positive rank difference."""

from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax import spectra
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Hypothesis,
    Statement,
    balls,
    families,
    nearly_nonincreasing,
    nonincreasing,
    on,
)
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues of the target (descending), gains of the online filter, the order of a Renyi entropy, a tolerance."""

    spectrum: Array
    gains: Array
    order: Array
    rtol: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    gains: families.Sequence
    order: Array
    rtol: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    gains = families.sample_filter(tape, spectrum, d)
    order = jnp.maximum(tape.scalar(-2.0, 8.0), 0.0)
    return Raw(spectrum, gains, order, tape.scalar(-6.0, 0.0))


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    gains = families.descending(raw.gains)
    gains = jnp.where(dropped["any order"], families.unordered(raw.gains), gains)
    gains = jnp.where(dropped["signed gains"], gains - jnp.exp(raw.gains.free[0]), gains)
    gains = jnp.where(dropped["one gain 1% out of order"], families.out_of_order(gains, raw.gains), gains)
    return Instance(spectrum, gains, jnp.abs(raw.order), 10.0**raw.rtol)


def filtered(c):
    return c.gains**2 * c.spectrum


def margin(c):
    target, online = c.spectrum, filtered(c)

    def gain(diversity):
        return diversity(target) - diversity(online)

    return jnp.stack(
        [
            gain(lambda x: jnp.log(spectra.effective_rank(x))),
            gain(lambda x: jnp.log(spectra.effective_rank(jnp.sqrt(x)))),
            gain(lambda x: jnp.log(spectra.renyi_effective_rank(x, c.order))),
            gain(lambda x: jnp.log(spectra.participation_ratio(x))),
            gain(lambda x: jnp.log(spectra.stable_rank(x))),
            gain(lambda x: spectra.numerical_rank(x, rtol=c.rtol)).astype(target.dtype),
        ]
    )


def ball_margin(c):
    target = list(c.spectrum)
    online = [g * g * x for g, x in zip(c.gains, c.spectrum, strict=True)]

    def sv(x):
        return balls.power(x, balls.HALF)

    def participation(x):
        return (balls.total(x) ** 2 / balls.total([v * v for v in x])).log()

    def count(x):
        threshold = c.rtol * x[0]
        return balls.count(x, threshold)

    def stable(x):
        return (balls.total(x) / x[0]).log()

    return [
        balls.entropy(target) - balls.entropy(online),
        balls.entropy(sv(target)) - balls.entropy(sv(online)),
        balls.renyi_entropy(target, c.order) - balls.renyi_entropy(online, c.order),
        participation(target) - participation(online),
        stable(target) - stable(online),
        count(target) - count(online),
    ]


def distance(c):
    """||q_p - q_t||_1^2 in each convention: by S4 the first margin is at least half of it.

    At order 0 equality is wider; numerical ranks are integers, and their equality is not characterised.
    """
    t, p = c.spectrum, filtered(c)
    eig = jnp.sum(jnp.abs(t / jnp.sum(t) - p / jnp.sum(p))) ** 2
    t, p = jnp.sqrt(t), c.gains * jnp.sqrt(c.spectrum)
    sv = jnp.sum(jnp.abs(t / jnp.sum(t) - p / jnp.sum(p))) ** 2
    return jnp.stack([eig, sv, jnp.minimum(c.order, 1.0) * eig, eig, eig, jnp.zeros(())])


def equality(c):
    gains = [c.gains[i] for i in balls.support(c.spectrum)]
    constant = all(g == gains[0] for g in gains)
    return [constant, constant, constant or (c.order == 0 and gains[-1] > 0), constant, constant, None]


STATEMENT = Statement(
    name="T1",
    title="low-pass online filter",
    text=(
        "A filter g >= 0 that is low-pass (nondecreasing in the eigenvalue) on the online branch gives "
        "erank(online) <= erank(target), for eigenvalues and for singular values, with equality iff g is constant on the "
        "support. The same holds for every Schur-concave diversity: Renyi effective ranks of all orders in [0, inf] (order 0: "
        "equality iff g > 0 on the support), participation ratio, stable rank; and for the numerical rank."
    ),
    source="L1 with w = g^2 (eigenvalues) or w = g (singular values); entropies are Schur-concave. Zhuo et al. 2023.",
    not_checked="Infinite-dimensional spectra; Schur-concave functions other than those listed.",
    claims=(
        Claim(
            name="T1",
            statement="With g >= 0 low-pass, the online spectrum g^2 lambda is at most as diverse as lambda.",
            hypotheses=(
                Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
                Hypothesis("nonnegative gains", "g >= 0 on the support", lambda c: (c.gains >= 0) | ~on(c.spectrum)),
                Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.gains, on(c.spectrum))),
            ),
            conclusions=(
                Conclusion("erank, eig", 1e-13),
                Conclusion("erank, sv", 1e-13),
                Conclusion("Renyi rank", 1e-13),
                Conclusion("participation ratio", 1e-13),
                Conclusion("stable rank", 1e-13),
                Conclusion("numerical rank", 0.5),
            ),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("any order", "gains in any order", drops=("low-pass",)),
                Ablation("signed gains", "gains that descend below 0", drops=("nonnegative gains",)),
                Ablation(
                    "one gain 1% out of order",
                    "one gain 1% above its predecessor",
                    drops=("low-pass",),
                    instead=(
                        Hypothesis(
                            "nearly low-pass",
                            "low-pass within 1%",
                            lambda c: nearly_nonincreasing(c.gains, on(c.spectrum)),
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition("finite", lambda: spectra.effective_rank(jnp.array([1.0, jnp.nan]))),
                DomainCondition("nonzero", lambda: spectra.effective_rank(jnp.zeros(3))),
            ),
        ),
    ),
)
