"""Losses between the online and the target outputs of one ordered pair of views; all are means over the rows.

IsoLoss is no loss of its own here but a backward pass, ``rdm_jax.methods.isotropic``, under any of these.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rdm_jax.methods._rows import unit_rows
from rdm_jax.types import Features, Scalar

__all__ = ["Loss", "byol_loss", "cross_entropy", "mean_field_cosine", "negative_cosine", "squared_error"]

Loss = Callable[[Features, Features], Scalar]


def negative_cosine(online: Features, target: Features) -> Scalar:
    """-E[p^T t / (|p| |t|)], in [-1, 1]; a row of zeros has cosine 0.

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar, in at least float32.

    >>> float(negative_cosine(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [3.0, 0.0]])))
    -0.5

    Source: Chen and He 2021 (SimSiam), who take the mean over the two ordered pairs.
    """
    return -jnp.mean(jnp.sum(unit_rows(_wide(online)) * unit_rows(_wide(target)), axis=-1))


def byol_loss(online: Features, target: Features) -> Scalar:
    """E[2 - 2 p^T t / (|p| |t|)], the squared distance of unit rows, in [0, 4].

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar, in at least float32.

    >>> float(byol_loss(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [3.0, 0.0]])))
    1.0

    Source: Grill et al. 2020 (BYOL), who take the sum over the two ordered pairs, in [0, 8].
    """
    return 2 + 2 * negative_cosine(online, target)


def squared_error(online: Features, target: Features) -> Scalar:
    """E|p - t|^2 / 2.

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar in feature units squared, in at least float32.

    >>> float(squared_error(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])))
    12.5

    Source: Tian, Chen and Ganguli 2021; docs/theory.md T6.
    """
    return jnp.mean(jnp.sum((_wide(online) - _wide(target)) ** 2, axis=-1)) / 2


def mean_field_cosine(online: Features, target: Features) -> Scalar:
    """-E[p^T t] / sqrt(E|p|^2 E|t|^2): lengths averaged over the batch before the quotient, in [-1, 1].

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar, in at least float32; 0 if all rows of a side are 0.

    >>> round(float(mean_field_cosine(jnp.array([[3.0], [0.0]]), jnp.array([[1.0], [1.0]]))), 4)  # -1.5 / sqrt(4.5)
    -0.7071

    Source: docs/theory.md T5, S1.
    """
    whole, other = _wide(online), _wide(target)
    size = jnp.mean(jnp.sum(whole**2, axis=-1)) * jnp.mean(jnp.sum(other**2, axis=-1))
    nonzero = size > 0
    product = -jnp.mean(jnp.sum(whole * other, axis=-1))
    return jnp.where(nonzero, product / jnp.sqrt(jnp.where(nonzero, size, 1)), 0)


def cross_entropy(online: Features, target: Features) -> Scalar:
    """-E[sum_k t_k log softmax(y)_k] in nats: log K for uniform outputs on both sides.

    Args:
        online: logits y (n, K), already over their temperature (``sharpen``).
        target: assignments t (n, K), rows that sum to 1.

    Returns:
        A scalar, in at least float32.

    >>> round(float(cross_entropy(jnp.zeros((1, 4)), jnp.array([[0.5, 0.5, 0.0, 0.0]]))), 4)  # log 4
    1.3863

    Source: Caron et al. 2020 (SwAV), 2021 (DINO), who take the mean over the two ordered pairs.
    """
    return -jnp.mean(jnp.sum(_wide(target) * jax.nn.log_softmax(_wide(online), axis=-1), axis=-1))


def _wide(features: Features) -> Features:
    return features.astype(jnp.promote_types(features.dtype, jnp.float32))
