"""The Wiener predictor as an optimum, on moments of explicit data that need not commute: a claim of T3."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flint import arb, arb_mat

from rdm_jax import spectra, theory
from rdm_jax.claims import Ablation, Claim, Conclusion, DomainCondition, Hypothesis, Stratum, families
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Two equally likely views of each of four data, (4, 2, d), a predictor W to compete, and the ridge rho.

    The pair (z, z+) of one datum is the same view twice with probability (1 + ``correlation``)/2.
    """

    views: Array
    predictor: Array
    ridge: Array
    correlation: Array


class Raw(NamedTuple):
    """Free parameters of an instance: a view is its datum's centre +- noise."""

    centres: Array
    noise: Array
    predictor: Array
    log_ridge: Array
    correlation: Array
    with_ridge: Array
    inside: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    scales = families.descending(spectrum) ** 0.25
    centres, noise = (scales[None] * logistic(tape.vectors(4)) for _ in range(2))
    predictor = tape.scalar(0.0, 1.0) * logistic(tape.vectors(tape.width))
    noise = noise * 10.0 ** tape.scalar(-1.0, 1.0)
    correlation = tape.scalar(-1.0, 1.0)
    inside = jnp.arange(tape.width) < d
    return Raw(centres, noise, predictor, tape.scalar(-6.0, 3.0), correlation, tape.scalar() < 0.6, inside)


def build(raw, dropped):
    views = jnp.stack([raw.centres + raw.noise, raw.centres - raw.noise], axis=1)
    correlation = jnp.where(dropped["correlated views"], jnp.sin(raw.correlation), 0.0)
    correlation = jnp.where(dropped["correlation of 1%"], 0.01 * jnp.sin(raw.correlation), correlation)
    ridge = jnp.where(raw.with_ridge, jnp.exp(raw.log_ridge), 0.0)
    predictor = jnp.where(raw.inside[:, None] & raw.inside[None, :], raw.predictor, 0.0)
    return Instance(views, predictor, ridge, correlation)


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


def margin(c):
    ridged, _, best, aligned = optima(c)
    excess = regression(c, c.predictor) - regression(c, best)
    residual = excess - quadratic(c.predictor - best, ridged)
    gain = cosine(c, aligned) - cosine(c, c.predictor)
    return jnp.stack([excess, -jnp.abs(residual) / (1 + jnp.sum(best**2)), gain * size(c)]) / size(c)


def distance(c):
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
    alive = [i for i in range(d) if feature[i][i] != 0]
    ridged = arb_mat([[feature[i][j] + (ridge if i == j else 0) for j in alive] for i in alive])
    try:
        solved = ridged.solve(arb_mat([[signal[i][j] for j in alive] for i in alive])).transpose().tolist()
    except ZeroDivisionError:
        return np.full((d, d), arb.nan(), dtype=object)
    predictor = np.full((d, d), arb(0), dtype=object)
    predictor[np.ix_(alive, alive)] = np.array(solved, dtype=object)
    return predictor


def ball_margin(c):
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
    return [
        excess / size,
        (excess - gap) / size / (1 + (best * best).sum()),
        mean_cosine(aligned) - mean_cosine(predictor),
    ]


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
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
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
