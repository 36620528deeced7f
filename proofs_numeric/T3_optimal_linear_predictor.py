"""T3. The optimal linear predictor is a Wiener filter, so it is low-pass and makes a positive rank difference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, arb_mat

from proofs_numeric import _common, _growth
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
    centres, noise = (scales[None] * logistic(tape.vectors(4)) for _ in range(2))
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


def _bent(signal, uniforms, eps):
    """C_p and C_z of the Wiener predictor for C_m = diag(m) and C_v = I + eps E, ridge 1/2; E is random, of norm about 1."""
    moment, bend = jnp.diag(signal), uniforms + uniforms.T - 1
    feature = moment + jnp.eye(len(signal)) + eps * bend
    predictor = theory.wiener_predictor(moment, feature, 0.5)
    return predictor @ feature @ predictor.T, feature


def _commutator(online, feature):
    product = online @ feature
    return jnp.linalg.norm(product - product.T) / (jnp.linalg.norm(online) * jnp.linalg.norm(feature))


def _angle(online, feature):
    """The largest sine of the angle between eigenvectors of equal rank."""
    first, second = eigensystem((online + online.T) / 2).vectors, eigensystem(feature).vectors
    return jnp.max(jnp.linalg.norm(first - second * jnp.sum(first * second, axis=0, keepdims=True), axis=0))


def _cosine_gaps(online, feature):
    """1 - cos(C_p v, v) for each eigenvector v of C_z, from the sine: no cancellation."""
    vectors = eigensystem(feature).vectors
    images = online @ vectors
    images = images / jnp.linalg.norm(images, axis=0, keepdims=True)
    along = jnp.sum(images * vectors, axis=0, keepdims=True)
    return jnp.sum((images - vectors * along) ** 2, axis=0) / (1 + along[0])


def _over(signal_of, error):
    """Errors (64, sizes) of random instances: ``signal_of`` uniforms and eps gives m, ``error`` takes C_p and C_z."""

    def one(uniforms, eps):
        return error(*_bent(signal_of(uniforms[0], eps), uniforms[1:], eps))

    def measure(key, sizes):
        uniforms = jax.random.uniform(key, (64, 6, 5))
        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(uniforms, jnp.array(sizes))

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
    scales = jnp.array([3.0, 2.0, 1.0])

    def moments(key, sizes):
        """C_z and C_m of the first n of 8192 pairs, for each n: views of unit noise, signal of the given scales."""
        uniform = jax.random.uniform(key, (3, 8, 16, 512, 3), minval=-(3.0**0.5), maxval=3.0**0.5)
        first, second = (uniform[0] * scales.reshape(1, 1, 1, 3) + uniform[i] for i in (1, 2))
        sums = jnp.stack([jnp.einsum("rbni,rbnj->rbij", first, other) for other in (first, second)])
        totals = jnp.cumsum(sums, axis=2)[:, :, sizes // 512 - 1] / sizes.reshape(1, 1, -1, 1, 1)
        return (totals + jnp.swapaxes(totals, 3, 4)) / 2

    def one(key, sizes):
        feature, signal = moments(key, sizes)
        found = jax.vmap(jax.vmap(_predicted))(signal, feature)[which]
        wanted = _predicted(jnp.diag(scales**2), jnp.diag(scales**2 + 1))[which]
        squares = (found - wanted.reshape((1, 1, *wanted.shape))) ** 2
        return jnp.sqrt(jnp.mean(jnp.sum(squares.reshape(8, len(sizes), -1), axis=2), axis=0))

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



def _flat_where_signal():
    """lambda = (2, 1), nu = 1: lambda is flat where m > 0, and yet the rank difference is strict. In balls."""
    c = Modes(*(balls.vector([arb(x) for x in mode]) for mode in ((1, 0), (1, 1))), arb(0))
    relative = ball_margin_modes(c)[0]
    difference = relative * balls.effective_rank([arb(2), arb(1)])
    return {"signal": [1, 0], "noise": 1, "ridge": 0, "rank_difference": _growth.certain_digits(difference)}


def record(seed):
    """Wiener gains over lambda, and what nearly isotropic noise does to the alignment of predictor and features."""
    spectrum, sizes = np.geomspace(1.0, 100.0, 60), np.geomspace(1e-3, 0.3, 9)
    gains = {f"{ridge:g}": theory.wiener_gains(spectrum, 1.0, ridge).tolist() for ridge in (0.0, 1.0, 10.0)}
    measures = {
        "commutator of C_p and C_z": _commutator_errors,
        "angle of eigenvectors, gaps": _angle_errors,
        "the same, gaps of order eps": _clustered_angles,
        "1 - cos, m > 0": _cosine_errors,
        "1 - cos, m = 0": _silent_errors,
    }
    key = jax.random.key(seed)
    errors = jax.jit(lambda: {name: jnp.exp(jnp.mean(jnp.log(f(key, tuple(sizes))), 0)) for name, f in measures.items()})()
    return {
        "spectrum": spectrum.tolist(),
        "gains": gains,
        "eps": sizes.tolist(),
        "errors": {name: error.tolist() for name, error in errors.items()},
        "flat_where_signal": _flat_where_signal(),
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for ridge, gains in record["gains"].items():
        left.semilogx(record["spectrum"], gains, label=rf"$\rho$ = {ridge}")
    left.set_xlabel(r"eigenvalue $\lambda$, noise $\nu$ = 1")
    left.set_ylabel(r"Wiener gain $(\lambda - \nu)/(\lambda + \rho)$")
    left.legend()
    for (name, error), marker in zip(record["errors"].items(), "osD^v", strict=True):
        right.loglog(record["eps"], error, marker + "-", ms=4, label=name)
    right.set_ylim(top=1e3)
    right.set_xlabel(r"anisotropy of the noise, $\epsilon$")
    right.set_ylabel("misalignment")
    right.legend(loc="upper left", fontsize="small")


STATEMENT = Statement(
    name="T3",
    title="optimal linear predictor",
    text=(
        "argmin_W E|W z - z+|^2 + rho |W|_F^2 = C_m (C_z + rho I)^-1 =: W*, rho >= 0 (of minimal norm if singular): any other W "
        "costs tr[(W - W*)(C_z + rho I)(W - W*)^T] more. C_m C_z^-1 is also the maximum of the mean-field cosine, up to scale. "
        "Commuting moments: the gains m_i/(lambda_i + rho) are low-pass iff m_i/(v_i + rho) is ordered like lambda_i, and then "
        "erank(target) >= erank(online), with equality iff m_i/(v_i + rho) is constant on the support of lambda. Isotropic "
        "noise (v = nu) is always ordered so: g = (lambda - nu)/(lambda + rho), strictly low-pass iff nu + rho > 0, with a "
        "strict rank difference iff also lambda is not flat on its support. Modes without signal belong to that support: m = "
        "(1, 0), nu = 1 gives rank 1.89 against 1, though lambda is flat where m > 0. Not commuting, C_v = nu I + eps E: the "
        "commutator of C_p and C_z is O(eps); the angle between their eigenvectors is O(eps) with gaps in the spectrum and "
        "O(1) with gaps of order eps; 1 - cos(C_p v, v) is O(eps^2) for eigenvectors v of C_z with m > 0, gaps or not, and does "
        "not fall with eps where m = 0. From n samples, the errors of the predictor and of its rank difference are O(n^-1/2)."
    ),
    source=(
        "Normal equations; Cauchy-Schwarz in the inner product tr(A C_z B^T); g = x/(1 + x) with x = m/(v + rho), then T1; "
        "first-order perturbation theory: C_p = f(C_z) + O(eps) with f(lambda) = ((lambda - nu)/(lambda + rho))^2 lambda, so "
        "C_p v = f(lambda) v + O(eps), which says nothing where f = 0."
    ),
    not_checked=(
        "Predictors with a bias or a nonlinearity; singular C_z other than with coordinates that are 0 (the tests have one "
        "more); finite samples other than of bounded independent noise."
    ),
    claims=(OPTIMUM, FILTER),
    orders=ORDERS,
    figure=Figure(
        "Left: Wiener gains under isotropic noise. Right: misalignment of the predictor's output with the features when the "
        "noise is isotropic up to eps (geometric means of 64 draws); the slopes are 1, 1, 0, 2 and 0.",
        record,
        draw,
    ),
)
