import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.training import BatchNorm, encode_views, resnet_encoder
from rdm_jax.training.resnet import _convolution, _parts

IMAGES = np.random.default_rng(2).normal(0, 1, (2, 6, 8, 8, 3)).astype(np.float32)
TINY = {"width": 2, "projector": (6,), "features": 5}


def shapes(encoder, size=32):
    """Parameters, running statistics and outputs, none of them computed."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), images)
    return params, stats, jax.eval_shape(lambda *x: encoder.apply(*x, True), params, stats, images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def normalised(x, parts=1):
    """In float64, from the definition: what comes out, and the mean over parts of their means and variances."""
    axes, outputs, means, variances = tuple(range(x.ndim - 1)), [], [], []
    for part in np.split(x.astype(np.float64), parts):
        n = part.size // part.shape[-1]
        mean = part.sum(axes) / n
        square = ((part - mean) ** 2).sum(axes)
        outputs.append((part - mean) / np.sqrt(square / n + 1e-5))
        means.append(mean)
        variances.append(square / (n - 1))
    return np.concatenate(outputs), sum(means) / parts, sum(variances) / parts


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 2, 3)])
def test_batch_norm_by_value(rng, shape, parts):
    x = rng.normal([5.0, -1.0, 0.0], [2.0, 0.1, 1.0], shape).astype(np.float32)
    scale, bias = np.array([0.5, 2.0, -1.0], np.float32), np.array([1.0, 0.0, 3.0], np.float32)
    norm = BatchNorm(3, groups=parts)
    norm.scale[...], norm.bias[...] = scale, bias
    expected, mean, variance = normalised(x, parts)
    np.testing.assert_allclose(norm(jnp.asarray(x), train=True), expected * scale + bias, rtol=1e-4, atol=1e-4)
    kept = {"mean": 0.1 * mean, "var": 0.9 + 0.1 * variance}
    np.testing.assert_allclose(norm.mean[...], kept["mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.var[...], kept["var"], rtol=1e-5)
    # In evaluation parts do not matter, a batch of one included, and the running statistics stay.
    before = np.asarray(norm.var[...])
    alone = norm(jnp.asarray(x[:1]), train=False)
    evaluated = (x[:1] - kept["mean"]) / np.sqrt(kept["var"] + 1e-5) * scale + bias
    np.testing.assert_allclose(alone, evaluated, rtol=1e-5, atol=1e-5)
    assert (norm.var[...] == before).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_the_derivative_of_batch_norm_is_that_of_its_definition(rng, parts):
    x, cotangent = (rng.normal([3.0, -1.0], [2.0, 0.1], (6, 2, 2, 2)) for _ in range(2))
    normalise = lambda x: BatchNorm(2, groups=parts, affine=False)(x, train=True)  # noqa: E731
    ours = jax.grad(lambda x: jnp.sum(normalise(x) * cotangent))(jnp.asarray(x, jnp.float32))

    def loss(x):
        return np.sum(normalised(x, parts)[0] * cotangent)

    steps = 1e-6 * np.eye(x.size).reshape(-1, *x.shape)
    expected = np.array([(loss(x + step) - loss(x - step)) / 2e-6 for step in steps]).reshape(x.shape)
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_kernel_gradients_in_parts_are_those_of_the_whole_batch(rng, size, stride):
    images, kernel = rng.normal(size=(8, 32, 32, 3)), rng.normal(size=(size, size, 3, 4))
    images, kernel = (jnp.asarray(a, jnp.float32) for a in (images, kernel))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    padding = [(size // 2, size // 2)] * 2

    def pulled(convolve):
        out, back = jax.vjp(lambda x, k: convolve(x, k, (stride, stride), padding, **options), images, kernel)
        return out, *back(jnp.cos(out))

    assert _parts(jax.eval_shape(lambda: pulled(_convolution)[0]).shape) > 1
    for ours, theirs in zip(pulled(_convolution), pulled(jax.lax.conv_general_dilated), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_batch_norm_without_parameters_and_of_a_batch_of_one():
    norm = BatchNorm(2, affine=False)
    assert not hasattr(norm, "scale")
    assert norm(jnp.ones((1, 2)), train=True).tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(norm.var[...], 0.9, rtol=1e-6)


def test_batch_norm_of_half_precision_has_single_precision_statistics():
    x = jnp.asarray(64 + np.arange(512).reshape(256, 2) % 7 / 2, jnp.bfloat16)  # exact in bfloat16; their mean is not
    norm = BatchNorm(2)
    output = norm(x, train=True)
    expected, mean, variance = normalised(np.asarray(x, np.float32))
    assert (output.dtype, norm.mean[...].dtype, norm.var[...].dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * variance, rtol=1e-6)
    np.testing.assert_allclose(output.astype(jnp.float32), expected, atol=2**-8)


def test_parts_of_a_batch_are_normalised_as_if_alone():
    encoder = resnet_encoder(10, **TINY, norm_groups=2)
    params, stats = made(encoder, IMAGES[0])
    apply = jax.jit(lambda images: encoder.apply(params, stats, images, True).features)
    changed = IMAGES[0].copy()
    changed[3:] += 1
    np.testing.assert_array_equal(apply(IMAGES[0])[:3], apply(changed)[:3])


@pytest.mark.parametrize(
    ("depth", "stem", "expected"),
    # Published counts: 11,689,512 and 25,557,032 with a classifier of 1000; the 3 x 3 stem has 7680 fewer.
    [
        (18, "imagenet", 11_689_512 - 513_000),
        (18, "cifar", 11_168_832),
        (50, "imagenet", 25_557_032 - 2_049_000),
    ],
)
def test_numbers_of_parameters_and_stages(depth, stem, expected):
    params, stats, encoded = shapes(resnet_encoder(depth, stem=stem))
    assert count(params["trunk"]) == expected
    # Two statistics for two parameters of each norm.
    norms = [leaf for leaf in jax.tree.leaves(params["trunk"]) if leaf.ndim == 1]
    assert count(stats["trunk"]) == count(norms)
    widths = [64, 128, 256, 512] if depth == 18 else [256, 512, 1024, 2048]
    for k, width in enumerate(widths):
        assert encoded.stages[f"stage{k + 1}"].shape == (2, width)
    assert encoded.stages["backbone"].shape == (2, widths[-1]) and encoded.features.shape == (2, 2048)
    assert encoded.stages["projector1"].shape == (2, 2048)


def convolve(x, kernel, stride, padding):
    """Window by window, in float64."""
    x = np.pad(x.astype(np.float64), [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    size = kernel.shape[0]
    rows, columns = (range(0, length - size + 1, stride) for length in x.shape[1:3])
    windows = [[np.tensordot(x[:, i : i + size, j : j + size], kernel, 3) for j in columns] for i in rows]
    return np.stack([np.stack(row, 1) for row in windows], 1)


def reference(params, images, *, stride=1, padding=1, pool=False, sizes=(3, 3)):
    """The pooled stages of a network with one block a stage, or of the first blocks of one."""

    def norm(x, weights):
        return normalised(x)[0] * np.asarray(weights["scale"]) + np.asarray(weights["bias"])

    def layer(x, block, name, stride=1, padding=1):
        kernel = np.asarray(params[block][name]["kernel"] if block else params[name]["kernel"])
        weights = params[block][name.replace("conv", "norm")] if "conv" in name else None
        weights = weights or (params[block]["shortcut_norm"] if block else params["stem_norm"])
        return norm(convolve(x, kernel, stride, padding), weights)

    x = np.maximum(layer(images, None, "stem", stride, padding), 0)
    if pool:
        wide = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
        half = range(0, wide.shape[1] - 2, 2)
        x = np.stack([np.stack([wide[:, i : i + 3, j : j + 3].max((1, 2)) for j in half], 1) for i in half], 1)
    pooled, block = {}, 0
    for k in range(1, 5):
        block = 0
        while f"stage{k}_block{block}" in params:
            name, y = f"stage{k}_block{block}", x
            here = 2 if k > 1 and block == 0 else 1
            for i, size in enumerate(sizes):
                y = layer(y, name, f"conv{i}", here if i == sizes.index(3) else 1, size // 2)
                y = np.maximum(y, 0) if i < len(sizes) - 1 else y
            x = np.maximum(y + (layer(x, name, "shortcut", here, 0) if "shortcut" in params[name] else x), 0)
            block += 1
        pooled[f"stage{k}"] = x.mean((1, 2))
    return pooled


def made(encoder, images):
    """Parameters of which none is at a value where a mistake would not show; to draw them here saves a compilation."""
    draws = np.random.default_rng(8)

    def draw(leaf):
        spread = 0.1 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(draws.normal(0.7 if leaf.ndim == 1 else 0, spread, leaf.shape), jnp.float32)

    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), images)
    kept = jax.tree_util.tree_map_with_path(lambda path, leaf: jnp.full(leaf.shape, float("var" in str(path))), stats)
    return jax.tree.map(draw, params), kept


@pytest.mark.parametrize("padding", [1, 2])
def test_a_network_by_value(padding):
    encoder = resnet_encoder(10, **TINY, stem_padding=padding)
    params, stats = made(encoder, IMAGES[0])
    encoded = jax.jit(lambda *x: encoder.apply(*x, True))(params, stats, IMAGES[0])
    for name, stage in reference(params["trunk"], IMAGES[0], padding=padding).items():
        np.testing.assert_allclose(encoded.stages[name], stage, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(encoded.stages["backbone"], encoded.stages["stage4"])


def test_a_large_stem_and_bottlenecks_by_value():
    encoder = resnet_encoder(50, width=1, projector=(), features=2, stem="imagenet")
    images = np.random.default_rng(4).normal(0, 1, (3, 32, 32, 3)).astype(np.float32)
    params, stats = made(encoder, images)
    stages = jax.jit(lambda *x: encoder.apply(*x, True).stages)(params, stats, images)
    expected = reference(params["trunk"], images, stride=2, padding=3, pool=True, sizes=(1, 3, 1))
    # The last stage has one pixel of three images: statistics of three numbers, which amplify rounding.
    for name in ("stage1", "stage2", "stage3"):
        np.testing.assert_allclose(stages[name], expected[name], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_leaves_the_main_path(zero):
    """With blocks that add nothing, stage 1 is the pooled output of the stem."""
    encoder = resnet_encoder(10, **TINY, zero_init=zero)
    params, stats = jax.jit(encoder.init)(jax.random.key(0), IMAGES[0])
    # Compiled alone, so that the later stages are left out.
    found = jax.jit(lambda *x: encoder.apply(*x, True).stages["stage1"])(params, stats, IMAGES[0])
    weights = params["trunk"]["stem"]["kernel"]
    stem = np.maximum(normalised(convolve(IMAGES[0], np.asarray(weights), 1, 1))[0], 0).mean((1, 2))
    assert np.allclose(found, stem, rtol=1e-4, atol=1e-5) == zero
    scales = [float(params["trunk"][f"stage{k}_block0"]["norm1"]["scale"].sum()) for k in range(1, 5)]
    assert (sum(scales) == 0) == zero


def test_half_precision_gives_single_precision_features_near_the_others():
    outputs = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        encoder = resnet_encoder(10, **TINY, dtype=dtype)
        params, stats = made(encoder, IMAGES[0])
        outputs[dtype] = jax.jit(lambda *x, encoder=encoder: encoder.apply(*x, True))(params, stats, IMAGES[0])
        assert {leaf.dtype for leaf in jax.tree.leaves((params, outputs[dtype]))} == {jnp.dtype(jnp.float32)}
    for name, stage in outputs[jnp.float32].stages.items():
        error = np.abs(outputs[jnp.bfloat16].stages[name] - stage).max()
        assert 0 < error < 0.1 * np.abs(stage).max(), name


def test_both_views_update_the_statistics():
    encoder = resnet_encoder(10, **TINY)
    params, stats = made(encoder, IMAGES[0])
    after = jax.jit(lambda *x: encode_views(encoder, *x, True).stats)(params, stats, IMAGES)
    mean = np.zeros(2)
    for view in IMAGES:
        mean = 0.9 * mean + 0.1 * convolve(view, np.asarray(params["trunk"]["stem"]["kernel"]), 1, 1).mean((0, 1, 2))
    np.testing.assert_allclose(after["trunk"]["stem_norm"]["mean"], mean, rtol=1e-4, atol=1e-6)


def test_convolutions_start_as_published():
    encoder = resnet_encoder(10, width=32, projector=(100,), features=50)
    params, _ = jax.jit(encoder.init)(jax.random.key(0), IMAGES[0])
    kernel = params["trunk"]["stage3_block0"]["conv0"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    linear = params["projector"]["projector0"]["kernel"]
    np.testing.assert_allclose([linear.std(), abs(linear).max()], [(3 * 256) ** -0.5, 1 / 16], rtol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet_encoder(34), "depth is one of 10, 18, 50, got 34"),
        (lambda: resnet_encoder(stem="cifr"), "did you mean 'cifar'"),
        (lambda: resnet_encoder(width=0), "width >= 1"),
        (lambda: resnet_encoder(activation="rlu"), "did you mean 'relu'"),
        (lambda: resnet_encoder(final_norm="afine"), "final_norm is True, False or 'affine'"),
        (lambda: shapes(resnet_encoder(10, norm_groups=3)), "no 3 equal parts"),
        (lambda: BatchNorm(3, groups=0), "at least 1 part"),
        (
            lambda: resnet_encoder(10).init(jax.random.key(0), jax.ShapeDtypeStruct((2, 3), jnp.float32)),
            "takes images",
        ),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
