"""CIFAR-10 and -100: fetched and prepared as tensorflow-datasets lays them out, and held against what they must be.

The library's own generator reads the archive through TensorFlow. Here plain Python reads it, with the same keys and so
in the same order, and the rest is the library's: download, checksum, shards.
"""

import tarfile
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rdm_jax.training._prepared import Folder
from rdm_jax.training.dataset import DataNotFound, Split
from rdm_jax.training.stream import Stream

SIDE = 32
SAMPLES = {"train": 50_000, "test": 10_000}
# The classes' names are in alphabetical order; the first is enough to tell whose they are.
FIRST = {
    ("cifar10", "label"): "airplane",
    ("cifar100", "label"): "apple",
    ("cifar100", "coarse_label"): "aquatic_mammals",
}


def prepare(name: str, data_dir: Path) -> None:
    """Download and prepare; takes a minute or two, once."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    _reach(builder._cifar_info.url, name, data_dir)
    builder._split_generators = types.MethodType(_generators, builder)
    # The library's own cloud copy is in another format.
    options = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=options)
    except OSError as error:
        raise DataNotFound(f"{name} could not be downloaded and prepared in {data_dir}: {error}") from error


def _reach(url: str, name: str, data_dir: Path) -> None:
    """Ask for the archive's size. The library itself would go on trying for minutes where there is no network."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20).close()
    except OSError as error:
        raise DataNotFound(
            f"{name} is not prepared in {data_dir} and {url} can't be reached ({error}): name a folder that has it, or "
            "take the data set synthetic"
        ) from error


def _generators(builder: Any, download_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    """In the place of the library's method of that name."""
    info = builder._cifar_info
    archive = Path(download_manager.download(info.url))
    for key, file in zip(info.label_keys, info.label_files, strict=True):
        builder.info.features[key].names = _member(archive, info.prefix + file).decode().split()
    files = {"train": info.train_files, "test": info.test_files}
    return {split: _examples(archive, split, info, names) for split, names in files.items()}


def _examples(archive: Path, split: str, info: Any, files: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    width, number = len(info.label_keys) + 3 * SIDE**2, 0
    for file in files:
        data = np.frombuffer(_member(archive, info.prefix + file), np.uint8)
        if data.size % width:
            raise ValueError(
                f"{info.prefix}{file} in {archive} is truncated: {data.size} bytes, not a multiple of {width}"
            )
        for record in data.reshape(-1, width):
            labels = dict(zip(info.label_keys, map(int, record), strict=False))
            image = record[-3 * SIDE**2 :].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
            picture = Image.fromarray(np.ascontiguousarray(image))
            yield number, {"id": f"{split}_{number:05d}", "image": picture, **labels}
            number += 1


def _member(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(name)
            if file is None:
                raise KeyError(f"{name} is not a file")
            return file.read()
    except (KeyError, EOFError, OSError, tarfile.TarError) as error:
        raise ValueError(f"{name} can't be read from {archive}; delete the archive and try again: {error}") from error


def require_official(name: str, folder: Folder) -> None:
    """The classes in their order, and as many images as there must be: labels would mean something else otherwise."""
    sizes = {split: folder.builder.info.splits[split].num_examples for split in folder.splits}
    if sizes != SAMPLES:
        raise ValueError(f"dataset_info.json in {folder.path} counts {sizes}, where {name} has {SAMPLES}")
    first = FIRST[name, folder.label]
    if folder.classes[0] != first or list(folder.classes) != sorted(folder.classes):
        raise ValueError(
            f"{folder.path / folder.label}.labels.txt must name the classes of {name} in their order, which is that of "
            f"the alphabet from {first} on; it has {', '.join(folder.classes[:4])}, ..."
        )


def require_balanced(folder: Folder, *parts: Split | Stream) -> None:
    """As many images of each class as of any other, which is so in both data sets and for both kinds of label."""
    for part in parts:
        assert isinstance(part, Split), "CIFAR fits into memory"
        counts = np.bincount(part.labels, minlength=len(folder.classes))
        odd = int(np.argmax(np.abs(counts - np.median(counts))))
        if np.ptp(counts):
            raise ValueError(
                f"labels in {folder.path} are wrong: {counts[odd]} of {len(part.labels)} images are of the class "
                f"{folder.classes[odd]}, where there must be {len(part.labels) // len(counts)}"
            )
