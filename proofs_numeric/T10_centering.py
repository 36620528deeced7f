"""T10. Centering along the top eigenvector raises the effective rank, up to an exact turning point."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common
from rdm_jax import spectra, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Order,
    Statement,
    at_least,
    balls,
    certify_instance,
    families,
    nonincreasing,
)
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues (descending, the mean along the first), |mu|^2, and two fractions of the mean to subtract."""

    spectrum: Array
    squared_mean: Array
    less: Array
    more: Array


class Raw(NamedTuple):
    """Free parameters: what is left of lambda_1 over lambda_2 (root of the log), |mu|^2 over that, the fractions."""

    spectrum: families.Sequence
    room: Array
    mean: Array
    less: Array
    more: Array
    ends: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    room = jnp.maximum(tape.scalar(-1.0, 3.0), 0.0)
    return Raw(
        spectrum, room, tape.scalar(-8.0, 8.0), tape.scalar(-4.0, 4.0), tape.scalar(-4.0, 4.0), tape.integer(0, 4)
    )


def build(raw, dropped):
    rest = families.descending(raw.spectrum)
    second = jnp.where(rest[1] > 0, rest[1], rest[0])
    left = second * jnp.exp(raw.room**2)
    left = jnp.where(dropped["order lost"], second * jax.nn.sigmoid(raw.room - 1), left)
    left = jnp.where(dropped["order lost by 1%"], second / 1.01, left)
    mean = second * jnp.exp(jnp.clip(raw.mean, -8.0, 8.0))
    more = jnp.where(raw.ends % 2 == 0, 1.0, jax.nn.sigmoid(raw.more))
    less = jnp.where(raw.ends < 2, 0.0, more * jax.nn.sigmoid(raw.less))
    more = jnp.where(dropped["more than the mean"], 1 + more, more)
    return Instance(rest.at[0].set(left + mean), mean, less, more)


def margin(c):
    less, more = (theory.centered_spectrum(c.spectrum, c.squared_mean, part) for part in (c.less, c.more))

    def gain(power):
        return jnp.log(spectra.effective_rank(power(more))) - jnp.log(spectra.effective_rank(power(less)))

    return jnp.stack([gain(lambda x: x), gain(_root)])


def _root(values):
    positive = values > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, values, 1.0)), 0.0)


def _left(c, part):
    """The spectrum after subtracting a part of the mean; for floats and balls."""
    return c.spectrum[0] - part * (2 - part) * c.squared_mean


def ball_margin(c):
    less, more = ([_left(c, part), *c.spectrum[1:]] for part in (c.less, c.more))
    sv = [balls.power(x, balls.HALF) for x in (less, more)]
    return [balls.entropy(more) - balls.entropy(less), balls.entropy(sv[1]) - balls.entropy(sv[0])]


def _move(rest, low, high):
    """Squared distance between the normalised spectra (low, rest) and (high, rest), up to a factor."""
    mass = jnp.sum(rest)
    return (high / (high + mass) - low / (low + mass)) ** 2


def distance(c):
    low, high, rest = _left(c, c.more), _left(c, c.less), c.spectrum[1:]
    return jnp.stack([_move(rest, low, high), _move(_root(rest), _root(low), _root(high))])


def equality(c):
    still = c.squared_mean == 0 or c.less == c.more or len(balls.support(c.spectrum)) < 2
    return [still, still]


class Exact(NamedTuple):
    """The other eigenvalues (descending), and two values of the first: both above its peak (side 1) or below (-1)."""

    rest: Array
    low: Array
    high: Array
    side: Array


class RawExact(NamedTuple):
    """Free parameters: roots of the log distances of the nearer value from the peak, and between the two."""

    rest: families.Sequence
    room: Array
    apart: Array
    side: Array


def sample_exact(tape, d):
    rest = families.sample_spectrum(tape, d)
    side = jnp.where(tape.scalar() < 0.5, 1, -1)
    return RawExact(rest, jnp.maximum(tape.scalar(-1.0, 3.0), 0.0), jnp.maximum(tape.scalar(-0.3, 3.0), 0.0), side)


def build_exact(raw, dropped):
    rest = families.descending(raw.rest)
    room = jnp.where(dropped["on either side"], -(raw.room**2), raw.room**2)
    room = jnp.where(dropped["peak 1% off"], jnp.log(1 / 1.01), room)
    near = theory.centering_peak(rest) * jnp.exp(raw.side * room)
    far = near * jnp.exp(raw.side * raw.apart**2)
    return Exact(rest, jnp.minimum(near, far), jnp.maximum(near, far), raw.side)


def on_its_side(c, slack=0):
    """The nearer value on the given side of Lambda_rest / erank(rest), up to the slack (in 1/10000 of it)."""
    near = (c.low if c.side > 0 else c.high) if isinstance(c.side, int) else jnp.where(c.side > 0, c.low, c.high)
    near = near * (10000 + slack * c.side)
    if isinstance(c.side, int):
        values = [arb(x) for x in c.rest]
        return bool(c.side * (arb(near) - 10000 * _ball_peak(values)) >= 0)
    return at_least(c.side * near, c.side * 10000 * theory.centering_peak(c.rest))


def _ball_peak(rest):
    return balls.total(rest) / balls.effective_rank(rest)


def margin_exact(c):
    low, high = (jnp.log(spectra.effective_rank(jnp.concatenate([x[None], c.rest]))) for x in (c.low, c.high))
    return jnp.stack([c.side * (low - high), jnp.log(c.rest[0]) - jnp.log(theory.centering_peak(c.rest))])


def ball_margin_exact(c):
    low, high = (balls.entropy([x, *c.rest]) for x in (c.low, c.high))
    return [c.side * (low - high), c.rest[0].log() - _ball_peak(c.rest).log()]


def distance_exact(c):
    """H is concave in x/(x + Lambda_rest), with curvature above 4; log u <= u - 1 for the second."""
    shares = c.rest / jnp.sum(c.rest)
    return jnp.stack([_move(c.rest, c.low, c.high), jnp.sum(shares * (1 - c.rest / c.rest[0]))])


def equality_exact(c):
    return [c.low == c.high, _common.constant([c.rest[i] for i in balls.support(c.rest)])]


def _random_means(key, draws, modes):
    """Log-normal spectra and means mu ~ N(0, C), scaled to the longest that C - mu mu^T >= 0 allows."""
    logs, means = jax.random.normal(key, (2, draws, modes))
    spectrum = jnp.exp(logs)
    means = means * jnp.sqrt(spectrum)
    return spectrum, means / jnp.sqrt(jnp.sum(means**2 / spectrum, axis=-1, keepdims=True))


def remainders(key, sizes):
    """|H(C - eps mu mu^T) - H(C) - eps (sum of (v_i.mu)^2 (log q_i + H))/Lambda| for each eps."""
    spectrum, means = _random_means(key, 128, 8)
    slope = theory.centering_first_order(spectrum, means) / jnp.sum(spectrum, axis=-1)

    def entropy(values):
        return jnp.log(spectra.effective_rank(values))

    def error(size):
        centered = theory.centered_spectrum_from_mean(spectrum, means * jnp.sqrt(size))
        return jnp.abs(entropy(centered) - entropy(spectrum) - size * slope)

    return jax.vmap(error, out_axes=-1)(jnp.array(sizes))


DIRECTIONS = {"uniform": 0.0, "like the features": 0.5}  # mu is lambda**power times a Gaussian vector
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # |mu|^2 in units of the covariance's mean eigenvalue


def lowering_rates(key, modes=10, draws=2000):
    """How often centering lowers erank (eig) of Cov + mu mu^T, for log-normal covariance spectra and random mu."""
    spectrum_key, mean_key = jax.random.split(key)
    spectrum = jnp.exp(jax.random.normal(spectrum_key, (draws, modes)))
    gaussian = jax.random.normal(mean_key, (draws, modes))

    def rate(power, size):
        means = gaussian * spectrum**power
        length = jnp.sqrt(size * jnp.mean(spectrum, axis=-1, keepdims=True))
        means = means / jnp.linalg.norm(means, axis=-1, keepdims=True) * length
        moments = jax.vmap(jnp.diag)(spectrum) + means[:, :, None] * means[:, None, :]
        uncentered = jax.vmap(spectra.eigenvalues)(moments)
        return jnp.sum(spectra.effective_rank(spectrum) < spectra.effective_rank(uncentered)) / draws

    rates = jax.jit(jax.vmap(jax.vmap(rate, in_axes=(None, 0)), in_axes=(0, None)))
    found = rates(jnp.array(list(DIRECTIONS.values())), jnp.array(SIZES))
    return dict(zip(DIRECTIONS, np.asarray(found).tolist(), strict=True))


def record(seed):
    """H as a function of the first eigenvalue; the quoted counterexample in balls; how often a random mean lowers erank."""
    rest = jnp.array([1.0, 0.6, 0.3, 0.1])
    grid = jnp.linspace(0.0, 4.0, 161)
    ranks = jax.vmap(lambda x: spectra.effective_rank(jnp.append(rest, x)))(grid)
    lost = Instance(np.array([arb(2), arb(1), arb(0)], dtype=object), arb(2), arb(0), arb(1))
    return {
        "rest": rest.tolist(),
        "first": grid.tolist(),
        "effective_rank": np.asarray(ranks).tolist(),
        "peak": float(theory.centering_peak(rest)),
        "(2, 1, 0) to (0, 1, 0)": certify_instance(CENTERING, lost, which=[0])[0].ball.str(8, radius=False),
        "modes": 10,
        "sizes": SIZES,
        "lowered": lowering_rates(jax.random.key(seed)),
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    left.plot(record["first"], record["effective_rank"])
    second = max(record["rest"])
    for x, name, style in ((record["peak"], "$x^*$", "-"), (second, "$\\lambda_2$", "--")):
        left.axvline(x, color="grey", linestyle=style, linewidth=0.8)
        left.annotate(name, (x, min(record["effective_rank"])), xytext=(2, 2), textcoords="offset points")
    left.set(xlabel="first eigenvalue $x$", ylabel="effective rank (eig) of ($x$, 1, 0.6, 0.3, 0.1)")
    left.set_title("centering moves left")
    for marker, (name, rates) in zip("os", record["lowered"].items(), strict=True):
        right.plot(record["sizes"], rates, marker=marker, label=name)
    right.axhline(0.5, color="grey", linestyle=":", linewidth=0.8)
    right.set(
        xscale="log", ylim=(0, 1), xlabel="$|\\mu|^2$ / mean eigenvalue of the covariance", ylabel="share of draws"
    )
    right.set_title(f"centering lowers erank ({record['modes']} modes)")
    right.legend(title="direction of $\\mu$")


CENTERING = Claim(
    name="T10",
    statement="With mu along the top eigenvector and lambda_1 - |mu|^2 >= lambda_2, subtracting more of mu raises erank.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis(
            "a mean",
            "0 <= |mu|^2 <= lambda_1",
            lambda c: (c.squared_mean >= 0) & at_least(c.spectrum[0], c.squared_mean),
        ),
        Hypothesis(
            "order kept",
            "lambda_1 - |mu|^2 >= lambda_2",
            lambda c: at_least(c.spectrum[0], c.squared_mean + c.spectrum[1]),
        ),
        Hypothesis("more is subtracted", "0 <= k_1 <= k_2", lambda c: (c.less >= 0) & (c.more >= c.less)),
        Hypothesis("at most the mean", "k_2 <= 1", lambda c: c.more <= 1),
    ),
    conclusions=(Conclusion("erank, eig", 1e-13), Conclusion("erank, sv", 1e-13)),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("order lost", "lambda_1 - |mu|^2 below lambda_2", drops=("order kept",)),
        Ablation("more than the mean", "k_2 up to 2", drops=("at most the mean",)),
        Ablation(
            "order lost by 1%",
            "lambda_1 - |mu|^2 up to 1% below lambda_2",
            drops=("order kept",),
            instead=(
                Hypothesis(
                    "order nearly kept",
                    "1.0101 (lambda_1 - |mu|^2) >= lambda_2",
                    lambda c: at_least(10101 * c.spectrum[0], 10101 * c.squared_mean + 10000 * c.spectrum[1]),
                ),
            ),
        ),
    ),
    domain=(
        DomainCondition("|mu|^2 <= lambda_1", lambda: theory.centered_spectrum([2.0, 1.0], 2.5)),
        DomainCondition("|mu|^2 >= 0", lambda: theory.centered_spectrum([2.0, 1.0], -0.5)),
    ),
)

TURNING_POINT = Claim(
    name="T10 exact",
    statement="H(x, lambda_rest) falls in x above x* = Lambda_rest/erank(lambda_rest) and rises below; x* <= lambda_2.",
    hypotheses=(
        Hypothesis("sorted rest", "lambda_rest descending and >= 0", lambda c: nonincreasing(c.rest)),
        Hypothesis("two values", "0 <= low <= high", lambda c: (c.low >= 0) & (c.high >= c.low)),
        Hypothesis("one side of the peak", "both values >= x*, or both <= x*", on_its_side),
    ),
    conclusions=(Conclusion("erank, eig", 1e-13), Conclusion("x* <= lambda_2", 1e-13)),
    sample=sample_exact,
    build=build_exact,
    margin=margin_exact,
    ball_margin=ball_margin_exact,
    distance=distance_exact,
    equality=equality_exact,
    ablations=(
        Ablation("on either side", "the nearer value beyond x*", drops=("one side of the peak",)),
        Ablation(
            "peak 1% off",
            "the nearer value 1% beyond x*",
            drops=("one side of the peak",),
            instead=(
                Hypothesis("nearly one side", "on one side of x* within 1.01%", lambda c: on_its_side(c, slack=101)),
            ),
        ),
    ),
    domain=(DomainCondition("nonzero rest", lambda: theory.centering_peak([0.0, 0.0])),),
)

STATEMENT = Statement(
    name="T10",
    title="centering",
    text=(
        "If the mean mu lies along the top eigenvector of the uncentred second moment, centering turns lambda_1 into "
        "x = lambda_1 - |mu|^2. If x >= lambda_2 erank rises (eig and sv), strictly iff mu != 0 and the rank is at least 2; it "
        "is monotone in the part k in [0, 1] of the mean that is subtracted. Exactly (eig): H as a function of x is unimodal "
        "with its peak at x* = Lambda_rest/erank(lambda_rest) <= lambda_2 (equality iff the rest is flat), so erank rises "
        "whenever x >= x*; below it may fall: (2, 1, 0) -> (0, 1, 0). For a mean in any direction, to first order, "
        "dH = sum_i (v_i.mu)^2 (log q_i + H)/Lambda, with an error of second order. How often a random mean lowers erank "
        "depends on its direction and size: nearly always for a small mean in a uniformly random direction, in about half "
        "of the draws for a small mean that is distributed like the features, hardly ever for a large one."
    ),
    source=(
        "L1 with the ratio (lambda_1/x, 1, ..., 1). The normalised spectrum moves along a line in x/(x + Lambda_rest), on "
        "which H is concave and stationary where log x is the mean of log lambda_rest, that is at x*. DINO's centering: "
        "Caron et al. 2021, Zhuo et al. 2023. First order: d lambda_i = -(v_i.mu)^2."
    ),
    not_checked=(
        "An exact criterion for means in any direction. The frequencies are those of the recorded samplers (log-normal "
        "covariance spectra, sigma = 1, 10 modes) and hold for no others."
    ),
    claims=(CENTERING, TURNING_POINT),
    orders=(
        Order(
            "T10 general mean",
            "H(C - eps mu mu^T) - H(C) = eps sum_i (v_i.mu)^2 (log q_i + H)/Lambda + O(eps^2)",
            slope=2.0,
            sizes=(2.0**-6, 2.0**-7, 2.0**-8, 2.0**-9, 2.0**-10),
            measure=remainders,
        ),
    ),
    figure=Figure(
        caption=(
            "Left: effective rank as a function of the first eigenvalue, with its peak x* and lambda_2. Right: how often "
            "centering lowers the effective rank of Cov + mu mu^T, for log-normal spectra (sigma = 1, 2000 draws, eig) and "
            "mu uniform in direction or distributed like the centred features, by the size of the mean."
        ),
        record=record,
        draw=draw,
    ),
)
