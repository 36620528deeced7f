"""T5. A low-pass filter on the online branch raises the effective rank of the features: cosine loss, no view noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, ctx, fmpq

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
    balls,
    families,
    nearly_nonincreasing,
    nonincreasing,
    on,
)
from rdm_jax.types import Array

EIG, SV = 0, 1


class Instance(NamedTuple):
    """Eigenvalues lambda (descending), gains g, and the signal m = share lambda - noise; which loss, which erank."""

    spectrum: Array
    gains: Array
    share: Array
    noise: Array
    loss: Array
    convention: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    gains: families.Sequence
    share: Array
    noise: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    gains = families.sample_filter(tape, spectrum, d)
    share = jnp.maximum(tape.scalar(-2.0, 2.0), 0.0)
    return Raw(spectrum, gains, share, tape.scalar(-3.0, 3.0))


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    gains = _growth.function_of(raw.gains, spectrum, jnp.where(dropped["any order"], 0, -1))
    nearly = families.out_of_order(gains, raw.gains)
    gains = jnp.where(dropped["one gain 1% out of order"], nearly, gains)
    share = jnp.exp(-(raw.share**2))
    smallest = jnp.min(jnp.where(spectrum > 0, spectrum, jnp.inf))
    noise = jnp.where(dropped["view noise"], share * smallest * jax.nn.sigmoid(raw.noise), 0.0)
    flags = (dropped[name].astype(int) for name in ("squared error", "singular values"))
    return Instance(spectrum, gains, share, noise, *flags)


def margin(c):
    signal = c.share * c.spectrum - c.noise
    rates = theory.growth_rates(c.spectrum, online_gains=c.gains, signal=signal)
    ratio = signal / jnp.where(c.spectrum > 0, c.spectrum, 1.0)
    rates = jnp.where(c.loss == _growth.SQUARED, c.gains * (ratio - c.gains), rates)
    eig, sv = (theory.entropy_rate(c.spectrum, rates, convention=name) for name in ("eig", "sv"))
    power = jnp.sum(jnp.where(c.spectrum > 0, c.gains * signal, 0.0))  # E[p.t]
    sums = -jnp.cumsum(c.spectrum * rates) / power
    rate = jnp.where(c.convention == SV, sv, eig) * jnp.sum(c.spectrum) / power
    return jnp.stack([rate, _growth.least_before_last(sums, c.gains**2 * c.spectrum)])


def ball_margin(c):
    x, g = ([values[i] for i in balls.support(c.spectrum)] for values in (c.spectrum, c.gains))
    m = [c.share * a - c.noise for a in x]
    rates = _growth.table_rates(x, g, [1] * len(x), m, c.loss)
    power = balls.total([a * b for a, b in zip(g, m, strict=True)])
    rate = _common.entropy_rate(x, rates, balls.HALF if c.convention == SV else 1)
    sums = np.cumsum([a * r for a, r in zip(x, rates, strict=True)])[: len(balls.support(g)) - 1]
    return [rate * balls.total(x) / power, _common.least([-value / power for value in sums])]


def distance(c):
    """Lower bounds of the margins: see S1, with theta = 1/g on the modes with g > 0."""
    weights = c.gains**2 * c.spectrum
    alive, shares = weights > 0, weights / jnp.sum(weights)
    theta = 1 / jnp.where(alive, c.gains, 1.0)
    logs = jnp.log(jnp.where(alive, c.spectrum, 1.0))
    last = alive & ~jnp.append(alive[1:], False)
    ends = shares[0] * jnp.sum(jnp.where(last, shares * (theta - theta[0]), 0.0))
    return jnp.stack([_common.joint_spread(theta, logs, weights), ends]) / jnp.sum(shares * theta) / 2


def equality(c):
    nonzero = [c.gains[i] for i in balls.support(c.spectrum) if c.gains[i] != 0]
    return [_common.constant(nonzero)] * 2


POSITIVE_RANK_DIFFERENCE = Hypothesis(
    "positive rank difference",
    "erank(lambda) > erank(g^2 lambda)",
    lambda c: _growth.positive_rank_difference(c.spectrum, c.gains, 1),
)

COSINE = Claim(
    name="T5",
    statement="Cosine loss, no view noise: an online filter g >= 0 that is low-pass never lowers erank.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("nonnegative gains", "g >= 0 on the support", lambda c: (c.gains >= 0) | ~on(c.spectrum)),
        Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.gains, on(c.spectrum))),
        Hypothesis(
            "function of lambda",
            "equal eigenvalues have equal gains",
            lambda c: _growth.equal_at_ties(c.gains, c.spectrum),
        ),
        Hypothesis("no view noise", "m = share lambda, with one share > 0", lambda c: (c.noise == 0) & (c.share > 0)),
        Hypothesis("cosine", "mean-field cosine loss", lambda c: c.loss == _growth.COSINE),
        Hypothesis("eigenvalues", "erank of eigenvalues (eig)", lambda c: c.convention == EIG),
    ),
    conclusions=(Conclusion("d erank/dt", 1e-13), Conclusion("every Schur-concave diversity", 1e-14)),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation(
            "view noise",
            "isotropic view noise; the filter is low-pass and its rank difference positive",
            drops=("no view noise",),
            instead=(POSITIVE_RANK_DIFFERENCE,),
        ),
        Ablation(
            "any order",
            "gains in any order, though with a positive rank difference",
            drops=("low-pass", "function of lambda"),
            instead=(POSITIVE_RANK_DIFFERENCE,),
        ),
        Ablation(
            "one gain 1% out of order",
            "one gain 1% above its predecessor",
            drops=("low-pass",),
            instead=(
                Hypothesis(
                    "nearly low-pass", "low-pass within 1%", lambda c: nearly_nonincreasing(c.gains, on(c.spectrum))
                ),
            ),
        ),
        Ablation("singular values", "erank of singular values (sv)", drops=("eigenvalues",)),
        Ablation("squared error", "squared error instead of the cosine (T6)", drops=("cosine",)),
    ),
    domain=(DomainCondition("some gain", lambda: theory.growth_rates([2.0, 1.0], online_gains=[0.0, 0.0])),),
)


# Large singular values, their gains, the small singular value, its gain, and how many of those there are: exact.
TAILS = {
    "s = (1, 0.5, 0.0067 x N), g(s) = s": ((1, fmpq(1, 2)), (1, fmpq(1, 2)), fmpq(67, 10_000), fmpq(67, 10_000), 200),
    "s = (1, 0.9, 0.1 x N), g = (1, 0.9, 0)": ((1, fmpq(9, 10)), (1, fmpq(9, 10)), fmpq(1, 10), fmpq(0), 20),
}


def certified_tail(large, gains, small, gain, count):
    """dH/dt of eigenvalues and of singular values in ball arithmetic, for a tail of equal small modes."""
    with ctx.workprec(128):
        spectrum = [arb(s * s) for s in (*large, *[small] * count)]
        gains = [arb(g) for g in (*gains, *[gain] * count)]
        rates = _growth.table_rates(spectrum, gains, [1] * len(gains), spectrum, _growth.COSINE)
        eig, sv = (_common.entropy_rate(spectrum, rates, exponent) for exponent in (1, balls.HALF))
        if not eig > 0 > sv:
            raise ArithmeticError(f"eig should rise and sv fall, but dH/dt = {eig} and {sv}")
        return _growth.certain_digits({"modes": arb(len(spectrum)), "eig": eig, "sv": sv})


@jax.jit
def _rises(spectrum, gains):
    rates = theory.growth_rates(spectrum, online_gains=gains)
    return jnp.stack([theory.entropy_rate(spectrum, rates, convention=name) for name in ("eig", "sv")])


def _curve(large, gains, small, gain, counts):
    """dH/dt of both conventions by the library, for each number of small modes."""
    rows = ((*values, *[tail] * counts[-1]) for values, tail in ((large, small), (gains, gain)))
    singular, filter_ = np.array([[float(value) for value in row] for row in rows])
    alive = np.arange(len(singular)) < len(large) + np.array(counts)[:, None]
    return np.asarray(_rises(np.where(alive, singular**2, 0.0), filter_)).tolist()


def record(seed):
    counts = np.unique(np.round(np.geomspace(1, 1000, 61)).astype(int)).tolist()
    return {
        "certified": {name: certified_tail(*tail) for name, tail in TAILS.items()},
        "small modes": counts,
        "dH/dt (eig, sv)": {name: _curve(*tail[:4], counts) for name, tail in TAILS.items()},
    }


def draw(figure, record):
    axes = figure.subplots()
    for colour, (name, (eig, sv)) in zip(("C0", "C1"), record["dH/dt (eig, sv)"].items(), strict=True):
        axes.plot(record["small modes"], np.divide(sv, eig), color=colour, label=name)
        exact = {key: float(digits) for key, digits in record["certified"][name].items()}
        axes.plot(exact["modes"] - 2, exact["sv"] / exact["eig"], "o", color=colour)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(
        xscale="log", xlabel="number N of small modes", ylabel=r"$dH/dt$ of singular values over that of eigenvalues"
    )
    axes.legend()


STATEMENT = Statement(
    name="T5",
    title="online low-pass, cosine",
    text=(
        "Mean-field cosine loss, online filter g >= 0 held fixed, no view noise (m = share lambda with one share for "
        "all modes). If g is a nondecreasing function of lambda, then d erank/dt >= 0 (eig), strictly iff g takes two "
        "different nonzero values on the support: filters with values in {0, c} leave the spectrum stationary. The "
        "sums of the k largest eigenvalues do not grow, so every Schur-concave diversity of the eigenvalues rises with "
        "it. 'Function of lambda' matters for the latter: unequal gains on equal eigenvalues split them, and the "
        "largest share grows. For singular values the statement is false: s = (1, 0.5, 0.0067 x 200) with g(s) = s has "
        "dH/dt = -0.0147641 (sv) while dH/dt = +0.130486 (eig), and s = (1, 0.9, 0.1 x 20) with g = (1, 0.9, 0) has "
        "-0.000190024 and +0.00922960 (certified): the small modes stand still while the mean rate of the singular "
        "values is positive, so that the tail's share falls. With view noise the statement is false (S1)."
    ),
    source=(
        "S1 with theta = share/g, which is nonincreasing in lambda on the modes with g > 0; the others stand still. "
        "Top sums: r = g^2 (theta - kappa) sums to 0 under lambda and changes sign once (L2). Zhuo et al. 2023 (C2)."
    ),
    not_checked=(
        "The exact per-sample cosine (S3), finite steps (S7), and gradients through the filter. That sv erank rises "
        "for few modes is not claimed."
    ),
    claims=(COSINE,),
    figure=Figure(
        caption=(
            "Two large and N equal small singular values under a low-pass online filter: the entropy's rate of the "
            "singular values over that of the eigenvalues, which is positive throughout. With enough small modes the "
            "effective rank (sv) falls. Dots: certified."
        ),
        record=record,
        draw=draw,
    ),
)
