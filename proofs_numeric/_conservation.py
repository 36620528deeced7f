"""What the linear dual-branch flow conserves, in any matrices: a claim of T13."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from proofs_numeric import _linear
from rdm_jax import dynamics
from rdm_jax.claims import Ablation, Claim, Conclusion, DomainCondition, Hypothesis, Stratum
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """W_p, W and W_a; roots of X = A A^T and X' = B B^T; alpha_p; the weight decays of W and W_p.

    ``symmetrised``: 1 where W_p' takes the symmetric part of E W^T only.
    """

    predictor: Array
    encoder: Array
    target: Array
    signal_root: Array
    noise_root: Array
    rate: Array
    decay: Array
    predictor_decay: Array
    symmetrised: Array


class Raw(NamedTuple):
    """Free parameters of an instance: five matrices, and logarithms of the rate and the weight decays."""

    matrices: Array
    rate: Array
    decay: Array
    other_decay: Array
    inside: Array


def sample(tape, d):
    inside = jnp.arange(tape.width) < d
    scales = jnp.exp(jnp.stack([tape.scalar(-3.0, 2.0) for _ in range(5)]))
    matrices = logistic(tape.vectors(5 * tape.width)).reshape(5, tape.width, tape.width) * scales[:, None, None]
    return Raw(matrices, tape.scalar(-3.0, 3.0), tape.scalar(-5.0, 1.0), tape.scalar(-5.0, 1.0), inside)


def build(raw, dropped):
    decay = jnp.exp(raw.decay)
    return Instance(
        *jnp.where(raw.inside[None, :, None] & raw.inside[None, None, :], raw.matrices, 0.0),
        rate=jnp.exp(raw.rate),
        decay=decay,
        predictor_decay=jnp.where(dropped["unequal weight decays"], jnp.exp(raw.other_decay), decay),
        symmetrised=dropped["symmetrised predictor"].astype(int),
    )


def margin(c):
    signal, noise = (root @ root.T for root in (c.signal_root, c.noise_root))
    branches = dynamics.Branches(c.predictor, c.encoder, c.target)
    parameters = dynamics.LinearParameters(signal, noise, c.rate, c.decay)
    slope = dynamics.branch_field(dynamics.LinearDesign(target="average"))(0.0, branches, parameters)
    pull = slope.predictor + c.decay * c.predictor
    turning = jnp.where(c.symmetrised == 1, (pull + pull.T) / 2, pull) - c.predictor_decay * c.predictor
    conserved, change = jax.jvp(
        lambda head, weights: dynamics.conserved_matrix(head, weights, c.rate),
        (c.predictor, c.encoder),
        (turning, slope.encoder),
    )
    sizes = (jnp.linalg.norm(entries) for entries in (c.predictor, c.encoder, turning, slope.encoder))
    return -jnp.sum(jnp.abs(change + 2 * c.decay * conserved))[None] / terms(c, *sizes)


def terms(c, head, weights, turning, moving):
    """The size of the terms of C' and 2 eta C, from those of W_p, W, W_p' and W'."""
    return weights * moving + head * turning / c.rate + c.decay * (weights * weights + head * head / c.rate)


def ball_margin(c):
    d = len(c.signal_root[0])
    predictor, encoder, target, a, b = (
        _linear.matrix(entries[:d]) for entries in (c.predictor, c.encoder, c.target, c.signal_root, c.noise_root)
    )
    signal, noise = a * a.transpose(), b * b.transpose()
    now = _linear.flow(predictor, encoder, target, signal, noise, c.rate, c.decay, c.symmetrised)
    turning, moving = now.predictor + predictor * (c.decay - c.predictor_decay), now.encoder
    energy, power = moving * encoder.transpose(), turning.transpose() * predictor
    conserved = encoder * encoder.transpose() - predictor.transpose() * predictor / c.rate
    change = energy + energy.transpose() - (power + power.transpose()) / c.rate
    sizes = (_linear.size(entries) for entries in (predictor, encoder, turning, moving))
    return [-_linear.entries(change + conserved * (2 * c.decay)) / terms(c, *sizes)]


CONSERVATION = Claim(
    name="T13 conservation",
    statement="For any X, X', W_a, W and W_p, C = W W^T - W_p^T W_p / alpha_p obeys C' = -2 eta C.",
    hypotheses=(
        Hypothesis("learned predictor", "W_p' takes all of E W^T", lambda c: c.symmetrised == 0),
        Hypothesis("one weight decay", "the same for W and W_p", lambda c: c.predictor_decay == c.decay),
        Hypothesis("rates", "alpha_p > 0, eta > 0", lambda c: (c.rate > 0) & (c.decay > 0) & (c.predictor_decay > 0)),
    ),
    conclusions=(Conclusion("C' = -2 eta C", 1e-14, kind="identity"),),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    ablations=(
        Ablation("symmetrised predictor", "only the symmetric part of E W^T", drops=("learned predictor",)),
        Ablation("unequal weight decays", "another weight decay for W_p", drops=("one weight decay",)),
    ),
    domain=(
        DomainCondition(
            "eta >= 0",
            lambda: dynamics.branch_field(dynamics.LinearDesign())(
                0.0,
                dynamics.Branches(jnp.eye(2), jnp.eye(2)),
                dynamics.LinearParameters(jnp.eye(2), jnp.eye(2), weight_decay=-1.0),
            ),
        ),
    ),
    rows=15,
    strata=(Stratum((2, 3), 3, 1.0),),
)
