"""Filters as data: which gain g(s) multiplies which singular value s.

A filter turns features with singular values s into features with singular values g(s) s and the same singular
vectors. So ``power(1)`` gives s^2, ``power(-1)`` the polar factor, and ``log1p()`` gives s log(1 + s). The
published code states its filters by these outputs (s^(1 + a), s log s, ...); the numbers are the same.

A ``Filter`` is a name with parameters: frozen, hashable, equal by value, and printed as the call that makes it. It
holds no arrays, so under ``jax.jit`` it is a static argument or closed over, never a traced one.

At s = 0 a gain that would be infinite there (negative powers, the logarithm) is 0: null directions stay null.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from rdm_jax._checks import as_floating, choose, poison, require
from rdm_jax.types import Array, ArrayLike, Gains, Spectrum

__all__ = ["Filter", "compose", "identity", "log", "log1p", "log1p_square", "power", "wiener"]


@dataclass(frozen=True, repr=False)
class Filter:
    """A gain on singular values, by name: s becomes g(s) s. Made by ``power``, ``log`` and the others.

    Args:
        name: of the function that makes it.
        parameters: that function's arguments; numbers, or filters for ``compose``.

    >>> power(-0.5), power(-0.5) == power(-1 / 2), len({log1p(), log1p()})
    (power(-0.5), True, 1)

    Source: Zhuo et al. 2023; the gains of its published code.
    """

    name: str
    parameters: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        choose(self.name, _GAINS, "name")

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.parameters))})"

    def gains(self, singular_values: ArrayLike, samples: int = 1) -> Gains:
        """The gains g(s), which multiply the singular values.

        Args:
            singular_values: (..., k), >= 0, in feature units: of the raw batch, as in the published code.
            samples: n, the rows of that batch. Only ``wiener`` uses it: it sees s^2 / n. Leave it at 1 for
                singular values that were divided by sqrt(n) before.

        Returns:
            (..., k) gains, in the order of ``singular_values``; negative for ``log`` below s = 1. NaN under jit
            for invalid input.

        Raises:
            ValueError: a singular value is negative, NaN or inf, or samples < 1.

        >>> [round(float(gain), 4) for gain in power(-0.5).gains([4.0, 1.0, 0.0])]
        [0.5, 1.0, 0.0]

        Source: Zhuo et al. 2023; docs/theory.md, notation.
        """
        values = as_floating(singular_values, "singular_values")
        if samples < 1:
            raise ValueError(f"samples is the number of rows n >= 1 of the batch, got {samples}")
        gains, valid = _checked(self, values, float(samples))
        require(valid, "singular_values must be finite and >= 0; rdm_jax.spectra.singular_values(features) gives them")
        return gains


def power(exponent: ArrayLike) -> Filter:
    """Powers: g(s) = s^a, so the output singular values are s^(1 + a).

    a = 0 leaves the features as they are, a = -1 gives the polar factor (all singular values 1), and a = -1/2 gives
    features whose eigenvalue effective rank is the RankMe of the input. Low-pass for a >= 0, high-pass for a <= 0;
    order-preserving for a >= -1. Under a cosine loss powers do not depend on the features' scale.

    Args:
        exponent: a, without unit. The published code has 1 on the online side and -0.3 to -1 on the target side.

    Returns:
        The filter. A null direction's gain is 0 for a < 0.

    Raises:
        ValueError: the exponent is not a finite number.

    >>> [float(gain) for gain in power(2).gains([3.0, 0.5])]
    [9.0, 0.25]

    Source: Zhuo et al. 2023; docs/theory.md T1, T2.
    """
    return Filter("power", (_number(exponent, "exponent"),))


def log() -> Filter:
    """The logarithm: g(s) = log s, so the output singular values are |s log s|.

    Low-pass, but negative for s < 1 and zero at s = 1: a filter in the sense of T1 only if all s >= 1 (``classify``
    tells). Depends on the features' scale, and so on the batch size: see ``apply``'s ``scale``.

    Returns:
        The filter. A null direction's gain is 0.

    >>> [round(float(gain), 4) for gain in log().gains([2.7182818, 1.0, 0.0])]
    [1.0, 0.0, 0.0]

    Source: Zhuo et al. 2023, published code.
    """
    return Filter("log")


def log1p() -> Filter:
    """The shifted logarithm: g(s) = log(1 + s), so the output singular values are s log(1 + s).

    Nonnegative and low-pass. Depends on the features' scale, and so on the batch size: like power(1) for s well
    below 1, nearly constant far above. See ``apply``'s ``scale``.

    Returns:
        The filter.

    >>> [round(float(gain), 4) for gain in log1p().gains([1.7182818, 0.0])]
    [1.0, 0.0]

    Source: Zhuo et al. 2023, published code.
    """
    return Filter("log1p")


def log1p_square() -> Filter:
    """The shifted logarithm of the square: g(s) = log(1 + s^2), so the output singular values are s log(1 + s^2).

    Nonnegative and low-pass. Depends on the features' scale, and so on the batch size: like power(2) for s well
    below 1, nearly constant far above. See ``apply``'s ``scale``.

    Returns:
        The filter.

    >>> [round(float(gain), 4) for gain in log1p_square().gains([1.0, 0.0])]
    [0.6931, 0.0]

    Source: Zhuo et al. 2023, published code.
    """
    return Filter("log1p_square")


def identity() -> Filter:
    """No filter: g(s) = 1.

    Returns:
        The filter.

    >>> [float(gain) for gain in identity().gains([3.0, 0.0])]
    [1.0, 1.0]

    Source: docs/theory.md T8, the symmetric design.
    """
    return Filter("identity")


def wiener(noise: ArrayLike, ridge: ArrayLike) -> Filter:
    """The optimal linear predictor under isotropic view noise: g = max(lambda - nu, 0) / (lambda + rho).

    lambda = s^2 / n is the eigenvalue of the per-sample second moment, whatever ``scale`` says: noise has that unit.
    Directions below the noise floor get gain 0 (the formula would give a negative one, which no spectrum of
    signal + noise has).

    Args:
        noise: nu >= 0, the view noise's variance in every direction, in feature units squared.
        ridge: rho >= 0, the penalty on the predictor, in feature units squared.

    Returns:
        The filter. A null direction's gain is 0.

    Raises:
        ValueError: noise or ridge is negative or not a finite number.

    >>> [float(gain) for gain in wiener(1.0, 2.0).gains([2.0, 0.5])]  # lambda = 4 and 1/4
    [0.5, 0.0]

    Source: docs/theory.md T3.
    """
    parameters = _number(noise, "noise"), _number(ridge, "ridge")
    for name, value in zip(("noise", "ridge"), parameters, strict=True):
        if value < 0:
            raise ValueError(f"{name} is a variance in feature units squared and must be >= 0, got {value}")
    return Filter("wiener", parameters)


def compose(f: Filter, g: Filter) -> Filter:
    """One filter after another: f first, then g on f's output singular values |f(s) s|.

    The gain is f(s) g(|f(s) s|), so power(a) then power(b) is power((1 + a)(1 + b) - 1): neither the product of the
    gains nor, in general, the same in the other order. Null directions are cut once, in the features themselves.

    Args:
        f: applied first.
        g: applied to f's output.

    Returns:
        The filter.

    Raises:
        ValueError: an argument is not a ``Filter``.

    >>> [float(gain) for gain in compose(power(1), power(-0.5)).gains([4.0, 9.0])]
    [1.0, 1.0]

    Source: docs/theory.md, notation.
    """
    return Filter("compose", (as_filter(f, "f"), as_filter(g, "g")))


def as_filter(value: Any, name: str) -> Filter:
    """The value, if it is a filter."""
    if not isinstance(value, Filter):
        raise ValueError(f"{name} must be a Filter such as rdm_jax.filters.power(-0.5), got {value!r}")
    return value


def gain(filter: Filter, values: Spectrum, samples: float) -> Gains:
    """The gains at singular values of a batch of ``samples`` rows; no checks, and differentiable in the values."""
    return _GAINS[filter.name](values, samples, *filter.parameters)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _checked(filter: Filter, values: Spectrum, samples: float) -> tuple[Gains, Bool[Array, "*batch #d"]]:
    valid = jnp.all(jnp.isfinite(values) & (values >= 0), axis=-1, keepdims=values.ndim > 0)
    return poison(gain(filter, values, samples), valid), valid


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number known before tracing, got {value!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def _alive(function: Callable[[Array], Array], values: Spectrum) -> Gains:
    """The function where values > 0, and 0 elsewhere with a finite derivative."""
    positive = values > 0
    return jnp.where(positive, function(jnp.where(positive, values, 1)), 0)


def _power(values: Spectrum, samples: float, exponent: float) -> Gains:
    if exponent == 0:
        return jnp.ones_like(values)
    return _alive(lambda alive: alive**exponent, values)


def _wiener(values: Spectrum, samples: float, noise: float, ridge: float) -> Gains:
    eigenvalues = values**2 / samples
    return _alive(lambda alive: jnp.maximum(alive - noise, 0) / (alive + ridge), eigenvalues)


def _compose(values: Spectrum, samples: float, first: Filter, second: Filter) -> Gains:
    gains = gain(first, values, samples)
    return gains * gain(second, jnp.abs(gains * values), samples)


_GAINS: dict[str, Callable[..., Gains]] = {
    "power": _power,
    "log": lambda values, samples: _alive(jnp.log, values),
    "log1p": lambda values, samples: jnp.log1p(values),
    "log1p_square": lambda values, samples: jnp.log1p(values**2),
    "identity": lambda values, samples: jnp.ones_like(values),
    "wiener": _wiener,
    "compose": _compose,
}
