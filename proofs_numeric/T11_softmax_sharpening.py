"""T11. A lower softmax temperature raises the effective rank of uncentred outputs: a theorem in the linear regime only."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _softmax
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
    families,
    nonincreasing,
    on,
)
from rdm_jax.claims.predicates import is_exact
from rdm_jax.types import Array

ABOVE, BELOW, ANY_MEAN = 0, 1, 2


class Instance(NamedTuple):
    """Linear model of softmax outputs, in terms of the centred logits y~ and with K tau^2 for the temperature.

    Eigenvalues of Cov(y~) (descending); the squared length of the part of b = E[y~] that is orthogonal to Cov(y~); the
    coordinate of b along the eigenvector ``mode``; two temperatures. ``regime``: ABOVE the turning point or BELOW it with
    Cov b = 0, or above a sufficient bound with ANY_MEAN (along an eigenvector).
    """

    spectrum: Array
    orthogonal: Array
    along: Array
    low: Array
    high: Array
    mode: Array
    regime: Array


class Raw(NamedTuple):
    """Free parameters: the share of |b|^2, b along the mode, roots of the log distances from the turning point."""

    spectrum: families.Sequence
    share: Array
    along: Array
    room: Array
    apart: Array
    mode: Array
    regime: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    return Raw(
        spectrum=spectrum,
        share=tape.scalar(-5.0, 5.0),
        along=tape.scalar(-3.0, 3.0),
        room=jnp.maximum(tape.scalar(-1.0, 2.0), 0.0),
        apart=jnp.maximum(tape.scalar(-0.3, 2.0), 0.0),
        mode=tape.integer(0, spectrum.keep),
        regime=tape.integer(0, 3),
    )


def _second_power(c):
    """tr (Cov + b b^T)^2 over tr Cov; for floats, rationals and balls."""
    squares = (c.spectrum * c.spectrum).sum() + 2 * c.along * c.along * c.spectrum[c.mode]
    length = c.orthogonal + c.along * c.along
    return (squares + length * length) / c.spectrum.sum()


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    tilted = dropped["a mean along an eigenvector"]
    room = jnp.where(dropped["beyond the turning point"], -(raw.room**2), raw.room**2)
    room = jnp.where(dropped["turning point 1% off"], jnp.log(1 / 1.01), room)
    side = jnp.where(raw.regime == BELOW, -1, 1)
    near = theory.sharpening_threshold(spectrum, _softmax.CLASSES) ** 2 * _softmax.CLASSES * jnp.exp(side * room)
    share = jnp.where(tilted, 0.0, jnp.where(raw.share > 0, jax.nn.sigmoid(raw.share - 3), 0.0))
    along = jnp.where((raw.regime == ANY_MEAN) | tilted, jnp.exp(raw.along) * jnp.sqrt(spectrum[raw.mode]), 0.0)
    c = Instance(spectrum, share * near, along, near, near, raw.mode, raw.regime)
    closest = jnp.where(raw.regime == ANY_MEAN, _second_power(c) * jnp.exp(room), (1 - share) * near)
    other = closest * jnp.exp(side * raw.apart**2)
    return c._replace(low=jnp.minimum(closest, other), high=jnp.maximum(closest, other))


def _at(c, level):
    return c.spectrum, c.orthogonal, c.along, c.mode, level


def margin(c):
    low, high = (jnp.log(spectra.effective_rank(_softmax.model(*_at(c, level)))) for level in (c.low, c.high))
    return jnp.where(c.regime == BELOW, high - low, low - high)[None]


def ball_margin(c):
    fall = _softmax.ball_entropy(*_at(c, c.low)) - _softmax.ball_entropy(*_at(c, c.high))
    return [fall * (-1 if c.regime == BELOW else 1)]


def distance(c):
    """Squared distance between the mixtures (1 - t) P + t rho of the constant mode and the logits' moment, at the two t."""
    logits = jnp.sum(c.spectrum) + c.orthogonal + c.along**2
    shares = [logits / (level + logits) for level in (c.low, c.high)]
    return (((shares[0] - shares[1]) * jnp.sum(c.spectrum) / logits) ** 2)[None]


def equality(c):
    return [c.low == c.high]


def right_side(c, slack=0):
    """Cov b = 0: K tau^2 + |b|^2 on the side of Lambda/erank of Cov(y~) that the regime says, up to the slack (/10000)."""
    sign = 1 - 2 * (c.regime == BELOW)
    near = (c.low * (c.regime != BELOW) + c.high * (c.regime == BELOW) + c.orthogonal) * (10000 + slack * sign)
    peak = _softmax.turning_point(c.spectrum)
    if is_exact(c.spectrum):
        return c.regime == ANY_MEAN or bool(sign * (arb(near) - 10000 * peak) >= 0)
    return at_least(sign * near, sign * 10000 * peak) | (c.regime == ANY_MEAN)


def above_the_bound(c):
    return at_least(c.low, _second_power(c)) | (c.regime != ANY_MEAN)


def _random_logits(key, draws, samples, classes):
    return jax.random.normal(key, (draws, samples, classes))


def linearisation_errors(key, sizes):
    logits = _random_logits(key, 64, 16, 5)

    def error(tau):
        linear = jax.vmap(lambda y: theory.softmax_linearisation(y, tau))(logits)
        return jnp.max(jnp.abs(jax.nn.softmax(logits / tau, axis=-1) - linear), axis=(1, 2))

    return jax.vmap(error, out_axes=-1)(jnp.array(sizes))


def _models(logits, tau):
    """Spectra of softmax outputs, of their linear model, and of that model for Cov b = 0; the logits must have b != 0."""
    classes = logits.shape[-1]
    centered = logits - jnp.mean(logits, axis=-1, keepdims=True)
    values, vectors = spectra.eigensystem(spectra.second_moment(centered, center=True))
    mean = jnp.mean(centered, axis=0)
    outputs = spectra.eigenvalues(spectra.second_moment(jax.nn.softmax(logits / tau, axis=-1)))
    linear = theory.softmax_spectrum_from_mean(values, classes, tau, mean @ vectors)
    leading = theory.softmax_spectrum(values, classes, tau, jnp.sum(mean**2))
    return outputs, linear[:classes], leading[:classes]


def _model_errors(first, second):
    def measure(key, sizes):
        logits = _random_logits(key, 64, 16, 5) + jnp.arange(5.0) / 4

        def error(tau):
            found = jax.vmap(lambda y: _models(y, tau))(logits)
            return jnp.max(jnp.abs(found[first] - found[second]), axis=-1)

        return jax.vmap(error, out_axes=-1)(jnp.array(sizes))

    return measure


SAMPLERS = {
    "equal scales": lambda noise, offsets: noise,
    "log-normal scales": lambda noise, offsets: noise * jnp.exp(offsets),
    "nonzero mean": lambda noise, offsets: noise + 2 * offsets,
}


def rising_rates(key, relative, draws=400, samples=32, classes=8):
    """How often erank (eig) of softmax outputs rises from one temperature of the grid to the next higher one.

    Temperatures are relative to max|y~|. ``outputs``: uncentred; ``constant removed``: 1/K is subtracted.
    """
    noise_key, offset_key = jax.random.split(key)
    noise = _random_logits(noise_key, draws, samples, classes)
    offsets = jax.random.normal(offset_key, (draws, 1, classes))

    def ranks(logits, removed):
        largest = jnp.max(jnp.abs(logits - jnp.mean(logits, axis=-1, keepdims=True)))
        outputs = jax.nn.softmax(logits[None] / (relative * largest)[:, None, None], axis=-1) - removed / classes
        return jax.vmap(spectra.feature_effective_rank)(outputs)

    @jax.jit
    def rates(logits, removed):
        rises = jnp.diff(jax.vmap(ranks, in_axes=(0, None))(logits, removed), axis=1) > 1e-9
        return jnp.sum(rises, axis=0) / draws, jnp.sum(jnp.any(rises, axis=1)) / draws

    found = {}
    for name, sampler in SAMPLERS.items():
        for column, removed in (("outputs", 0.0), ("constant removed", 1.0)):
            each, anywhere = rates(sampler(noise, offsets), removed)
            found[f"{name}, {column}"] = {"each": np.asarray(each).tolist(), "anywhere": float(anywhere)}
    return found


def ball_softmax_rank(logits, tau):
    """log erank of the uncentred second moment of softmax outputs for two classes, in balls."""
    rows = [[(arb(y) / arb(tau)).exp() for y in row] for row in logits]
    rows = [[e / balls.total(row) for e in row] for row in rows]
    a, b, c = (balls.total([r[i] * r[j] for r in rows]) / len(rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    large = (a + c + ((a - c) ** 2 + 4 * b * b).sqrt()) / 2
    return balls.entropy([large, (a * c - b * b) / large])


HOT = (((1.8, 0.0), (2.2, 0.0)), 1.2, 1.6)  # logits with max|y~| = 1.1, and two higher temperatures


def record(seed):
    """Frequencies of violations by temperature, and a certified one above max|y~|."""
    relative = jnp.geomspace(0.05, 5.0, 17)
    logits, low, high = HOT
    return {
        "relative": relative.tolist(),
        "draws": 400,
        "samples": 32,
        "classes": 8,
        "rising": rising_rates(jax.random.key(seed), relative),
        "above max|y~|": {
            "logits": logits,
            "temperatures": [low, high],
            "log erank, higher less lower": (ball_softmax_rank(logits, high) - ball_softmax_rank(logits, low)).str(
                8, radius=False
            ),
        },
    }


def draw(figure, record):
    grid = np.array(record["relative"])
    middles = np.sqrt(grid[1:] * grid[:-1])
    for axes, column in zip(figure.subplots(1, 2, sharey=True), ("outputs", "constant removed"), strict=True):
        for marker, name in zip("osv", SAMPLERS, strict=True):
            found = record["rising"][f"{name}, {column}"]
            axes.plot(middles, found["each"], marker=marker, label=f"{name} ({found['anywhere']:.0%} somewhere)")
        axes.axvline(1.0, color="grey", linestyle=":")
        axes.set(xscale="log", ylim=(-0.02, 1.35), xlabel="temperature / max|centred logit|")
        axes.set_yticks(np.linspace(0.0, 1.0, 6))
        axes.legend(loc="upper left")
    first, second = figure.axes
    first.set(ylabel="share of draws whose effective rank rises")
    first.set_title("softmax outputs, uncentred")
    second.set_title("constant mode removed")


SHARPENING = Claim(
    name="T11",
    statement="In the linear model erank falls as tau grows above its turning point, and rises below it.",
    hypotheses=(
        Hypothesis(
            "sorted spectrum", "eigenvalues of Cov(y~) descending and >= 0", lambda c: nonincreasing(c.spectrum)
        ),
        Hypothesis(
            "temperatures and mean",
            "0 < tau_low <= tau_high, b a vector, its mode on the support",
            lambda c: (c.low > 0) & (c.high >= c.low) & (c.orthogonal >= 0) & (c.along >= 0) & on(c.spectrum)[c.mode],
        ),
        Hypothesis(
            "Cov b = 0", "unless the bound for any mean holds", lambda c: (c.along == 0) | (c.regime == ANY_MEAN)
        ),
        Hypothesis(
            "side of the turning point",
            "K tau^2 + |b|^2 >= Lambda/erank of Cov(y~) at both temperatures (ABOVE), or <= (BELOW)",
            right_side,
        ),
        Hypothesis("bound for any mean", "K tau^2 >= tr (Cov + b b^T)^2 / tr Cov (ANY_MEAN)", above_the_bound),
    ),
    conclusions=(Conclusion("erank, eig", 1e-13),),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation(
            "beyond the turning point",
            "temperatures beyond the turning point, or below the bound for any mean",
            drops=("side of the turning point", "bound for any mean"),
        ),
        Ablation(
            "turning point 1% off",
            "the nearer temperature up to 1% (of K tau^2 + |b|^2) beyond it",
            drops=("side of the turning point",),
            instead=(Hypothesis("nearly", "on its side within 1.01%", lambda c: right_side(c, slack=101)),),
        ),
        Ablation(
            "a mean along an eigenvector",
            "K tau^2 >= Lambda/erank of Cov(y~), but b along an eigenvector of Cov(y~)",
            drops=("Cov b = 0",),
        ),
    ),
    domain=(
        DomainCondition("tau > 0", lambda: theory.softmax_spectrum([2.0, 1.0], 4, 0.0)),
        DomainCondition("two classes", lambda: theory.softmax_spectrum([2.0, 1.0], 1, 1.0)),
        DomainCondition("logits that vary", lambda: theory.sharpening_threshold([0.0, 0.0], 4)),
    ),
)

TEMPERATURES = (32.0, 64.0, 128.0, 256.0)

STATEMENT = Statement(
    name="T11",
    title="softmax sharpening",
    text=(
        "softmax(y/tau) = (1/K)(1 + y~/tau) + O(1/tau^2), y~ = y - mean_k y. With b = E[y~], the eigenvalues of the uncentred "
        "second moment are 1/K + |b|^2/(K tau)^2 and eig(Cov(y~))/(K tau)^2, up to O(1/tau^3); in the linear model exactly if "
        "Cov(y~) b = 0, else up to O(1/tau^4). In the linear model erank (eig) is unimodal in tau, for every b. If Cov b = 0 "
        "it decreases in tau while K tau^2 + |b|^2 >= Lambda/erank of Cov(y~), and increases below: exact. For other means "
        "that condition is not sufficient, even without |b|^2 on its left; K tau^2 >= tr (Cov + b b^T)^2 / tr Cov is, for "
        "every b. So a lower target temperature gives a positive rank difference there. Beyond the linear regime "
        "monotonicity is not a theorem: some random draws violate it (how many depends on the logits), none of the recorded "
        "ones above tau = max|y~|; but that is no theorem either: logits (1.8, 0) and (2.2, 0), max|y~| = 1.1, have a higher "
        "erank at tau = 1.6 than at 1.2. With the constant mode removed the leading order cancels and both signs are common."
    ),
    source=(
        "In the Gram matrix the model is P + R/(K tau^2), P a projector: a mixture of density matrices, on which the von "
        "Neumann entropy is concave; for Cov b = 0 as T10. Bound for any b, with R the Gram matrix of the y~ and u the "
        "unit constant vector: G = u u^T + R has <u|log G|u> >= -log <u|1/G|u> >= 0, and tr(R log G)/tr R <= "
        "log(<u|R|u> + tr R^2) - log tr R <= 0. This correction and the bound are this project's. DINO: Caron et al. 2021."
    ),
    not_checked=(
        "Means that are neither orthogonal to Cov(y~) nor along one of its eigenvectors (the proof covers them; the model's "
        "eigenvalues are checked to their order for random means). The frequencies are those of the recorded samplers."
    ),
    claims=(SHARPENING,),
    orders=(
        Order(
            "T11 linearisation", "softmax(y/tau) = (1 + y~/tau)/K + O(tau^-2)", -2.0, TEMPERATURES, linearisation_errors
        ),
        Order(
            "T11 spectrum",
            "eigenvalues of the outputs' second moment = those of the linear model + O(tau^-3)",
            -3.0,
            TEMPERATURES,
            _model_errors(0, 1),
        ),
        Order(
            "T11 leading order",
            "eigenvalues of the linear model = 1/K + |b|^2/(K tau)^2, eig(Cov)/(K tau)^2 + O(tau^-4)",
            -4.0,
            TEMPERATURES,
            _model_errors(1, 2),
        ),
    ),
    figure=Figure(
        caption=(
            "How often the effective rank (eig) of softmax outputs rises from one temperature to the next higher one, in 400 "
            "draws of 32 logits over 8 classes: with equal scales, log-normal scales of the classes, or a mean of twice the "
            "logits' spread. Left: as they are; no violation above 1 (dotted) was drawn. Right: with 1/K subtracted."
        ),
        record=record,
        draw=draw,
    ),
)
