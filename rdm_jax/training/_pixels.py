"""What augmentations do to pixels, a batch at a time, each sample with numbers of its own.

Inside, images are (n, 3, height, width) in 0 to 1: pixels of one colour lie together, and all products are batched over
n as they lie. Every operation clips its result to 0 to 1, as the published pipelines do, which work on 8-bit images;
their rounding to 8 bits after each operation is left out.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rdm_jax.training._draws import Box, Flags, Jitter, Numbers
from rdm_jax.types import Array

Planes = Float[Array, "n 3 _ _"]
Grey = Float[Array, "n _ _"]
Kernels = Float[Array, "n _ _"]


def resampled(planes: Planes, box: Box, flipped: Flags, height: int, width: int) -> Planes:
    """The box scaled to height x width, bicubic with antialiasing, and mirrored where flipped.

    All later operations commute with the mirroring, which is free here.
    """
    columns = jax.vmap(_bicubic, (0, 0, None, None))(box.left, box.width, planes.shape[3], width)
    rows = jax.vmap(_bicubic, (0, 0, None, None))(box.top, box.height, planes.shape[2], height)
    return _separable(planes, rows, jnp.where(flipped[:, None, None], columns[:, ::-1], columns))


def _bicubic(start: Array, length: Array, size: int, out: int) -> Float[Array, "_ _"]:
    """Weights of an axis's pixels within a box in the pixels it is scaled to; each row sums to 1.

    Pixels outside the box have no part, and shrinking widens the kernel by the same factor (Pillow's antialiasing).
    """
    scale = length / out
    pixels = jnp.arange(size) + 0.5
    centres = start + (jnp.arange(out) + 0.5) * scale
    distances = (pixels[None] - centres[:, None]) / jnp.maximum(scale, 1)
    inside = (pixels > start) & (pixels < start + length)
    weights = jnp.where(inside[None], _cubic(jnp.abs(distances)), 0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _cubic(x: Array) -> Array:
    """Keys' kernel with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def _separable(planes: Planes, rows: Kernels, columns: Kernels) -> Planes:
    """Along rows, then along columns, clipped in between as in Pillow. Dense products: faster than gathering pixels."""
    n, _, height, width = planes.shape
    across = jnp.matmul(planes.reshape(n, 3 * height, width), jnp.swapaxes(columns, 1, 2))
    across = jnp.clip(across, 0, 1).reshape(n, 3, height, -1)
    return jnp.clip(jnp.matmul(rows[:, None], across), 0, 1)


def jittered(planes: Planes, jitter: Jitter) -> Planes:
    """Brightness, contrast, saturation and hue, in each sample's own order.

    One formula covers the first three, so three of them run before the hue and three after it, and those whose turn is
    not there do nothing.
    """
    for turn in range(3):
        planes = _blended(planes, jitter, turn, turn < jitter.before)
    # XLA on CPU would compute the hue anew in each of the steps that follow: 1.2 times the time of it all.
    planes = jax.lax.optimization_barrier(_turned(planes, jitter.hue))
    for turn in range(3):
        planes = _blended(planes, jitter, turn, turn >= jitter.before)
    return planes


def _blended(planes: Planes, jitter: Jitter, turn: int, active: Flags) -> Planes:
    """f x + (1 - f) y, with y = 0 for brightness, the mean grey for contrast, the pixel's grey for saturation."""
    kind, factor = jitter.kinds[:, turn], jnp.where(active, jitter.factors[:, turn], 1)
    grey = greyness(planes)
    mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
    base = _each(kind == 1) * mean + _each(kind == 2) * grey
    return jnp.clip(_all(factor) * planes + (_each(1 - factor) * base)[:, None], 0, 1)


def _turned(planes: Planes, shift: Numbers) -> Planes:
    """The hue moved around the colour circle; saturation and value (HSV) stay."""
    red, green, blue = (planes[:, colour] for colour in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1 / jnp.where(chroma > 0, chroma, 1)
    from_red, from_green, from_blue = (green - blue) * scale, 2 + (blue - red) * scale, 4 + (red - green) * scale
    hue = jnp.where(value == red, from_red, jnp.where(value == green, from_green, from_blue)) + 6 * _each(shift)
    # In sixths of the circle: a colour is missing around the opposite one, cyan for red.
    return jnp.stack([value - chroma * jnp.clip(2 - _distance(hue, at), 0, 1) for at in (3, 5, 1)], axis=1)


def _distance(hue: Grey, at: int) -> Grey:
    """Around the circle of six. Not by jnp.mod, which is ten times slower on CPU."""
    apart = hue - at
    return jnp.abs(apart - 6 * jnp.round(apart / 6))


def greyness(planes: Planes) -> Grey:
    """Luma of ITU-R BT.601, as Pillow has it."""
    return 0.299 * planes[:, 0] + 0.587 * planes[:, 1] + 0.114 * planes[:, 2]


def greyed(planes: Planes, where: Flags) -> Planes:
    """Grey in all three colours, where chosen."""
    return jnp.where(_all(where), greyness(planes)[:, None], planes)


def blurred(planes: Planes, where: Flags, sigma: Numbers, largest: float) -> Planes:
    """A Gaussian of that standard deviation, where chosen; beyond the edge its pixel goes on."""
    reach = math.ceil(4 * largest)
    rows, columns = (jax.vmap(_gaussian, (0, None, None))(sigma, size, reach) for size in planes.shape[2:])
    return jnp.where(_all(where), _separable(planes, rows, columns), planes)


def _gaussian(sigma: Array, size: int, reach: int) -> Float[Array, "_ _"]:
    places = jnp.arange(-reach, size + reach)
    distances = (places[None] - jnp.arange(size)[:, None]) / sigma
    weights = jnp.exp(-(distances**2) / 2)
    weights /= jnp.sum(weights, axis=1, keepdims=True)
    inner = weights[:, reach:-reach]
    return inner.at[:, 0].add(jnp.sum(weights[:, :reach], 1)).at[:, -1].add(jnp.sum(weights[:, -reach:], 1))


def solarised(planes: Planes, where: Flags) -> Planes:
    """Bright pixels inverted, where chosen: x becomes 1 - x from 128 of 255 on, which is min(x, 1 - x)."""
    return jnp.where(_all(where), jnp.minimum(planes, 1 - planes), planes)


def _each(numbers: Numbers | Flags) -> Array:
    """One number a sample, against (n, height, width)."""
    return numbers[:, None, None]


def _all(numbers: Numbers | Flags) -> Array:
    """One number a sample, against (n, 3, height, width)."""
    return numbers[:, None, None, None]
