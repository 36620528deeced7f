"""What a data set is: images with labels, in memory or streamed from disk, and the order of its batches."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from rdm_jax.training.stream import Stream

__all__ = ["DataNotFound", "Dataset", "Split", "batch_order"]

Triple = tuple[float, float, float]


class DataNotFound(ValueError):
    """There is no such data set here, and no way to get it: unlike one that is damaged, a reason to take another."""


class Split(NamedTuple):
    """A part of a data set in memory, a pytree: ``jax.device_put(split)`` moves it to the device as it is."""

    images: UInt8[np.ndarray, "n height width 3"]
    labels: Int[np.ndarray, " n"]

    @property
    def samples(self) -> int:
        """How many images."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels for training and for testing.

    Args:
        name: as it was asked for.
        classes: the labels' names: label i is ``classes[i]``.
        train: in memory, or a stream of what is too large for it.
        test: likewise; for some data sets the split called validation.
        mean: of each colour over the training images, in 0 to 1.
        std: of each colour over them, in the same unit.

    >>> part = Split(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32))
    >>> Dataset("black", ("black",), part, part, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).train.samples
    4

    Source: docs/data.md.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | Stream = field(repr=False)
    test: Split | Stream = field(repr=False)
    mean: Triple
    std: Triple


def batch_order(samples: int, batch: int, *, seed: int, epoch: int) -> Int[np.ndarray, "steps batch"]:
    """Which samples are in which batch of an epoch: a new random order for each, what does not fill a batch left out.

    Args:
        samples: in the data set.
        batch: samples a step, over all devices and processes.
        seed: of the run.
        epoch: number of the epoch, from 0 on.

    Returns:
        (steps, batch) int32, no sample twice; the same on every process.

    Raises:
        ValueError: a batch of no sample or of more than there are; a negative seed or epoch.

    >>> order = batch_order(10, 4, seed=0, epoch=0)
    >>> order.shape, len(set(order.ravel().tolist()))
    ((2, 4), 8)

    Source: docs/data.md.
    """
    if not 1 <= batch <= samples:
        raise ValueError(f"a batch holds 1 to {samples} samples of this data set, got {batch}")
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed and epoch must be >= 0, got {seed} and {epoch}")
    steps = samples // batch
    order = np.random.default_rng([seed, epoch]).permutation(samples)[: steps * batch]
    return order.reshape(steps, batch).astype(np.int32)
