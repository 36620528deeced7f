"""The noise part of S6: equal modes under persistent noise, and whether small departures from equality decay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flint import arb, arb_series

from proofs_numeric import _growth
from rdm_jax import theory
from rdm_jax.claims import Ablation, Claim, Conclusion, DomainCondition, Hypothesis, Stratum, at_least, balls
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Flat(NamedTuple):
    """The first ``equal`` modes at one level, the others at the floor nu; a direction in which log lambda departs.

    ``slope``: d log gain/d log lambda at the level (minus it on the target's side), ``claimed``: the one in the
    criterion; ``tail``: gain at the floor over gain at the level; ``shift``: the mean of the direction.
    """

    direction: Array
    noise: Array
    level: Array
    slope: Array
    claimed: Array
    tail: Array
    shift: Array
    equal: Array
    side: Array


class RawFlat(NamedTuple):
    """Free parameters of a `Flat`; ``modes``: their number."""

    direction: Array
    bend: Array
    log_noise: Array
    log_snr: Array
    slope: Array
    log_tail: Array
    modes: Array
    equal: Array
    side: Array


def sample(tape, d):
    direction, bend = logistic(tape.vectors(2))
    scalars = [tape.scalar(*bounds) for bounds in ((-3.0, 3.0), (-5.0, 7.0), (-1.5, 1.5), (-4.0, 2.0))]
    return RawFlat(direction, bend, *scalars, d, tape.integer(2, d + 1), 2 * tape.integer(0, 2) - 1)


def build(raw, dropped):
    inside, nu, slope = jnp.arange(len(raw.bend)) < raw.modes, jnp.exp(raw.log_noise), raw.slope**3
    part = jnp.where(dropped["anisotropic noise"], jax.nn.sigmoid(raw.bend), 1.0)
    return Flat(
        direction=jnp.where(inside, raw.direction, 0.0),
        noise=jnp.where(inside, part * nu, 0.0),
        level=nu * (1 + jnp.exp(jnp.clip(raw.log_snr, -5.0, 20.0))),
        slope=slope,
        claimed=slope * jnp.where(dropped["slope 1% off"], 1.01, 1.0),
        tail=jnp.exp(jnp.clip(raw.log_tail, -4.0, 4.0)),
        shift=jnp.where(dropped["the trace moves"], 1.0, 0.0),
        equal=raw.equal,
        side=raw.side,
    )


def _departure(c):
    """Which modes are at the level, and the direction with its mean."""
    level = jnp.arange(len(c.direction)) < c.equal
    mean = jnp.sum(jnp.where(level, c.direction, 0.0)) / c.equal
    return level, jnp.where(level, c.direction - mean + c.shift, 0.0)


def _criterion(c, level):
    """slope (2 y - 1) - 1/SNR, y the share of the equal modes in E|p|^2 (1 on the target's side); |slope| + 1/SNR."""
    noise = jnp.max(c.noise)
    power = jnp.sum(jnp.where(level, c.level, c.tail**2 * c.noise))
    share = jnp.where(c.side > 0, c.equal * c.level / power, 1.0)
    size = jnp.abs(c.slope) + noise / (c.level - noise)
    return theory.flat_stability_margin(c.level, noise, c.claimed * (2 * share - 1)), size


def margin(c):
    level, along = _departure(c)

    def speeds(departure):
        spectrum = jnp.where(level, c.level * jnp.exp(departure), c.noise)
        gains = jnp.where(level, jnp.exp(c.side * c.slope * departure), c.tail)
        online, target = jnp.where(c.side > 0, gains, 1.0), jnp.where(c.side > 0, 1.0, gains)
        both = {"online_gains": online, "target_gains": target}
        factor = theory.common_factor(spectrum, **both)
        return 2 * factor * theory.growth_rates(spectrum, signal=spectrum - c.noise, **both), factor

    (_, factor), (change, _) = jax.jvp(speeds, (jnp.zeros_like(along),), (along,))
    criterion, size = _criterion(c, level)
    unit = 2 * factor * (1 - jnp.max(c.noise) / c.level)
    away = jnp.where(level, jnp.abs(change + unit * criterion * along), 0.0)
    decay = -jnp.sum(along * jnp.where(level, change, 0.0)) / (unit * size * jnp.sum(along**2))
    return jnp.stack([-jnp.max(away) / (unit * size * jnp.max(jnp.abs(along))), decay * criterion / size])


def _ball_criterion(c):
    noise, share = max(c.noise, key=lambda value: float(value.mid())), arb(1)
    inverse = noise / (c.level - noise)
    if c.side > 0:
        floor = c.tail**2 * balls.total(c.noise[c.equal :])
        share = c.equal * c.level / (c.equal * c.level + floor)
    return c.claimed * (2 * share - 1) - inverse, abs(c.slope) + inverse, 1 - noise / c.level


def _ball_changes(c, along):
    """The derivatives of 2 f r along the direction, from the table in power series of two terms; and f."""
    apart = [arb_series([0, u], 2) for u in along] + [arb_series([0], 2)] * (len(c.noise) - c.equal)
    x = [(c.level if i < c.equal else c.noise[i]) * e.exp() for i, e in enumerate(apart)]
    gains = [(c.side * c.slope * e).exp() * (1 if i < c.equal else c.tail) for i, e in enumerate(apart)]
    online, target = (gains, [1] * len(x)) if c.side > 0 else ([1] * len(x), gains)
    signal = [v - n for v, n in zip(x, c.noise, strict=True)]
    powers = [sum(g * g * v for g, v in zip(side, x, strict=True)) for side in (online, target)]
    factor = 1 / (powers[0] * powers[1]).sqrt()
    rates = _growth.table_rates(x, online, target, signal, _growth.COSINE)
    return [(2 * factor * rate)[1] for rate in rates[: c.equal]], factor[0]


def ball_margin(c):
    own = c.direction[: c.equal]
    along = [u - balls.total(own) / c.equal + c.shift for u in own]
    changes, factor = _ball_changes(c, along)
    criterion, size, kept = _ball_criterion(c)
    unit = 2 * factor * kept
    away = [abs(change + unit * criterion * u) for change, u in zip(changes, along, strict=True)]
    decay = -balls.total([u * change for change, u in zip(changes, along, strict=True)])
    longest = max((abs(u) for u in along), key=lambda value: float(value.mid()))
    decay = decay / (unit * size * balls.total([u * u for u in along]))
    return [balls.total(away) / (unit * size * longest), decay * criterion / size]


def distance(c):
    criterion, size = _criterion(c, _departure(c)[0])
    return jnp.stack([jnp.ones(()), (criterion / size) ** 2])


def equality(c):
    return [None, bool(_ball_criterion(c)[0] == 0)]


FLAT = Claim(
    name="S6 noise",
    statement=(
        "Cosine, persistent isotropic noise, k modes at one level and any number at the floor: small departures from "
        "equality that keep the trace decay iff slope (2 y - 1) > 1/SNR."
    ),
    hypotheses=(
        Hypothesis("a level above the noise", "lambda > nu > 0", lambda c: (c.level > c.noise) & (c.noise >= 0)),
        Hypothesis("isotropic noise", "the same nu in all modes", lambda c: (c.noise == c.noise[0]) | (c.noise == 0)),
        Hypothesis("the trace stays", "the departures sum to 0", lambda c: c.shift == 0),
        Hypothesis(
            "own slope",
            "the criterion has the filter's slope",
            lambda c: at_least(c.claimed, c.slope) & at_least(c.slope, c.claimed),
        ),
    ),
    conclusions=(Conclusion("linearisation", 3e-11, kind="identity"), Conclusion("stable iff", 1e-12)),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("anisotropic noise", "noise up to nu in each mode", drops=("isotropic noise",)),
        Ablation("the trace moves", "departures with a mean", drops=("the trace stays",)),
        Ablation("slope 1% off", "a criterion with 1.01 times the slope", drops=("own slope",)),
    ),
    domain=(
        DomainCondition("level > nu", lambda: theory.flat_stability_margin(1.0, 1.0, 1.0)),
        DomainCondition("exponent not 0", lambda: theory.stability_threshold(0.0)),
    ),
    rows=2,
    strata=(Stratum((2, 3, 8), 8, 0.78), Stratum((32,), 32, 0.22, searched=False)),
)
