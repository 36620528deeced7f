"""What T7 and T8 share: the entropy's rate under a fixed target filter, for both losses and both conventions."""

import itertools

import jax.numpy as jnp

from proofs_numeric import _common
from rdm_jax import theory
from rdm_jax.claims import Conclusion, balls

LOSSES, CONVENTIONS = ("cosine", "squared"), ("eig", "sv")
CASES = tuple(itertools.product(CONVENTIONS, LOSSES))


def conclusions(error):
    """One for each case."""
    return tuple(Conclusion(f"dH/dt, {loss}, {convention}", error) for convention, loss in CASES)


def entropy_rates(spectrum, gains, signal):
    """dH/dt by the library, for all cases."""
    rates = [theory.growth_rates(spectrum, target_gains=gains, signal=signal, loss=loss) for loss in LOSSES]
    return jnp.concatenate([theory.entropy_rate(spectrum, jnp.stack(rates), convention=c) for c in CONVENTIONS])


def ball_entropy_rates(spectrum, pull):
    """The same from the table of growth rates: r = h m / lambda - kappa (cosine) or - 1 (squared), pull = h m / lambda."""
    modes = balls.support(spectrum)
    kappa = balls.mean([spectrum[i] for i in modes], [pull[i] for i in modes])
    rates = {"cosine": [x - kappa for x in pull], "squared": [x - 1 for x in pull]}
    exponents = {"eig": 1, "sv": balls.HALF}
    return [_common.entropy_rate(spectrum, rates[loss], exponents[convention]) for convention, loss in CASES]


def joint_spreads(spectrum, values):
    """How far the values or the spectrum are from constant; a quarter of it is a lower bound of |dH/dt| for ordered values."""
    logs = jnp.log(jnp.where(spectrum > 0, spectrum, 1.0))
    eig, sv = (_common.joint_spread(values, logs, weights) for weights in (spectrum, jnp.sqrt(spectrum)))
    return jnp.stack([eig, eig, sv / 2, sv / 2])


def still(spectrum, pull):
    """Whether the values or the spectrum are constant on the support: then, and if ordered only then, dH/dt = 0."""
    modes = balls.support(spectrum)
    same = _common.constant([pull[i] for i in modes]) or _common.constant([spectrum[i] for i in modes])
    return [same] * len(CASES)
