"""T8. Without asymmetry view noise lowers the effective rank; centering and normalising excludes complete collapse only."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, fmpq

from proofs_numeric import _cases, _common
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
    nearly_nondecreasing,
    nearly_nonincreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array

ROWS = 6  # features of one instance: three data with two views each


class Instance(NamedTuple):
    """Eigenvalues lambda (descending), ratios m/lambda; side -1: they grow with lambda, 1: they shrink."""

    spectrum: Array
    ratios: Array
    side: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``level``: of the largest ratio; ``noise``: of isotropic noise."""

    spectrum: families.Sequence
    ratios: families.Sequence
    level: Array
    noise: Array
    isotropic: Array
    side: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    ratios = families.sample_filter(tape, spectrum, d)
    isotropic = tape.scalar() < 0.3
    side = jnp.where((tape.scalar() < 0.4) & ~isotropic, 1, -1)
    return Raw(spectrum, ratios, tape.scalar(-4.0, 4.0), tape.scalar(-6.0, 6.0), isotropic, side)


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    alive = spectrum > 0
    level = jax.nn.sigmoid(raw.level)
    down, up = families.descending(raw.ratios), families.ascending(raw.ratios)
    up = up / jnp.max(jnp.where(alive, up, 0.0))
    ordered = level * jnp.where(raw.side < 0, down / down[0], up)
    noise = jax.nn.sigmoid(raw.noise) * spectrum[raw.spectrum.keep - 1]
    ratios = jnp.where(raw.isotropic, 1 - noise / jnp.where(alive, spectrum, 1.0), ordered)
    nearly = (families.out_of_order(ratios, raw.ratios, up=up) for up in (True, False))
    ratios = jnp.where(dropped["one ratio 1% out of order"], jnp.where(raw.side < 0, *nearly), ratios)
    ratios = jnp.where(dropped["ratios in any order"], jax.nn.sigmoid(raw.ratios.free), ratios)
    return Instance(spectrum, jnp.where(alive, ratios, 1.0), raw.side)


def margin(c):
    signal = c.ratios * c.spectrum
    rates = theory.growth_rates(c.spectrum, signal=signal, loss="squared")
    lost = 2 * jnp.sum(rates * c.spectrum) + 2 * jnp.sum(c.spectrum - signal)
    sides = c.side * _cases.entropy_rates(c.spectrum, jnp.ones_like(signal), signal)
    return jnp.append(sides, -jnp.abs(lost) / jnp.sum(c.spectrum))


def ball_margin(c):
    trace = balls.total([2 * (ratio - 1) * x for ratio, x in zip(c.ratios, c.spectrum, strict=True)])
    noise = balls.total([x - ratio * x for ratio, x in zip(c.ratios, c.spectrum, strict=True)])
    rates = _cases.ball_entropy_rates(c.spectrum, list(c.ratios))
    return [*(c.side * rate for rate in rates), (trace + 2 * noise) / balls.total(c.spectrum)]


def distance(c):
    return jnp.append(_cases.joint_spreads(c.spectrum, c.ratios), 1.0)


def equality(c):
    return [*_cases.still(c.spectrum, c.ratios), None]


class Spreading(NamedTuple):
    """Eigenvalues at time 0 (descending), noise of each mode, growth exp(2 nu t / (Lambda mean)) of the departures."""

    spectrum: Array
    noise: Array
    growth: Array


class RawSpreading(NamedTuple):
    """Free parameters of a `Spreading`: the noise in parts of lambda_min, the growth in parts of what the floor allows."""

    spectrum: families.Sequence
    noise: Array
    growth: Array


def sample_spreading(tape, d):
    spectrum = families.sample_spectrum(tape, d)._replace(keep=d)
    return RawSpreading(spectrum, tape.scalar(-6.0, 6.0), tape.scalar(-4.0, 4.0))


def build_spreading(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    smallest, mean = spectrum[raw.spectrum.keep - 1], jnp.sum(spectrum) / raw.spectrum.keep
    noise = smallest * jax.nn.sigmoid(raw.noise)
    moves = mean > smallest
    most = jnp.where(moves, (mean - noise) / jnp.where(moves, mean - smallest, 1.0), 100.0)
    growth = 1 + (jnp.minimum(most, 100.0) - 1) * jax.nn.sigmoid(raw.growth)
    part = jnp.where(dropped["anisotropic noise"], jax.nn.sigmoid(raw.spectrum.free), 1.0)
    return Spreading(spectrum, jnp.where(spectrum > 0, part * noise, 0.0), growth)


def before_the_floor(c):
    count, total = on(c.spectrum).sum(), c.spectrum.sum()
    return at_least(total - count * c.noise.max(), (total - count * c.spectrum) * c.growth) | ~on(c.spectrum)


def margin_spreading(c):
    total, count, noise = jnp.sum(c.spectrum), jnp.sum(c.spectrum > 0), jnp.max(c.noise)
    time = total**2 / count * jnp.log(c.growth) / (2 * noise)
    later, change = jax.jvp(lambda t: theory.symmetric_spectrum(c.spectrum, noise, t), (time,), (jnp.ones_like(time),))
    rates = theory.growth_rates(later, signal=later - c.noise) * theory.common_factor(later)
    fall = jnp.log(spectra.effective_rank(c.spectrum)) - jnp.log(spectra.effective_rank(later))
    return jnp.stack([-jnp.max(jnp.abs(change - 2 * rates * later)), fall])


def ball_margin_spreading(c):
    total = balls.total(c.spectrum)
    mean, noise = total / len(c.spectrum), max(c.noise, key=lambda value: float(value.mid()))
    later = [mean + (x - mean) * c.growth for x in c.spectrum]
    speed = 2 * noise / (total * mean)
    kappa = balls.total([x - n for x, n in zip(later, c.noise, strict=True)]) / total
    rates = [((x - n) / x - kappa) / total for x, n in zip(later, c.noise, strict=True)]
    wrong = balls.total([abs((x - mean) * speed - 2 * r * x) for x, r in zip(later, rates, strict=True)])
    return [wrong, balls.entropy(c.spectrum) - balls.entropy(later)]


def distance_spreading(c):
    """1 for the identity; for the fall, the squared distance that q moves."""
    total, count = jnp.sum(c.spectrum), jnp.sum(c.spectrum > 0)
    away = jnp.where(c.spectrum > 0, c.spectrum / total - 1 / count, 0.0)
    return jnp.stack([jnp.ones(()), (jnp.sum(jnp.abs(away)) * (c.growth - 1)) ** 2])


def equality_spreading(c):
    return [None, _common.constant(c.spectrum) or c.growth == 1]


class Batch(NamedTuple):
    """Six features in rows, two views of each of three data, and the part of their mean that is subtracted."""

    features: Array
    fraction: Array


class RawBatch(NamedTuple):
    """Free parameters of a `Batch`; ``same`` says which row each row copies."""

    features: Array
    same: Array


def sample_batch(tape, d):
    spectrum = jnp.sqrt(families.descending(families.sample_spectrum(tape, d)))
    rows = logistic(tape.vectors(ROWS)) * (spectrum / spectrum[0])[None, :]
    offset = logistic(tape.vector()) * tape.scalar(0.0, 4.0) * jnp.where(jnp.arange(tape.width) < d, 1.0, 0.0)
    outlier = jnp.exp(jnp.where(jnp.arange(ROWS) == 0, tape.scalar(0.0, 7.0), 0.0))
    row = jnp.arange(ROWS)
    copies = jnp.where(tape.scalar() < 0.2, jnp.maximum(row, tape.integer(0, ROWS - 1)), row)
    return RawBatch(rows * outlier[:, None] + offset[None, :], copies)


def build_batch(raw, dropped):
    return Batch(raw.features[raw.same], jnp.where(dropped["not centred"], 0.0, 1.0))


def _trace_of_noise(features):
    """tr C_v of views in pairs of rows."""
    views = features.reshape(ROWS // 2, 2, -1)
    return jnp.sum((views - jnp.mean(views, axis=1, keepdims=True)) ** 2) / ROWS


def _loss(features):
    """Mean of |z - z'|^2 / 2 over data and ordered pairs of views, the second behind a stop-gradient."""
    views = features.reshape(ROWS // 2, 2, 1, -1)
    target = jax.lax.stop_gradient(views).swapaxes(1, 2)
    return jnp.mean(jnp.sum((views - target) ** 2, axis=-1)) / 2


def margin_batch(c):
    rows = c.features - c.fraction * jnp.mean(c.features, axis=0, keepdims=True)
    variance = jnp.trace(spectra.second_moment(rows, center=True, normalize=True))
    power = jnp.sum(c.features**2) / ROWS
    change = -2 * jnp.sum(c.features * jax.grad(_loss)(c.features))
    return jnp.stack(
        [
            variance - 4 * (ROWS - 1) / ROWS**2,
            -jnp.abs(change + 2 * _trace_of_noise(c.features)) / power,
        ]
    )


def ball_margin_batch(c):
    rows = list(c.features)
    mean = sum(rows) / ROWS
    away = [row - c.fraction * mean for row in rows]
    lengths = [balls.total(row * row).sqrt() for row in away]
    center = sum(row / length for row, length in zip(away, lengths, strict=True)) / ROWS
    pairs = [(rows[i], (rows[i] + rows[i ^ 1]) / 2) for i in range(ROWS)]
    change = balls.total([balls.total(2 * z * (m - z)) for z, m in pairs])
    noise = balls.total([balls.total((z - m) ** 2) for z, m in pairs])
    power = balls.total([balls.total(z * z) for z in rows])
    return [1 - balls.total(center * center) - arb(4 * (ROWS - 1)) / ROWS**2, (change + 2 * noise) / power]


def _rational(ball):
    """The exact value of a ball without radius."""
    mantissa, exponent = (int(part) for part in ball.man_exp())
    return fmpq(mantissa * 2**exponent) if exponent >= 0 else fmpq(mantissa, 2**-exponent)


def equality_batch(c):
    """The bound is attained iff the centred rows lie on a line, all but one on the same side."""
    if not all(x.is_exact() for x in c.features.flat):
        return [None, None]
    rows = [np.array([_rational(x) for x in row], dtype=object) for row in c.features]
    away = [ROWS * row - sum(rows) for row in rows]
    squares = [(row * row).sum() for row in away]
    longest = max(range(ROWS), key=squares.__getitem__)
    products = [(row * away[longest]).sum() for row in away]
    opposite = [i != longest and p < 0 and p * p == squares[i] * squares[longest] for i, p in enumerate(products)]
    return [c.fraction == 1 and sum(opposite) == ROWS - 1, None]


def away_from_the_mean(c):
    return (ROWS * c.features != c.fraction * c.features.sum(axis=0, keepdims=True)).any(axis=1)


@jax.jit
def _until_the_floor(spectrum, noise):
    """Times, the closed form's spectra and their effective ranks."""
    times = (jnp.linspace(0.0, 1.0, 41) * theory.symmetric_horizon(spectrum, noise))[:-1]
    later = jax.vmap(lambda t: theory.symmetric_spectrum(spectrum, noise, t))(times)
    return times, later, spectra.effective_rank(later)


def record(seed):
    """The closed form from lambda = (3, 2.5, 2, 1.5, 1) with nu = 1/2, until lambda_min = nu, and its effective rank."""
    del seed
    noise = 0.5
    found = _until_the_floor(np.array([3.0, 2.5, 2.0, 1.5, 1.0]), noise)
    names = ("times", "spectra", "effective_rank")
    return {"noise": noise, **{name: np.asarray(value).tolist() for name, value in zip(names, found, strict=True)}}


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    left.plot(record["times"], record["spectra"], color="#0072B2")
    left.axhline(record["noise"], color="#D55E00", linestyle="--")
    left.annotate(
        "noise floor $\\nu$", (record["times"][0], record["noise"]), xytext=(2, 3), textcoords="offset points"
    )
    left.set(xlabel="time $t$ (units of $\\lambda$)", ylabel="eigenvalues $\\lambda$ of the features", ylim=(0, None))
    right.plot(record["times"], record["effective_rank"], color="#0072B2")
    right.set(xlabel="time $t$ (units of $\\lambda$)", ylabel="effective rank (eig) of the features")


MONOTONE = Claim(
    name="T8",
    statement="With g = h = 1, dH/dt <= 0 if m/lambda grows with lambda, >= 0 if it shrinks; squared error: Lambda' = -2 tr C_v.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("signal", "0 <= m <= lambda", lambda c: (c.ratios >= 0) & at_least(1, c.ratios)),
        Hypothesis(
            "monotone ratio",
            "m/lambda nondecreasing in lambda (side -1) or nonincreasing (side 1)",
            lambda c: nondecreasing(c.side * c.ratios, on(c.spectrum)),
        ),
    ),
    conclusions=(*_cases.conclusions(2e-14), Conclusion("trace, squared error", 1e-14, kind="identity")),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("ratios in any order", "m/lambda in any order", drops=("monotone ratio",)),
        Ablation(
            "one ratio 1% out of order",
            "one ratio 1% past its predecessor",
            drops=("monotone ratio",),
            instead=(
                Hypothesis(
                    "nearly monotone ratio",
                    "monotone within 1%",
                    lambda c: (
                        (nearly_nonincreasing(c.ratios, on(c.spectrum)) | (c.side > 0))
                        & (nearly_nondecreasing(c.ratios, on(c.spectrum)) | (c.side < 0))
                    ),
                ),
            ),
        ),
    ),
    domain=(DomainCondition("finite signal", lambda: theory.growth_rates([2.0, 1.0], signal=[1.0, jnp.nan])),),
)

CLOSED_FORM = Claim(
    name="T8 isotropic noise",
    statement="lambda - mean = (lambda(0) - mean) exp(2 nu t / (Lambda mean)) solves the cosine's flow; erank falls.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis(
            "signal", "lambda >= noise > 0", lambda c: at_least(c.spectrum, c.noise) & (c.noise > 0) | ~on(c.spectrum)
        ),
        Hypothesis("isotropic noise", "the same nu in all modes", lambda c: (c.noise == c.noise[0]) | ~on(c.spectrum)),
        Hypothesis("forwards", "t >= 0", lambda c: c.growth >= 1),
        Hypothesis("before the floor", "lambda_min(t) >= nu", before_the_floor),
    ),
    conclusions=(
        Conclusion("closed form", 1e-13, kind="identity"),
        Conclusion("erank falls", 1e-13),
    ),
    sample=sample_spreading,
    build=build_spreading,
    margin=margin_spreading,
    ball_margin=ball_margin_spreading,
    distance=distance_spreading,
    equality=equality_spreading,
    ablations=(Ablation("anisotropic noise", "any noise below the smallest eigenvalue", drops=("isotropic noise",)),),
    domain=(
        DomainCondition("below the noise", lambda: theory.symmetric_spectrum([2.0, 1.0], 1.5, 0.0)),
        DomainCondition("after the floor", lambda: theory.symmetric_spectrum([2.0, 1.0], 0.9, 100.0)),
        DomainCondition("time >= 0", lambda: theory.symmetric_spectrum([2.0, 1.0], 0.5, -1.0)),
    ),
)

COLLAPSE = Claim(
    name="T8 complete collapse",
    statement="Features centred, then normalised, have total variance >= 4 (n - 1)/n^2; squared error: Lambda' = -2 tr C_v.",
    hypotheses=(
        Hypothesis("centred", "the whole mean is subtracted", lambda c: c.fraction == 1),
        Hypothesis("away from the mean", "no row vanishes", away_from_the_mean),
    ),
    conclusions=(
        # Beside an outlier of size exp(7) a centred row of size 1 is known to several times exp(7) units of rounding.
        Conclusion("total variance", 1e-12),
        Conclusion("trace, squared error", 1e-13, kind="identity"),
    ),
    sample=sample_batch,
    build=build_batch,
    margin=margin_batch,
    ball_margin=ball_margin_batch,
    equality=equality_batch,
    ablations=(Ablation("not centred", "each row normalised as it is", drops=("centred",)),),
    rows=ROWS + 4,
    strata=(Stratum((2, 3, 8), 8, 0.79), Stratum((32,), 32, 0.21)),
)

STATEMENT = Statement(
    name="T8",
    title="symmetric design",
    text=(
        "Without filters (g = h = 1) the rates are r = m/lambda - const. Isotropic view noise nu > 0, and any noise for which "
        "m/lambda is nondecreasing in lambda, gives d erank/dt <= 0: dimensional collapse; it is 0 only if m/lambda or lambda "
        "is constant on the support, so without noise the spectrum is stationary. With m/lambda nonincreasing the sign is "
        "reversed. Both losses, eigenvalues and singular values. Under the mean-field cosine with fixed isotropic nu, "
        "lambda_i - mean = (lambda_i(0) - mean) exp(2 nu t / (Lambda mean)) until lambda_min = nu. Complete collapse is "
        "excluded by centering and then normalising: n features, none at their mean, keep a total variance of at least "
        "4 (n - 1)/n^2, attained iff they lie on a line with all but one on the same side of the mean. Normalising alone does not exclude it: a constant unit vector "
        "has trace 1 and variance 0. Without normalisation the squared error has Lambda' = -2 tr C_v."
    ),
    source=(
        "L2 with r = m/lambda - const. Centred rows w_i u_i (unit u_i, w_i > 0) sum to 0; with w_1 = 1 the largest, "
        "sum u_i = sum (1 - w_i) u_i has norm <= n - 1 - (w_2 + ... + w_n) <= n - 2, since w_2 + ... + w_n >= w_1. The "
        "variance bound and its proof are this project's. SymSimSiam: Zhuo et al. 2023."
    ),
    not_checked=(
        "What happens after the smallest eigenvalue reaches the noise; noise that changes with the features; "
        "batch-normalised centering with a learnt scale."
    ),
    claims=(MONOTONE, CLOSED_FORM, COLLAPSE),
    figure=Figure(
        caption=(
            "Symmetric design under the mean-field cosine with isotropic view noise nu = 0.5: eigenvalues leave their mean "
            "exponentially until the smallest reaches the noise; the trace is conserved and the effective rank falls."
        ),
        record=record,
        draw=draw,
    ),
)
