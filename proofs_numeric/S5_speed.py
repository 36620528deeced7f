"""S5. How fast the entropy of the spectrum moves: bounds from the slope of the filter or of the Wiener threshold."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from proofs_numeric import _common
from rdm_jax import plotting, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    at_least,
    balls,
    families,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Gaps of log lambda below each predecessor (lambda_1 = 1), slopes of theta over them, and the slopes' bounds.

    theta_1 = ``base``, theta_i = theta_(i-1) + slope_i gap_i. It is the target gain h of the one half of the statement and
    the Wiener threshold of the other, whose online gains are ``gains``. ``ratio`` is m / lambda of the first half. Slopes
    are data, not values of theta, so that bounds on them hold exactly.
    """

    gaps: Array
    slopes: Array
    base: Array
    lower: Array
    upper: Array
    gains: Array
    ratio: Array
    live: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``inside`` places each slope between its bounds."""

    spectrum: families.Sequence
    inside: Array
    lower: Array
    width: Array
    log_base: Array
    log_gains: Array
    log_ratio: Array
    live: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    kind, width = tape.scalar(), tape.scalar(0.0, 1.5)
    inside = logistic(tape.vector())
    return Raw(
        spectrum,
        jnp.where(kind < 0.1, 0.0, jnp.where(kind < 0.3, inside**3, inside)),
        tape.scalar(-0.5, 1.5),
        jnp.where(tape.scalar() < 0.05, 0.0, width),
        tape.scalar(-4.0, 2.0),
        tape.scalar(0.0, 1.0) * logistic(tape.vector()),
        0.3 * logistic(tape.vector()),
        jnp.arange(tape.width) < d,
    )


def build(raw, dropped):
    gaps = jnp.where(raw.live, raw.spectrum.roots**2, 0.0).at[0].set(0.0)
    upper = raw.lower + raw.width**2
    slopes = jnp.clip(raw.lower + raw.width**2 * raw.inside**2 / (1 + raw.inside**2), raw.lower, upper)
    slopes = jnp.where(dropped["slopes anywhere"], raw.lower + raw.inside, slopes)
    below = raw.lower - 0.0099 * (jnp.abs(raw.lower) + jnp.abs(upper))
    slopes = jnp.where(dropped["one slope 1% too low"], slopes.at[raw.spectrum.entry].set(below), slopes)
    base = jnp.exp(raw.log_base) + jnp.maximum(0.0, -jnp.min(families.accumulate(slopes * gaps)))
    gains = jnp.where(raw.live, jnp.exp(raw.log_gains), 0.0)
    ratio = jnp.where(raw.live & dropped["view noise on the target side"], jnp.exp(raw.log_ratio), 1.0)
    return Instance(gaps, slopes, base, raw.lower, upper, gains, ratio, raw.live)


def expand(c):
    """lambda, theta and log lambda of an instance, 0 off the support."""
    logs = jnp.where(c.live, -families.accumulate(c.gaps), 0.0)
    return jnp.where(c.live, jnp.exp(logs), 0.0), c.base + families.accumulate(c.slopes * c.gaps), logs


def scale(c):
    """At least max |theta| and the terms that the bounds consist of."""
    return c.base + (abs(c.lower) + abs(c.upper)) * c.gaps.sum()


def margin(c):
    spectrum, threshold, _ = expand(c)
    flat = c.live.astype(spectrum.dtype)
    spectra, gains = jnp.stack([spectrum, spectrum]), jnp.stack([flat, c.gains])
    signal = spectra * jnp.stack([c.ratio, threshold * c.gains])
    rates = theory.growth_rates(spectra, online_gains=gains, target_gains=jnp.stack([threshold, flat]), signal=signal)
    speed = theory.entropy_rate(spectra, rates)
    lower, upper = jnp.full(2, c.lower), jnp.full(2, c.upper)
    bounds = theory.speed_bounds(spectra, lower, upper, online_gains=gains)
    margins = jnp.stack([speed - bounds.lower, bounds.upper - speed], axis=1)
    squares = jnp.sum(gains**2 * spectra, axis=1, keepdims=True) / jnp.sum(spectrum)
    return jnp.ravel(margins / (scale(c) * squares))


def ball_margin(c):
    logs, threshold = [-c.gaps[0]], [c.base]
    for gap, slope in zip(c.gaps[1:], c.slopes[1:], strict=True):
        logs.append(logs[-1] - gap)
        threshold.append(threshold[-1] + slope * gap)
    spectrum = [x.exp() for x in logs]
    mass, size = balls.total(spectrum), scale(c)

    kappa = balls.total([h * m * x for h, m, x in zip(threshold, c.ratio, spectrum, strict=True)]) / mass
    rates = [h * m - kappa for h, m in zip(threshold, c.ratio, strict=True)]
    speed, variance = _common.entropy_rate(spectrum, rates), balls.covariance(spectrum, logs, logs)
    margins = [(speed - 2 * c.lower * variance) / size, (2 * c.upper * variance - speed) / size]

    online = [g * g * x for g, x in zip(c.gains, spectrum, strict=True)]
    signal = [t * x * g for t, x, g in zip(threshold, spectrum, c.gains, strict=True)]
    kappa = balls.total([g * m for g, m in zip(c.gains, signal, strict=True)]) / balls.total(online)
    rates = [g * (m / x - kappa * g) for g, m, x in zip(c.gains, signal, spectrum, strict=True)]
    speed, variance = _common.entropy_rate(spectrum, rates), balls.covariance(online, logs, logs)
    squares = balls.total(online) / mass
    bounds = [2 * slope * squares * variance for slope in (c.lower, c.upper)]
    return [*margins, (speed - bounds[0]) / (size * squares), (bounds[1] - speed) / (size * squares)]


def distance(c):
    """Each margin is twice the covariance of log lambda and theta less its bounding line: `_common.joint_spread`."""
    spectrum, threshold, logs = expand(c)
    spreads = [
        _common.joint_spread(threshold + slope * logs, logs, weights)
        for weights in (spectrum, c.gains**2 * spectrum)
        for slope in (c.lower, c.upper)
    ]
    return jnp.stack(spreads) / scale(c)


def equality(c):
    slopes = [s for s, gap in zip(c.slopes[1:], c.gaps[1:], strict=True) if gap != 0]
    return [all(s == c.lower for s in slopes), all(s == c.upper for s in slopes)] * 2


def record(seed):
    """Speeds of random instances of the noisy half beside their bounds, in units of 2 E_q[g^2] Var_{q_p}(log lambda)."""
    random, count, modes = np.random.default_rng(seed), 120, 8
    logs = -np.cumsum(random.exponential(0.5, (count, modes)), axis=1)
    lower = random.uniform(-0.3, 0.5, (count, 1))
    upper = lower + random.exponential(0.3, (count, 1))
    steps = random.uniform(lower, upper, (count, modes)) * -np.diff(logs, axis=1, prepend=0.0)
    threshold, gains = 3 + np.cumsum(steps, axis=1), random.lognormal(0.0, 0.5, (count, modes))

    def speeds(spectrum, threshold, gains):
        rate = theory.entropy_rate_wiener(spectrum, online_gains=gains, signal=threshold * gains * spectrum)
        slopes = theory.slope_range(spectrum, threshold)
        unit = theory.speed_bounds(spectrum, 1.0, 1.0, online_gains=gains).lower
        return slopes.lower, slopes.upper, rate / unit

    low, high, speed = (np.asarray(x) for x in jax.jit(speeds)(np.exp(logs), threshold, gains))
    order = np.argsort(speed)
    return {"lower": low[order].tolist(), "upper": high[order].tolist(), "speed": speed[order].tolist()}


def draw(figure, record):
    axes = figure.subplots()
    rank = np.arange(len(record["speed"]))
    axes.vlines(rank, record["lower"], record["upper"], color=plotting.PALETTE[5], lw=2, label="slopes c to C")
    axes.plot(rank, record["speed"], "o", ms=3, color=plotting.PALETTE[1], label="speed")
    axes.axhline(0.0, color="black", lw=0.8)
    axes.set_xlabel("random instances (8 modes, any gains, view noise), by speed")
    axes.set_ylabel(r"$dH/dt$ over $2\,E_q[g^2]\,\mathrm{Var}_{q_p}(\log\lambda)$")
    axes.legend(loc="upper left")


STATEMENT = Statement(
    name="S5",
    title="speed",
    text=(
        "Target filter h, no view noise, mean-field cosine (common factor 1/sqrt(E|p|^2 E|t|^2) excluded) or squared error: if "
        "c <= -dh/dlog lambda <= C between all neighbouring eigenvalues, then 2 c Var_q(log lambda) <= dH/dt <= "
        "2 C Var_q(log lambda). Online filter g > 0 and view noise, mean-field cosine: if c <= -dtheta/dlog lambda <= C for the "
        "Wiener threshold theta, then 2 c V <= dH/dt <= 2 C V with V = E_q[g^2] Var_{q_p}(log lambda). c and C may have any "
        "sign. Equality on a side iff all slopes equal its bound. For eigenvalues."
    ),
    source=(
        "dH/dt = -2 Cov_q(h, log lambda), or S1; h + c log lambda is nonincreasing and h + C log lambda nondecreasing in "
        "lambda, so Chebyshev's sum inequality bounds their covariance with log lambda."
    ),
    not_checked="Singular values; slopes of a filter between eigenvalues that the spectrum does not have.",
    claims=(
        Claim(
            name="S5",
            statement="dH/dt lies between 2 c and 2 C times the variance of log lambda (times E_q[g^2], under q_p).",
            hypotheses=(
                Hypothesis("sorted spectrum", "log lambda descending", lambda c: c.gaps >= 0),
                Hypothesis(
                    "slopes between c and C",
                    "c <= -dtheta/dlog lambda <= C",
                    lambda c: (at_least(c.slopes, c.lower) & at_least(c.upper, c.slopes)) | (c.gaps == 0),
                ),
                Hypothesis("positive gains", "g > 0 on the support", lambda c: (c.gains > 0) | ~c.live),
                Hypothesis(
                    "no view noise on the target side", "m = lambda for the target filter", lambda c: c.ratio == 1
                ),
            ),
            conclusions=(
                Conclusion("target, lower", 3e-14),
                Conclusion("target, upper", 3e-14),
                Conclusion("online and noisy, lower", 3e-14),
                Conclusion("online and noisy, upper", 3e-14),
            ),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("slopes anywhere", "slopes beyond their bounds", drops=("slopes between c and C",)),
                Ablation(
                    "view noise on the target side",
                    "m is not lambda, and h is bounded instead of theta",
                    drops=("no view noise on the target side",),
                ),
                Ablation(
                    "one slope 1% too low",
                    "one slope below c by 1% of |c| + |C|",
                    drops=("slopes between c and C",),
                    instead=(
                        Hypothesis(
                            "nearly between c and C",
                            "slopes between c and C within 1%",
                            lambda c: (
                                at_least(c.slopes + (abs(c.lower) + abs(c.upper)) / 100, c.lower)
                                & at_least(c.upper, c.slopes)
                                | (c.gaps == 0)
                            ),
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition("c <= C", lambda: theory.speed_bounds(jnp.array([2.0, 1.0]), 1.0, 0.5)),
                DomainCondition(
                    "g not all 0",
                    lambda: theory.growth_rates(jnp.array([2.0, 1.0]), online_gains=jnp.array([0.0, 0.0])),
                ),
            ),
        ),
    ),
    figure=Figure(
        "Speeds of random noisy instances (dots) and the ranges of slopes -dtheta/dlog lambda that bound them (bars).",
        record,
        draw,
    ),
)
