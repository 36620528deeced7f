"""The random numbers of one sample's augmentation, all from the sample's own key."""

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from rdm_jax.types import Array, PRNGKeyArray

if TYPE_CHECKING:
    from rdm_jax.training.augment import ViewConfig

Numbers = Float[Array, "..."]
Flags = Bool[Array, "..."]

# Boxes tried before the largest is taken, as in the published pipelines.
ATTEMPTS = 10


class Box(NamedTuple):
    """Part of an image, in whole pixels."""

    top: Numbers
    left: Numbers
    height: Numbers
    width: Numbers


class Jitter(NamedTuple):
    """Changes of colour. Brightness is 0, contrast 1, saturation 2; a factor of 1 and a shift of 0 change nothing."""

    kinds: Int[Array, "... 3"]  # in the order of their turns
    factors: Float[Array, "... 3"]  # likewise
    before: Int[Array, "..."]  # how many of them come before the hue
    hue: Numbers  # the shift, in full turns of the colour circle


class Draws(NamedTuple):
    """What happens to a sample."""

    box: Box
    jitter: Jitter
    grey: Flags
    blurred: Flags
    sigma: Numbers  # of the blur, in pixels
    solarised: Flags
    flipped: Flags


def draw(key: PRNGKeyArray, view: "ViewConfig", height: int, width: int) -> Draws:
    """The draws of one sample of that size."""
    counts = [ATTEMPTS, ATTEMPTS, 2, 3, 4, 1, 1, 5]
    # One call of the generator: each costs a good part of a second to compile.
    numbers = jax.random.uniform(key, (sum(counts),), jnp.float32)
    areas, ratios, places, order, strengths, turn, sigma, chances = jnp.split(numbers, np.cumsum(counts[:-1]))
    chosen = [view.jitter, view.greyscale, view.blur, view.solarise, view.flip]
    jittered, grey, blurred, solarised, flipped = chances < jnp.array(chosen, jnp.float32)
    return Draws(
        box=_box(areas, ratios, places, view, height, width),
        jitter=_jitter(jittered, order, strengths, turn[0], view),
        grey=grey,
        blurred=blurred,
        sigma=_between(sigma[0], view.blur_sigma),
        solarised=solarised,
        flipped=flipped,
    )


def _between(numbers: Numbers, limits: tuple[float, float]) -> Numbers:
    return limits[0] + numbers * (limits[1] - limits[0])


def _box(areas: Numbers, ratios: Numbers, places: Numbers, view: "ViewConfig", height: int, width: int) -> Box:
    """The first box that fits; its area is uniform and its ratio log-uniform before they are rounded to pixels."""
    if view.scale is None:
        return Box(*map(jnp.float32, (0, 0, height, width)))
    low, high = map(math.log, view.ratio)
    area, ratio = height * width * _between(areas, view.scale), jnp.exp(_between(ratios, (low, high)))
    # One more that always fits: the largest whose ratio is allowed.
    nearest = min(max(width / height, view.ratio[0]), view.ratio[1])
    heights = jnp.append(jnp.round(jnp.sqrt(area / ratio)), min(height, round(width / nearest)))
    widths = jnp.append(jnp.round(jnp.sqrt(area * ratio)), min(width, round(height * nearest)))
    first = jnp.argmax((widths > 0) & (widths <= width) & (heights > 0) & (heights <= height))
    tall, wide = heights[first], widths[first]
    return Box(jnp.floor(places[0] * (height - tall + 1)), jnp.floor(places[1] * (width - wide + 1)), tall, wide)


def _jitter(jittered: Flags, order: Numbers, strengths: Numbers, turn: Numbers, view: "ViewConfig") -> Jitter:
    """Factors uniform in 1 - strength to 1 + strength, at least 0; all 24 orders of the four changes alike."""
    limits = jnp.array([view.brightness, view.contrast, view.saturation], jnp.float32)
    low = jnp.maximum(1 - limits, 0)
    factors = jnp.where(jittered, low + strengths[:3] * (1 + limits - low), 1)
    kinds = jnp.argsort(order)
    shift = jnp.where(jittered, view.hue * (2 * strengths[3] - 1), 0)
    return Jitter(kinds, factors[kinds], jnp.floor(4 * turn).astype(int), shift)
