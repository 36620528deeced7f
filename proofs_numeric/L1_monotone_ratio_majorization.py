"""L1. A monotone ratio of two spectra makes one majorize the other."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common
from rdm_jax import spectra
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


class Instance(NamedTuple):
    """A spectrum (descending), weights w, and the power theta of the spectrum that is normalised."""

    spectrum: Array
    weights: Array
    exponent: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    weights: families.Sequence
    log_exponent: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    weights = families.sample_filter(tape, spectrum, d)
    anywhere = tape.scalar(-3.0, jnp.log(4.0))
    kind = tape.scalar()
    convention = jnp.where(kind < 0.25, 0.0, jnp.log(0.5))  # eigenvalues or singular values
    return Raw(spectrum, weights, jnp.where(kind < 0.5, convention, anywhere))


def build(raw, dropped):
    shuffled = jnp.where(families.kept(raw.spectrum), families.unordered(raw.spectrum), 0.0)
    spectrum = jnp.where(dropped["spectrum in any order"], shuffled, families.descending(raw.spectrum))
    weights = families.descending(raw.weights)
    weights = jnp.where(dropped["weights in any order"], families.unordered(raw.weights), weights)
    weights = jnp.where(dropped["one weight 1% out of order"], families.out_of_order(weights, raw.weights), weights)
    exponent = jnp.minimum(jnp.exp(raw.log_exponent), 4.0)
    exponent = jnp.where(dropped["negative exponent"], -exponent, exponent)
    powered = _powered(spectrum, exponent)
    lowered = weights - jax.nn.sigmoid(raw.weights.free[0]) * jnp.sum(weights * powered) / jnp.sum(powered)
    return Instance(spectrum, jnp.where(dropped["signed weights"], lowered, weights), exponent)


def _powered(spectrum, exponent):
    positive = spectrum > 0
    return jnp.where(positive, jnp.where(positive, spectrum, 1.0) ** exponent, 0.0)


def _largest_shares(spectrum):
    """For each k, the share of the k largest values in their sum."""
    return jnp.cumsum(jnp.sort(spectrum, descending=True)) / jnp.sum(spectrum)


def margin(c):
    powered = _powered(c.spectrum, c.exponent)
    weighted = c.weights * powered
    before_last = (jnp.arange(len(powered)) < jnp.sum(c.spectrum > 0) - 1)[:-1]

    def least(values):
        return jnp.where(before_last[0], jnp.min(jnp.where(before_last, values, jnp.inf)), 0.0)

    partial_sums = _largest_shares(weighted) - _largest_shares(powered)
    steps = (weighted[:-1] - weighted[1:]) / (weighted[0] + 1e-300)
    return jnp.stack([least(partial_sums[:-1]), least(steps)])


def ball_margin(c):
    alive = balls.support(c.spectrum)
    powered = [c.spectrum[i] ** c.exponent for i in alive]
    weighted = [c.weights[i] * x for i, x in zip(alive, powered, strict=True)]
    if len(alive) == 1:
        return [_common.least([])] * 2
    pairs = zip(_common.largest_shares(weighted)[:-1], _common.largest_shares(powered)[:-1], strict=True)
    steps = [(a - b) / weighted[0] for a, b in itertools.pairwise(weighted)]
    return [_common.least([a - b for a, b in pairs]), _common.least(steps)]


def distance(c):
    """q_1 q_r (w_1 - w_r)/w_1: what the first and the last mode alone contribute to every partial sum's difference."""
    powered, alive = _powered(c.spectrum, c.exponent), c.spectrum > 0
    shares = powered / jnp.sum(powered)
    last = jnp.min(jnp.where(alive, shares, jnp.inf)), jnp.min(jnp.where(alive, c.weights, jnp.inf))
    return jnp.stack([shares[0] * last[0] * (1 - last[1] / c.weights[0]), jnp.ones(())])


def equality(c):
    modes = [(c.spectrum[i], c.weights[i]) for i in balls.support(c.spectrum)]
    constant = all(w == modes[0][1] for _, w in modes)

    def same(a, b):
        return (a[0] == b[0] and a[1] == b[1]) or (a[1] == 0 and b[1] == 0)

    return [constant, len(modes) == 1 or any(same(a, b) for a, b in itertools.pairwise(modes))]


def positive_total(c):
    """sum(w lambda^theta) > 0, decided by balls: the power of a rational is not one."""
    terms = [arb(w) * arb(x) ** arb(c.exponent) for w, x in zip(c.weights, c.spectrum, strict=True) if x > 0]
    return bool(balls.total(terms) > 0)


def lorenz(spectrum):
    """Shares of the k largest values, k = 0 ... d, in NumPy."""
    ordered = np.sort(spectrum)[::-1]
    return [0.0, *(np.cumsum(ordered) / ordered.sum()).tolist()]


def record(seed):
    """Majorization (Lorenz) curves of a power-law spectrum and of its filtered versions."""
    spectrum = np.arange(1, 33) ** -1.0
    random = np.random.default_rng(seed)
    weights = {
        r"$w = \lambda$ (low-pass)": spectrum,
        r"$w = \lambda^{1/3}$ (low-pass)": spectrum ** (1 / 3),
        "$w = 1$": np.ones_like(spectrum),
        r"$w = \lambda^{-1/2}$ (high-pass, order kept)": spectrum**-0.5,
        "$w$ in any order": np.exp(1.5 * random.standard_normal(32)),
    }
    return {
        "spectrum": r"$\lambda_i = 1/i$, $d = 32$",
        "curves": {name: lorenz(w * spectrum) for name, w in weights.items()},
    }


def draw(figure, record):
    axes = figure.subplots()
    styles = ("-", "--", "k-", "-.", ":")
    for (name, shares), style in zip(record["curves"].items(), styles, strict=True):
        axes.plot(range(len(shares)), shares, style, label=name)
    axes.set_xlabel(f"k ({record['spectrum']})")
    axes.set_ylabel(r"share of the k largest entries of $w\lambda$")
    axes.legend(loc="lower right")


STATEMENT = Statement(
    name="L1",
    title="a monotone ratio majorizes",
    text=(
        "Let lambda be nonincreasing and w >= 0 nonincreasing and not all zero on the support of lambda. Then w "
        "lambda is nonincreasing, and w lambda / sum(w lambda) majorizes lambda / sum(lambda): for each k, the share "
        "of its k largest entries is at least as large. If w is constant on the support the two are equal; if not, "
        "every share with 1 <= k < rank(lambda) is strictly larger. The same holds with lambda^theta, theta > 0, in "
        "place of lambda, so for both conventions (theta = 1: eigenvalues, 1/2: singular values). Of weights that "
        "descend below 0 while sum(w lambda) > 0 the shares still grow, but the order may be lost."
    ),
    source=(
        "The k-th share of w lambda over that of lambda is the mean of the k largest weights (weighted with lambda) "
        "over the mean of all: >= 1, with equality iff the weights within and beyond k have one mean, that is are all "
        "equal."
    ),
    not_checked="Infinite-dimensional spectra; powers theta outside (0, 4] (another power is another spectrum).",
    claims=(
        Claim(
            name="L1",
            statement="With w >= 0 nonincreasing, w lambda^theta is ordered and, normalised, majorizes lambda^theta.",
            hypotheses=(
                Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
                Hypothesis(
                    "nonnegative weights", "w >= 0 on the support", lambda c: (c.weights >= 0) | ~on(c.spectrum)
                ),
                Hypothesis(
                    "sorted weights", "w descending on the support", lambda c: nonincreasing(c.weights, on(c.spectrum))
                ),
                Hypothesis("positive exponent", "theta > 0", lambda c: c.exponent > 0),
            ),
            conclusions=(Conclusion("all partial sums", 1e-14), Conclusion("order kept", 1e-14)),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("weights in any order", "weights in any order", drops=("sorted weights",)),
                Ablation(
                    "signed weights",
                    "weights that descend below 0",
                    drops=("nonnegative weights",),
                    instead=(Hypothesis("positive total", "sum(w lambda^theta) > 0", positive_total),),
                ),
                Ablation("spectrum in any order", "eigenvalues in any order", drops=("sorted spectrum",)),
                Ablation("negative exponent", "theta < 0, which turns the order round", drops=("positive exponent",)),
                Ablation(
                    "one weight 1% out of order",
                    "one weight 1% above its predecessor",
                    drops=("sorted weights",),
                    instead=(
                        Hypothesis(
                            "nearly sorted weights",
                            "w descending within 1%",
                            lambda c: nearly_nonincreasing(c.weights, on(c.spectrum)),
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition("nonzero spectrum", lambda: spectra.effective_rank(jnp.zeros(3))),
                DomainCondition(
                    "weights not all 0", lambda: spectra.effective_rank(jnp.array([0.0, 1.0]) * jnp.array([2.0, 0.0]))
                ),
            ),
        ),
    ),
    figure=Figure(
        caption=(
            "Majorization (Lorenz) curves of lambda_i = 1/i and of w lambda: a curve that lies above another "
            "everywhere majorizes it. Low-pass weights lie above w = 1, order-preserving high-pass ones below; "
            "weights in any order may cross it."
        ),
        record=record,
        draw=draw,
    ),
)
