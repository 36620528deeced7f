"""What statements about growth rates share: filters that are functions of the spectrum, and the table in balls."""

import jax.numpy as jnp
from flint import arb

from rdm_jax import spectra
from rdm_jax.claims import balls, on
from rdm_jax.claims.predicates import is_exact

COSINE, SQUARED = 0, 1
EIG, SV = 0, 1


def _fall(sequence, spectrum):
    """The sequence's accumulated log-gaps, with none where an eigenvalue repeats."""
    new = jnp.append(jnp.zeros(1, bool), spectrum[1:] < spectrum[:-1])
    return jnp.cumsum(jnp.where(new, sequence.roots**2, 0.0))


def low_pass(sequence, spectrum):
    """A nondecreasing function of a descending spectrum: equal at equal eigenvalues, 0 below that of ``keep``."""
    kept = spectrum >= spectrum[sequence.keep - 1]
    return jnp.where(kept, jnp.exp(sequence.scale - _fall(sequence, spectrum)), 0.0)


def high_pass(sequence, spectrum):
    """A nonincreasing positive function of a descending spectrum: equal at equal eigenvalues."""
    return jnp.exp(sequence.scale + _fall(sequence, spectrum))


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
    """The table's growth rates in balls: g (h m / lambda - kappa g), kappa = 1 for the squared error."""
    modes = list(zip(spectrum, online, target, signal, strict=True))
    kappa = arb(1)
    if loss == COSINE:
        kappa = balls.total([g * h * m for _, g, h, m in modes]) / balls.total([g * g * x for x, g, _, _ in modes])
    return [g * (h * m / x - kappa * g) for x, g, h, m in modes]


def table_entropy_rate(spectrum, rates, convention=EIG):
    """L2 in balls: -2 Cov_q(r, log lambda), or -Cov_q(r, log s) = -Cov_q(r, log lambda)/2 for singular values."""
    logs = [x.log() for x in spectrum]
    if convention == SV:
        return -balls.covariance([x.sqrt() for x in spectrum], rates, logs) / 2
    return -2 * balls.covariance(spectrum, rates, logs)


def certain(ball, digits=6):
    """The ball's leading digits as text. Raises unless its sign is certain and all of these digits are."""
    text = ball.str(digits, radius=False)
    if not (ball > 0 or ball < 0) or "[" in text:
        raise ArithmeticError(f"{ball} decides neither a sign nor {digits} digits")
    return text
