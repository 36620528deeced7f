"""Image sets by name: made here, from an archive of one's own, or prepared by tensorflow-datasets."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from rdm_jax.training import _cifar
from rdm_jax.training._npz import read_npz
from rdm_jax.training._prepared import Folder, find_folder, kept_labels, open_folder, read_all
from rdm_jax.training.dataset import Dataset, Split
from rdm_jax.training.stream import Stream
from rdm_jax.training.synthetic_images import synthetic_images

__all__ = ["load"]

Triple = tuple[float, float, float]
Classes = str | Path | Sequence[str] | None

# Published with the recipes. (Published code evaluates CIFAR-100 with CIFAR-10's deviations: a slip.)
_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
_CIFAR = ("cifar10", "cifar100")
_SYNTHETIC = (10_000, 2_000)
# Bytes; a larger split stays on disk.
_IN_MEMORY = 2**32


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    classes: Classes = None,
    label: str | None = None,
    splits: tuple[str, str] | None = None,
    limit: int | None = None,
    download: bool = True,
) -> Dataset:
    """An image set with labels.

    - ``"synthetic"``: 10,000 + 2,000 images of 32 x 32 pixels in ten classes of texture, made here.
    - ``"PATH.npz"``: arrays of one's own, ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, and the
      names ``classes`` if there are any.
    - ``"cifar10"``, ``"cifar100"``: downloaded and prepared by tensorflow-datasets where they are not yet.
    - any other name, or name/config: prepared by tensorflow-datasets before, in array_record files.

    What is at most 4 GiB and of one shape comes as arrays (``Split``), all else as a ``Stream``.

    Args:
        name: as above.
        data_dir: folder of the prepared sets; None: TFDS_DATA_DIR of the environment, or ~/tensorflow_datasets. For an
            archive, the folder that a relative path starts from.
        classes: only these, numbered anew in this order; names, or a file with one name a line.
        label: the feature that holds the labels, where a prepared set has several, as cifar100 has coarse_label.
        splits: of a prepared set, for training and for testing, such as ``("train[:90%]", "train[90%:]")``; None: train
            and, where there is one, validation, else test.
        limit: at most this many images of each split, chosen at random, always the same.
        download: whether CIFAR may be fetched.

    Returns:
        The data set.

    Raises:
        DataNotFound: it is not there and can't be fetched.
        ValueError: a file is missing, truncated, damaged or mislabelled: which, and how; an option that does not apply.

    >>> dataset = load("synthetic", limit=20)
    >>> dataset.train.images.shape, dataset.classes[:3]
    ((20, 32, 32, 3), ('rows', 'columns', 'diagonals'))

    Source: docs/data.md; Krizhevsky (2009) for CIFAR.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is a number of images >= 1 or None, got {limit}")
    if name == "synthetic" or name.endswith(".npz"):
        _refuse(name, label=label, splits=splits, data_dir=data_dir if name == "synthetic" else None)
        names, parts = _of_arrays(name, data_dir, classes, limit)
    else:
        folder = _prepared(name, data_dir, label, download)
        names, parts = _of_folder(folder, classes, splits, limit)
        if name in _CIFAR and classes is None and splits is None and limit is None:
            _cifar.require_balanced(folder, *parts)
    if not all(part.samples for part in parts):
        raise ValueError(f"no image of {name} is left for training or testing; choose other classes or splits")
    mean, std = _statistics(name, parts[0])
    return Dataset(name, names, parts[0], parts[1], mean, std)


def _refuse(name: str, **options: object) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"{' and '.join(given)} cannot be chosen for {name}, only for prepared data sets; leave it out"
        )


def _of_arrays(
    name: str, data_dir: str | Path | None, classes: Classes, limit: int | None
) -> tuple[tuple[str, ...], list[Split | Stream]]:
    if name == "synthetic":
        parts, names = _made(limit if classes is None else None)
    else:
        parts, names = read_npz(Path(data_dir or "").expanduser() / Path(name).expanduser())
    wanted = _wanted(classes, names)
    return wanted, [_chosen(part, _renumbered(names, wanted), limit) for part in parts]


def _made(limit: int | None) -> tuple[list[Split], tuple[str, ...]]:
    """The synthetic set; its test images have another seed."""
    sizes = [min(size, limit or size) for size in _SYNTHETIC]
    (*train, names), (*test, _) = (synthetic_images(size, seed=seed) for seed, size in enumerate(sizes))
    return [Split(*train), Split(*test)], names


def _chosen(part: Split, labels: Int[np.ndarray, " k"], limit: int | None) -> Split:
    numbers = _limited(np.flatnonzero(labels[part.labels] >= 0), limit)
    return Split(part.images[numbers], labels[part.labels[numbers]])


def _of_folder(
    folder: Folder, classes: Classes, splits: tuple[str, str] | None, limit: int | None
) -> tuple[tuple[str, ...], list[Split | Stream]]:
    wanted = _wanted(classes, folder.classes)
    return wanted, [_of_records(folder, split, wanted, limit) for split in splits or _default_splits(folder)]


def _prepared(name: str, data_dir: str | Path | None, label: str | None, download: bool) -> Folder:
    directory = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if name in _CIFAR and download and not any((directory / name).glob("*/dataset_info.json")):
        _cifar.prepare(name, directory)
    folder = open_folder(find_folder(name, directory), label)
    if name in _CIFAR:
        _cifar.require_official(name, folder)
    return folder


def _default_splits(folder: Folder) -> tuple[str, str]:
    for test in ("validation", "test"):
        if {"train", test} <= set(folder.splits):
            return "train", test
    raise ValueError(
        f"{folder.path} has the splits {', '.join(folder.splits)}; choose one for training and one for testing, "
        'such as splits=("train[:90%]", "train[90%:]")'
    )


def _wanted(classes: Classes, names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes to keep: all, or those listed, each of which must be there once."""
    if classes is None:
        return names
    from_file = isinstance(classes, str | Path)
    source = str(classes) if from_file else "classes"
    listed = _lines(Path(classes).expanduser()) if isinstance(classes, str | Path) else list(classes)
    for entry in listed:
        if entry not in names:
            near = difflib.get_close_matches(entry, names, n=1, cutoff=0)[0]
            raise ValueError(f"{source} lists {entry!r}, which is no class of this data set: did you mean {near!r}?")
    if len(set(listed)) != len(listed) or not listed:
        raise ValueError(f"{source} must list at least one class, and none twice; got {len(listed)} entries")
    return tuple(listed)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"classes are a list of names, or a file with one a line; {path} can't be read: {error}"
        ) from error


def _renumbered(names: tuple[str, ...], wanted: tuple[str, ...]) -> Int[np.ndarray, " k"]:
    """The new label of each old one; -1 for a class left out."""
    place = {name: number for number, name in enumerate(wanted)}
    return np.array([place.get(name, -1) for name in names], np.int32)


def _limited(numbers: Int[np.ndarray, " n"], limit: int | None) -> Int[np.ndarray, " m"]:
    """A random choice, always the same: evenly spaced ones could all be of one class."""
    if limit is None or limit >= len(numbers):
        return numbers
    return np.sort(np.random.default_rng(0).permutation(numbers)[:limit])


def _of_records(folder: Folder, split: str, wanted: tuple[str, ...], limit: int | None) -> Split | Stream:
    records, chosen, labels = folder.records(split), None, None
    if wanted != folder.classes:
        labels = _renumbered(folder.classes, wanted)
        chosen = np.flatnonzero(labels[kept_labels(folder, split, records)] >= 0)
    if limit is not None:
        chosen = _limited(np.arange(len(records)) if chosen is None else chosen, limit)
    stream = Stream(records, chosen, labels)
    height, width, _ = folder.shape
    if height is None or width is None or 3 * height * width * stream.samples > _IN_MEMORY:
        return stream
    return read_all(stream, height, width)


def _statistics(name: str, train: Split | Stream) -> tuple[Triple, Triple]:
    """Mean and deviation of each colour: as published, else measured, or ImageNet's where that would take too long."""
    if name in _STATISTICS or isinstance(train, Stream):
        return _STATISTICS.get(name, _STATISTICS["imagenet2012"])
    pixels = train.images.reshape(-1, 3)
    mean = np.asarray(np.mean(pixels, axis=0, dtype=np.float64))
    square = np.einsum("nc,nc->c", pixels, pixels, dtype=np.float64) / len(pixels)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    if not np.all(std > 0):
        raise ValueError(f"a colour is the same in all training images of {name}, so it cannot be normalised")
    return _triple(mean / 255), _triple(std / 255)


def _triple(values: Float[np.ndarray, "3"]) -> Triple:
    red, green, blue = values.tolist()
    return red, green, blue
