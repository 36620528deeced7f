"""The table of growth rates, held against the gradient of the real losses on explicit samples: a claim of S1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flint import arb, arb_series

from proofs_numeric import _growth
from rdm_jax import theory
from rdm_jax.claims import Ablation, Claim, Conclusion, Hypothesis, Stratum, balls
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Features of two views of n samples, (2, n, d), gains g and h, and which loss is differentiated, and through what.

    ``norms`` 1: each sample is normalised by its own length; ``through`` 1: gradients also reach the target branch.
    """

    views: Array
    online: Array
    target: Array
    norms: Array
    through: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    views: Array
    online: Array
    target: Array


def sample(tape, d):
    inside = jnp.arange(tape.width) < d
    first, second = logistic(tape.vectors(6)).reshape(2, 3, -1)
    alike = tape.scalar()
    views = jnp.stack([first, alike * first + (1 - alike) * second]) * jnp.exp(tape.scalar(-2.0, 2.0))
    return Raw(jnp.where(inside, views, 0.0), *(logistic(tape.vector()) for _ in range(2)))


def build(raw, dropped):
    norms, through = (dropped[name].astype(int) for name in ("each sample's own norm", "gradient through the target"))
    return Instance(raw.views, jnp.exp(raw.online), jnp.exp(raw.target), norms, through)


def _losses(features, c):
    """The squared error and the negative cosine of p = G z and t = H z+, each view the other's target."""
    other = features[::-1]
    held = jnp.where(c.through == 1, other, jax.lax.stop_gradient(other))
    p, t = c.online[None, None] * features, c.target[None, None] * held

    def mean(values):
        return jnp.mean(jnp.sum(values, axis=-1))

    cosine = -mean(p * t) / jnp.sqrt(mean(p**2) * mean(t**2))
    lengths = jnp.sqrt(jnp.sum(p**2, axis=-1) * jnp.sum(t**2, axis=-1))
    own = -jnp.mean(jnp.sum(p * t, axis=-1) / lengths)
    return jnp.stack([mean((p - t) ** 2) / 2, jnp.where(c.norms == 1, own, cosine)])


def margin(c):
    samples = c.views.shape[0] * c.views.shape[1]
    flow = -samples * jax.jacrev(_losses)(c.views, c)  # z' = -gradient, per sample
    spectrum, signal = (jnp.mean(c.views * views, axis=(0, 1)) for views in (c.views, c.views[::-1]))
    gains = {"online_gains": c.online, "target_gains": c.target}
    lengths = jnp.sum(c.online**2 * spectrum) + jnp.sum(c.target**2 * spectrum)

    def residual(slope, loss, scale):
        rates = theory.growth_rates(spectrum, signal=signal, loss=loss, **gains)
        factor = theory.common_factor(spectrum, loss=loss, **gains)
        return -jnp.sum(jnp.abs(jnp.mean(c.views * slope, axis=(0, 1)) - spectrum * factor * rates)) / scale

    return jnp.stack([residual(flow[0], "squared", lengths), residual(flow[1], "cosine", 1.0)])


def _slopes(p, t, pt, through, mode):
    """Both losses' slopes in e, the scale of the online features' mode being 1 + e; from |p|^2, |t|^2, p.t per mode."""

    def scaled(values, power):
        return arb_series([balls.total(values), power * values[mode]], 2)

    p, t, pt = scaled(p, 2), scaled(t, 2 * through), scaled(pt, 1 + through)
    return ((p + t) / 2 - pt)[1], (-pt / (p * t).sqrt())[1]


def ball_margin(c):
    """lambda_i r_i = -dL/d log s_i, s_i the scale of mode i of the online features, by power series in that scale."""
    other, count = c.views[::-1], c.views.shape[0] * c.views.shape[1]
    products = [(w * a * b).reshape(count, -1) for w, a, b in _products(c, other)]
    p, t, pt = (product.sum(axis=0) / count for product in products)
    spectrum, signal = p / c.online**2, pt / (c.online * c.target)
    lengths = balls.total(p), balls.total(spectrum * c.target**2)
    residuals = [arb(0), arb(0)]
    for i in balls.support(spectrum):
        squared, cosine = _slopes(p, t, pt, c.through, i)
        if c.norms:
            cosine = balls.total([_slopes(*rows, c.through, i)[1] for rows in zip(*products, strict=True)]) / count
        table = [_growth.table_rates(spectrum, c.online, c.target, signal, loss)[i] for loss in (1, 0)]
        residuals[0] += abs(squared + spectrum[i] * table[0]) / balls.total(lengths)
        residuals[1] += abs(cosine + spectrum[i] * table[1] / (lengths[0] * lengths[1]).sqrt())
    return residuals


def _products(c, other):
    return (c.online**2, c.views, c.views), (c.target**2, other, other), (c.online * c.target, c.views, other)


GROWTH_RATES = Claim(
    name="S1 growth rates",
    statement="The table's growth rates are those of gradient flow on free features, for any samples and both losses.",
    hypotheses=(
        Hypothesis("positive gains", "g > 0 and h > 0", lambda c: (c.online > 0) & (c.target > 0)),
        Hypothesis("mean field", "the cosine's norms are means over the samples", lambda c: c.norms == 0),
        Hypothesis("target held fixed", "no gradient through the target branch", lambda c: c.through == 0),
    ),
    conclusions=(
        Conclusion("squared error", 1e-13, kind="identity"),
        Conclusion("cosine", 1e-13, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    ablations=(
        Ablation("each sample's own norm", "the exact per-sample cosine (S3)", drops=("mean field",)),
        Ablation("gradient through the target", "no stop-gradient on the target branch", drops=("target held fixed",)),
    ),
    strata=(Stratum((2, 3), 3, 1.0),),
)
