"""Augmentations of one image in NumPy float64 and the standard library, written from their definitions.

Images are (height, width, 3) in 0 to 1. What Pillow and SciPy have is taken from them.
"""

import colorsys

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d


def crop_resized(image, box, size):
    """A box (top, left, height, width) cut out and scaled: Pillow in floating point, clipped after each direction."""
    top, left, height, width = map(int, box)
    out_height, out_width = size
    cut = image[top : top + height, left : left + width]
    planes = [Image.fromarray(cut[..., colour].astype(np.float32)) for colour in range(3)]
    for shape in ((out_width, height), (out_width, out_height)):
        planes = [plane.resize(shape, Image.Resampling.BICUBIC) for plane in planes]
        planes = [Image.fromarray(np.clip(np.asarray(plane), 0, 1)) for plane in planes]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1).astype(float)


def luma(image):
    return image @ np.array([0.299, 0.587, 0.114])


def blend(image, other, factor):
    return np.clip(factor * image + (1 - factor) * other, 0, 1)


def brightness(image, factor):
    return blend(image, 0, factor)


def contrast(image, factor):
    return blend(image, luma(image).mean(), factor)


def saturation(image, factor):
    return blend(image, luma(image)[..., None], factor)


def hue(image, shift):
    pixels = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)]
    return np.reshape([colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in pixels], image.shape)


def jitter(image, kinds, factors, before, shift):
    """Brightness 0, contrast 1, saturation 2 in that order, and the hue after ``before`` of them."""
    for turn, (kind, factor) in enumerate(zip(kinds, factors, strict=True)):
        image = hue(image, shift) if turn == before else image
        image = (brightness, contrast, saturation)[kind](image, factor)
    return hue(image, shift) if before == 3 else image


def grey(image):
    return np.repeat(luma(image)[..., None], 3, axis=2)


def blur(image, sigma):
    for axis in (1, 0):
        image = gaussian_filter1d(image, sigma, axis=axis, mode="nearest", truncate=10)
    return image


def solarise(image):
    return np.where(image >= 0.5, 1 - image, image)
