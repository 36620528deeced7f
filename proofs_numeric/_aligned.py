"""Aligned branches: the matrices move as their modes do. A claim of T13, and how descent converges to the flow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flint import arb_mat

from proofs_numeric import _linear
from rdm_jax import dynamics
from rdm_jax.claims import Ablation, Claim, Conclusion, DomainCondition, Hypothesis, Stratum
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Modes p, r = sqrt(s) and tau of W = U diag(r) V^T, W_p = U diag(p) U^T and W_a = U diag(tau r) V^T; x and xi of
    X = V diag(x) V^T and X'. U and V are the rotations of the quaternions (1, left) and (1, right).

    ``predictor_turn``, ``data_turn``: by how much W_p is turned away from W's left singular vectors, X from the right ones.
    """

    predictor: Array
    root: Array
    ratio: Array
    signal: Array
    noise: Array
    left: Array
    right: Array
    predictor_turn: Array
    data_turn: Array
    rate: Array
    decay: Array
    target_rate: Array


class Raw(NamedTuple):
    """Free parameters of an instance: eight rows of three numbers, and three logarithms."""

    rows: Array
    logs: Array


def sample(tape, d):
    del d  # three modes
    rows = logistic(tape.vectors(8)) * jnp.exp(tape.scalar(-2.0, 1.0))
    logs = jnp.stack([tape.scalar(-3.0, 3.0), tape.scalar(-5.0, 1.0), tape.scalar(-2.0, 3.0)])
    return Raw(rows, logs)


def build(raw, dropped):
    predictor, root, ratio, signal, noise, left, right, turn = raw.rows
    rate, decay, target_rate = jnp.exp(raw.logs)
    return Instance(
        predictor=predictor,
        root=jnp.exp(root / 2),
        ratio=ratio,
        signal=signal**2,
        noise=noise**2,
        left=left,
        right=right,
        predictor_turn=jnp.where(dropped["turned predictor"], turn, 0.0),
        data_turn=jnp.where(dropped["turned data"], turn, 0.0),
        rate=rate,
        decay=decay,
        target_rate=target_rate,
    )


def _matrices(c):
    """U, V, and the branches and second moments in floats."""
    left, right, turn, other = (_linear.turned(x) for x in (c.left, c.right, c.predictor_turn, c.data_turn))
    modes = dynamics.Eigenmodes(c.predictor, c.root**2, c.ratio)
    branches = dynamics.aligned_branches(modes, left, right)
    branches = branches._replace(predictor=(left @ turn * c.predictor[None]) @ (left @ turn).T)
    signal = (right @ other * c.signal[None]) @ (right @ other).T
    return left, right, modes, branches, signal, (right * c.noise[None]) @ right.T


def margin(c):
    left, right, modes, branches, signal, noise = _matrices(c)
    numbers = {"predictor_rate": c.rate, "weight_decay": c.decay, "target_rate": c.target_rate}
    design = dynamics.LinearDesign(target="average")
    simulated = dynamics.branch_field(design)(0.0, branches, dynamics.LinearParameters(signal, noise, **numbers))
    parameters = dynamics.EigenmodeParameters(signal=c.signal, noise=c.noise, **numbers)
    slope = dynamics.eigenmode_field(design)(0.0, modes, parameters)
    change = jax.jvp(lambda p, s: dynamics.conserved_modes(p, s, c.rate), modes[:2], slope[:2])[1]
    kept = change + 2 * c.decay * dynamics.conserved_modes(c.predictor, c.root**2, c.rate)
    predicted = (
        (left * slope.predictor[None]) @ left.T,
        (left * (slope.encoder / (2 * c.root))[None]) @ right.T,
        (left * (slope.ratio * c.root + c.ratio * slope.encoder / (2 * c.root))[None]) @ right.T,
    )
    wrong = [jnp.sum(jnp.abs(a - b)) for a, b in zip(simulated, predicted, strict=True)]
    return -jnp.stack([*wrong, jnp.sum(jnp.abs(kept))]) / terms(c)


def terms(c):
    """The sizes of the terms of W_p', W', W_a' and c', in floats or balls."""
    pull = sum((abs(c.ratio) * c.signal + (c.signal + c.noise) * abs(c.predictor)) * c.root)
    weights, head, lagging = sum(c.root), sum(abs(c.predictor)), sum(abs(c.ratio) * c.root)
    first, second = c.rate * pull * weights + c.decay * head, head * pull + c.decay * weights
    third = c.target_rate * (weights + lagging) + sum(abs(c.ratio)) * second
    sizes = [first, second, third, weights * second + head * first / c.rate]
    return jnp.stack(sizes) if isinstance(pull, jax.Array) else sizes


def ball_margin(c):
    left, right, turn, other = (arb_mat(_linear.rotation(x)) for x in (c.left, c.right, c.predictor_turn, c.data_turn))
    back = right.transpose()
    roots, lagging = _linear.diagonal(c.root), _linear.diagonal(c.ratio * c.root)
    encoder, target = left * roots * back, left * lagging * back
    predictor = left * turn * _linear.diagonal(c.predictor) * turn.transpose() * left.transpose()
    signal = right * other * _linear.diagonal(c.signal) * other.transpose() * back
    noise = right * _linear.diagonal(c.noise) * back
    now = _linear.flow(predictor, encoder, target, signal, noise, c.rate, c.decay, False)
    s = c.root * c.root
    pull = c.ratio * c.signal - (c.signal + c.noise) * c.predictor
    head = c.rate * s * pull - c.decay * c.predictor
    change = 2 * c.predictor * s * pull - 2 * c.decay * s
    lag = c.target_rate * (1 - c.ratio) - c.ratio * change / (2 * s)
    moved = change / (2 * c.root)
    differences = (
        now.predictor - left * _linear.diagonal(head) * left.transpose(),
        now.encoder - left * _linear.diagonal(moved) * back,
        (encoder - target) * c.target_rate - left * _linear.diagonal(lag * c.root + c.ratio * moved) * back,
    )
    kept = change - 2 * c.predictor * head / c.rate + 2 * c.decay * (s - c.predictor * c.predictor / c.rate)
    wrong = [*map(_linear.entries, differences), sum(abs(value) for value in kept)]
    return [-a / b for a, b in zip(wrong, terms(c), strict=True)]


ALIGNED = Claim(
    name="T13 aligned",
    statement=(
        "For commuting X and X' and branches aligned with them, matrices and modes have the same flow, that of a moving "
        "average included, and s - p^2/alpha_p decays at the rate 2 eta in every mode."
    ),
    hypotheses=(
        Hypothesis("aligned predictor", "W_p = U diag(p) U^T", lambda c: c.predictor_turn == 0),
        Hypothesis("aligned data", "X = V diag(x) V^T", lambda c: c.data_turn == 0),
        Hypothesis("modes", "s > 0, x >= 0, xi >= 0", lambda c: (c.root > 0) & (c.signal >= 0) & (c.noise >= 0)),
        Hypothesis("rates", "alpha_p, eta, beta > 0", lambda c: (c.rate > 0) & (c.decay > 0) & (c.target_rate > 0)),
    ),
    conclusions=(
        Conclusion("W_p'", 1e-13, kind="identity"),
        Conclusion("W'", 1e-13, kind="identity"),
        Conclusion("W_a'", 1e-13, kind="identity"),
        Conclusion("s - p^2/alpha_p", 1e-14, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    ablations=(
        Ablation("turned predictor", "W_p turned away from W's singular vectors", drops=("aligned predictor",)),
        Ablation("turned data", "X turned away from W's singular vectors", drops=("aligned data",)),
    ),
    domain=(
        DomainCondition("s >= 0", lambda: dynamics.balanced_eigenmodes(jnp.array([1.0, -1.0]))),
        DomainCondition(
            "as many modes as columns",
            lambda: dynamics.aligned_branches(dynamics.Eigenmodes(jnp.ones(2), jnp.ones(2)), jnp.eye(3), jnp.eye(3)),
        ),
    ),
    rows=8,
    strata=(Stratum((3,), 3, 1.0),),
)
