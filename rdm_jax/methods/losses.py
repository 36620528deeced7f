"""Losses between the online and the target outputs of one ordered pair of views; all are means over the rows.

IsoLoss is no loss of its own here but a backward pass, ``rdm_jax.methods.isotropic``, under any of these.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating
from rdm_jax.methods._rows import unit_rows
from rdm_jax.types import ArrayLike, Features, Scalar

__all__ = ["Loss", "byol_loss", "cross_entropy", "mean_field_cosine", "negative_cosine", "squared_error"]

Loss = Callable[[ArrayLike, ArrayLike], Scalar]


def negative_cosine(online: ArrayLike, target: ArrayLike) -> Scalar:
    """-E[p^T t / (|p| |t|)], in [-1, 1]; a row of zeros has cosine 0.

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar, in at least float32.

    Raises:
        ValueError: outputs that are not both (n, d).

    >>> float(negative_cosine(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [3.0, 0.0]])))
    -0.5

    Source: Chen and He 2021 (SimSiam), who take the mean over the two ordered pairs.
    """
    outputs, targets = _pair(online, target)
    return -jnp.mean(jnp.sum(unit_rows(outputs) * unit_rows(targets), axis=-1))


def byol_loss(online: ArrayLike, target: ArrayLike) -> Scalar:
    """E[2 - 2 p^T t / (|p| |t|)], the squared distance of unit rows, in [0, 4].

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar, in at least float32.

    Raises:
        ValueError: outputs that are not both (n, d).

    >>> float(byol_loss(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [3.0, 0.0]])))
    1.0

    Source: Grill et al. 2020 (BYOL), who take the sum over the two ordered pairs, in [0, 8].
    """
    return 2 + 2 * negative_cosine(online, target)


def squared_error(online: ArrayLike, target: ArrayLike) -> Scalar:
    """E|p - t|^2 / 2.

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar in feature units squared, in at least float32.

    Raises:
        ValueError: outputs that are not both (n, d).

    >>> float(squared_error(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])))
    12.5

    Source: Tian, Chen and Ganguli 2021; docs/theory.md T6.
    """
    outputs, targets = _pair(online, target)
    return jnp.mean(jnp.sum((outputs - targets) ** 2, axis=-1)) / 2


def mean_field_cosine(online: ArrayLike, target: ArrayLike) -> Scalar:
    """-E[p^T t] / sqrt(E|p|^2 E|t|^2): lengths averaged over the batch before the quotient, in [-1, 1].

    Args:
        online: p (n, d).
        target: t (n, d), row by row the partner.

    Returns:
        A scalar, in at least float32; 0 if all rows of a side are 0.

    Raises:
        ValueError: outputs that are not both (n, d).

    >>> round(float(mean_field_cosine(jnp.array([[3.0], [0.0]]), jnp.array([[1.0], [1.0]]))), 4)  # -1.5 / sqrt(4.5)
    -0.7071

    Source: docs/theory.md T5, S1.
    """
    outputs, targets = _pair(online, target)
    size = jnp.mean(jnp.sum(outputs**2, axis=-1)) * jnp.mean(jnp.sum(targets**2, axis=-1))
    nonzero = size > 0
    product = -jnp.mean(jnp.sum(outputs * targets, axis=-1))
    return jnp.where(nonzero, product / jnp.sqrt(jnp.where(nonzero, size, 1)), 0)


def cross_entropy(online: ArrayLike, target: ArrayLike) -> Scalar:
    """-E[sum_k t_k log softmax(y)_k] in nats: log K for uniform outputs on both sides.

    Args:
        online: logits y (n, K), already over their temperature (``sharpen``).
        target: assignments t (n, K), rows that sum to 1.

    Returns:
        A scalar, in at least float32.

    Raises:
        ValueError: outputs that are not both (n, d).

    >>> round(float(cross_entropy(jnp.zeros((1, 4)), jnp.array([[0.5, 0.5, 0.0, 0.0]]))), 4)  # log 4
    1.3863

    Source: Caron et al. 2020 (SwAV), 2021 (DINO), who take the mean over the two ordered pairs.
    """
    logits, assignments = _pair(online, target)
    return -jnp.mean(jnp.sum(assignments * jax.nn.log_softmax(logits, axis=-1), axis=-1))


def _pair(online: ArrayLike, target: ArrayLike) -> tuple[Features, Features]:
    outputs, targets = as_floating(online, "online"), as_floating(target, "target")
    if outputs.ndim != 2 or outputs.shape != targets.shape:
        raise ValueError(f"online and target must have one shape (n, d), got {outputs.shape} and {targets.shape}")
    return outputs, targets
