"""T7. A high-pass filter on the target branch raises the effective rank of the features, without view noise."""

from typing import NamedTuple

import jax.numpy as jnp
from flint import arb

from proofs_numeric import _cases, _common, _noise
from rdm_jax import theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    DomainCondition,
    Hypothesis,
    Statement,
    at_least,
    balls,
    families,
    nearly_nondecreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues lambda of the features (descending), gains h of the target filter, signal m."""

    spectrum: Array
    gains: Array
    signal: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``cut`` says whether h vanishes at the largest eigenvalue."""

    spectrum: families.Sequence
    gains: families.Sequence
    cut: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    return Raw(spectrum, families.sample_filter(tape, spectrum, d), tape.scalar() < 0.2)


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    gains = families.ascending(raw.gains)
    gains = jnp.where(raw.cut, gains - gains[0], gains)
    gains = jnp.where(dropped["low-pass"], families.descending(raw.gains), gains)
    gains = jnp.where(dropped["one gain 1% out of order"], families.out_of_order(gains, raw.gains, up=False), gains)
    kept = 1 / (1 + jnp.exp(raw.spectrum.free))  # as much of a mode as noise leaves
    return Instance(spectrum, gains, jnp.where(dropped["view noise"], kept, 1.0) * spectrum)


def _scales(c):
    """The size of the terms of r: h (cosine), h and 1 (squared)."""
    largest = jnp.max(jnp.where(c.spectrum > 0, c.gains, 0.0))
    cosine, squared = jnp.where(largest > 0, largest, 1.0), jnp.maximum(largest, 1.0)
    return jnp.stack([cosine, squared, cosine, squared])


def margin(c):
    return _cases.entropy_rates(c.spectrum, c.gains, c.signal) / _scales(c)


def ball_margin(c):
    modes = balls.support(c.spectrum)
    pull = [h * m / x if not x == 0 else arb(0) for h, m, x in zip(c.gains, c.signal, c.spectrum, strict=True)]
    largest = max((c.gains[i] for i in modes), key=lambda h: float(h.mid()))
    cosine, squared = arb(1) if largest == 0 else largest, largest.max(arb(1))
    rates = _cases.ball_entropy_rates(c.spectrum, pull)
    return [rate / scale for rate, scale in zip(rates, (cosine, squared, cosine, squared), strict=True)]


def distance(c):
    return _cases.joint_spreads(c.spectrum, c.gains) / _scales(c)


def equality(c):
    return _cases.still(c.spectrum, c.gains)


def _noisy_modes(c):
    """Gains h proportional to s^a, 1 at the smallest eigenvalue, and the signal."""
    return _noise.relative_power(c, -c.strength / 2), _noise.signal(c)


def noisy_margin(c):
    return c.side * _cases.entropy_rates(c.spectrum, *_noisy_modes(c))


def noisy_ball_margin(c):
    gains = [(x / c.spectrum[-1]) ** (-c.strength / 2) for x in c.spectrum]
    pull = [h * (1 - c.noise / x) for h, x in zip(gains, c.spectrum, strict=True)]
    return [c.side * rate for rate in _cases.ball_entropy_rates(c.spectrum, pull)]


def noisy_distance(c):
    gains, signal = _noisy_modes(c)
    return _cases.joint_spreads(c.spectrum, gains * signal / jnp.where(c.spectrum > 0, c.spectrum, 1.0))


def noisy_equality(c):
    return [_common.constant(c.spectrum)] * len(_cases.CASES)


NOISE_FREE = Claim(
    name="T7",
    statement="Without view noise and with h nonincreasing in lambda, dH/dt >= 0.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("nonnegative gains", "h >= 0 on the support", lambda c: (c.gains >= 0) | ~on(c.spectrum)),
        Hypothesis("high-pass", "h nonincreasing in lambda", lambda c: nondecreasing(c.gains, on(c.spectrum))),
        Hypothesis(
            "no view noise", "m = lambda", lambda c: at_least(c.signal, c.spectrum) & at_least(c.spectrum, c.signal)
        ),
    ),
    conclusions=_cases.conclusions(2e-14),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("low-pass", "h nondecreasing in lambda", drops=("high-pass",)),
        Ablation(
            "one gain 1% out of order",
            "one gain 1% below its predecessor",
            drops=("high-pass",),
            instead=(
                Hypothesis(
                    "nearly high-pass", "high-pass within 1%", lambda c: nearly_nondecreasing(c.gains, on(c.spectrum))
                ),
            ),
        ),
        Ablation(
            "view noise",
            "noise takes a part of every mode: 0 <= m <= lambda",
            drops=("no view noise",),
            instead=(
                Hypothesis(
                    "some noise", "0 <= m <= lambda", lambda c: (c.signal >= 0) & at_least(c.spectrum, c.signal)
                ),
            ),
        ),
    ),
    domain=(
        DomainCondition("nonnegative gains", lambda: theory.growth_rates([2.0, 1.0], target_gains=[1.0, -1.0])),
        DomainCondition("finite gains", lambda: theory.growth_rates([2.0, 1.0], target_gains=[1.0, jnp.inf])),
        DomainCondition("nonzero spectrum", lambda: theory.growth_rates([0.0, 0.0], target_gains=[1.0, 1.0])),
    ),
)

ISOTROPIC = Claim(
    name="T7 isotropic noise",
    statement="With m = lambda - nu and h = c s^a, c > 0 > a: dH/dt >= 0 above the level nu (1 + 2/|a|), <= 0 below it.",
    hypotheses=_noise.HYPOTHESES,
    conclusions=_cases.conclusions(2e-14),
    sample=_noise.sample,
    build=_noise.build,
    margin=noisy_margin,
    ball_margin=noisy_ball_margin,
    distance=noisy_distance,
    equality=noisy_equality,
    ablations=_noise.ABLATIONS,
    domain=(
        DomainCondition("noise >= 0", lambda: theory.target_noise_threshold(-1.0, -0.5)),
        DomainCondition("exponent not 0", lambda: theory.target_noise_threshold(1.0, 0.0)),
    ),
)

STATEMENT = Statement(
    name="T7",
    title="target high-pass filter",
    text=(
        "Under gradient flow of free features with a fixed target filter h >= 0, nonincreasing in lambda, and without view "
        "noise, d erank/dt >= 0: for the squared error and the mean-field cosine, for eigenvalues and for singular values. "
        "It is 0 only if h or lambda is constant on the support. With isotropic view noise nu and h = s^a, a < 0, erank "
        "rises if all lambda >= nu (1 + 2/|a|) and falls if all are at most that, strictly unless lambda is constant."
    ),
    source=(
        "L2 with r = h m/lambda - const: Cov_q(r, log lambda) <= 0 if h m/lambda is nonincreasing (Chebyshev's sum "
        "inequality). (1 - nu/lambda) lambda^(-|a|/2) peaks at lambda = nu (1 + 2/|a|). Zhuo et al. 2023."
    ),
    not_checked=(
        "Finite steps; filters that change the eigenspaces; the gradient flow of network parameters instead of free "
        "features. The growth rates themselves are taken from the table of docs/theory.md."
    ),
    claims=(NOISE_FREE, ISOTROPIC),
)
