"""Image sets prepared on disk by tensorflow-datasets, read without TensorFlow; errors name the file.

The library itself gives an empty source where the data set is absent, does not name a damaged shard, and takes a shard
of another length for the right one. So every shard is looked at before anything is read.
"""

import bisect
import contextlib
import io
import itertools
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from rdm_jax._checks import choose
from rdm_jax.training.dataset import DataNotFound, Split
from rdm_jax.training.stream import Stream


def find_folder(name: str, data_dir: Path) -> Path:
    """The newest prepared version of ``name`` or ``name/config``."""
    versions = [path.parent for path in (data_dir / name).glob("*/dataset_info.json")]
    if versions:
        return max(versions, key=_version)
    present = [*data_dir.glob("*/*/dataset_info.json"), *data_dir.glob("*/*/*/dataset_info.json")]
    names = sorted({str(path.parents[1].relative_to(data_dir)) for path in present})
    there = f"there are {', '.join(names)}" if names else "nothing is prepared there"
    raise DataNotFound(f"no prepared data set {name!r} in {data_dir}: {there}")


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


@dataclass(frozen=True)
class Folder:
    """A prepared version of an image set.

    Args:
        path: where it is.
        builder: what tensorflow-datasets calls the object that knows all of it.
        image: the feature with the images.
        label: the feature with their classes.
        classes: names of these.
    """

    path: Path
    builder: Any
    image: str
    label: str
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of all images; None where they differ."""
        return self.builder.info.features[self.image].shape

    @property
    def splits(self) -> list[str]:
        """Their names."""
        return list(self.builder.info.splits)

    def records(self, split: str) -> "Records":
        """Random access to a split or a part of one, such as "train[:90%]"."""
        import tensorflow_datasets as tfds

        choose(split.partition("[")[0], self.splits, f"the split of {self.path}")
        parts = self.builder.info.splits[split].file_instructions
        for part in parts:
            _look_at(part)
        skip = {self.image: tfds.decode.SkipDecoding()}
        try:
            source = self.builder.as_data_source(split, decoders=skip)
        except NotImplementedError as error:
            raise ValueError(f"{self.path} is not in array_record files, the only format read here: {error}") from error
        return Records(source, self.image, self.label, len(self.classes), tuple(parts))


def open_folder(path: Path, label: str | None = None) -> Folder:
    """A prepared version, with the label asked for or the one that the data set is learned from."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(path)
    # Each of the libraries beneath has its own errors for a damaged file.
    except Exception as error:
        raise ValueError(f"a description in {path} (.json, .labels.txt) is missing or damaged: {error}") from error
    image = _feature(path, builder.info, tfds.features.Image, None)
    label = _feature(path, builder.info, tfds.features.ClassLabel, label)
    feature = builder.info.features[label]
    different = len(set(feature.names))
    if not len(feature.names) == different == feature.num_classes:
        raise ValueError(
            f"{path / label}.labels.txt has {different} different names for the {feature.num_classes} classes of "
            "features.json; prepare the data set again"
        )
    return Folder(path, builder, image, label, tuple(feature.names))


def _feature(path: Path, info: Any, kind: type, wanted: str | None) -> str:
    """The feature asked for; or the one to learn from; or the only one of its kind."""
    names = [name for name, feature in info.features.items() if isinstance(feature, kind)]
    if wanted is not None:
        return choose(wanted, names, f"the label of {path}")
    learned = [name for name in info.supervised_keys or () if name in names] or names
    if len(learned) == 1:
        return learned[0]
    found = f"has {', '.join(names)}: name one of them with the option label" if names else "has none"
    raise ValueError(f"{path} needs one feature of the kind {kind.__name__} and {found}")


def _look_at(part: Any) -> None:
    """A shard's own count of its records."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(part.filename))
        count = reader.num_records()
        reader.close()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{part.filename} is missing, truncated or damaged: {error}") from error
    if count != part.examples_in_shard:
        raise ValueError(
            f"{part.filename} holds {count} records where dataset_info.json counts {part.examples_in_shard}; "
            "prepare the data set again"
        )


@dataclass(frozen=True)
class Records:
    """Images and labels by number; a record that can't be read raises with its file's name."""

    source: Any
    image: str
    label: str
    classes: int
    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        record = self._read(index)
        try:
            image = Image.open(io.BytesIO(record[self.image])).convert("RGB")
        # Pillow's decoders raise whatever they meet.
        except Exception as error:
            raise ValueError(f"{self.place(index)} is no image that Pillow can read: {error}") from error
        return image, self._label(index, record)

    def place(self, index: int) -> str:
        """Where a record is, in words."""
        ends = list(itertools.accumulate(part.take for part in self.parts))
        number = bisect.bisect_right(ends, index)
        part = self.parts[number]
        return f"record {part.skip + index - ends[number] + part.take} of {part.filename}"

    def labels(self) -> Int[np.ndarray, " n"]:
        """All labels, the images left alone."""
        return np.array([self._label(index, self._read(index)) for index in range(len(self))], np.int32)

    def _read(self, index: int) -> dict[str, Any]:
        try:
            return self.source[index]
        except Exception as error:
            raise ValueError(f"{self.place(index)} is damaged: {error}") from error

    def _label(self, index: int, record: dict[str, Any]) -> int:
        label = int(record[self.label])
        if not 0 <= label < self.classes:
            raise ValueError(
                f"{self.place(index)} has the label {label}, which is none of the {self.classes} classes; choose other "
                "splits if this one is not labelled"
            )
        return label


def kept_labels(folder: Folder, split: str, records: Records) -> Int[np.ndarray, " n"]:
    """All labels of a split. They are kept beside it: to read them again takes as long as reading all of it."""
    path = folder.path / f"rdm_jax.{folder.label}.{urllib.parse.quote(split, safe='')}.npy"
    try:
        labels = np.load(path)
    except FileNotFoundError:
        labels = records.labels()
        with contextlib.suppress(OSError):  # a folder that one may only read
            np.save(path, labels)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is truncated or damaged; delete it: {error}") from error
    if (
        labels.shape != (len(records),)
        or labels.dtype != np.int32
        or not np.all((labels >= 0) & (labels < records.classes))
    ):
        raise ValueError(f"{path} does not hold {len(records)} labels of {records.classes} classes; delete it")
    return labels


def read_all(stream: Stream, height: int, width: int) -> Split:
    """A stream as arrays."""
    images = np.empty((stream.samples, height, width, 3), np.uint8)
    labels = np.empty(stream.samples, np.int32)
    for sample in range(stream.samples):
        image, labels[sample] = stream.read(sample)
        if (image.height, image.width) != (height, width):
            raise ValueError(
                f"{stream.records.place(stream.record(sample))} is {image.height} x {image.width} pixels, where "
                f"features.json has {height} x {width}"
            )
        images[sample] = np.asarray(image)
    return Split(images, labels)
