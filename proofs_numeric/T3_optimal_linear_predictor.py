"""T3. The optimal linear predictor is a Wiener filter, so it is low-pass and makes a positive rank difference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, arb_mat

from proofs_numeric import _common
from rdm_jax import plotting, spectra, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Order,
    Statement,
    Stratum,
    balls,
    families,
    on,
)
from rdm_jax.claims.predicates import is_exact
from rdm_jax.claims.tape import logistic
from rdm_jax.spectra.decompose import eigensystem
from rdm_jax.types import Array

# The filter: commuting moments, one number per mode.


class Modes(NamedTuple):
    """Signal m, noise v (isotropic: the same in every mode) and ridge rho; lambda = m + v."""

    signal: Array
    noise: Array
    ridge: Array


class RawModes(NamedTuple):
    """Free parameters: (1 + x)(v + rho) descends like ``spectrum`` and x = m/(v + rho) like ``ratio``."""

    spectrum: families.Sequence
    ratio: families.Sequence
    log_floor: Array
    share: Array
    isotropic: Array
    clean: Array


def sample_modes(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    ratio, kind = families.sample_filter(tape, spectrum, d), tape.scalar()
    share = jnp.where(tape.scalar() < 0.3, 0.0, tape.scalar(0.0, jnp.pi))
    return RawModes(spectrum, ratio, tape.scalar(-3.0, 3.0), share, kind < 0.55, kind < 0.05)


def build_modes(raw, dropped):
    top, alive = families.descending(raw.spectrum), families.kept(raw.spectrum)
    ratio = jnp.where(dropped["noise of any shape"], families.unordered(raw.ratio), families.descending(raw.ratio))
    ratio = jnp.where(dropped["one mode 1% noisier"], families.out_of_order(ratio, raw.ratio), ratio)
    shaped = dropped["noise of any shape"] | dropped["one mode 1% noisier"] | ~raw.isotropic
    floor = jnp.where(alive, jnp.where(shaped, top / (1 + ratio), jnp.exp(raw.log_floor)), 0.0)
    ridge = jnp.sin(raw.share) ** 2 * jnp.min(jnp.where(alive, floor, jnp.inf))
    negative = -(1 + 0.9 * jnp.min(jnp.where(alive, ratio, jnp.inf))) * jnp.exp(raw.log_floor)
    modes = Modes(ratio * floor, jnp.where(alive, floor - ridge, 0.0), ridge)
    clean = Modes(top, jnp.zeros_like(top), jnp.zeros_like(ridge))
    modes = jax.tree.map(lambda a, b: jnp.where(raw.clean, a, b), clean, modes)
    below = Modes(ratio * jnp.exp(raw.log_floor) * alive, jnp.exp(raw.log_floor) * alive, negative)
    return jax.tree.map(lambda a, b: jnp.where(dropped["negative ridge"], a, b), below, modes)


def wiener(c):
    """lambda, and the gains m / (lambda + rho); a negative ridge, which the library refuses, is a shift of lambda."""
    spectrum = c.signal + c.noise
    shifted = jnp.where(spectrum > 0, spectrum + jnp.minimum(c.ridge, 0.0), 0.0)
    return spectrum, theory.lagging_predictor_gains(shifted, c.signal, jnp.maximum(c.ridge, 0.0))


def _least_step(values, spectrum):
    """The smallest of the values that belong to two modes of the support, 0 if there are none."""
    pairs = spectrum[1:] > 0
    return jnp.where(pairs[0], jnp.min(jnp.where(pairs, values, jnp.inf)), 0.0)


def margin_modes(c):
    spectrum, gains = wiener(c)
    difference = theory.predicted_rank_difference(spectrum, gains) / spectra.effective_rank(spectrum)
    return jnp.stack([difference, _least_step(gains[:-1] - gains[1:], spectrum)])


def ball_margin_modes(c):
    spectrum = [m + v for m, v in zip(c.signal, c.noise, strict=True)]
    alive = balls.support(spectrum)
    spectrum, gains = [spectrum[i] for i in alive], [c.signal[i] / (spectrum[i] + c.ridge) for i in alive]
    online = balls.entropy([g * g * x for g, x in zip(gains, spectrum, strict=True)])
    steps = [a - b for a, b in zip(gains[:-1], gains[1:], strict=True)]
    return [-(online - balls.entropy(spectrum)).expm1(), _common.least(steps)]


def distance_modes(c):
    """||q_p - q_t||_1^2 (S4), and the smallest difference of gains, written without cancellation."""
    spectrum, gains = wiener(c)
    online = gains**2 * spectrum
    gap = jnp.sum(jnp.abs(online / jnp.sum(online) - spectrum / jnp.sum(spectrum)))
    total = spectrum + c.ridge
    cross = _crossed(c) / jnp.where(spectrum[1:] > 0, total[:-1] * total[1:], 1.0)
    return jnp.stack([gap**2, _least_step(cross, spectrum)])


def equality_modes(c):
    alive = balls.support(c.signal + c.noise)
    modes = [(c.signal[i], c.noise[i] + c.ridge) for i in alive]

    def same(a, b):
        return (a[0] == b[0] and a[1] == b[1]) or a[0] * b[1] == b[0] * a[1]

    neighbours = [same(a, b) for a, b in zip(modes[:-1], modes[1:], strict=True)]
    return [all(neighbours), len(alive) == 1 or any(neighbours)]


def _crossed(c):
    """m_i (v_j + rho) - m_j (v_i + rho) for neighbours i < j: >= 0 where m / (v + rho) is ordered like lambda."""
    floor = c.noise + c.ridge
    return c.signal[:-1] * floor[1:] - c.signal[1:] * floor[:-1]


def _surely_ordered(c, values, sizes):
    """values >= 0 for all neighbours on the support; floats must clear their rounding, or both modes be the same."""
    spectrum = c.signal + c.noise
    if is_exact(spectrum):
        return (values >= 0) | ~on(spectrum[1:])
    same = (c.signal[:-1] == c.signal[1:]) & (c.noise[:-1] == c.noise[1:])
    return (values >= 1e-13 * sizes) | same | ~on(spectrum[1:])


def _sorted_spectrum(c):
    spectrum = c.signal + c.noise
    return _surely_ordered(c, spectrum[:-1] - spectrum[1:], spectrum[:-1])


def _ordered_ratio(c):
    return _surely_ordered(c, _crossed(c), c.signal[:-1] * (c.noise + c.ridge)[1:])


def _nearly_ordered_ratio(c):
    size = c.signal[:-1] * (c.noise + c.ridge)[1:]
    return _surely_ordered(c, _crossed(c) + size / 99, size)


FILTER = Claim(
    name="T3 filter",
    statement=(
        "Commuting moments: if m/(v + rho) is ordered like lambda, as it is for isotropic noise, the gains m/(lambda + rho) "
        "are low-pass, and erank(target) - erank(online) >= 0, with equality iff m/(v + rho) is constant on lambda's support."
    ),
    hypotheses=(
        Hypothesis("moments", "m >= 0, v >= 0", lambda c: (c.signal >= 0) & (c.noise >= 0)),
        Hypothesis("nonnegative ridge", "rho >= 0", lambda c: c.ridge >= 0),
        Hypothesis("sorted spectrum", "lambda = m + v descending", _sorted_spectrum),
        Hypothesis("noise ordered", "m/(v + rho) ordered like lambda (always if v is isotropic)", _ordered_ratio),
    ),
    conclusions=(Conclusion("rank difference", 1e-13), Conclusion("low-pass", 1e-15)),
    sample=sample_modes,
    build=build_modes,
    margin=margin_modes,
    ball_margin=ball_margin_modes,
    distance=distance_modes,
    equality=equality_modes,
    ablations=(
        Ablation("noise of any shape", "anisotropic noise in any order", drops=("noise ordered",)),
        Ablation(
            "negative ridge",
            "rho < -v, which makes the filter sharper than the noise asks for",
            drops=("nonnegative ridge", "noise ordered"),
        ),
        Ablation(
            "one mode 1% noisier",
            "m/(v + rho) of one mode 1% above its predecessor's",
            drops=("noise ordered",),
            instead=(
                Hypothesis("noise nearly ordered", "m/(v + rho) ordered within 1%", _nearly_ordered_ratio),
            ),
        ),
    ),
    domain=(
        DomainCondition("some signal", lambda: theory.predicted_rank_difference([2.0, 1.0], theory.wiener_gains([2.0, 1.0], 3.0))),
        DomainCondition("noise >= 0", lambda: theory.wiener_gains([2.0, 1.0], -1.0)),
    ),
)


# The optimum: moments of explicit data, not commuting.


class Data(NamedTuple):
    """Two equally likely views of each of four data, (4, 2, d), a predictor W to compete, and the ridge rho.

    The pair (z, z+) of one datum is the same view twice with probability (1 + ``correlation``)/2.
    """

    views: Array
    predictor: Array
    ridge: Array
    correlation: Array


class RawData(NamedTuple):
    """Free parameters of an instance of `Data`: view = centre +- noise."""

    centres: Array
    noise: Array
    predictor: Array
    log_ridge: Array
    correlation: Array
    with_ridge: Array
    inside: Array


def sample_data(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    scales = families.descending(spectrum) ** 0.25
    centres, noise = (scales * logistic(tape.vectors(4)) for _ in range(2))
    predictor = tape.scalar(0.0, 1.0) * logistic(tape.vectors(tape.width))
    noise = noise * 10.0 ** tape.scalar(-2.0, 1.0)
    correlation = tape.scalar(-1.0, 1.0)
    inside = jnp.arange(tape.width) < d
    return RawData(centres, noise, predictor, tape.scalar(-6.0, 3.0), correlation, tape.scalar() < 0.6, inside)


def build_data(raw, dropped):
    views = jnp.stack([raw.centres + raw.noise, raw.centres - raw.noise], axis=1)
    correlation = jnp.where(dropped["correlated views"], jnp.sin(raw.correlation), 0.0)
    correlation = jnp.where(dropped["correlation of 1%"], 0.01 * jnp.sin(raw.correlation), correlation)
    ridge = jnp.where(raw.with_ridge, jnp.exp(raw.log_ridge), 0.0)
    predictor = jnp.where(raw.inside[:, None] & raw.inside[None, :], raw.predictor, 0.0)
    return Data(views, predictor, ridge, correlation)


def optima(c):
    """C_z + rho I, C_z, and the Wiener predictors that belong to them."""
    feature = spectra.second_moment(c.views.reshape(8, -1))
    signal = spectra.second_moment(jnp.mean(c.views, axis=1))
    ridged = feature + c.ridge * jnp.eye(len(feature))
    return ridged, feature, theory.wiener_predictor(signal, feature, c.ridge), theory.wiener_predictor(signal, feature)


def _expect(c, values):
    """E over the data and the pairs (z, z+) of each, of values (4, 2, 2): view z, view z+."""
    chance = (1 + c.correlation * jnp.array([[1.0, -1.0], [-1.0, 1.0]])) / 4
    return jnp.mean(jnp.sum(chance[None] * values, axis=(1, 2)))


def regression(c, predictor):
    """E|W z - z+|^2 + rho |W|_F^2."""
    error = (c.views @ predictor.T)[:, :, None, :] - c.views[:, None, :, :]
    return _expect(c, jnp.sum(error**2, axis=-1)) + c.ridge * jnp.sum(predictor**2)


def cosine(c, predictor):
    """E[p . t] / sqrt(E|p|^2 E|t|^2), p = W z and t = z+."""
    output = c.views @ predictor.T
    inner = _expect(c, jnp.sum(output[:, :, None, :] * c.views[:, None, :, :], axis=-1))
    return inner / jnp.sqrt(jnp.mean(jnp.sum(output**2, axis=-1)) * jnp.mean(jnp.sum(c.views**2, axis=-1)))


def size(c, best):
    """A bound on every term of the regression's losses, in the unit of lambda."""
    power = jnp.mean(jnp.sum(c.views**2, axis=-1)) + c.ridge
    return power * (1 + jnp.sum(c.predictor**2) + jnp.sum(best**2))


def quadratic(difference, moment):
    """tr(D C D^T)."""
    return jnp.sum((difference @ moment) * difference)


def margin_data(c):
    ridged, _, best, aligned = optima(c)
    excess = regression(c, c.predictor) - regression(c, best)
    residual = excess - quadratic(c.predictor - best, ridged)
    gain = cosine(c, aligned) - cosine(c, c.predictor)
    return jnp.stack([excess / size(c, best), -jnp.abs(residual) / size(c, best), gain])


def distance_data(c):
    """Distances of W to each optimum (for the cosine: of the directions), in the norms that the moments define."""
    ridged, feature, best, aligned = optima(c)

    def direction(predictor):
        return predictor / jnp.sqrt(quadratic(predictor, feature))

    apart = quadratic(direction(c.predictor) - direction(aligned), feature) / 2
    ridge = quadratic(c.predictor - best, ridged) / size(c, best)
    return jnp.stack([ridge, jnp.ones(()), cosine(c, aligned) * apart])


def _ball_predictor(signal, feature, ridge):
    """C_m (C_z + rho I)^-1 on the coordinates that the views have, 0 elsewhere; NaN while the balls can't tell it."""
    d = len(feature)
    alive = [i for i in range(d) if not feature[i][i] == 0]
    ridged = arb_mat([[feature[i][j] + (ridge if i == j else 0) for j in alive] for i in alive])
    try:
        solved = ridged.solve(arb_mat([[signal[i][j] for j in alive] for i in alive])).transpose().tolist()
    except ZeroDivisionError:
        return np.full((d, d), arb.nan(), dtype=object)
    predictor = np.full((d, d), arb(0), dtype=object)
    predictor[np.ix_(alive, alive)] = np.array(solved, dtype=object)
    return predictor


def ball_margin_data(c):
    views, d = c.views, c.views.shape[-1]
    rows, predictor = views.reshape(8, d), c.predictor[:d]
    means = views.sum(axis=1) / 2
    feature, signal = rows.T.dot(rows) / 8, means.T.dot(means) / 4
    best, aligned = (_ball_predictor(signal, feature, ridge) for ridge in (c.ridge, arb(0)))
    power = (rows * rows).sum() / 8

    def expect(product):
        values = product.reshape(4, 2, 2)
        same = values[:, 0, 0].sum() + values[:, 1, 1].sum()
        return ((1 + c.correlation) * same + (1 - c.correlation) * (values.sum() - same)) / 16

    def pairs(predictor):
        output = views.dot(predictor.T)
        left, right = (np.repeat(output, 2, axis=1).reshape(16, d), np.tile(views, (1, 2, 1)).reshape(16, d))
        return output, left, right

    def loss(predictor):
        _, left, right = pairs(predictor)
        return expect(((left - right) * (left - right)).sum(axis=1)) + c.ridge * (predictor * predictor).sum()

    def mean_cosine(predictor):
        output, left, right = pairs(predictor)
        return expect((left * right).sum(axis=1)) / ((output * output).sum() / 8 * power).sqrt()

    excess, apart = loss(predictor) - loss(best), predictor - best
    size = (power + c.ridge) * (1 + (predictor * predictor).sum() + (best * best).sum())
    gap = (apart.dot(feature) * apart).sum() + c.ridge * (apart * apart).sum()
    return [excess / size, (excess - gap) / size, mean_cosine(aligned) - mean_cosine(predictor)]


OPTIMUM = Claim(
    name="T3 optimum",
    statement=(
        "W* = C_m (C_z + rho I)^-1 minimises E|W z - z+|^2 + rho |W|_F^2: any other W costs tr[(W - W*)(C_z + rho I)(W - W*)^T] "
        "more. C_m C_z^-1 maximises the mean-field cosine."
    ),
    hypotheses=(
        Hypothesis("independent views", "z and z+ independent given the datum", lambda c: c.correlation == 0),
        Hypothesis("nonnegative ridge", "rho >= 0", lambda c: c.ridge >= 0),
    ),
    conclusions=(
        Conclusion("ridge regression", 1e-13),
        Conclusion("excess is quadratic", 1e-13, "identity"),
        Conclusion("mean-field cosine", 1e-11),
    ),
    sample=sample_data,
    build=build_data,
    margin=margin_data,
    ball_margin=ball_margin_data,
    distance=distance_data,
    ablations=(
        Ablation("correlated views", "z and z+ share noise", drops=("independent views",)),
        Ablation(
            "correlation of 1%",
            "z and z+ share 1% of their noise",
            drops=("independent views",),
            instead=(
                Hypothesis("nearly independent", "correlation of at most 1%", lambda c: 100 * abs(c.correlation) <= 1),
            ),
        ),
    ),
    domain=(
        DomainCondition("rho >= 0", lambda: theory.wiener_predictor([[1.0]], [[2.0]], -1.0)),
        DomainCondition("C_z a second moment", lambda: theory.wiener_predictor([[1.0]], [[-2.0]])),
    ),
    rows=19,
    strata=(Stratum((2, 3), 3, 0.8), Stratum((8,), 8, 0.2)),
)

STATEMENT = Statement(name="T3", title="optimal linear predictor", text="x", source="x", not_checked="x", claims=(OPTIMUM,))
