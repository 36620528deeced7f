"""Effective rank and its relatives: how many directions a spectrum, or a batch of features, really uses.

Two conventions, and every number says which one it is: "eig" normalises the eigenvalues of the second
moment (``effective_rank(eigenvalues(...))``, ``feature_effective_rank``), "sv" the singular values of the
features (``rankme``). All are free of scale: features may be multiplied by any constant.

A direction with eigenvalue exactly 0 adds nothing and carries no gradient in the entropies of order <= 1,
whose slope is infinite there. That makes gradients with respect to *features* right: an eigenvalue moves
away from 0 quadratically in them.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rdm_jax._checks import as_features, as_floating, as_spectrum, poison, require
from rdm_jax._products import product
from rdm_jax.spectra.decompose import eigensystem, eigenvalues, singular_values
from rdm_jax.spectra.moments import second_moment, smaller_moment
from rdm_jax.types import Array, ArrayLike, Batched, Features, Flag, Labels, Mask, Moment, Scalar, Spectrum

_HUGE_ORDER = 1e30  # stands for an infinite order: 1e30 log(p) is finite in float32 and decides every maximum


def effective_rank(spectrum: ArrayLike) -> Batched:
    """Effective rank, the exponential of the entropy of the normalised spectrum.

    erank = exp(-sum_i q_i log q_i), q = spectrum / sum(spectrum), 0 log 0 = 0; in [1, d].

    Args:
        spectrum: (..., d), nonnegative, any scale and order; the convention ("eig", "sv") is the caller's.

    Returns:
        (...), the effective number of directions.

    Raises:
        ValueError: NaN or inf, negative beyond rounding, or all zero. Under a trace the result is NaN instead.

    >>> print(f"{effective_rank([1.0, 1.0, 0.0]):.4f} {effective_rank([3.0, 1.0]):.4f}")
    2.0000 1.7548

    Source: Roy and Vetterli 2007, of singular values; Zhuo et al. 2023, of eigenvalues.
    """
    values, valid = as_spectrum(spectrum)
    return poison(_exp_entropy(values), valid)


def renyi_effective_rank(spectrum: ArrayLike, order: ArrayLike) -> Batched:
    """Effective rank of a given Renyi order: the number of equal values of the same Renyi entropy.

    exp(H_a) with H_a = log(sum_i q_i^a) / (1 - a). Order 0 counts the nonzero values, order 1 is
    ``effective_rank``, order 2 ``participation_ratio``, order inf sum/max; nonincreasing in the order. Near
    order 1 it is computed without cancellation.

    Args:
        spectrum: (..., d), nonnegative, any scale and order.
        order: a scalar in [0, inf]; may be traced.

    Returns:
        (...), in [1, d].

    Raises:
        ValueError: as ``effective_rank``, or an order that is not a scalar in [0, inf]. Under a trace the
            result is NaN instead.

    >>> [round(float(renyi_effective_rank([2.0, 1.0, 1.0, 0.0], order)), 4) for order in (0, 2, float("inf"))]
    [3.0, 2.6667, 2.0]

    Source: docs/theory.md T1; Renyi 1961.
    """
    values, valid = as_spectrum(spectrum)
    order = as_floating(order, "order").astype(values.dtype)
    if order.ndim:
        raise ValueError(f"order must be a scalar, got shape {order.shape}; use jax.vmap for several orders")
    require(order >= 0, f"order must be in [0, inf], got {order}")
    return poison(_exp_renyi_entropy(values, order), valid & (order >= 0))


def participation_ratio(spectrum: ArrayLike) -> Batched:
    """Participation ratio of a spectrum, (sum lambda)^2 / sum(lambda^2); in [1, d].

    Args:
        spectrum: (..., d), nonnegative, any scale and order.

    Returns:
        (...), the effective rank of Renyi order 2.

    Raises:
        ValueError: as ``effective_rank``. Under a trace the result is NaN instead.

    >>> print(f"{participation_ratio([3.0, 1.0]):.4f}")
    1.6000

    Source: docs/theory.md T1.
    """
    values, valid = as_spectrum(spectrum)
    return poison(_participation(values), valid)


def stable_rank(spectrum: ArrayLike) -> Batched:
    """Stable rank of a spectrum of eigenvalues, sum(lambda) / max(lambda); in [1, d].

    Args:
        spectrum: (..., d) *eigenvalues* of a second moment (squared singular values), any scale and order.

    Returns:
        (...), the effective rank of Renyi order infinity.

    Raises:
        ValueError: as ``effective_rank``. Under a trace the result is NaN instead.

    >>> print(f"{stable_rank([4.0, 1.0, 1.0]):.4f}")
    1.5000

    Source: docs/theory.md T1; Rudelson and Vershynin 2007.
    """
    values, valid = as_spectrum(spectrum)
    return poison(_sum_over_max(values), valid)


def numerical_rank(spectrum: ArrayLike, rtol: ArrayLike | None = None) -> Batched:
    """How many values exceed rtol times the largest; its gradient is 0.

    Args:
        spectrum: (..., d), nonnegative, any scale and order.
        rtol: relative tolerance in [0, 1), of the *given* values: its square for eigenvalues where it was
            meant for singular values. By default d times the machine epsilon.

    Returns:
        (...), a whole number, as a float so that invalid input can be NaN.

    Raises:
        ValueError: as ``effective_rank``, or rtol outside [0, 1). Under a trace the result is NaN instead.

    >>> print(f"{numerical_rank([1.0, 0.1, 0.001], rtol=0.01):.1f}")
    2.0

    Source: docs/theory.md T1.
    """
    values, valid = as_spectrum(spectrum)
    given = values.shape[-1] * jnp.finfo(values.dtype).eps if rtol is None else rtol
    tolerance = as_floating(given, "rtol").astype(values.dtype)
    inside = jnp.all((tolerance >= 0) & (tolerance < 1))
    require(inside, f"rtol must be in [0, 1), got {rtol}")
    above = values > tolerance * jnp.max(values, axis=-1, keepdims=True)
    return poison(jnp.sum(above, axis=-1, dtype=values.dtype), valid & inside)


def alpha_req(spectrum: ArrayLike, *, first: int = 1, last: int | None = None) -> Batched:
    """Exponent a of the power law lambda_i ~ i^(-a), fitted by least squares in log-log.

    Minus the slope of log lambda_i against log i, over the ranks ``first`` to ``last`` (by default all) whose
    value exceeds d eps times the largest; all ranks weigh the same.

    Args:
        spectrum: (..., d) eigenvalues, nonnegative, any scale and order: they are sorted here.
        first: first rank of the fit, counted from 1 for the largest eigenvalue.
        last: last rank of the fit, included; None is d.

    Returns:
        (...), the exponent; 0 for a flat spectrum.

    Raises:
        ValueError: as ``effective_rank``; a range outside 1 <= first < last <= d; or fewer than two values
            above rounding in it. Under a trace the result is NaN instead.

    >>> print(f"{alpha_req([1.0, 1 / 4, 1 / 9, 1 / 16]):.4f}")
    2.0000

    Source: Agrawal et al. 2022. The paper fits all eigenvalues; its released code fits ranks 4 to 100 and
    weighs rank i by 1/i.
    """
    values, valid = as_spectrum(spectrum)
    last = values.shape[-1] if last is None else last
    if not 1 <= first < last <= values.shape[-1]:
        raise ValueError(f"the fit needs 1 <= first < last <= {values.shape[-1]}, got first={first}, last={last}")
    exponent, enough = _power_law(values, first, last)
    require(enough, f"fewer than two of the eigenvalues {first} to {last} are above rounding: no line to fit")
    return poison(exponent, valid & enough)


def rankme(features: ArrayLike) -> Scalar:
    """RankMe: the effective rank of the features' *singular values* ("sv").

    exp(-sum_k p_k log p_k), p_k = s_k / sum(s): exact, without the 1e-7 that the published definition adds to
    every p_k (it keeps its logarithm finite, and moves the value by less than 1e-5 for d = 512).

    Args:
        features: (n, d), as they are: neither centred nor normalised.

    Returns:
        A scalar in [1, min(n, d)].

    Raises:
        ValueError: not a nonempty (n, d) array, NaN or inf in it, or all zero. Under a trace the result is NaN.

    >>> print(f"{rankme([[3.0, 0.0], [0.0, 1.0]]):.4f}")
    1.7548

    Source: Garrido et al. 2023.
    """
    return effective_rank(singular_values(features))


def feature_effective_rank(features: ArrayLike, *, center: bool = False, normalize: bool = False) -> Scalar:
    """Effective rank of a batch: of the *eigenvalues* ("eig") of its second moment.

    ``effective_rank(eigenvalues(second_moment(features)))``, from the smaller of the two Gram matrices. Biased
    low unless n is much larger than d: compare with ``null_effective_rank(n, d)``.

    Args:
        features: (n, d).
        center: subtract the mean row.
        normalize: scale each row to unit length (before centring); zero rows stay.

    Returns:
        A scalar in [1, min(n, d)].

    Raises:
        ValueError: not a nonempty (n, d) array, NaN or inf in it, or all zero (after centring). Under a trace
            the result is NaN.

    >>> print(f"{feature_effective_rank([[3.0, 0.0], [0.0, 1.0]]):.4f}")
    1.3841

    Source: Zhuo et al. 2023.
    """
    array, finite = as_features(features)
    return poison(effective_rank(eigenvalues(_unit_free_moment(array, center, normalize))), finite)


def rank_difference(online: ArrayLike, target: ArrayLike, *, center: bool = False, normalize: bool = False) -> Scalar:
    """Rank difference of two branches: erank(target) - erank(online), of eigenvalues ("eig").

    Args:
        online: (n, d_online) features of the online branch.
        target: (n, d_target) features of the target branch, of the same n samples.
        center: subtract each branch's mean row.
        normalize: scale each row to unit length (before centring).

    Returns:
        A scalar; positive where the target has the higher effective rank.

    Raises:
        ValueError: as ``feature_effective_rank``, or different n. Under a trace the result is NaN.

    >>> print(f"{rank_difference([[2.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]):.4f}")
    1.0000

    Source: Zhuo et al. 2023; docs/theory.md, notation.
    """
    branches = as_floating(online, "online"), as_floating(target, "target")
    if branches[0].shape[:1] != branches[1].shape[:1]:
        raise ValueError(
            f"online and target must hold the same samples, got shapes {branches[0].shape} and {branches[1].shape}; "
            "ranks of different sample sizes differ by their bias"
        )
    ranks = [feature_effective_rank(branch, center=center, normalize=normalize) for branch in branches]
    return ranks[1] - ranks[0]


def effective_rank_influence(features: ArrayLike, moment: ArrayLike) -> Float[Array, "*views n"]:
    """Influence of each row on the effective rank ("eig") of a second moment; its spread is the rank's standard error.

    psi(z) = -erank sum_i (log q_i + H) (v_i . z)^2 / tr C, for the eigenvectors v_i of C and their shares q_i, of
    entropy H = log erank; 0 on the average over the rows that C is of. The standard error over n independent samples
    is sqrt(mean psi^2 / n), with psi averaged over the views of a sample first. Of two branches the difference of
    influences gives that of the rank difference.

    Args:
        features: (..., n, d) rows, any of them.
        moment: C (d, d), the second moment of all rows.

    Returns:
        (..., n) in directions.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, or a moment that is zero. Under a trace NaN instead.

    >>> rows = jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-3.0, 0.0]])
    >>> influence = effective_rank_influence(rows, second_moment(rows))
    >>> [round(float(value), 4) for value in influence]  # rows along the weaker direction raise the rank
    [-0.5474, 0.5474, 0.5474, -0.5474]

    Source: the delta method, with the first-order perturbation of eigenvalues (docs/theory.md L2).
    """
    rows, matrix = as_floating(features, "features"), as_floating(moment, "moment")
    if rows.ndim < 2 or matrix.shape != (rows.shape[-1],) * 2:
        raise ValueError(f"moment must be (d, d) for features (..., n, d), got {matrix.shape} and {rows.shape}")
    finite = jnp.all(jnp.isfinite(rows)) & jnp.all(jnp.isfinite(matrix))
    require(finite, f"features of shape {rows.shape} or their moment hold NaN or inf; find what made them")
    total = jnp.trace(matrix)
    require(total > 0, "the moment is zero: its effective rank is undefined")
    return poison(_influence(rows, matrix), finite & (total > 0))


def lidar(features: ArrayLike, groups: ArrayLike, *, ridge: float = 1e-4) -> Scalar:
    """LiDAR: effective rank of the spread between groups, seen through the spread within them.

    The effective rank of the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2), with m_g the mean of a group's n_g rows,
    S_b = sum_g (n_g/n) (m_g - m)(m_g - m)^T and S_w = (1/n) sum_i (z_i - m_g(i))(z_i - m_g(i))^T + ridge I. A group is
    one datum, its rows are augmented views of it. Any number of groups passes through jit: it is bounded by n.

    Args:
        features: (n, d).
        groups: (n,) integer labels, any values.
        ridge: added to the within-group covariance, in feature units squared; 1e-4 as published.

    Returns:
        A scalar in [1, min(groups - 1, d)].

    Raises:
        ValueError: not an (n, d) array, NaN or inf in it, labels that are not n integers, ridge <= 0, fewer than
            two different group means, or no group of two rows. Under a trace the result is NaN instead.

    >>> rows = jnp.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> print(f"{lidar(rows, jnp.array([7, 7, 3, 3])):.4f}")
    1.0000

    Source: Thilak et al. 2023, with groups weighted by their size and without the constant added to the shares.
    """
    array, finite = as_features(features)
    labels = jnp.asarray(groups)
    if labels.shape != array.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"groups must be {len(array)} integers, one a row, got {labels.dtype} of shape {labels.shape}")
    require(ridge > 0, f"ridge must be positive, got {ridge}")
    whitened, repeated, spread = _whitened_means(array, labels, ridge)
    require(repeated, "every group has a single row: the spread within groups needs at least two views of a datum")
    require(spread, "all group means are equal: there is no spread between groups to rank")
    rank = effective_rank(eigenvalues(smaller_moment(whitened, False, False)))
    return poison(rank, finite & repeated & spread & (ridge > 0))


@jax.jit
def _whitened_means(array: Features, labels: Labels, ridge: Scalar | float) -> tuple[Features, Flag, Flag]:
    """Weighted group means in the metric of the spread within; whether a group has two rows, and means differ."""
    means, sizes, within = _grouped(array, labels)
    between = (means - jnp.mean(array, axis=0, keepdims=True)) * jnp.sqrt(sizes / len(array))[:, None]
    factor = jnp.linalg.cholesky(second_moment(within) + ridge * jnp.eye(array.shape[1], dtype=array.dtype))
    whitened = jax.scipy.linalg.solve_triangular(factor, between.T, lower=True).T
    return whitened, jnp.max(sizes) > 1, jnp.max(jnp.abs(between)) > 0


def _grouped(array: Features, labels: Labels) -> tuple[Features, Array, Features]:
    """Mean and size of each group (at most n of them, the rest empty), and the rows less their group's mean."""
    _, index = jnp.unique(labels, return_inverse=True, size=len(labels))
    sizes = jnp.zeros(len(labels), array.dtype).at[index].add(1)
    offset = jnp.mean(array, axis=0, keepdims=True)
    means = offset + jnp.zeros_like(array).at[index].add(array - offset) / jnp.maximum(sizes, 1)[:, None]
    return means, sizes, array - means[index]


@partial(jax.jit, static_argnames=("center", "normalize"))
def _unit_free_moment(array: Features, center: bool, normalize: bool) -> Float[Array, "k k"]:
    """The smaller second moment of the features over their largest entry, so that squares stay in range."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(array)))
    return smaller_moment(array / jnp.where(largest > 0, largest, 1), center, normalize)


def _scale(values: Spectrum) -> Array:
    """The largest value, as a constant: every measure here is free of scale, and squares must not overflow."""
    largest = jax.lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True))
    return jnp.where(largest > 0, largest, 1)


def _shares(values: Spectrum, keep_zeros: Array | bool = False) -> tuple[Spectrum, Mask]:
    """The normalised spectrum and where it is positive; zeros are cut off from gradients unless kept."""
    scaled = values / _scale(values)
    linked = jnp.where((scaled > 0) | keep_zeros, scaled, 0)
    shares = linked / jnp.sum(linked, axis=-1, keepdims=True)
    return shares, shares > 0


def _logs(shares: Spectrum, positive: Mask) -> Spectrum:
    return jnp.log(jnp.where(positive, shares, 1))


@jax.jit
def _exp_entropy(values: Spectrum) -> Batched:
    return jnp.exp(_entropy(*_shares(values)))


@jax.jit
def _influence(rows: Array, matrix: Array) -> Array:
    return jnp.sum(product(rows, influence_form(*eigensystem(matrix))) * rows, axis=-1)


@jax.jit
def influence_form(values: Spectrum, vectors: Moment) -> Moment:
    """The symmetric matrix S with psi(z) = z^T S z for the influence psi of a row z on C = V diag(values) V^T."""
    shares, positive = _shares(values)
    entropy = _entropy(shares, positive)
    slope = jnp.where(positive, -(_logs(shares, positive) + entropy), 0) * jnp.exp(entropy) / jnp.sum(values)
    return product(vectors * slope[None], vectors.T)


@jax.jit
def _exp_renyi_entropy(values: Spectrum, order: Scalar) -> Batched:
    shares, positive = _shares(values, keep_zeros=order > 1)
    near, far = _entropy_near_one(shares, positive, order), _entropy_far(shares, positive, order)
    return jnp.exp(jnp.where(jnp.abs(order - 1) < 0.5, near, far))


@jax.jit
def _participation(values: Spectrum) -> Batched:
    scaled = values / _scale(values)
    return jnp.sum(scaled, axis=-1) ** 2 / jnp.sum(scaled**2, axis=-1)


@jax.jit
def _sum_over_max(values: Spectrum) -> Batched:
    scaled = values / _scale(values)
    return jnp.sum(scaled, axis=-1) / jnp.max(scaled, axis=-1)


def _entropy(shares: Spectrum, positive: Mask) -> Batched:
    return -jnp.sum(shares * _logs(shares, positive), axis=-1)


def _entropy_near_one(shares: Spectrum, positive: Mask, order: Scalar) -> Batched:
    """-log(1 + sum_i q_i (q_i^e - 1)) / e for e = order - 1: terms of one sign, so nothing cancels."""
    logs, excess = _logs(shares, positive), jnp.clip(order - 1, -0.5, 0.5)
    # q^e - 1 is -1 at q = 0: no value hangs on it, but the gradient for e > 0 does.
    powers = jnp.sum(shares * jnp.where(positive, jnp.expm1(excess * logs), -1), axis=-1)
    entropy = _entropy(shares, positive)
    variance = jnp.sum(shares * (logs + entropy[..., None]) ** 2, axis=-1)
    # The second-order term is 0 here; it gives the derivative in the order at 1.
    return jnp.where(excess == 0, entropy - excess / 2 * variance, -jnp.log1p(powers) / jnp.where(excess, excess, 1))


def _entropy_far(shares: Spectrum, positive: Mask, order: Scalar) -> Batched:
    finite = jnp.minimum(order, _HUGE_ORDER)
    away = jnp.where(jnp.abs(finite - 1) < 0.5, 2, finite)
    return jax.nn.logsumexp(away * _logs(shares, positive), axis=-1, where=positive) / (1 - away)


@partial(jax.jit, static_argnames=("first", "last"))
def _power_law(values: Spectrum, first: int, last: int) -> tuple[Batched, Flag]:
    """Minus the least-squares slope in log-log, and whether at least two values above rounding define it."""
    ordered = jnp.sort(values / _scale(values), axis=-1, descending=True)[..., first - 1 : last]
    kept = ordered > values.shape[-1] * jnp.finfo(values.dtype).eps
    ranks = jnp.log(jnp.broadcast_to(jnp.arange(first, last + 1, dtype=values.dtype), ordered.shape))
    count = jnp.sum(kept, axis=-1, keepdims=True)
    middle = jnp.sum(ranks * kept, axis=-1, keepdims=True) / jnp.maximum(count, 1)
    deviation = jnp.where(kept, ranks - middle, 0)
    squares = jnp.sum(deviation**2, axis=-1)
    products = jnp.sum(deviation * jnp.log(jnp.where(kept, ordered, 1)), axis=-1)
    return -products / jnp.where(squares > 0, squares, 1), count[..., 0] >= 2
