"""Images too many for the memory: read, cut square and batched by grain, each process its share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

__all__ = ["Batch", "Stream", "stream_batches"]

Square = UInt8[np.ndarray, "size size 3"]


class Batch(NamedTuple):
    """What one process gets of one batch: images (n, size, size, 3) uint8, labels (n,), numbers of the samples (n,)."""

    images: UInt8[np.ndarray, "n size size 3"]
    labels: Int[np.ndarray, " n"]
    numbers: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Stream:
    """A part of a data set that stays on disk.

    Args:
        records: all of the split: images of Pillow's and labels, by number.
        chosen: numbers of the records that belong to it, so that sample i is record ``chosen[i]``; None: all.
        labels: new label of each old one, -1 for a class left out; None: as they are.

    >>> red = Image.new("RGB", (4, 2), (255, 0, 0))
    >>> image, label = Stream([(red, 0), (red, 7)], chosen=np.array([1])).read(0)
    >>> image.size, label
    ((4, 2), 7)

    Source: docs/data.md.
    """

    records: Any
    chosen: Int[np.ndarray, " n"] | None = None
    labels: Int[np.ndarray, " k"] | None = None

    @property
    def samples(self) -> int:
        """How many images."""
        return len(self.records) if self.chosen is None else len(self.chosen)

    def record(self, sample: int) -> int:
        """Which record a sample is."""
        return sample if self.chosen is None else int(self.chosen[sample])

    def read(self, sample: int) -> tuple[Image.Image, int]:
        """A sample's image and label, by its number from 0 on."""
        image, label = self.records[self.record(sample)]
        if self.labels is None:
            return image, label
        if self.labels[label] < 0:
            raise ValueError(
                f"{self.records.place(self.record(sample))} is not of the class that it was chosen for: delete the "
                "rdm_jax.*.npy beside it, which must be of other data"
            )
        return image, int(self.labels[label])


def stream_batches(
    stream: Stream,
    order: Int[np.ndarray, "steps batch"],
    *,
    size: int = 256,
    process: int | None = None,
    processes: int | None = None,
    threads: int = 16,
) -> Iterator[Batch]:
    """Batches in the given order, read ahead by threads; each process reads its share of every batch and no more.

    Process i of p gets the i-th of p equal parts of each batch, so that all of them together, in order, are the batch
    that one process alone would get. To go on in the middle of an epoch, pass ``order[step:]``.

    Args:
        stream: the images.
        order: samples of each batch, as ``batch_order`` gives them.
        size: height and width of the images in pixels, before any augmentation: the largest square in the middle is
            scaled to it.
        process: number of this process; None: as jax counts.
        processes: how many there are; None: as jax counts.
        threads: that read and decode.

    Returns:
        An iterator over this process's parts.

    Raises:
        ValueError: a batch that the processes can't share equally; while iterating, with its name, a file that can't be
            read.

    >>> red = Image.new("RGB", (4, 2), (255, 0, 0))
    >>> batches = stream_batches(Stream([(red, 0), (red, 1), (red, 2)]), np.array([[2, 0]]), size=2)
    >>> [(batch.images.shape, batch.labels.tolist()) for batch in batches]
    [((2, 2, 2, 3), [2, 0])]

    Source: docs/data.md.
    """
    import grain

    number = jax.process_index() if process is None else process
    count = jax.process_count() if processes is None else processes
    steps, batch = order.shape
    if batch % count:
        raise ValueError(f"a batch of {batch} can't be shared equally by {count} processes; make it a multiple of that")
    share = order.reshape(steps, count, batch // count)[:, number].reshape(-1)
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4 * batch // count, threads))
    samples = grain.MapDataset.source(_Reader(stream, share, size)).to_iter_dataset(reading)
    return (Batch(*parts) for parts in samples.batch(batch // count, drop_remainder=True))


@dataclass(frozen=True)
class _Reader:
    stream: Stream
    order: Sequence[int] | np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[Square, np.integer, np.integer]:
        sample = int(self.order[place])
        image, label = self.stream.read(sample)
        return _middle_square(image, self.size), np.int32(label), np.int32(sample)


def _middle_square(image: Image.Image, size: int) -> Square:
    """The largest square in the middle, scaled."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
