"""Random views of images: on the device, compiled, and each sample's from the seed and its own number alone.

The order of the recipes: random resized crop, colour jitter, greyscale, blur, solarise, flip, normalise.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rdm_jax._checks import choose
from rdm_jax.training import _pixels
from rdm_jax.training._draws import Draws, draw
from rdm_jax.types import Array, ArrayLike, PRNGKeyArray

__all__ = ["ViewConfig", "augment", "augment_views", "evaluation_view", "method_views"]

Triple = tuple[float, float, float]
Pixels = Float[Array, "n height width 3"]

CIFAR10_MEAN: Triple = (0.4914, 0.4822, 0.4465)
CIFAR10_STD: Triple = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What may happen to a sample in one view, and how it is normalised; by default nothing happens.

    Frozen and hashable, so a static argument under ``jax.jit``. Images count from 0 to 1 in what follows.

    Args:
        size: height and width of the result in pixels; None: those of the images.
        scale: least and largest share of the image's area in the random crop; None: no crop.
        ratio: least and largest width / height of the crop.
        brightness: b; the factor is uniform in max(0, 1 - b) to 1 + b.
        contrast: likewise.
        saturation: likewise.
        hue: the shift is uniform in -hue to hue, in full turns of the colour circle; at most 1/2.
        jitter: probability of these four changes, which come in random order.
        greyscale: probability of grey.
        blur: probability of a Gaussian blur.
        blur_sigma: least and largest standard deviation of it, in pixels.
        solarise: probability that pixels from 128 of 255 on are inverted.
        flip: probability of mirroring left and right.
        mean: of each colour over the data set.
        std: of each colour over the data set.

    Raises:
        ValueError: a number outside its range.

    >>> ViewConfig(flip=0.5) == ViewConfig(flip=1 / 2)
    True

    Source: the pipelines of the published code; docs/data.md.
    """

    size: int | None = None
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 0.8
    greyscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    flip: float = 0.0
    mean: Triple = CIFAR10_MEAN
    std: Triple = CIFAR10_STD

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size is a number of pixels >= 1 or None, got {self.size}")
        for name in ("jitter", "greyscale", "blur", "solarise", "flip"):
            _require_within(name, getattr(self, name), 1.0)
        for name in ("brightness", "contrast", "saturation"):
            _require_within(name, getattr(self, name), math.inf)
        _require_within("hue", self.hue, 0.5)
        _require_pair("scale", self.scale or (1.0, 1.0), 1.0)
        _require_pair("ratio", self.ratio, math.inf)
        _require_pair("blur_sigma", self.blur_sigma, math.inf)
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std holds three numbers above 0, got {self.std}")


def _require_within(name: str, value: float, high: float) -> None:
    if not (0 <= value <= high and value < math.inf):
        limits = f"in 0 to {high:g}" if high < math.inf else "finite and >= 0"
        raise ValueError(f"{name} must be {limits}, got {value}")


def _require_pair(name: str, pair: tuple[float, float], high: float) -> None:
    if not 0 < pair[0] <= pair[1] <= high or pair[1] == math.inf:
        limit = f" <= {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} is a pair 0 < least <= largest{limit}, got {pair}")


# Brightness, contrast, saturation and hue of both views, and the chance to solarise in each view.
_RECIPES: dict[str, tuple[tuple[float, float, float, float], tuple[float, float]]] = {
    "simsiam": ((0.4, 0.4, 0.4, 0.1), (0.0, 0.0)),
    "byol": ((0.4, 0.4, 0.2, 0.1), (0.0, 0.2)),
    "swav": ((0.8, 0.8, 0.8, 0.2), (0.0, 0.0)),
    "dino": ((0.4, 0.4, 0.2, 0.1), (0.0, 0.2)),
    "rdm_simsiam": ((0.4, 0.4, 0.4, 0.1), (0.0, 0.0)),
    "rdm_byol": ((0.4, 0.4, 0.2, 0.1), (0.0, 0.2)),
    # Not in the published recipes: SimSiam's, so that they differ from it by their method alone.
    "symsimsiam": ((0.4, 0.4, 0.4, 0.1), (0.0, 0.0)),
    "directpred": ((0.4, 0.4, 0.4, 0.1), (0.0, 0.0)),
    "isoloss": ((0.4, 0.4, 0.4, 0.1), (0.0, 0.0)),
}


def method_views(
    method: str, *, size: int | None = None, mean: Triple = CIFAR10_MEAN, std: Triple = CIFAR10_STD
) -> tuple[ViewConfig, ViewConfig]:
    """The two views of a method's CIFAR recipe: crop, jitter, greyscale, in BYOL and DINO solarised, flipped; no blur.

    Args:
        method: its name, such as ``"byol"``.
        size: height and width of the result in pixels; None: those of the images.
        mean: of each colour over the data set, in 0 to 1.
        std: of each colour over the data set, in the same unit.

    Returns:
        One configuration a view.

    Raises:
        ValueError: an unknown method, with the nearest.

    >>> [view.solarise for view in method_views("byol")]
    [0.0, 0.2]

    Source: the CIFAR configurations of the published code; da Costa et al. 2022.
    """
    (brightness, contrast, saturation, hue), chances = _RECIPES[choose(method, _RECIPES, "method")]
    first, second = (
        ViewConfig(
            size=size,
            scale=(0.08, 1.0),
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            greyscale=0.2,
            solarise=chance,
            flip=0.5,
            mean=mean,
            std=std,
        )
        for chance in chances
    )
    return first, second


def evaluation_view(
    kind: str, *, size: int | None = None, mean: Triple = CIFAR10_MEAN, std: Triple = CIFAR10_STD
) -> ViewConfig:
    """What evaluation sees: the image as it is, or a random resized crop and a flip for a linear probe's training.

    Args:
        kind: ``"none"`` or ``"crop_flip"``.
        size: height and width of the result in pixels; None: those of the images.
        mean: of each colour over the data set, in 0 to 1.
        std: of each colour over the data set, in the same unit.

    Returns:
        The configuration.

    Raises:
        ValueError: an unknown kind.

    >>> evaluation_view("none").scale, evaluation_view("crop_flip").scale
    (None, (0.08, 1.0))

    Source: the linear evaluation of the published code; da Costa et al. 2022.
    """
    choose(kind, ("none", "crop_flip"), "kind")
    if kind == "none":
        return ViewConfig(size=size, mean=mean, std=std)
    return ViewConfig(size=size, scale=(0.08, 1.0), flip=0.5, mean=mean, std=std)


def augment(view: ViewConfig, images: ArrayLike, samples: ArrayLike, *, key: PRNGKeyArray) -> Pixels:
    """One random view of each image: (what the view does to x / 255, minus the mean) / std.

    A sample's random numbers come from ``fold_in(key, sample)``: the same in every batch, in any order, on any number
    of devices. Fold what else shall matter (the epoch, the view) into the key; ``augment_views`` does so with the view.

    Args:
        view: what may happen.
        images: (n, height, width, 3) uint8.
        samples: (n,) integers >= 0, each the sample's number in the data set.
        key: a jax random key.

    Returns:
        (n, size, size, 3) float32, normalised; height and width instead of size where ``view.size`` is None.

    Raises:
        ValueError: images or samples of another shape or type.

    >>> view = ViewConfig(mean=(0.5, 0.5, 0.25), std=(0.5, 0.25, 0.25))
    >>> image = jnp.array([255, 0, 255], jnp.uint8).reshape(1, 1, 1, 3)
    >>> augment(view, image, [0], key=jax.random.key(0)).round(4).tolist()
    [[[[1.0, -2.0, 3.0]]]]

    Source: the pipelines of the published code; docs/data.md.
    """
    return _augmented(view, *_checked(images, samples), key)


def augment_views(
    views: Sequence[ViewConfig], images: ArrayLike, samples: ArrayLike, *, key: PRNGKeyArray
) -> Float[Array, "views n height width 3"]:
    """Several views of each image, each with random numbers of its own: view i by ``fold_in(key, i)``.

    Args:
        views: what may happen in each; all of one size.
        images: (n, height, width, 3) uint8.
        samples: (n,) integers >= 0, each the sample's number in the data set.
        key: a jax random key, such as ``fold_in(key(seed), epoch)``.

    Returns:
        (views, n, size, size, 3) float32, normalised.

    Raises:
        ValueError: as ``augment``; no view, or views of several sizes.

    >>> images = jnp.arange(48, dtype=jnp.uint8).reshape(1, 4, 4, 3)
    >>> augment_views(method_views("byol"), images, [7], key=jax.random.key(0)).shape
    (2, 1, 4, 4, 3)

    Source: the pipelines of the published code; docs/data.md.
    """
    sizes = {view.size for view in views}
    if len(sizes) != 1:
        raise ValueError(f"give at least one view, and all of the same size; got the sizes {sorted(map(str, sizes))}")
    pixels, numbers = _checked(images, samples)
    return jnp.stack(
        [_augmented(view, pixels, numbers, jax.random.fold_in(key, index)) for index, view in enumerate(views)]
    )


def _checked(images: ArrayLike, samples: ArrayLike) -> tuple[Array, Array]:
    pixels, numbers = jnp.asarray(images), jnp.asarray(samples)
    if pixels.dtype != jnp.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise ValueError(f"images must be (n, height, width, 3) of uint8, got {pixels.shape} of {pixels.dtype}")
    if numbers.shape != pixels.shape[:1] or not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise ValueError(
            f"samples must be {len(pixels)} integers, the images' numbers in the data set; "
            f"got {numbers.shape} of {numbers.dtype}"
        )
    return pixels, numbers


@functools.partial(jax.jit, static_argnums=0)
def _augmented(view: ViewConfig, images: Array, samples: Array, key: PRNGKeyArray) -> Pixels:
    shape = images.shape[1:3]
    draws = jax.vmap(lambda sample: draw(jax.random.fold_in(key, sample), view, *shape))(samples)
    planes = _changed(view, draws, jnp.moveaxis(images, 3, 1).astype(jnp.float32) / 255)
    mean, std = (jnp.array(triple, jnp.float32).reshape(1, 3, 1, 1) for triple in (view.mean, view.std))
    return jnp.moveaxis((planes - mean) / std, 1, 3)


def _changed(view: ViewConfig, draws: Draws, planes: _pixels.Planes) -> _pixels.Planes:
    """In the order of the recipes; what a view never does is not compiled."""
    height, width = (view.size or length for length in planes.shape[2:])
    if view.scale or view.flip or (height, width) != planes.shape[2:]:
        planes = _pixels.resampled(planes, draws.box, draws.flipped, height, width)
    if view.jitter and (view.brightness or view.contrast or view.saturation or view.hue):
        planes = _pixels.jittered(planes, draws.jitter)
    if view.greyscale:
        planes = _pixels.greyed(planes, draws.grey)
    if view.blur:
        planes = _pixels.blurred(planes, draws.blurred, draws.sigma, view.blur_sigma[1])
    if view.solarise:
        planes = _pixels.solarised(planes, draws.solarised)
    return planes
