"""How fast the entropy moves: bounds from the slope of the filter or of the Wiener threshold (docs/theory.md S5)."""

from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison, require
from rdm_jax.theory import _modes
from rdm_jax.types import Array, ArrayLike, Batched, Spectrum

__all__ = ["SlopeRange", "SpeedBounds", "slope_range", "speed_bounds"]


class SlopeRange(NamedTuple):
    """Least and greatest value of -d value / d log lambda over a spectrum."""

    lower: Batched
    upper: Batched


class SpeedBounds(NamedTuple):
    """lower <= dH/dt <= upper, in nats per unit of the growth rates' time."""

    lower: Batched
    upper: Batched


def slope_range(spectrum: ArrayLike, values: ArrayLike) -> SlopeRange:
    """Slopes c <= -d value / d log lambda <= C between modes that are neighbours in lambda.

    A chord between any two modes is a mean of the chords between neighbours, so c and C hold for all pairs. Equal
    eigenvalues with equal values have no slope and are skipped; with different values they make the range infinite.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment, in any order.
        values: (..., d) a number per mode: target gains h, or the Wiener threshold theta; ignored off the support.

    Returns:
        SlopeRange(lower, upper), each (...), in the unit of values; 0 for both where no two eigenvalues differ. NaN
        under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; values not finite on the support.

    Source: docs/theory.md S5.

    >>> slopes = slope_range(jnp.exp(jnp.array([3.0, 1.0, 0.0])), jnp.array([0.0, 1.0, 3.0]))
    >>> round(float(slopes.lower), 4), round(float(slopes.upper), 4)
    (0.5, 2.0)
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    numbers, usable = _modes.read_per_mode(values, eigenvalues, "values", nonnegative=False)
    rise, run, pairs = _neighbours(jnp.broadcast_to(eigenvalues, numbers.shape), numbers)
    tied = run == 0
    slopes = -rise / jnp.where(tied, 1, run)
    lower = jnp.min(jnp.where(pairs, jnp.where(tied, -jnp.inf, slopes), jnp.inf), axis=-1, initial=jnp.inf)
    upper = jnp.max(jnp.where(pairs, jnp.where(tied, jnp.inf, slopes), -jnp.inf), axis=-1, initial=-jnp.inf)
    some = jnp.any(pairs, axis=-1)
    return SlopeRange(*(poison(_modes.only(some, slope), valid & usable) for slope in (lower, upper)))


def speed_bounds(
    spectrum: ArrayLike, lower_slope: ArrayLike, upper_slope: ArrayLike, *, online_gains: ArrayLike | None = None
) -> SpeedBounds:
    """Bounds on dH/dt (eig) from a range of slopes c <= -d theta / d log lambda <= C.

    2 c V <= dH/dt <= 2 C V,    V = E_q[g^2] Var_{q_p}(log lambda),    q_p = g^2 lambda / sum(g^2 lambda)

    theta is the Wiener threshold (mean-field cosine, common factor excluded). For a target filter without view noise
    theta = h, g = 1 and V = Var_q(log lambda), and the bounds hold for the squared error as well.

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment.
        lower_slope: c, a scalar or one per spectrum (as from ``slope_range``).
        upper_slope: C >= c, a scalar or one per spectrum.
        online_gains: (..., d) gains g >= 0; None: 1.

    Returns:
        SpeedBounds(lower, upper), each (...), in nats per unit of the growth rates' time. NaN under jit for invalid
        input.

    Raises:
        ValueError: invalid spectrum; gains negative or not finite on the support; a lower slope above the upper one.

    Source: docs/theory.md S5.

    >>> bounds = speed_bounds(jnp.exp(jnp.array([2.0, 2.0, 0.0, 0.0])), 1.0, 2.0)  # q = 0.4404 twice, 0.0596 twice
    >>> round(float(bounds.lower), 4), round(float(bounds.upper), 4)  # Var = 4 * 0.8808 * 0.1192
    (0.8399, 1.6799)
    """
    modes = _modes.read_modes(spectrum, online_gains, None, None)
    slopes = [_read_slope(slope, modes.spectrum) for slope in (lower_slope, upper_slope)]
    ordered = slopes[0] <= slopes[1]
    require(ordered, "lower_slope must not exceed upper_slope; exchange them, or use slope_range")
    weights = modes.online**2 * modes.spectrum
    logs = _modes.log_deviation(modes.spectrum, weights)
    scale = _modes.weighted_mean(modes.online**2, modes.spectrum)[..., 0] * _modes.covariance(logs, logs, weights)
    return SpeedBounds(*(poison(2 * slope * scale, modes.valid & ordered) for slope in slopes))


def _read_slope(slope: ArrayLike, spectrum: Spectrum) -> Batched:
    return jnp.broadcast_to(as_floating(slope, "slope").astype(spectrum.dtype), spectrum.shape[:-1])


def _neighbours(spectrum: Spectrum, values: Array) -> tuple[Array, Array, Array]:
    """Differences of values and of log lambda from each mode to the next smaller one, and which pairs count."""
    order = jnp.argsort(spectrum, axis=-1, descending=True)
    falling, sorted_values = (jnp.take_along_axis(array, order, axis=-1) for array in (spectrum, values))
    larger, smaller = falling[..., :-1], falling[..., 1:]
    on = smaller > 0
    run = _modes.log_ratio(_modes.only(on, smaller, 1.0), _modes.only(on, larger, 1.0))
    rise = sorted_values[..., 1:] - sorted_values[..., :-1]
    return rise, run, on & ((run != 0) | (rise != 0))
