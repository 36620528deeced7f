"""Wiener predictors under nearly isotropic noise and from finite samples: convergence orders of T3."""

import jax
import jax.numpy as jnp

from rdm_jax import spectra, theory
from rdm_jax.claims import Order
from rdm_jax.spectra.decompose import eigensystem

NOISES = (0.1, 0.03, 0.01, 0.003, 0.001)
SAMPLES = (512.0, 2048.0, 8192.0)


def bent(signal, uniforms, eps):
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


def cosine_gaps(online, feature):
    """1 - cos(C_p v, v) for each eigenvector v of C_z, from the sine: no cancellation."""
    vectors = eigensystem(feature).vectors
    images = online @ vectors
    images = images / jnp.linalg.norm(images, axis=0, keepdims=True)
    along = jnp.sum(images * vectors, axis=0, keepdims=True)
    return jnp.sum((images - vectors * along) ** 2, axis=0) / (1 + along[0])


def _over(signal_of, error):
    """Errors (64, sizes) of random instances: ``signal_of`` uniforms and eps gives m, ``error`` takes C_p and C_z."""

    def one(uniforms, eps):
        return error(*bent(signal_of(uniforms[0], eps), uniforms[1:], eps))

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


commutator_errors = _over(_separated, _commutator)
angle_errors = _over(_separated, _angle)
clustered_angles = _over(_clustered, _angle)
cosine_errors = _over(_clustered, lambda online, feature: jnp.max(cosine_gaps(online, feature)))
silent_errors = _over(_silent, lambda online, feature: jnp.max(cosine_gaps(online, feature)))


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
        uniform = jax.random.uniform(key, (3, 8, 16, 512, 3), minval=-(3.0**0.5), maxval=3.0**0.5)
        first, second = (uniform[0] * scales.reshape(1, 1, 1, 3) + uniform[i] for i in (1, 2))
        sums = jnp.stack([jnp.einsum("rbni,rbnj->rbij", first, other) for other in (first, second)])
        totals = jnp.cumsum(sums, axis=2)[:, :, sizes // 512 - 1] / sizes.reshape(1, 1, -1, 1, 1)
        return (totals + jnp.swapaxes(totals, 3, 4)) / 2

    def one(key, sizes):
        scales = jnp.array([3.0, 2.0, 1.0])
        feature, signal = moments(key, scales, sizes)
        found = jax.vmap(jax.vmap(_predicted))(signal, feature)[which]
        wanted = _predicted(jnp.diag(scales**2), jnp.diag(scales**2 + 1))[which]
        squares = (found - wanted.reshape((1, 1, *wanted.shape))) ** 2
        return jnp.sqrt(jnp.mean(jnp.sum(squares.reshape(8, len(sizes), -1), axis=2), axis=0))

    def measure(key, sizes):
        return jax.lax.map(lambda one_key: one(one_key, jnp.array(sizes, int)), jax.random.split(key, 64))

    return measure


ORDERS = (
    Order("T3 commutator", "the commutator of C_p and C_z is O(eps)", 1.0, NOISES, commutator_errors),
    Order("T3 eigenvectors", "the angles between eigenvectors are O(eps), given gaps", 1.0, NOISES, angle_errors),
    Order("T3 eigenvectors, no gap", "with gaps of order eps they stay O(1)", 0.0, NOISES, clustered_angles),
    Order("T3 alignment", "1 - cos(C_p v, v) is O(eps^2) where m > 0, gaps or not", 2.0, NOISES, cosine_errors),
    Order("T3 no signal", "1 - cos(C_p v, v) does not fall with eps where m = 0", 0.0, NOISES, silent_errors),
    Order("T3 predictor, n samples", "the error of the predictor is O(n^-1/2)", -0.5, SAMPLES, _sampled(0)),
    Order("T3 rank difference, n samples", "so is that of its rank difference", -0.5, SAMPLES, _sampled(1)),
)
