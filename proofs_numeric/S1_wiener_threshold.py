"""S1. The Wiener threshold decides whether the effective rank rises."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, arb_series, fmpq

from proofs_numeric import _common, _growth
from rdm_jax import theory
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
    nearly_nondecreasing,
    nearly_nonincreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues lambda (descending), gains g and h, and theta, which gives the signal m = theta lambda g/h.

    ``slope``: the rates' leading factor, g itself where the filter is held fixed. ``direction``: 1 where theta is
    nonincreasing in lambda, -1 where it is nondecreasing, 0 where it is neither (the identities alone are claimed).
    """

    spectrum: Array
    online: Array
    target: Array
    theta: Array
    slope: Array
    direction: Array
    loss: Array
    convention: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    online: families.Sequence
    theta: families.Sequence
    target: Array
    noise: Array
    ordered: Array
    direction: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    online = families.sample_filter(tape, spectrum, d)
    theta = families.sample_filter(tape, spectrum, d)
    target = jnp.where(tape.scalar() < 0.5, 0.0, 1.0) * logistic(tape.vector())
    return Raw(spectrum, online, theta, target, tape.scalar(-3.0, 3.0), tape.integer(0, 2), tape.integer(-1, 2))


def _threshold(theta, spectrum, direction):
    """A monotone function of the spectrum in the given direction, or (0) numbers in no order."""
    rises, falls = _growth.low_pass(theta, spectrum), _growth.high_pass(theta, spectrum)
    return jnp.where(direction < 0, rises, jnp.where(direction > 0, falls, families.unordered(theta)))


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    noisy = dropped["positive rank difference instead"]
    low_pass = jnp.where(spectrum > 0, _growth.low_pass(raw.online._replace(keep=raw.spectrum.keep), spectrum), 1.0)
    online = jnp.where((raw.ordered == 1) | noisy, low_pass, families.unordered(raw.online))
    target = jnp.where(noisy, 1.0, jnp.exp(raw.target))
    direction = jnp.where(noisy, 1, raw.direction)
    theta = _threshold(raw.theta, spectrum, direction)
    theta = jnp.where(dropped["theta in any order"], families.unordered(raw.theta), theta)
    up, down = (families.out_of_order(theta, raw.theta, up=side) for side in (True, False))
    theta = jnp.where(dropped["one theta 1% out of order"], jnp.where(direction < 0, up, down), theta)
    theta = jnp.where(noisy, _wiener_over_actual(spectrum, online, raw.noise), theta)
    slope = online * jnp.where(dropped["through the filter"], jnp.exp(raw.online.free), 1.0)
    loss, convention = (dropped[name].astype(int) for name in ("squared error", "singular values"))
    return Instance(spectrum, online, target, theta, slope, direction, loss, convention)


def _wiener_over_actual(spectrum, online, noise):
    """theta of isotropic view noise, by parts of the smallest eigenvalue, without a target filter."""
    alive = spectrum > 0
    smallest = jnp.min(jnp.where(alive, spectrum, jnp.inf))
    kept = 1 - smallest * jax.nn.sigmoid(noise) / jnp.where(alive, spectrum, 1.0)
    return kept / jnp.where(alive, online, 1.0)


def _rates(c, signal):
    """The library's growth rates, for the loss and the leading factor of the instance."""
    gains = {"online_gains": c.online, "target_gains": c.target, "signal": signal}
    cosine, squared = (theory.growth_rates(c.spectrum, loss=loss, **gains) for loss in ("cosine", "squared"))
    return jnp.where(c.loss == _growth.SQUARED, squared, cosine) * c.slope / c.online


def margin(c):
    signal = c.theta * c.spectrum * c.online / c.target
    gains = {"online_gains": c.online, "target_gains": c.target, "signal": signal}
    rates, theta = _rates(c, signal), theory.wiener_threshold(c.spectrum, **gains)
    weights = c.online**2 * c.spectrum
    kappa = jnp.sum(weights * theta) / jnp.sum(weights)
    power = kappa * jnp.sum(weights)  # sum(g h m) = E[p.t]
    eig, sv = (theory.entropy_rate(c.spectrum, rates, convention=name) for name in ("eig", "sv"))
    scale = power / jnp.sum(c.spectrum)
    sums = -c.direction * jnp.cumsum(c.spectrum * rates) / power
    wrong = jnp.abs(rates - c.online**2 * (theta - kappa))
    return jnp.stack(
        [
            c.direction * jnp.where(c.convention == _growth.SV, sv, eig) / scale,
            _growth.least_before_last(sums, c.spectrum),
            -jnp.abs(eig - theory.entropy_rate_wiener(c.spectrum, **gains)) / scale,
            -jnp.sum(c.spectrum * wrong) / power,
        ]
    )


def ball_margin(c):
    alive = balls.support(c.spectrum)
    x, g, h, theta, slope = ([v[i] for i in alive] for v in (c.spectrum, c.online, c.target, c.theta, c.slope))
    m = [t * a * b / e for t, a, b, e in zip(theta, x, g, h, strict=True)]
    rates = _growth.table_rates(x, g, h, m, c.loss)
    rates = [r * s / b for r, s, b in zip(rates, slope, g, strict=True)]
    weights = [b * b * a for a, b in zip(x, g, strict=True)]
    kappa, mass = balls.mean(weights, theta), balls.total(x)
    power = kappa * balls.total(weights)
    eig = _growth.table_entropy_rate(x, rates)
    chosen = _growth.table_entropy_rate(x, rates, c.convention) if c.convention else eig
    wiener = -2 * balls.mean(x, [b * b for b in g]) * balls.covariance(weights, theta, [a.log() for a in x])
    sums = np.cumsum([a * r for a, r in zip(x, rates, strict=True)])[:-1]
    wrong = balls.total([a * abs(r - b * b * (t - kappa)) for a, b, t, r in zip(x, g, theta, rates, strict=True)])
    return [
        c.direction * chosen * mass / power,
        _common.least([-c.direction * value / power for value in sums]),
        (eig - wiener) * mass / power,
        wrong / power,
    ]


def distance(c):
    """Lower bounds of the first two margins: 2 Var(theta) Var(log lambda), and half the product of the end weights.

    Both under q_p, theta over kappa and each variable over its range; so the first margin over its distance is at
    least 1 (Chebyshev's association inequality, refined), and so is the second.
    """
    alive = c.spectrum > 0
    weights = c.online**2 * c.spectrum
    shares = weights / jnp.sum(weights)
    last = jnp.sum(jnp.where(alive & ~jnp.append(alive[1:], False), shares, 0.0))

    def spread(values):
        reach = jnp.max(jnp.where(alive, values, -jnp.inf)) - jnp.min(jnp.where(alive, values, jnp.inf))
        mean = jnp.sum(shares * jnp.where(alive, values, 0.0))
        variance = jnp.sum(shares * jnp.where(alive, values - mean, 0.0) ** 2)
        return variance / jnp.where(reach > 0, reach, 1.0), reach, mean

    theta, reach, kappa = spread(c.theta)
    logs, _, _ = spread(jnp.log(jnp.where(alive, c.spectrum, 1.0)))
    claimed = jnp.abs(c.direction)
    sums = claimed * shares[0] * last * reach / (2 * kappa)
    return jnp.stack([claimed * 2 * theta / kappa * logs, sums, jnp.ones(()), jnp.ones(())])


def equality(c):
    theta = [c.theta[i] for i in balls.support(c.spectrum)]
    still = c.direction == 0 or all(value == theta[0] for value in theta)
    return [still, still, None, None]


def _in_direction(rising, falling):
    """A hypothesis on theta: ``rising`` along the descending spectrum where the direction is 1, ``falling`` at -1."""

    def holds(c):
        up, down = rising(c.theta, on(c.spectrum)), falling(c.theta, on(c.spectrum))
        return (up | (c.direction <= 0)) & (down | (c.direction >= 0))

    return holds


MARGIN_HYPOTHESES = (
    Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
    Hypothesis(
        "positive gains", "g > 0 and h > 0 on the support", lambda c: (c.online > 0) & (c.target > 0) | ~on(c.spectrum)
    ),
    Hypothesis(
        "monotone theta",
        "theta nonincreasing (direction 1) or nondecreasing (-1) in lambda; any theta >= 0 where none is claimed (0)",
        lambda c: _in_direction(nondecreasing, nonincreasing)(c),
    ),
    Hypothesis(
        "theta a function of lambda",
        "equal eigenvalues have equal theta",
        lambda c: _growth.equal_at_ties(c.theta, c.spectrum) | (c.direction == 0),
    ),
    Hypothesis("stop-gradient", "the filter is held fixed", lambda c: (c.slope == c.online) | ~on(c.spectrum)),
    Hypothesis("cosine", "mean-field cosine loss", lambda c: c.loss == _growth.COSINE),
    Hypothesis("eigenvalues", "erank of eigenvalues (eig)", lambda c: c.convention == _growth.EIG),
)

NEARLY_MONOTONE = Hypothesis(
    "nearly monotone theta", "monotone within 1%", _in_direction(nearly_nondecreasing, nearly_nonincreasing)
)

POSITIVE_RANK_DIFFERENCE = (
    Hypothesis("direction", "a rise is claimed", lambda c: c.direction == 1),
    Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.online, on(c.spectrum))),
    Hypothesis("no target filter", "h = 1", lambda c: c.target == 1),
    Hypothesis("possible signal", "m <= lambda", lambda c: at_least(1, c.theta * c.online) | ~on(c.spectrum)),
    Hypothesis(
        "positive rank difference",
        "erank(lambda) > erank(g^2 lambda)",
        lambda c: _growth.positive_rank_difference(c.spectrum, c.online, c.target),
    ),
)

WIENER = Claim(
    name="S1",
    statement=(
        "dH/dt = -2 E_q[g^2] Cov_{q_p}(theta, log lambda): theta nonincreasing in lambda raises erank, nondecreasing lowers it."
    ),
    hypotheses=MARGIN_HYPOTHESES,
    conclusions=(
        Conclusion("sign of d erank/dt", 1e-12),
        Conclusion("sign for every Schur-concave diversity", 1e-12),
        Conclusion("entropy rate from theta", 1e-12, kind="identity"),
        Conclusion("growth rates from theta", 1e-12, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation(
            "positive rank difference instead",
            "a low-pass filter with a positive rank difference, but view noise: theta = (1 - nu/lambda)/g in any order",
            drops=("monotone theta", "theta a function of lambda"),
            instead=POSITIVE_RANK_DIFFERENCE,
        ),
        Ablation(
            "theta in any order", "theta in any order", drops=("monotone theta", "theta a function of lambda")
        ),
        Ablation(
            "one theta 1% out of order",
            "one theta 1% past its predecessor",
            drops=("monotone theta",),
            instead=(NEARLY_MONOTONE,),
        ),
        Ablation("squared error", "squared error instead of the cosine", drops=("cosine",)),
        Ablation("singular values", "erank of singular values (sv)", drops=("eigenvalues",)),
        Ablation("through the filter", "gradient through the filter: another leading factor", drops=("stop-gradient",)),
    ),
    domain=(
        DomainCondition("some gain", lambda: theory.growth_rates([2.0, 1.0], online_gains=[0.0, 0.0])),
        DomainCondition("finite signal", lambda: theory.wiener_threshold([2.0, 1.0], signal=[1.0, jnp.inf])),
    ),
    rows=10,
)

STATEMENT = Statement(name="S1", title="Wiener threshold", text="", source="", not_checked="", claims=(WIENER,))
