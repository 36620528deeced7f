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
    noise = noise * 10.0 ** tape.scalar(-1.0, 1.0)
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


def size(c):
    """A bound on the regression's loss, and on that of its optimum."""
    power = jnp.mean(jnp.sum(c.views**2, axis=-1)) + c.ridge
    return power * (1 + jnp.sum(c.predictor**2))


def quadratic(difference, moment):
    """tr(D C D^T)."""
    return jnp.sum((difference @ moment) * difference)


def margin_data(c):
    ridged, _, best, aligned = optima(c)
    excess = regression(c, c.predictor) - regression(c, best)
    residual = excess - quadratic(c.predictor - best, ridged)
    gain = cosine(c, aligned) - cosine(c, c.predictor)
    return jnp.stack([excess, -jnp.abs(residual) / (1 + jnp.sum(best**2)), gain * size(c)]) / size(c)


def distance_data(c):
    """Distances of W to each optimum (for the cosine: of the directions), in the norms that the moments define."""
    ridged, feature, best, aligned = optima(c)

    def direction(predictor):
        return predictor / jnp.sqrt(quadratic(predictor, feature))

    apart = quadratic(direction(c.predictor) - direction(aligned), feature) / 2
    ridge = quadratic(c.predictor - best, ridged) / size(c)
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
    size = (power + c.ridge) * (1 + (predictor * predictor).sum())
    gap = (apart.dot(feature) * apart).sum() + c.ridge * (apart * apart).sum()
    return [excess / size, (excess - gap) / size / (1 + (best * best).sum()), mean_cosine(aligned) - mean_cosine(predictor)]


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
        Conclusion("ridge regression", 1e-14),
        Conclusion("excess is quadratic", 1e-12, "identity"),
        Conclusion("mean-field cosine", 1e-13),
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


# The orders: nearly isotropic noise, and finite samples.

_NOISES = (0.1, 0.03, 0.01, 0.003, 0.001)
_SAMPLES = (512.0, 2048.0, 8192.0)


def _symmetric(key, d):
    matrix = jax.random.normal(key, (d, d))
    return (matrix + matrix.T) / jnp.sqrt(8.0 * d)  # of norm about 1


def _bent(key, signal, eps):
    """C_p and C_z of the Wiener predictor for C_m = diag(m) and C_v = I + eps E, ridge 1/2."""
    moment = jnp.diag(signal)
    feature = moment + jnp.eye(len(signal)) + eps * _symmetric(key, len(signal))
    predictor = theory.wiener_predictor(moment, feature, 0.5)
    return predictor @ feature @ predictor.T, feature


def _commutator(online, feature):
    product = online @ feature
    return jnp.linalg.norm(product - product.T) / (jnp.linalg.norm(online) * jnp.linalg.norm(feature))


def _angle(online, feature):
    """The largest sine of the angle between eigenvectors of equal rank."""
    first, second = eigensystem((online + online.T) / 2).vectors, eigensystem(feature).vectors
    return jnp.max(jnp.linalg.norm(first - second * jnp.sum(first * second, axis=0), axis=0))


def _cosine_gaps(online, feature):
    """1 - cos(C_p v, v) for each eigenvector v of C_z, from the sine: no cancellation."""
    vectors = eigensystem(feature).vectors
    images = online @ vectors
    images = images / jnp.linalg.norm(images, axis=0)
    along = jnp.sum(images * vectors, axis=0)
    return jnp.sum((images - vectors * along) ** 2, axis=0) / (1 + along)


def _over(signal_of, error):
    """Errors (64, sizes) of random instances: ``signal_of`` uniforms and eps gives m, ``error`` takes C_p and C_z."""

    def one(key, eps):
        first, second = jax.random.split(key)
        return error(*_bent(first, signal_of(jax.random.uniform(second, (5,)), eps), eps))

    def measure(key, sizes):
        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jax.random.split(key, 64), jnp.array(sizes))

    return measure


def _separated(uniforms, eps):
    return 1.0 + jnp.arange(5)[::-1] + 0.5 * uniforms


def _clustered(uniforms, eps):
    return jnp.array([3.0, 3.0, 3.0, 1.0, 1.0]) + eps * jnp.sort(uniforms, descending=True)


def _silent(uniforms, eps):
    return jnp.array([3.0, 2.0, 0.0, 0.0, 0.0]) * (1 + uniforms)


_commutator_errors = _over(_separated, _commutator)
_angle_errors = _over(_separated, _angle)
_clustered_angles = _over(_clustered, _angle)
_cosine_errors = _over(_clustered, lambda online, feature: jnp.max(_cosine_gaps(online, feature)))
_silent_errors = _over(_silent, lambda online, feature: jnp.max(_cosine_gaps(online, feature)))


def _predicted(signal, feature):
    """The Wiener predictor and its rank difference, from moments."""
    predictor = theory.wiener_predictor(signal, feature, 0.1)
    online = predictor @ feature @ predictor.T
    ranks = [spectra.effective_rank(spectra.eigenvalues(moment)) for moment in (feature, (online + online.T) / 2)]
    return predictor, ranks[0] - ranks[1]


def _sampled(which):
    """Root mean square errors over 8 samples of n pairs, of the predictor (0) or the rank difference (1): (64, sizes)."""

    def moments(key, scales, sizes):
        """C_z and C_m of the first n of 8192 pairs, for each n: views of unit noise, signal of the given scales."""
        uniform = jax.random.uniform(key, (3, 16, 512, 3), minval=-(3.0**0.5), maxval=3.0**0.5)
        first, second = (uniform[0] * scales + uniform[i] for i in (1, 2))
        sums = jnp.stack([jnp.einsum("bni,bnj->bij", first, other) for other in (first, second)])
        totals = jnp.cumsum(sums, axis=1)[:, sizes // 512 - 1] / sizes[None, :, None, None]
        return (totals + jnp.swapaxes(totals, 2, 3)) / 2

    def squares(key, scales, sizes):
        feature, signal = moments(key, scales, sizes)
        found = jax.vmap(_predicted)(signal, feature)[which]
        wanted = _predicted(jnp.diag(scales**2), jnp.diag(scales**2 + 1))[which]
        return jnp.sum(((found - wanted[None]) ** 2).reshape(len(sizes), -1), axis=1)

    def one(key, sizes):
        first, second = jax.random.split(key)
        scales = jnp.array([3.0, 2.0, 1.0]) * (1 + 0.3 * jax.random.uniform(first, (3,)))
        return jnp.sqrt(jnp.mean(jax.vmap(squares, (0, None, None))(jax.random.split(second, 8), scales, sizes), axis=0))

    def measure(key, sizes):
        return jax.lax.map(lambda one_key: one(one_key, jnp.array(sizes, int)), jax.random.split(key, 64))

    return measure


ORDERS = (
    Order("T3 commutator", "the commutator of C_p and C_z is O(eps)", 1.0, _NOISES, _commutator_errors),
    Order("T3 eigenvectors", "the angles between eigenvectors are O(eps), given gaps", 1.0, _NOISES, _angle_errors),
    Order("T3 eigenvectors, no gap", "with gaps of order eps they stay O(1)", 0.0, _NOISES, _clustered_angles),
    Order("T3 alignment", "1 - cos(C_p v, v) is O(eps^2) where m > 0, gaps or not", 2.0, _NOISES, _cosine_errors),
    Order("T3 no signal", "1 - cos(C_p v, v) does not fall with eps where m = 0", 0.0, _NOISES, _silent_errors),
    Order("T3 predictor, n samples", "the error of the predictor is O(n^-1/2)", -0.5, _SAMPLES, _sampled(0)),
    Order("T3 rank difference, n samples", "so is that of its rank difference", -0.5, _SAMPLES, _sampled(1)),
)

STATEMENT = Statement(name="T3", title="optimal linear predictor", text="x", source="x", not_checked="x", orders=ORDERS)
