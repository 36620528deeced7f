"""Fixed points of a mode under weight decay, their stability, and collapse: a claim of T13."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax import dynamics
from rdm_jax.claims import Ablation, Claim, Conclusion, DomainCondition, Hypothesis, Stratum, balls
from rdm_jax.types import Array


class Instance(NamedTuple):
    """tau, sigma^2, alpha_p; the root of the discriminant over tau, ``gap``; a mode p with s = ``balance`` p^2/alpha_p.

    The weight decay is critical (1 - gap^2) for the fixed points, and critical * ``above`` for the collapse.
    """

    ratio: Array
    noise: Array
    rate: Array
    gap: Array
    predictor: Array
    balance: Array
    above: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``near``: p in units of tau/(2 (1 + sigma^2)) as a logarithm."""

    ratio: Array
    noise: Array
    rate: Array
    gap: Array
    near: Array
    balance: Array
    above: Array


def sample(tape, d):
    del d  # one mode
    near = jnp.where(tape.scalar() < 0.1, 0.0, tape.scalar(-3.0, 2.0))
    above = jnp.where(tape.scalar() < 0.2, 0.0, tape.scalar(-2.0, 2.0))
    logs = tape.scalar(-2.0, 2.0), tape.scalar(-4.0, 2.0), tape.scalar(-3.0, 3.0)
    return Raw(*logs, tape.scalar(-5.0, 5.0), near, tape.scalar(-2.0, 2.0), above)


def build(raw, dropped):
    ratio, noise = jnp.exp(raw.ratio), jnp.exp(raw.noise)
    return Instance(
        ratio=ratio,
        noise=noise,
        rate=jnp.exp(raw.rate),
        gap=1e-3 + 0.999 * jax.nn.sigmoid(raw.gap),
        predictor=jnp.exp(raw.near) * ratio / (2 * (1 + noise)),
        balance=jnp.where(dropped["unbalanced mode"], jnp.exp(raw.balance), 1.0),
        above=jnp.where(dropped["below the critical weight decay"], 1 / (1 + raw.above**2), 1 + raw.above**2),
    )


def critical(c):
    """tau^2 / (4 (1 + sigma^2)), in floats or balls."""
    return c.ratio * c.ratio / (4 * (1 + c.noise))


def _slope(c, decay, predictor, encoder):
    parameters = dynamics.EigenmodeParameters(
        predictor_rate=c.rate, noise=c.noise, weight_decay=decay, target_ratio=c.ratio
    )
    modes = dynamics.Eigenmodes(predictor, encoder)
    return dynamics.eigenmode_field(dynamics.LinearDesign())(0.0, modes, parameters)[:2]


def _alignment(c, modes, decay):
    """T14's K at two fixed points and a collapsed mode, minus tau p/2 and 3 eta/2."""
    bound = dynamics.alignment_bound(
        jnp.diag(modes),
        jnp.diag(modes / jnp.sqrt(c.rate)),
        noise=c.noise,
        weight_decay=decay,
        predictor_rate=c.rate,
        target_ratio=c.ratio,
    ).matrix
    wanted = c.ratio * modes / 2 + jnp.array([0.0, 0.0, 1.5]) * decay
    return jnp.sum(jnp.abs(bound - jnp.diag(wanted)))


def margin(c):
    threshold = dynamics.critical_weight_decay(c.noise, target_ratio=c.ratio)
    decay = threshold * (1 - c.gap**2)
    found = dynamics.fixed_points(c.noise, decay, predictor_rate=c.rate, target_ratio=c.ratio)
    points = jnp.stack([found.predictor, found.edge])
    (head, body), slopes = jax.jvp(
        lambda p, s: _slope(c, decay, p, s), (points, points**2 / c.rate), (jnp.ones(2), 2 * points / c.rate)
    )
    stationary = jnp.max(jnp.abs(jnp.stack([head / points, c.rate * body / points**2])))
    mode = c.predictor, c.balance * c.predictor**2 / c.rate
    move, _ = _slope(c, decay, *(value[None] for value in mode))
    factors = (1 + c.noise) * (c.predictor - found.edge) * (found.predictor - c.predictor)
    _, growth = _slope(c, c.above * threshold, *(value[None] for value in mode))
    fall = -growth[0] / (2 * mode[1])
    speed = 2 * threshold + (1 + c.noise) * c.predictor**2 * (1 + c.balance)
    return jnp.stack(
        [
            -stationary / threshold,
            -_alignment(c, jnp.append(points, 0.0), decay) / threshold,
            -jnp.abs(move[0] / c.predictor - factors) / speed,
            -slopes[0][0] / threshold,
            slopes[0][1] / threshold,
            (fall - threshold * (c.above - 1)) / speed,
            fall / speed,
        ]
    )


def ball_margin(c):
    threshold, moment = critical(c), 1 + c.noise
    decay = threshold * (1 - c.gap * c.gap)
    upper, lower = (c.ratio * (1 + side * c.gap) / (2 * moment) for side in (1, -1))
    # the roots of (1 + sigma^2) p^2 - tau p + eta: what p'/p is there along balanced modes
    wrong = [c.ratio * p - moment * p * p - decay for p in (upper, lower)]
    stability = [p * (c.ratio - 2 * moment * p) for p in (upper, lower)]
    bound = [moment * (p * p + c.rate / 2 * (p * p / c.rate)) - c.ratio * p + 3 * decay / 2 for p in (upper, lower)]
    apart = balls.total([abs(k - c.ratio * p / 2) for k, p in zip(bound, (upper, lower), strict=True)])
    p, s = c.predictor, c.balance * c.predictor * c.predictor / c.rate
    pull = c.ratio - moment * p
    move = c.rate * s * pull / p - decay
    fall = c.above * threshold - p * pull
    speed = 2 * threshold + moment * p * p * (1 + c.balance)
    return [
        -2 * abs(wrong[0]).max(abs(wrong[1])) / threshold,
        -apart / threshold,
        -abs(move - moment * (p - lower) * (upper - p)) / speed,
        -stability[0] / threshold,
        stability[1] / threshold,
        (fall - threshold * (c.above - 1)) / speed,
        fall / speed,
    ]


def distance(c):
    """The margins of the inequalities, from h = tau/(2 (1 + sigma^2)): p/h, the gap, and the weight decay's excess."""
    threshold = critical(c)
    near = c.predictor * 2 * (1 + c.noise) / c.ratio
    speed = 2 * threshold + (1 + c.noise) * c.predictor**2 * (1 + c.balance)
    away = threshold * (near - 1) ** 2 / speed
    one = jnp.ones(())
    return jnp.stack(
        [one, one, one, (1 + c.gap) * c.gap, (1 - c.gap) * c.gap, away, away + threshold * (c.above - 1) / speed]
    )


def equality(c):
    still = 2 * (1 + c.noise) * c.predictor == c.ratio
    return [None, None, None, False, False, bool(still), bool(still and c.above == 1)]


FIXED_POINTS = Claim(
    name="T13 fixed points",
    statement=(
        "Below the critical weight decay p' = (1 + sigma^2) p (p - p-) (p+ - p) for balanced modes, so p+ is stable and p- "
        "is not; s'/(2 s) <= critical - eta for all modes, so above it all collapse."
    ),
    hypotheses=(
        Hypothesis("parameters", "tau, alpha_p > 0, p > 0", lambda c: (c.ratio > 0) & (c.rate > 0) & (c.predictor > 0)),
        Hypothesis("noise", "sigma^2 >= 0", lambda c: c.noise >= 0),
        Hypothesis("weight decay", "0 < eta < critical, for the fixed points", lambda c: (c.gap > 0) & (c.gap < 1)),
        Hypothesis("balanced mode", "s = p^2/alpha_p", lambda c: c.balance == 1),
        Hypothesis("above the critical weight decay", "eta >= critical, for the collapse", lambda c: c.above >= 1),
    ),
    conclusions=(
        Conclusion("p+ and p- are stationary", 1e-12, kind="identity"),
        Conclusion("K = tau p/2 there (T14)", 1e-12, kind="identity"),
        Conclusion("p' factors", 1e-12, kind="identity"),
        Conclusion("p+ is stable", 1e-11),
        Conclusion("p- is unstable", 1e-11),
        Conclusion("s grows at most so fast", 1e-14),
        Conclusion("s falls", 1e-14),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("unbalanced mode", "s is not p^2/alpha_p", drops=("balanced mode",)),
        Ablation(
            "below the critical weight decay",
            "eta below it, for the collapse",
            drops=("above the critical weight decay",),
        ),
    ),
    domain=(
        DomainCondition("eta below critical", lambda: dynamics.fixed_points(0.3, 0.2)),
        DomainCondition("eta >= 0", lambda: dynamics.fixed_points(0.3, -0.1)),
    ),
    rows=1,
    strata=(Stratum((1,), 2, 1.0),),
)
