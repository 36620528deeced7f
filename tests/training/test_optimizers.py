import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rdm_jax.training import Params, lars, one_dimensional, sgd, warmup_cosine

RNG = np.random.default_rng(5)
START = {"kernel": RNG.normal(0, 2, (4, 3)), "bias": RNG.normal(0, 2, 3), "zero": np.zeros((2, 2))}
GRADIENTS = [{name: RNG.normal(0, 0.3, leaf.shape) for name, leaf in START.items()} for _ in range(4)]
GRADIENTS[2]["kernel"] *= 1e-4  # so small that the trust is clipped at every rate
GRADIENTS[3]["bias"] *= 0  # no gradient, and so no decay
RATES = [0.0, 0.1, 0.7, 0.4]


def schedule(step):
    return jnp.asarray(RATES, jnp.float32)[step]


def run(optimizer, params=START, gradients=GRADIENTS):
    """Parameters after each step, compiled."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    memory, update, after = optimizer.init(params), jax.jit(optimizer.update), []
    for slope in gradients:
        slope = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), slope)
        updates, memory = update(slope, memory, params)
        params = optax.apply_updates(params, updates)
        after.append(params)
    return after


def reference_lars(decay, mu, eta, clip, exclude):
    """In float64, array by array, from the definition."""
    params = {name: leaf.copy() for name, leaf in START.items()}
    buffers, after, clipped = {name: 0.0 for name in START}, [], []
    for rate, slopes in zip(RATES, GRADIENTS, strict=True):
        for name, g in slopes.items():
            p = params[name]
            if not (exclude and p.ndim == 1) and np.linalg.norm(p) > 0 and np.linalg.norm(g) > 0:
                trust = eta * np.linalg.norm(p) / (np.linalg.norm(g) + decay * np.linalg.norm(p) + 1e-8)
                if clip:
                    clipped.append(rate == 0 or trust > rate)
                    trust = 1.0 if rate == 0 else min(trust / rate, 1.0)
                g = trust * (g + decay * p)
            buffers[name] = mu * buffers[name] + g
            params[name] = p - rate * buffers[name]
        after.append({name: leaf.copy() for name, leaf in params.items()})
    return after, clipped


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_lars_is_the_published_one(clip, exclude):
    optimizer = lars(
        schedule,
        weight_decay=0.01,
        momentum=0.8,
        eta=0.02,
        clip=clip,
        exclude=one_dimensional if exclude else None,
    )
    expected, clipped = reference_lars(0.01, 0.8, 0.02, clip, exclude)
    if clip:
        assert 1 < sum(clipped) < len(clipped) - 1
    for mine, theirs in zip(run(optimizer), expected, strict=True):
        for name in START:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=2e-5, atol=2e-6)


def test_lars_is_not_that_of_optax():
    """Which multiplies by the rate before the momentum: the same only as long as the rate stays."""
    options = {"weight_decay": 0.0, "momentum": 0.8}
    for rate, same in [(0.3, True), (schedule, False)]:
        ours = run(lars(rate, eta=0.02, eps=0.0, clip=False, **options))[-1]["kernel"]
        theirs = run(optax.lars(rate, trust_coefficient=0.02, **options))[-1]["kernel"]
        assert np.allclose(ours, theirs, rtol=1e-4) == same


def test_sgd_decays_before_the_momentum_and_keeps_a_rate_for_a_parameter_of_the_method():
    def params(tree):
        return Params({"kernel": tree["kernel"]}, {"predictor": {"bias": tree["bias"]}, "other": tree["zero"]})

    optimizer = sgd(schedule, weight_decay=0.1, momentum=0.8, rates={"predictor": 0.25})
    after = run(optimizer, params(START), [params(g) for g in GRADIENTS])[-1]
    expected = {}
    for name, p in START.items():
        buffer = 0.0
        for rate, slopes in zip(RATES, GRADIENTS, strict=True):
            buffer = 0.8 * buffer + slopes[name] + 0.1 * p
            p = p - (0.25 if name == "bias" else rate) * buffer
        expected[name] = p
    np.testing.assert_allclose(after.encoder["kernel"], expected["kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.method["predictor"]["bias"], expected["bias"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.method["other"], expected["zero"], rtol=1e-5, atol=1e-6)


def test_the_schedule_at_its_corners():
    peak, steps, warmup, start, final = 0.5, 1000, 100, 3e-5, 6e-4
    rate = jax.jit(jax.vmap(warmup_cosine(peak, steps=steps, warmup_steps=warmup, start=start, final=final)))
    at = np.array([0, 1, 50, 99, 100, 101, 550, 775, 999, 1000, 5000])
    rises = [start, start + (peak - start) / 100, (start + peak) / 2, peak - (peak - start) / 100]
    falls = [final + (peak - final) * np.cos(np.pi * (t - 100) / 1800) ** 2 for t in at[4:-2]]
    np.testing.assert_allclose(rate(at), [*rises, *falls, final, final], rtol=2e-5)
    assert float(warmup_cosine(peak, steps=2)(jnp.array(0))) == peak


def test_memory_keeps_its_structure_and_is_that_of_the_parameters():
    optimizer, params = lars(0.1), jax.tree.map(jnp.float32, START)
    memory = optimizer.init(params)
    after = optimizer.update(params, memory, params)[1]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), memory
    )
    assert jax.tree.structure(memory.momentum) == jax.tree.structure(params) and int(after.step) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: warmup_cosine(1.0, steps=5, warmup_steps=5), "train longer"),
        (lambda: warmup_cosine(1.0, steps=5, final=-1.0), "at least 0"),
        (lambda: sgd(0.1, momentum=1.0), "momentum is in"),
        (lambda: lars(0.1, weight_decay=-1.0), "weight_decay must be at least 0"),
        (lambda: sgd(0.1).update(jnp.ones(1), sgd(0.1).init(jnp.ones(1))), "need the parameters"),
        (
            lambda: sgd(0.1, rates={"predicter": 0.1}).init(Params({}, {"predictor": jnp.ones(1)})),
            "did you mean 'predictor'",
        ),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
