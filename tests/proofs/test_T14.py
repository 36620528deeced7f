"""T14: margins against NumPy from the definitions, hypotheses, the bound's sharpness, and wrong variants."""

import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import T14_eigenspace_alignment as T14
from rdm_jax import dynamics
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(ALIGNMENT,) = T14.STATEMENT.claims
NOISE, RATE, RATIO = 0.4, 1.7, 1.2


def instance(rng, excess=0.3, **changes):
    """A random instance, and the same matrices in NumPy."""
    head, encoder, vector = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    nothing = np.zeros((3, 3)).tolist()
    c = T14.Instance(
        (head + head.T).tolist(),
        nothing,
        encoder.tolist(),
        nothing,
        nothing,
        vector.tolist(),
        NOISE,
        RATE,
        RATIO,
        excess,
        0,
    )
    return c._replace(**changes), head + head.T, encoder, vector


def reference(c, head, encoder, vector):
    """The margins from their definitions; without the identities' residuals where something is ablated."""
    edge, critical = RATIO**2 / (6 * (1 + NOISE)), RATIO**2 / (4 * (1 + NOISE))
    decay, features = c.excess * edge, encoder @ encoder.T
    error = RATIO * encoder - (1 + NOISE) * head @ encoder
    pull = error @ encoder.T
    turning, moving = RATE * (pull if c.learned else (pull + pull.T) / 2) - decay * head, head @ error - decay * encoder
    growth = moving @ encoder.T + encoder @ moving.T
    lag = features @ head - head @ features
    change = growth @ head - head @ growth + features @ turning - turning @ features
    bound = (1 + NOISE) * (head @ head + RATE / 2 * features) - RATIO * head + 1.5 * decay * np.eye(3)
    norms = [np.linalg.norm(m) for m in (head, encoder, turning, moving, bound)]
    h, w, t, m, size = norms
    whole = w * w * h
    first, second = 2 * w * m * h + w * w * t + whole * size, whole**2 * size
    fall, square = -np.sum(lag * change), np.sum(lag**2)
    form = vector @ bound @ vector / (vector @ vector)
    energy = np.sum(encoder * moving) / np.sum(encoder**2)
    kept = np.trace(features) - np.sum(head**2) / RATE
    loss = np.trace(growth) - 2 * np.sum(head * turning) / RATE
    third = w * m + h * t / RATE + decay * (w**2 + h**2 / RATE)
    return [
        -np.abs(change + bound @ lag + lag @ bound).sum() / first,
        (fall - np.linalg.eigvalsh(bound)[:2].sum() * square) / second,
        fall / second,
        (form - 1.5 * (decay - edge)) / size,
        (critical - decay - energy) / size,
        -abs(loss + 2 * decay * kept) / third,
    ]


@pytest.mark.parametrize(("excess", "learned"), [(0.3, 0), (2.0, 0), (0.3, 1)])
def test_margins_against_numpy(rng, excess, learned):
    c, *matrices = instance(rng, excess, learned=learned)
    expected = np.array(reference(c, *matrices))
    assert (abs(expected[0]) < 1e-15) == (not learned)
    assert abs(expected[5]) < 1e-15, "the trace is conserved either way"
    assert_margins(ALIGNMENT, c, expected, rtol=1e-11)


def test_below_the_threshold_the_commutator_can_grow(rng):
    # W_p near tau/(2 (1 + sigma^2)) and a small W: K is close to its lower bound, which is negative
    half = RATIO / (2 * (1 + NOISE))
    c, head, encoder, vector = instance(rng, 0.1)
    head, encoder = half * np.eye(3) + 0.01 * head, 0.01 * encoder
    c = c._replace(predictor=head.tolist(), encoder=encoder.tolist())
    assert reference(c, head, encoder, vector)[2] < 0
    assert ALIGNMENT.ball_margin(exact(c))[2] < 0
    held = {h.name for h in ALIGNMENT.hypotheses if not np.all(h.holds(exact(c)))}
    assert held == {"weight decay"}


def test_in_two_dimensions_the_trace_of_k_is_the_rate(rng):
    head, encoder = jnp.asarray(rng.normal(size=(2, 2, 2)))
    head = head + head.T
    design = dynamics.LinearDesign(predictor="symmetric")
    args = dynamics.LinearParameters(jnp.eye(2), NOISE * jnp.eye(2), RATE, 0.2, target_ratio=RATIO)
    slope = dynamics.branch_field(design)(0.0, dynamics.Branches(head, encoder), args)
    growth = slope.encoder @ encoder.T + encoder @ slope.encoder.T
    lag = dynamics.commutator(encoder @ encoder.T, head)
    change = dynamics.commutator(growth, head) + dynamics.commutator(encoder @ encoder.T, slope.predictor)
    bound = dynamics.alignment_bound(
        head, encoder, noise=NOISE, weight_decay=0.2, predictor_rate=RATE, target_ratio=RATIO
    )
    np.testing.assert_allclose(change, -np.trace(bound.matrix) * lag, rtol=1e-12, atol=1e-14)
    assert np.trace(bound.matrix) > bound.decay, "twice the smallest eigenvalue is a weaker bound"


def test_wrong_variants_are_refuted():
    rules = {
        "true": lambda m, c: m[1],
        "half of it": lambda m, c: -m[1],
        "grows": lambda m, c: -m[2],
        "more": lambda m, c: m[3] - c.excess / 10,
    }
    assert refuted(variants(ALIGNMENT, rules, strata=ALIGNMENT.strata)) == rules.keys() - {"true"}
