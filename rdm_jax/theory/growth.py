"""Growth rates of the spectrum under an asymmetric loss, and d erank/dt from them (docs/theory.md L2, S1, part B)."""

from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax._checks import poison, require, rounding
from rdm_jax.spectra import effective_rank
from rdm_jax.theory import _modes
from rdm_jax.theory._modes import Modes
from rdm_jax.types import Array, ArrayLike, Batched, Flag, Gains, Spectrum

__all__ = [
    "Crossing",
    "common_factor",
    "effective_rank_rate",
    "entropy_rate",
    "entropy_rate_wiener",
    "growth_rates",
    "single_crossing",
]

# The power of lambda that a convention normalises: eigenvalues themselves, or singular values.
_CONVENTIONS = {"eig": 1.0, "sv": 0.5}


class Crossing(NamedTuple):
    """Which of L2's criteria hold for the rates on the spectrum (all False where the input is invalid)."""

    rising: Flag
    falling: Flag
    universal: Flag


def growth_rates(
    spectrum: ArrayLike,
    *,
    online_gains: ArrayLike | None = None,
    target_gains: ArrayLike | None = None,
    signal: ArrayLike | None = None,
    loss: str = "cosine",
) -> Gains:
    """Rates r of lambda_i' = 2 r_i lambda_i for free features under gradient flow, the filters held fixed.

    squared, E|p - t|^2 / 2:                r_i = g_i (u_i - g_i)
    cosine, -E[p.t] / sqrt(E|p|^2 E|t|^2):  r_i = g_i (u_i - kappa g_i), kappa = sum(g u lambda) / sum(g^2 lambda)

    with u_i = h_i m_i / lambda_i, the target not differentiated; the cosine's rates are to be multiplied by
    ``common_factor``. They are evaluated as g_i ((u_i - u_bar) - kappa (g_i - g_bar)), kappa = u_bar / g_bar, means
    under the weights g lambda: theory.md's sum over pairs in O(d), and nearly constant gains lose no digits
    because each deviation is exact to rounding.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment; where 0 (off the support) r = 0.
        online_gains: (..., d) gains g >= 0 on singular values; None: 1.
        target_gains: (..., d) gains h >= 0; None: 1.
        signal: (..., d) m_i = v_i^T E[z+ z^T] v_i in the unit of lambda; None: no view noise, m = lambda.
        loss: "cosine" (mean field) or "squared".

    Returns:
        (..., d) rates per unit of time (features z' = -gradient, per sample). NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; gains negative or not finite on the support; a cosine whose online gains
            are all 0; another loss.

    Source: docs/theory.md, table of part B (T5-T8).

    >>> rates = growth_rates(jnp.array([2.0, 1.0]), online_gains=jnp.array([1.0, 0.5]))  # kappa = 2.5 / 2.25
    >>> [round(float(r), 4) for r in rates]
    [-0.1111, 0.2222]
    """
    modes = _modes.read_modes(spectrum, online_gains, target_gains, signal)
    if _is_squared(loss):
        pull = modes.target * modes.ratio - modes.online
    else:
        modes = _with_online_output(modes)
        pull = _net_pull(modes)
    return poison(_modes.only(modes.spectrum > 0, modes.online * pull), modes.valid[..., None])


def common_factor(
    spectrum: ArrayLike,
    *,
    online_gains: ArrayLike | None = None,
    target_gains: ArrayLike | None = None,
    loss: str = "cosine",
) -> Batched:
    """What every growth rate of a loss has in common: 1 (squared) or 1 / sqrt(E|p|^2 E|t|^2) (cosine).

    E|p|^2 = sum(g^2 lambda), E|t|^2 = sum(h^2 lambda).

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment.
        online_gains: (..., d) gains g >= 0; None: 1.
        target_gains: (..., d) gains h >= 0; None: 1.
        loss: "cosine" (mean field) or "squared".

    Returns:
        (...) factor in the unit of 1 / lambda (cosine) or without unit (squared). NaN under jit for invalid input.

    Raises:
        ValueError: as ``growth_rates``.

    Source: docs/theory.md, table of part B, last column.

    >>> round(float(common_factor(jnp.array([3.0, 1.0]), target_gains=jnp.array([1.0, 1.0]))), 4)
    0.25
    """
    modes = _modes.read_modes(spectrum, online_gains, target_gains, None)
    if _is_squared(loss):
        return poison(jnp.ones_like(modes.spectrum[..., 0]), modes.valid)
    online, target = (jnp.sqrt(jnp.sum(gains**2 * modes.spectrum, axis=-1)) for gains in (modes.online, modes.target))
    return poison(1 / (online * target), modes.valid)


def entropy_rate(spectrum: ArrayLike, rates: ArrayLike, *, convention: str = "eig") -> Batched:
    """Rate of the spectral entropy, dH/dt, where lambda_i' = 2 r_i lambda_i.

    eig (q = lambda / sum lambda):       dH/dt = -2 Cov_q(r, log lambda)
    sv (q = s / sum s, s^2 = lambda):    dH/dt = -Cov_q(r, log s)

    since s_i' = r_i s_i. Both factors of the covariance are centred first.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment (for "sv" too).
        rates: (..., d) growth rates r; ignored off the support.
        convention: "eig" or "sv": what the entropy normalises.

    Returns:
        (...) dH/dt in nats per unit of the rates' time. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; rates not finite on the support; another convention.

    Source: docs/theory.md L2.

    >>> round(float(entropy_rate(jnp.array([4.0, 1.0]), jnp.array([0.0, 1.0]))), 4)  # 2 * 0.8 * 0.2 * log 4
    0.4436
    """
    eigenvalues, growth, valid = _read_rates(spectrum, rates)
    return poison(_entropy_rate(eigenvalues, growth, _order(convention)), valid)


def effective_rank_rate(spectrum: ArrayLike, rates: ArrayLike, *, convention: str = "eig") -> Batched:
    """Rate of the effective rank, d erank/dt = erank dH/dt, where lambda_i' = 2 r_i lambda_i.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment (for "sv" too).
        rates: (..., d) growth rates r; ignored off the support.
        convention: "eig" or "sv": what the effective rank normalises.

    Returns:
        (...) d erank/dt per unit of the rates' time. NaN under jit for invalid input.

    Raises:
        ValueError: as ``entropy_rate``.

    Source: docs/theory.md L2; Roy & Vetterli 2007.

    >>> round(float(effective_rank_rate(jnp.array([4.0, 1.0]), jnp.array([0.0, 1.0]))), 4)  # 1.6494 * 0.4436
    0.7317
    """
    eigenvalues, growth, valid = _read_rates(spectrum, rates)
    order = _order(convention)
    return poison(effective_rank(_power(eigenvalues, order)) * _entropy_rate(eigenvalues, growth, order), valid)


def entropy_rate_wiener(
    spectrum: ArrayLike,
    *,
    online_gains: ArrayLike | None = None,
    target_gains: ArrayLike | None = None,
    signal: ArrayLike | None = None,
) -> Batched:
    """Rate of the entropy (eig) under the mean-field cosine, from the Wiener threshold theta alone.

    dH/dt = -2 E_q[g^2] Cov_{q_p}(theta, log lambda),    theta_i = h_i m_i / (lambda_i g_i),

    q = lambda / sum lambda, q_p = g^2 lambda / sum(g^2 lambda). Common factor excluded. Equal to ``entropy_rate`` of
    ``growth_rates``, by another path: theta enters up to a constant only, as (u - kappa g) / g, which keeps its digits
    where theta is nearly constant. Modes with g = 0 have no weight in q_p, and no growth.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment.
        online_gains: (..., d) gains g >= 0; None: 1.
        target_gains: (..., d) gains h >= 0; None: 1.
        signal: (..., d) m in the unit of lambda; None: no view noise, m = lambda.

    Returns:
        (...) dH/dt in nats per unit of the growth rates' time. NaN under jit for invalid input.

    Raises:
        ValueError: as ``growth_rates``.

    Source: docs/theory.md S1.

    >>> low_pass = jnp.array([1.0, 0.5])  # theta = (1, 2), q_p = (8/9, 1/9), E_q[g^2] = 3/4
    >>> round(float(entropy_rate_wiener(jnp.array([2.0, 1.0]), online_gains=low_pass)), 4)
    0.1027
    """
    modes = _with_online_output(_modes.read_modes(spectrum, online_gains, target_gains, signal))
    weights = _modes.relative(modes.online) ** 2 * _modes.relative(modes.spectrum)
    logs, shifted = _modes.log_deviation(modes.spectrum, weights), _modes.per_gain(_net_pull(modes), modes)
    spread = _modes.covariance(_modes.deviation(shifted, weights), logs, weights)
    return poison(-2 * _modes.weighted_mean(modes.online**2, modes.spectrum)[..., 0] * spread, modes.valid)


def single_crossing(spectrum: ArrayLike, rates: ArrayLike) -> Crossing:
    """Which criteria of L2 decide the sign of d erank/dt (eig) for these growth rates.

    rising: r - r_bar, r_bar = sum(q r), changes sign at most once, from + to - as lambda grows: d erank/dt >= 0.
    falling: from - to +: d erank/dt <= 0. Both: every mode grows at r_bar, or all others share one lambda.
    universal: the running means of r from the largest mode down are nondecreasing, which is exactly when
    d erank/dt >= 0 for *every* spectrum in this order. Differences within rounding of r count as 0.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment, in any order; ties may cross at their value.
        rates: (..., d) growth rates r; ignored off the support.

    Returns:
        Crossing of (...) booleans; all False under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; rates not finite on the support.

    Source: docs/theory.md L2.

    >>> [bool(flag) for flag in single_crossing(jnp.array([3.0, 2.0, 1.0]), jnp.array([-1.0, 0.0, 1.0]))]
    [True, False, True]
    """
    eigenvalues, growth, valid = _read_rates(spectrum, rates)
    excess, within = _modes.deviation(growth, eigenvalues), rounding(growth)[..., None]
    growing = (eigenvalues > 0) & (excess > within)
    shrinking = (eigenvalues > 0) & (excess < -within)
    return Crossing(
        rising=valid & (_largest(eigenvalues, growing) <= _smallest(eigenvalues, shrinking)),
        falling=valid & (_largest(eigenvalues, shrinking) <= _smallest(eigenvalues, growing)),
        universal=valid & _running_means_rise(eigenvalues, growth),
    )


def _is_squared(loss: str) -> bool:
    if loss not in ("cosine", "squared"):
        raise ValueError(f'loss must be "cosine" or "squared", got {loss!r}')
    return loss == "squared"


def _order(convention: str) -> float:
    if convention not in _CONVENTIONS:
        raise ValueError(f'convention must be "eig" or "sv", got {convention!r}')
    return _CONVENTIONS[convention]


def _with_online_output(modes: Modes) -> Modes:
    nonzero = jnp.any((modes.online > 0) & (modes.spectrum > 0), axis=-1)
    require(nonzero, "online_gains are 0 on the whole support: the online output vanishes and has no cosine")
    return modes._replace(valid=modes.valid & nonzero)


def _read_rates(spectrum: ArrayLike, rates: ArrayLike) -> tuple[Spectrum, Gains, Flag]:
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    growth, usable = _modes.read_per_mode(rates, eigenvalues, "rates", nonnegative=False)
    return jnp.broadcast_to(eigenvalues, growth.shape), growth, valid & usable


def _net_pull(modes: Modes) -> Gains:
    """u - kappa g = g (theta - kappa) under the mean-field cosine, as a difference of deviations."""
    pull = modes.target * modes.ratio
    weights = _modes.relative(modes.online) * _modes.relative(modes.spectrum)
    kappa = _modes.weighted_mean(pull, weights) / _modes.weighted_mean(modes.online, weights)
    return _modes.deviation(pull, weights) - kappa * _modes.deviation(modes.online, weights)


def _power(spectrum: Spectrum, order: float) -> Spectrum:
    on = spectrum > 0
    return _modes.only(on, _modes.only(on, spectrum, 1.0) ** order)


def _entropy_rate(spectrum: Spectrum, rates: Gains, order: float) -> Batched:
    weights = _power(_modes.relative(spectrum), order)
    spread = _modes.covariance(_modes.deviation(rates, weights), _modes.log_deviation(spectrum, weights), weights)
    return -2 * order**2 * spread


def _largest(spectrum: Spectrum, mask: Array) -> Batched:
    return jnp.max(jnp.where(mask, spectrum, -jnp.inf), axis=-1)


def _smallest(spectrum: Spectrum, mask: Array) -> Batched:
    return jnp.min(jnp.where(mask, spectrum, jnp.inf), axis=-1)


def _running_means_rise(spectrum: Spectrum, rates: Gains) -> Flag:
    order = jnp.argsort(spectrum, axis=-1, descending=True)
    sorted_rates = jnp.take_along_axis(rates, order, axis=-1)
    counts = jnp.arange(1, spectrum.shape[-1] + 1, dtype=spectrum.dtype)
    means = jnp.cumsum(sorted_rates, axis=-1) / counts.reshape((1,) * (spectrum.ndim - 1) + (-1,))
    rises = sorted_rates[..., 1:] - means[..., :-1] >= -rounding(rates)[..., None]
    return jnp.all(rises | (jnp.take_along_axis(spectrum, order, axis=-1)[..., 1:] <= 0), axis=-1)
