"""Images that are made rather than loaded, in ten classes of texture, so that everything runs without a data set.

A class is a texture: crops, flips, colours and grey leave it what it is. Within a class the colours vary and which of
the two is brighter, scale, place, tilt, bends and sharpness of the texture, a patch that hides some of it, the light
over the image, and noise. So the pixels of two images of one class have little in common.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

__all__ = ["synthetic_images"]

Block = UInt8[np.ndarray, "n size size 3"]
Field = Float[np.ndarray, "_ _ _"]

# Images are made in blocks, each from random numbers of its own, so that more images leave the first ones as they are.
BLOCK = 500


def synthetic_images(n: int, *, seed: int = 0, size: int = 32) -> tuple[Block, Int[np.ndarray, " n"], tuple[str, ...]]:
    """Images in ten classes, which take turns.

    Args:
        n: how many, at least 1; the first of many are the same as few.
        seed: of all random numbers, at least 0.
        size: height and width in pixels, at least 8.

    Returns:
        (n, size, size, 3) uint8 images, their (n,) int32 labels, and the classes' names.

    Raises:
        ValueError: n, seed or size too small.

    >>> images, labels, classes = synthetic_images(12)
    >>> images.shape, labels.tolist(), classes[labels[11]]
    ((12, 32, 32, 3), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1], 'columns')

    Source: docs/data.md.
    """
    if n < 1 or size < 8 or seed < 0:
        raise ValueError(f"need n >= 1 images of size >= 8 pixels and a seed >= 0; got n={n}, size={size}, seed={seed}")
    blocks = [_block(np.random.default_rng([seed, index]), size) for index in range(-(-n // BLOCK))]
    labels = np.arange(n, dtype=np.int32) % len(_TEXTURES)
    return np.concatenate(blocks)[:n], labels, tuple(_TEXTURES)


def _block(rng: np.random.Generator, size: int) -> Block:
    across, down = _coordinates(rng, size)
    field = np.empty((BLOCK, size, size))
    for label, texture in enumerate(_TEXTURES.values()):
        field[label :: len(_TEXTURES)] = texture(rng, across[label :: len(_TEXTURES)], down[label :: len(_TEXTURES)])
    mask = 1 / (1 + np.exp(-_numbers(rng, 3.0, 12.0) * field))
    first, second = _colours(rng)
    images = np.where(_patch(rng, size)[..., None], _colours(rng)[0], first + (second - first) * mask[..., None])
    images *= _light(rng, size)[..., None]
    images += rng.normal(0, 1, images.shape) * _numbers(rng, 0.01, 0.08)[..., None]
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _numbers(rng: np.random.Generator, low: float, high: float, n: int = BLOCK) -> Field:
    """One a sample."""
    return rng.uniform(low, high, (n, 1, 1))


def _coordinates(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Of each pixel, in periods of the texture: bent, turned by up to 12 degrees, and moved, all at random."""
    place = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.broadcast_arrays(place[None, None, :], place[None, :, None])
    angle, periods = _numbers(rng, -0.2, 0.2), np.exp(_numbers(rng, np.log(2.5), np.log(7)))
    across, down = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return tuple(periods * along + _numbers(rng, 0.0, 1.0) + _bend(rng, x, y) for along in (across, down))


def _bend(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A slow wave over the image, up to a third of a period high."""
    waves, angle = _numbers(rng, 0.5, 1.2), _numbers(rng, 0.0, 2.0 * np.pi)
    return _numbers(rng, 0.0, 0.35) * _wave(waves * (np.cos(angle) * x + np.sin(angle) * y) + _numbers(rng, 0.0, 1.0))


def _colours(rng: np.random.Generator) -> tuple[Float[np.ndarray, "n 1 1 3"], Float[np.ndarray, "n 1 1 3"]]:
    """Two for each sample, a step in grey apart, so that the texture is there without colour too."""
    middle, tint = rng.uniform(0.35, 0.65, (BLOCK, 1, 1, 1)), rng.normal(0, 0.12, (2, BLOCK, 1, 1, 3))
    step = rng.choice([-1, 1], (BLOCK, 1, 1, 1)) * rng.uniform(0.12, 0.3, (BLOCK, 1, 1, 1))
    tint -= tint @ np.array([0.299, 0.587, 0.114])[:, None]
    return middle - step + tint[0], middle + step + tint[1]


def _patch(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "_ _ _"]:
    """A rectangle, often partly outside, that hides the texture."""
    place = (np.arange(size) + 0.5) / size
    middles, halves = rng.uniform(0, 1, (2, BLOCK, 1, 1)), rng.uniform(0.1, 0.3, (2, BLOCK, 1, 1))
    inside = np.abs(place - middles) < halves
    return np.swapaxes(inside[0], 1, 2) & inside[1]


def _light(rng: np.random.Generator, size: int) -> Field:
    """Brighter towards a side of the image."""
    place = np.linspace(-1, 1, size)
    slope = rng.uniform(-0.35, 0.35, (2, BLOCK, 1, 1))
    return 1 + slope[0] * place[None, :, None] + slope[1] * place[None, None, :]


def _wave(phase: Field) -> Field:
    return np.sin(2 * np.pi * phase)


def _triangle(phase: Field) -> Field:
    """Between -1/4 and 1/4, once a period."""
    return np.abs(phase - np.round(phase)) - 0.25


def _turned(rng: np.random.Generator, across: Field, down: Field) -> Field:
    """Stripes to either side: a flip makes one the other."""
    return _wave((across + rng.choice([-1, 1], (len(across), 1, 1)) * down) / np.sqrt(2))


def _middle(rng: np.random.Generator, across: Field, down: Field) -> tuple[Field, Field]:
    """Coordinates from a point within the image."""
    middles = (values.mean((1, 2), keepdims=True) for values in (across, down))
    x, y = (middle + _numbers(rng, -1.2, 1.2, len(across)) for middle in middles)
    return across - x, down - y


def _rings(rng: np.random.Generator, across: Field, down: Field) -> Field:
    return _wave(np.hypot(*_middle(rng, across, down)))


def _spokes(rng: np.random.Generator, across: Field, down: Field) -> Field:
    across, down = _middle(rng, across, down)
    count = rng.integers(4, 8, (len(across), 1, 1))
    return np.sin(count * np.arctan2(down, across) + _numbers(rng, 0.0, 2.0 * np.pi, len(across)))


def _blobs(rng: np.random.Generator, across: Field, down: Field) -> Field:
    """Waves of one length from all sides."""
    field = np.zeros_like(across)
    for angle in np.pi * (np.arange(9) / 9):
        field += _wave(np.cos(angle) * across + np.sin(angle) * down + _numbers(rng, 0.0, 1.0, len(across)))
    return field / 2


# Positive within the figure, about -1 to 1.
_TEXTURES: dict[str, Callable[[np.random.Generator, Field, Field], Field]] = {
    "rows": lambda rng, across, down: _wave(down),
    "columns": lambda rng, across, down: _wave(across),
    "diagonals": _turned,
    "zigzag": lambda rng, across, down: _wave(down + 1.6 * _triangle(across / 1.5)),
    "checks": lambda rng, across, down: 2 * _wave(across / 2) * _wave(down / 2),
    "dots": lambda rng, across, down: _wave(across) + _wave(down) - 0.7,
    "grid": lambda rng, across, down: 2 * np.maximum(_wave(across), _wave(down)) - 1.4,
    "rings": _rings,
    "spokes": _spokes,
    "blobs": _blobs,
}
