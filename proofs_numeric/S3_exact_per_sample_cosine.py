"""S3. The exact per-sample cosine: low-pass online and high-pass target filters flatten the spectrum of any distribution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common, _growth
from rdm_jax import theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    Figure,
    Hypothesis,
    Order,
    Statement,
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

SAMPLES = 3


class Instance(NamedTuple):
    """Samples z (n, d) in the eigenbasis of C_z, the second view of each, gains g > 0 and h > 0, a rotation.

    A sample stands for all 2^d choices of its coordinates' signs, so that C_z is diagonal. ``tilt`` is the tangent of half
    the angle by which both filters' eigenvectors are turned in the plane of the first two modes.
    """

    samples: Array
    second: Array
    online: Array
    target: Array
    tilt: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``mask`` says which modes a sample has at all."""

    spectrum: families.Sequence
    online: families.Sequence
    target: families.Sequence
    samples: Array
    noise: Array
    tilt: Array
    mask: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    online, target = (families.sample_filter(tape, spectrum, d) for _ in range(2))
    samples, coins = logistic(tape.vectors(SAMPLES)), tape.vectors(SAMPLES)
    rows, modes = jnp.arange(SAMPLES)[:, None], jnp.arange(tape.width)
    parts = jnp.minimum(SAMPLES, spectrum.keep)
    apart = modes % parts == rows % parts  # no mode belongs to two samples: nothing moves
    sparse = (rows == 0) | (coins < 0.5) | (modes == rows % spectrum.keep)
    kind = tape.scalar()
    mask = jnp.where(kind < 0.25, sparse, jnp.where(kind < 0.5, apart, True))
    return Raw(spectrum, online, target, samples, logistic(tape.vectors(SAMPLES)), tape.scalar(-1.0, 1.0), mask)


def _with_spectrum(samples, spectrum):
    """The samples, each mode scaled to the given eigenvalue."""
    energy = jnp.mean(samples**2, axis=0)
    alive = (energy > 0) & (spectrum > 0)
    return samples * jnp.where(alive, jnp.sqrt(spectrum / jnp.where(alive, energy, 1.0)), 0.0)


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    shuffled, nearly = dropped["any order"], dropped["one gain 1% out of order"]
    online, target = families.descending(raw.online._replace(keep=len(spectrum))), families.ascending(raw.target)
    online = jnp.where(shuffled, families.unordered(raw.online), online)
    target = jnp.where(shuffled, families.unordered(raw.target), target)
    online = jnp.where(nearly, families.out_of_order(online, raw.online), online)
    target = jnp.where(nearly, families.out_of_order(target, raw.target, up=False), target)
    samples = _with_spectrum(jnp.where(raw.mask, raw.samples, 0.0), spectrum)
    noise = jnp.where(dropped["view noise"], raw.noise, 0.0) * jnp.sqrt(spectrum)
    return Instance(samples, samples + noise, online, target, jnp.where(dropped["turned filters"], raw.tilt, 0.0))


def _turned(gains, features, tilt):
    """R diag(gains) R^T z for the rotation R by 2 arctan(tilt) in the plane of the first two modes."""
    cosine, sine = (1 - tilt**2) / (1 + tilt**2), 2 * tilt / (1 + tilt**2)

    def turn(features, sine):
        first, second = features[:, 0], features[:, 1]
        turned = jnp.stack([cosine * first - sine * second, sine * first + cosine * second], axis=1)
        return jnp.concatenate([turned, features[:, 2:]], axis=1)

    return turn(gains * turn(features, -sine), sine)


def _rates(c, loss):
    """Half the diagonal of dC/dt under gradient flow of the mean of a per-sample loss, over both signs of the first mode."""
    signs = jnp.where(jnp.arange(c.samples.shape[1]) == 0, -1.0, 1.0)
    samples, second = (jnp.concatenate([view, signs * view]) for view in (c.samples, c.second))
    flow = -jax.grad(lambda z: jnp.sum(loss(z, second)))(samples)
    return jnp.mean(samples * flow, axis=0)


def _negative_cosine(p, t):
    return -jnp.sum(p * t, axis=1) / jnp.sqrt(jnp.sum(p**2, axis=1) * jnp.sum(t**2, axis=1))


def margin(c):
    spectrum = jnp.mean(c.samples**2, axis=0)
    online = _rates(c, lambda z, second: _negative_cosine(_turned(c.online, z, c.tilt), second))
    target = _rates(c, lambda z, second: _negative_cosine(z, _turned(c.target, second, c.tilt)))
    sums = [_growth.least_before_last(-jnp.cumsum(rates), spectrum) for rates in (online, target)]
    return jnp.stack([*sums, -jnp.abs(jnp.sum(online)), -jnp.abs(jnp.sum(target))])


def _ball_turned(gains, features, tilt):
    if tilt == 0:
        return gains * features
    scale = 1 + tilt * tilt
    cosine, sine = (1 - tilt * tilt) / scale, 2 * tilt / scale
    x, y, g, h = *features[:2], *gains[:2]
    cross = (g - h) * cosine * sine
    turned = [(g * cosine**2 + h * sine**2) * x + cross * y, cross * x + (g * sine**2 + h * cosine**2) * y]
    return np.append(turned, gains[2:] * features[2:])


def _ball_rates(c, gains, online):
    """Mean of z_i z_i', z' = G (t^ - (p^.t^) p^)/|p| with unit vectors p^, t^: the gradient of one sample's cosine."""
    rates, signs = 0, (1,) if c.tilt == 0 else (1, -1)
    for sign, z, u in [(sign, *views) for sign in signs for views in zip(c.samples, c.second, strict=True)]:
        z, u = (np.append(sign * view[:1], view[1:]) for view in (z, u))
        p, t = (_ball_turned(gains, z, c.tilt), u) if online else (z, _ball_turned(gains, u, c.tilt))
        square, length = balls.total(p * p), balls.total(t * t).sqrt()
        pull = (t - p * (balls.total(p * t) / square)) / (length * square.sqrt())
        rates = rates + z * (_ball_turned(gains, pull, c.tilt) if online else pull)
    return rates / (len(signs) * len(c.samples))


def ball_margin(c):
    modes = len(balls.support([balls.total(column) for column in (c.samples**2).T]))
    rates = [_ball_rates(c, gains, online) for gains, online in ((c.online, True), (c.target, False))]
    sums = [np.cumsum(-values)[: modes - 1] for values in rates]
    return [_common.least(values) for values in sums] + [balls.total(values) for values in rates]


def distance(c):
    """Lower bounds of the first two margins: 4 |Cov(x, y)| >= E|x - Ex| E|y - Ey| for each sample, y = 1 beyond mode k."""
    spectrum, squares = jnp.mean(c.samples**2, axis=0), c.samples**2
    ratio = jnp.sqrt(jnp.sum(c.online**2 * squares, axis=1) / jnp.sum(squares, axis=1))
    size = jnp.sqrt(jnp.sum(squares, axis=1) / jnp.sum(c.target**2 * squares, axis=1))

    def bound(values, weights, factor):
        shares = weights / jnp.sum(weights, axis=1, keepdims=True)
        spread = jnp.sum(shares * jnp.abs(values - jnp.sum(shares * values, axis=1, keepdims=True)), axis=1)
        below = jnp.cumsum(shares, axis=1)
        bounds = jnp.mean((factor * spread)[:, None] * below * (1 - below), axis=0) / 2
        return _growth.least_before_last(bounds, spectrum)

    online = bound(1 / c.online, c.online**2 * squares, ratio)
    return jnp.stack([online, bound(c.target, squares, size), jnp.ones(()), jnp.ones(())])


def _still(c, gains):
    """Whether one of the sums is stationary: each sample has one gain, or no modes on one of its sides."""
    kept = [balls.support(z) for z in c.samples]
    modes = 1 + max(max(own) for own in kept)
    mixed = [own for own in kept if not _common.constant([gains[i] for i in own])]
    return modes == 1 or any(all(own[0] >= k or own[-1] < k for own in mixed) for k in range(1, modes))


def equality(c):
    if c.tilt != 0 or np.any(c.samples != c.second):
        return [None] * 4
    return [_still(c, c.online), _still(c, c.target), None, None]


def _spectrum(c):
    return (c.samples * c.samples).sum(axis=0)


EXACT = Claim(
    name="S3",
    statement="Each sample's own cosine: no top-k eigenvalue sum grows under G low-pass or H high-pass; the trace is constant.",
    hypotheses=(
        Hypothesis("sorted spectrum", "C_z descending in the modes", lambda c: nonincreasing(_spectrum(c))),
        Hypothesis("positive gains", "g > 0 and h > 0", lambda c: (c.online > 0) & (c.target > 0)),
        Hypothesis(
            "low-pass and high-pass",
            "g nondecreasing and h nonincreasing in lambda",
            lambda c: nonincreasing(c.online, on(_spectrum(c))) & nondecreasing(c.target, on(_spectrum(c))),
        ),
        Hypothesis("no view noise", "both views of a sample agree", lambda c: c.second == c.samples),
        Hypothesis("commuting", "the filters commute with C_z", lambda c: c.tilt == 0),
    ),
    conclusions=(
        Conclusion("top sums, online filter", 1e-14),
        Conclusion("top sums, target filter", 1e-14),
        Conclusion("trace, online filter", 1e-14, kind="identity"),
        Conclusion("trace, target filter", 1e-14, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("any order", "gains in any order", drops=("low-pass and high-pass",)),
        Ablation(
            "one gain 1% out of order",
            "one gain 1% past its predecessor",
            drops=("low-pass and high-pass",),
            instead=(
                Hypothesis(
                    "nearly ordered gains",
                    "low-pass and high-pass within 1%",
                    lambda c: nearly_nonincreasing(c.online, on(_spectrum(c)))
                    & nearly_nondecreasing(c.target, on(_spectrum(c))),
                ),
            ),
        ),
        Ablation("view noise", "the target sees another view", drops=("no view noise",)),
        Ablation("turned filters", "filters turned against C_z in one plane", drops=("commuting",)),
    ),
    rows=9 + 3 * SAMPLES,
)

STATEMENT = Statement(name="S3", title="exact per-sample cosine", text="", source="", not_checked="", claims=(EXACT,))
