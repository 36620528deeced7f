"""Augmentations: pixels against Pillow, SciPy and float64; random numbers against their distributions.

Images count from 0 to 1, so an 8-bit level is 1 / 255.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from rdm_jax.training import _pixels
from rdm_jax.training._draws import Box, Jitter, draw
from rdm_jax.training.augment import ViewConfig, augment, augment_views, evaluation_view, method_views
from tests.training import pixel_reference as reference

LEVEL = 1 / 255
# float32 through a dozen operations on numbers of order 1; the hue divides by the chroma, which may be a level or two.
ROUNDING = 1e-5
EVERYTHING = ViewConfig(
    scale=(0.2, 0.9),
    brightness=0.4,
    contrast=0.5,
    saturation=0.6,
    hue=0.2,
    jitter=0.7,
    greyscale=0.3,
    blur=0.5,
    blur_sigma=(0.3, 1.2),
    solarise=0.4,
    flip=0.5,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
)


def photos(rng, n, height, width):
    """Colour gradients with an edge and some noise, as 8-bit: not symmetric in any direction or colour."""
    row, column = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    tints = rng.uniform(0, 1, (n, 1, 1, 3))
    slopes = rng.normal(0, 0.7, (2, n, 1, 1, 3))
    smooth = tints + slopes[0] * row[..., None] + slopes[1] * column[..., None] ** 2
    edge = (column > rng.uniform(0.3, 0.7, (n, 1, 1)))[..., None] * rng.normal(0, 0.5, (n, 1, 1, 3))
    noisy = smooth + edge + rng.normal(0, 0.04, (n, height, width, 3))
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def to_planes(images):
    return jnp.moveaxis(jnp.asarray(images, jnp.float32), 3, 1) / 255


def to_images(planes):
    return np.moveaxis(np.asarray(planes, np.float64), 1, 3)


def each_pillow(change, images):
    """Pillow's own result for each 8-bit image, in 0 to 1."""
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images]) / 255


def alone(kind, factor, n):
    """Jitter of one kind by one factor, in the middle of the three turns."""
    kinds = jnp.array([[(kind + 1) % 3, kind, (kind + 2) % 3]] * n)
    return Jitter(kinds, jnp.array([[1.0, factor, 1.0]] * n), jnp.full(n, 1), jnp.zeros(n))


jittered = jax.jit(_pixels.jittered)
resampled = jax.jit(_pixels.resampled, static_argnums=(3, 4))
blurred = jax.jit(_pixels.blurred, static_argnums=3)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def drawn(view, samples, key, height, width):
    return jax.vmap(lambda sample: draw(jax.random.fold_in(key, sample), view, height, width))(samples)


@pytest.mark.parametrize("out", [(32, 32), (40, 28), (5, 3)])
def test_crop_and_resize_is_pillows(rng, out):
    # None is shrunk one way and enlarged the other: there Pillow's order of the two, and so what is clipped, varies.
    images = photos(rng, 6, 32, 24)
    boxes = [(0, 0, 32, 24), (3, 5, 9, 7), (20, 1, 12, 23), (31, 23, 1, 1), (8, 0, 24, 3), (2, 2, 25, 14)]
    box = Box(*jnp.array(boxes, jnp.float32).T)
    ours = to_images(resampled(to_planes(images), box, jnp.zeros(6, bool), *out))
    precise = [reference.crop_resized(image / 255, box, out) for image, box in zip(images, boxes, strict=True)]
    assert_allclose(ours, precise, atol=ROUNDING)
    rounded = np.stack(
        [
            np.asarray(Image.fromarray(image).crop((x, y, x + w, y + h)).resize(out[::-1], Image.Resampling.BICUBIC))
            / 255
            for image, (y, x, h, w) in zip(images, boxes, strict=True)
        ]
    )
    # Half a level at the end, and half a level in between, which the negative weights enlarge to at most 1.3 of it.
    assert_allclose(ours, rounded, atol=1.15 * LEVEL)


def test_a_flip_mirrors_left_and_right(rng):
    images = photos(rng, 3, 8, 12)
    box = Box(*(jnp.full(3, value, jnp.float32) for value in (0, 0, 8, 12)))
    flipped = to_images(resampled(to_planes(images), box, jnp.array([True, False, True]), 8, 12)) / LEVEL
    assert_allclose(flipped[0], images[0, :, ::-1], atol=1e-3)
    assert_allclose(flipped[1], images[1], atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.0, 0.55, 1.7])
def test_brightness_contrast_and_saturation_are_pillows(rng, kind, enhance, factor):
    images = photos(rng, 4, 9, 7)
    ours = to_images(jittered(to_planes(images), alone(kind, factor, 4)))
    # Pillow drops the fraction of its result, and rounds the grey that it blends with to half a level.
    slack = (0 if kind == 0 else 0.5 * abs(1 - factor)) * LEVEL + ROUNDING
    difference = ours - each_pillow(lambda image: enhance(image).enhance(factor), images)
    assert difference.min() >= -slack and difference.max() < LEVEL + slack
    change = (reference.brightness, reference.contrast, reference.saturation)[kind]
    assert_allclose(ours, [change(image / 255, factor) for image in images], atol=ROUNDING)


def hue_by_pillow(image, shift):
    """As torchvision has it: the hue is one byte, and goes around by itself."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + int(shift * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.07, 0.4])
def test_hue_moves_around_the_circle(rng, shift):
    images = photos(rng, 4, 9, 7)
    images[0, 0] = 77  # grey has no hue
    images[1, 0, 0], images[1, 0, 1] = (0, 0, 0), (255, 255, 255)
    images[2, 0, :3] = [(9, 200, 200), (200, 200, 9), (200, 9, 200)]  # two colours alike are largest
    jitter = Jitter(jnp.array([[2, 0, 1]] * 4), jnp.ones((4, 3)), jnp.full(4, 2), jnp.full(4, shift))
    ours = to_images(jittered(to_planes(images), jitter))
    assert_allclose(ours, [reference.hue(image / 255, shift) for image in images], atol=ROUNDING)
    # A byte of hue is 6 / 255 of a colour's rise, three roundings of it, and one each of saturation, value and colour.
    pillow = each_pillow(functools.partial(hue_by_pillow, shift=shift), images)
    assert np.max(np.abs(ours - pillow)) < (6 * (0.5 + 0.5 + 1) + 3) * LEVEL
    assert np.mean(np.abs(ours - pillow)) < 2.5 * LEVEL


def test_grey_is_pillows(rng):
    images = photos(rng, 3, 6, 5)
    ours = to_images(_pixels.greyed(to_planes(images), jnp.array([True, False, True])))
    pillow = each_pillow(lambda image: image.convert("L").convert("RGB"), images)
    assert_allclose(ours[[0, 2]], pillow[[0, 2]], atol=0.51 * LEVEL)
    assert_allclose(ours[1], images[1] / 255, atol=ROUNDING)


def test_solarise_is_pillows():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    ours = to_images(_pixels.solarised(to_planes(ramp), jnp.array([True])))
    assert_allclose(ours, each_pillow(ImageOps.solarize, ramp), atol=ROUNDING)


def test_blur_is_a_gaussian(rng):
    images, sigma = photos(rng, 4, 30, 26), [0.1, 0.5, 1.3, 2.0]
    where = jnp.array([True, True, False, True])
    ours = to_images(blurred(to_planes(images), where, jnp.array(sigma), 2.0))
    expected = [reference.blur(image / 255, width) for image, width in zip(images, sigma, strict=True)]
    # What lies beyond four standard deviations is 6e-5 of the kernel.
    assert_allclose(ours[[0, 1, 3]], np.array(expected)[[0, 1, 3]], atol=1e-4)
    assert_allclose(ours[2], images[2] / 255, atol=ROUNDING)


def test_blur_is_close_to_pillows(rng):
    images, inner = photos(rng, 4, 30, 26), np.s_[:, 8:-8, 8:-8]
    ours = to_images(blurred(to_planes(images), jnp.ones(4, bool), jnp.full(4, 2.0), 2.0))
    pillow = each_pillow(lambda image: image.filter(ImageFilter.GaussianBlur(2.0)), images)
    # Three box blurs, which come close to a Gaussian away from the edges.
    assert_allclose(ours[inner], pillow[inner], atol=3 * LEVEL)


def test_every_order_of_the_jitter(rng):
    orders = [(kinds, before) for kinds in itertools.permutations(range(3)) for before in range(4)]
    images = photos(rng, len(orders), 5, 4)
    factors = np.array([[0.4, 1.5, 1.9][kind] for kinds, _ in orders for kind in kinds]).reshape(-1, 3)
    kinds, before = (np.array(column) for column in zip(*orders, strict=True))
    jitter = Jitter(jnp.asarray(kinds), jnp.asarray(factors, jnp.float32), jnp.asarray(before), jnp.full(24, 0.15))
    ours = to_images(jittered(to_planes(images), jitter))
    expected = [
        reference.jitter(image / 255, *order, 0.15)
        for image, order in zip(images, zip(kinds, factors, before, strict=True), strict=True)
    ]
    assert_allclose(ours, expected, atol=3 * ROUNDING)
    clipped = np.mean((np.array(expected) == 0) | (np.array(expected) == 1))
    assert 0.02 < clipped < 0.9, "some, not all pixels reach a limit, where the order matters most"


@pytest.fixture(scope="module")
def whole():
    """Images, their numbers and the key, with what comes out of everything at once."""
    images, samples, key = photos(np.random.default_rng(4), 24, 16, 16), jnp.arange(40, 64), jax.random.key(3)
    return images, samples, key, np.asarray(augment(EVERYTHING, images, samples, key=key))


def step_by_step(image, draws, view, size):
    """The recipe's order, a step at a time, in float64."""
    image = reference.crop_resized(image / 255, draws.box, size)
    image = reference.jitter(image, *draws.jitter)
    image = reference.grey(image) if draws.grey else image
    image = reference.blur(image, draws.sigma) if draws.blurred else image
    image = reference.solarise(image) if draws.solarised else image
    image = image[:, ::-1] if draws.flipped else image
    return (image - np.array(view.mean)) / np.array(view.std)


def test_the_whole_is_its_steps_in_the_recipes_order(whole):
    images, samples, key, ours = whole
    draws = drawn(EVERYTHING, samples, key, 16, 16)
    one = lambda index: jax.tree.map(lambda column: np.asarray(column)[index], draws)  # noqa: E731
    expected = [step_by_step(image, one(index), EVERYTHING, (16, 16)) for index, image in enumerate(images)]
    for happens in (draws.grey, draws.blurred, draws.solarised, draws.flipped):
        assert 0 < np.mean(happens) < 1
    # Divided by std 0.2, and the blur's tails.
    assert ours.dtype == np.float32
    assert_allclose(ours, expected, atol=1e-3)


def test_a_samples_view_depends_on_its_number_and_the_key_alone(whole):
    images, samples, key, ours = whole
    mixed = np.array([17, 3, 8] * 8)
    assert_allclose(augment(EVERYTHING, images[mixed], samples[mixed], key=key), ours[mixed], atol=ROUNDING)
    assert_allclose(augment(EVERYTHING, images, samples, key=key), ours, atol=0)
    renumbered = augment(EVERYTHING, images, samples + 1, key=key)
    other_key = augment(EVERYTHING, images, samples, key=jax.random.fold_in(key, 1))
    for changed in (renumbered, other_key):
        assert np.mean(np.abs(changed - ours), axis=(1, 2, 3)).min() > 0.01


def test_draws_are_the_same_to_the_bit_in_every_batch(key):
    all_of_them = drawn(EVERYTHING, jnp.arange(50), key, 32, 32)
    some = drawn(EVERYTHING, jnp.array([31, 7]), key, 32, 32)
    for column, part in zip(jax.tree.leaves(all_of_them), jax.tree.leaves(some), strict=True):
        np.testing.assert_array_equal(column[np.array([31, 7])], part)


def test_views_of_a_sample_are_independent(rng, key):
    images, view = photos(rng, 1, 16, 16).repeat(8, axis=0), ViewConfig(scale=(0.2, 0.9))
    both = augment_views((view, view), images, np.arange(8), key=key)
    assert both.shape == (2, 8, 16, 16, 3)
    assert np.mean(np.abs(both[0] - both[1]), axis=(1, 2, 3)).min() > 0.01
    assert np.mean(np.abs(both[:, 1:] - both[:, :1]), axis=(2, 3, 4)).min() > 0.01, "of one image, by its number"
    alone = augment(view, images, np.arange(8), key=jax.random.fold_in(key, 1))
    assert_allclose(both[1], alone, atol=ROUNDING)


def test_jit_is_no_jit(whole):
    images, samples, key, ours = whole
    compiled = jax.jit(lambda images, samples, key: augment(EVERYTHING, images, samples, key=key))
    assert_allclose(compiled(images, samples, key), ours, atol=10 * ROUNDING)


def test_no_view_at_all_only_normalises(rng, key):
    images = photos(rng, 2, 5, 7)
    view = evaluation_view("none", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    expected = (images / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.25, 0.125])
    assert_allclose(augment(view, images, [0, 1], key=key), expected, atol=ROUNDING)


def test_another_size_takes_the_whole_image(rng, key):
    images = photos(rng, 1, 30, 24)
    view = ViewConfig(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = reference.crop_resized(images[0] / 255, (0, 0, 30, 24), (16, 16))
    assert_allclose(augment(view, images, [5], key=key)[0], expected, atol=ROUNDING)


MANY = 40_000
SIGMAS = 5


@pytest.fixture(scope="module")
def many():
    return jax.tree.map(np.asarray, drawn(EVERYTHING, jnp.arange(MANY), jax.random.key(11), 32, 24))


def assert_mean(values, mean, deviation):
    """The mean of independent values, within five standard errors."""
    assert abs(np.mean(values) - mean) < SIGMAS * deviation / math.sqrt(len(values))


def assert_uniform(values, low, high):
    """Limits, mean, and the chance of each tenth."""
    assert low <= values.min() and values.max() <= high + 1e-6
    assert_mean(values, (low + high) / 2, (high - low) / math.sqrt(12))
    for count in np.histogram(values, 10, (low, high + 1e-6))[0]:
        assert abs(count - len(values) / 10) < SIGMAS * math.sqrt(0.09 * len(values))


@pytest.mark.parametrize(("field", "chance"), {"grey": 0.3, "blurred": 0.5, "solarised": 0.4, "flipped": 0.5}.items())
def test_chances(many, field, chance):
    assert_mean(getattr(many, field), chance, math.sqrt(chance * (1 - chance)))


def test_chances_are_independent(many):
    flags = np.stack([many.grey, many.blurred, many.solarised, many.flipped, many.jitter.hue != 0])
    off = np.corrcoef(flags)[np.triu_indices(5, 1)]
    assert np.max(np.abs(off)) < SIGMAS / math.sqrt(MANY)


def test_jitter_is_all_or_nothing_and_uniform(many):
    happens = many.jitter.hue != 0
    assert_mean(happens, 0.7, math.sqrt(0.21))
    assert np.all(many.jitter.factors[~happens] == 1)
    assert_uniform(many.jitter.hue[happens], -0.2, 0.2)
    for kind, strength in enumerate((0.4, 0.5, 0.6)):
        factors = many.jitter.factors[many.jitter.kinds == kind].reshape(-1)[happens]
        assert_uniform(factors, 1 - strength, 1 + strength)
    assert_uniform(many.sigma, 0.3, 1.2)


def test_factors_end_at_zero(key):
    strong = dataclasses.replace(EVERYTHING, brightness=1.5, jitter=1.0)
    jitter = drawn(strong, jnp.arange(4000), key, 8, 8).jitter
    assert_uniform(np.asarray(jitter.factors)[np.asarray(jitter.kinds) == 0], 0, 2.5)


def test_all_orders_are_equally_likely(many):
    kinds, before = many.jitter.kinds, many.jitter.before
    order, counts = np.unique(np.column_stack([kinds, before]), axis=0, return_counts=True)
    assert len(order) == 24
    assert np.max(np.abs(counts - MANY / 24)) < SIGMAS * math.sqrt(MANY / 24 * 23 / 24)


def published_box(rng, height, width, scale, ratio):
    """One box, as the published pipelines draw it: a loop."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1), high, wide
    raise AssertionError("about one in ten million at these settings")


def test_boxes_are_distributed_as_the_published_ones(many, rng):
    published = np.array([published_box(rng, 32, 24, (0.2, 0.9), (3 / 4, 4 / 3)) for _ in range(MANY)])
    ours = np.stack(many.box, axis=1)
    assert np.all(ours == np.round(ours)) and np.all(ours[:, :2] >= 0)
    assert np.all(ours[:, 0] + ours[:, 2] <= 32) and np.all(ours[:, 1] + ours[:, 3] <= 24)
    for statistic in (
        *(lambda boxes, column=column: boxes[:, column] for column in range(4)),
        lambda boxes: boxes[:, 2] * boxes[:, 3],
        lambda boxes: boxes[:, 0] ** 2,
        lambda boxes: np.log(boxes[:, 3] / boxes[:, 2]) ** 2,
        lambda boxes: boxes[:, 1] == 24 - boxes[:, 3],
    ):
        a, b = statistic(ours), statistic(published)
        assert abs(a.mean() - b.mean()) < SIGMAS * math.sqrt((a.var() + b.var()) / MANY)


def test_the_largest_box_where_none_fits(key):
    whole = ViewConfig(scale=(1.0, 1.0), ratio=(0.5, 0.6))
    box = drawn(whole, jnp.arange(200), key, 20, 30).box
    assert np.all(box.height == 20) and np.all(box.width == 12)
    assert set(np.asarray(box.left).tolist()) <= set(range(19))


@pytest.mark.parametrize("method", ["simsiam", "byol", "swav", "dino", "rdm_simsiam", "rdm_byol"])
def test_views_of_the_recipes(method):
    jitters = {"simsiam": (0.4, 0.4, 0.4, 0.1), "byol": (0.4, 0.4, 0.2, 0.1), "swav": (0.8, 0.8, 0.8, 0.2)}
    family = method.removeprefix("rdm_").replace("dino", "byol")
    first, second = method_views(method, size=32, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    for view in (first, second):
        assert (view.brightness, view.contrast, view.saturation, view.hue) == jitters[family]
        assert (view.scale, view.ratio, view.jitter) == ((0.08, 1), (3 / 4, 4 / 3), 0.8)
        assert (view.greyscale, view.blur, view.flip) == (0.2, 0, 0.5)
        assert (view.size, view.mean, view.std) == (32, (0.1, 0.2, 0.3), (1, 2, 3))
    assert (first.solarise, second.solarise) == (0, 0.2 if family == "byol" else 0)


def test_controls_see_what_simsiam_sees():
    assert {method_views(name) for name in ("symsimsiam", "directpred", "isoloss")} == {method_views("simsiam")}
    probe = evaluation_view("crop_flip")
    assert (probe.scale, probe.flip, probe.greyscale, probe.brightness) == ((0.08, 1), 0.5, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip must be in 0 to 1, got 1.5"),
        ({"blur": float("nan")}, "blur must be in 0 to 1, got nan"),
        ({"contrast": -0.1}, "contrast must be finite and >= 0, got -0.1"),
        ({"hue": 0.6}, "hue must be in 0 to 0.5"),
        ({"scale": (0.5, 1.2)}, "scale is a pair 0 < least <= largest <= 1"),
        ({"ratio": (2.0, 1.0)}, "ratio is a pair 0 < least <= largest, got"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma is a pair"),
        ({"std": (1.0, 0.0, 1.0)}, "std holds three numbers above 0"),
        ({"size": 0}, "size is a number of pixels >= 1 or None, got 0"),
    ],
)
def test_senseless_views(options, message):
    with pytest.raises(ValueError, match=message):
        ViewConfig(**options)


def test_senseless_images(key):
    images, view = np.zeros((2, 4, 4, 3), np.uint8), ViewConfig()
    with pytest.raises(ValueError, match=r"images must be \(n, height, width, 3\) of uint8, got .* of float32"):
        augment(view, images.astype(np.float32), [0, 1], key=key)
    with pytest.raises(ValueError, match="samples must be 2 integers"):
        augment(view, images, [0, 1, 2], key=key)
    with pytest.raises(ValueError, match="samples must be 2 integers"):
        augment(view, images, [0.0, 1.0], key=key)
    with pytest.raises(ValueError, match="all of the same size"):
        augment_views((view, ViewConfig(size=8)), images, [0, 1], key=key)
    with pytest.raises(ValueError, match="at least one view"):
        augment_views((), images, [0, 1], key=key)
    with pytest.raises(ValueError, match="did you mean 'byol'"):
        method_views("boyl")
