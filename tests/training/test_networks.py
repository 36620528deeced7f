import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdm_jax.training import encode_views, mlp_encoder, module_encoder

INPUTS = np.random.default_rng(3).normal(0.5, 1.5, (2, 6, 4)).astype(np.float32)


def made(**options):
    encoder = mlp_encoder((5, 3), projector=(7,), features=2, **options)
    params, stats = encoder.init(jax.random.key(1), INPUTS[0])
    # Every parameter is moved, so that none is at a value where a mistake would not show.
    leaves, tree = jax.tree.flatten(params)
    moved = [leaf + 0.1 * np.sin(np.arange(leaf.size)).reshape(leaf.shape).astype(np.float32) for leaf in leaves]
    return encoder, jax.tree.unflatten(tree, moved), stats


def reference(params, inputs, moments=None, last=None):
    """The network in float64; ``moments`` are means and variances to use in place of the batch's own."""
    values, stages = inputs.astype(np.float64), {}
    for name in ("layer0", "backbone", "projector0"):
        weights = {key: np.asarray(leaf, np.float64) for key, leaf in params[name].items()}
        values = values @ weights["kernel"] + weights.get("bias", 0.0)
        if f"{name}_norm" in params:
            mean, variance = moments[name] if moments else (values.mean(0), values.var(0))
            scale, shift = (np.asarray(params[f"{name}_norm"][key], np.float64) for key in ("scale", "bias"))
            values = (values - mean) / np.sqrt(variance + 1e-5) * scale + shift
        values = stages[name] = np.maximum(values, 0)
    output = {key: np.asarray(leaf, np.float64) for key, leaf in params["output"].items()}
    return values @ output["kernel"] + output.get("bias", 0.0), stages


@pytest.mark.parametrize("batch_norm", [True, False])
def test_features_and_stages_by_value(batch_norm):
    encoder, params, stats = made(batch_norm=batch_norm)
    encoded = encoder.apply(params, stats, INPUTS[0], True)
    features, stages = reference(params, INPUTS[0])
    np.testing.assert_allclose(encoded.features, features, rtol=2e-5, atol=2e-5)
    assert list(encoded.stages) == ["layer0", "backbone", "projector0"]
    for name, stage in stages.items():
        np.testing.assert_allclose(encoded.stages[name], stage, rtol=2e-5, atol=2e-5)


def test_running_statistics_are_updated_by_one_view_after_the_other_and_used_in_evaluation():
    encoder, params, stats = made()
    encoded = encode_views(encoder, params, stats, INPUTS, True)
    mean, variance = np.zeros(5), np.ones(5)
    for view in INPUTS.astype(np.float64):
        values = view @ np.asarray(params["layer0"]["kernel"], np.float64)
        mean, variance = 0.9 * mean + 0.1 * values.mean(0), 0.9 * variance + 0.1 * values.var(0, ddof=1)
    kept = encoded.stats["layer0_norm"]
    np.testing.assert_allclose(kept["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["var"], variance, rtol=1e-5)
    running = {
        name: [np.asarray(encoded.stats[f"{name}_norm"][key], np.float64) for key in ("mean", "var")]
        for name in ("layer0", "backbone", "projector0")
    }
    tested = encoder.apply(params, encoded.stats, INPUTS[0], False)
    np.testing.assert_allclose(tested.features, reference(params, INPUTS[0], running)[0], rtol=2e-5, atol=2e-5)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tested.stats, encoded.stats))


def test_views_do_not_share_batch_statistics():
    encoder, params, stats = made()
    both = encode_views(encoder, params, stats, INPUTS, True)
    for view, features in zip(INPUTS, both.features, strict=True):
        np.testing.assert_allclose(features, encoder.apply(params, stats, view, True).features, rtol=1e-6)


def test_final_norm_has_unit_variance_and_no_parameters():
    encoder, params, stats = made(final_norm=True)
    features = encoder.apply(params, stats, INPUTS[0], True).features
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(0), 1, rtol=1e-3)
    assert "output_norm" not in params and set(params["output"]) == {"kernel"}


def test_the_last_layer_starts_at_its_scale():
    kernels = [
        mlp_encoder((400,), projector=(), features=300, scale=scale).init(jax.random.key(0), INPUTS[0])[0]["output"]
        for scale in (1.0, 0.25)
    ]
    np.testing.assert_allclose(kernels[0]["kernel"].std(), 400**-0.5, rtol=0.02)
    np.testing.assert_allclose(kernels[1]["kernel"], kernels[0]["kernel"] / 4, rtol=1e-6)


def test_an_encoder_passes_through_scan_and_vmap():
    encoder, params, stats = made()

    def body(stats, view):
        encoded = encoder.apply(params, stats, view, True)
        return encoded.stats, encoded.features

    after, features = jax.jit(lambda stats: jax.lax.scan(body, stats, jnp.asarray(INPUTS)))(stats)
    expected = encode_views(encoder, params, stats, INPUTS, True)
    np.testing.assert_allclose(features, expected.features, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["layer0_norm"]["var"], expected.stats["layer0_norm"]["var"], rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 3)
    several, _ = jax.vmap(lambda key: encoder.init(key, INPUTS[0]))(keys)
    assert several["output"]["kernel"].shape == (3, 7, 2)


def test_module_encoder_keeps_structure_and_input_shape_apart():
    class Sum(nnx.Module):
        def __init__(self, shape):
            self.weight = nnx.Param(jnp.ones(shape))

        def __call__(self, inputs, *, train):
            pooled = jnp.sum(inputs * self.weight[None], axis=(1, 2))[:, None]
            return pooled, {"backbone": pooled}

    encoder = module_encoder(lambda shape, rngs: Sum(shape))
    params, stats = encoder.init(jax.random.key(0), jnp.ones((5, 2, 3)))
    assert encoder.apply(params, stats, jnp.ones((5, 2, 3)), True).features.tolist() == [[6.0]] * 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp_encoder((0,)), "at least 1 unit"),
        (lambda: mlp_encoder(activation="rlu"), "did you mean 'relu'"),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
