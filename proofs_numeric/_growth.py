"""What statements about growth rates share: filters that are functions of the spectrum, and the table in balls."""

import jax.numpy as jnp
from flint import arb

from rdm_jax import spectra
from rdm_jax.claims import balls, families, on
from rdm_jax.claims.predicates import is_exact

COSINE, SQUARED = 0, 1


def _fall(sequence, spectrum):
    """The sequence's accumulated log-gaps, with none where an eigenvalue repeats."""
    new = jnp.append(jnp.zeros(1, bool), spectrum[1:] < spectrum[:-1])
    return families.accumulate(jnp.where(new, sequence.roots**2, 0.0))


def function_of(sequence, spectrum, order):
    """A positive function of a descending spectrum: nonincreasing (order 1) or nondecreasing (-1) in lambda.

    Equal eigenvalues have equal values, and a nondecreasing function is 0 below the eigenvalue of ``keep``. With
    order 0 the values are the unordered ones of the sequence, and no function of the spectrum.
    """
    kept = (spectrum >= spectrum[sequence.keep - 1]) | (order >= 0)
    exponent = jnp.where(order == 0, sequence.free, order * _fall(sequence, spectrum))
    return jnp.where(kept, jnp.exp(sequence.scale + exponent), 0.0)


def equal_at_ties(values, spectrum):
    """What a function of the spectrum satisfies: neighbours with equal eigenvalues have equal values."""
    return (spectrum[:-1] != spectrum[1:]) | (values[:-1] == values[1:]) | ~on(spectrum[1:])


def positive_rank_difference(spectrum, online, target):
    """erank(h^2 lambda) > erank(g^2 lambda), "eig"; decided by balls where the numbers are exact."""
    online, target = (gains * gains * spectrum for gains in (online, target))
    if is_exact(spectrum):
        difference = balls.entropy([arb(x) for x in target]) - balls.entropy([arb(x) for x in online])
        return bool(difference > 0)
    return spectra.effective_rank(target) > spectra.effective_rank(online)


def least_before_last(values, spectrum):
    """The smallest of the values at all modes of the support but its last, 0 where there is no such mode."""
    before = jnp.arange(len(values)) < jnp.sum(spectrum > 0) - 1
    return jnp.where(before[0], jnp.min(jnp.where(before, values, jnp.inf)), 0.0)


def table_rates(spectrum, online, target, signal, loss):
    """The table's growth rates in balls or rationals: g (h m / lambda - kappa g), kappa = 1 for the squared error."""
    modes = list(zip(spectrum, online, target, signal, strict=True))
    kappa = 1
    if loss == COSINE:
        kappa = sum(g * h * m for _, g, h, m in modes) / sum(g * g * x for x, g, _, _ in modes)
    return [g * (h * m / x - kappa * g) for x, g, h, m in modes]


def certain_digits(value, digits=6):
    """Balls, or nested dicts of them, as text. Raises unless the sign of each is certain and so are all its digits."""
    if isinstance(value, dict):
        return {name: certain_digits(entry, digits) for name, entry in value.items()}
    text = value.str(digits, radius=False)
    if not (value > 0 or value < 0) or "[" in text:
        raise ArithmeticError(f"{value} decides neither a sign nor {digits} digits")
    return text
