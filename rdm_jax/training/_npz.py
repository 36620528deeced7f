"""Images of one's own from a NumPy archive; what is wrong with it is said with its name."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from rdm_jax.training.dataset import DataNotFound, Split

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def read_npz(path: Path) -> tuple[list[Split], tuple[str, ...]]:
    """The training and the test split, and the classes: of the key ``classes``, or the labels' numbers."""
    arrays = _arrays(path)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it must have {', '.join(KEYS)}, and may have classes")
    classes = _classes(path, arrays)
    return [_split(path, name, arrays, len(classes)) for name in ("train", "test")], classes


def _classes(path: Path, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    if "classes" not in arrays:
        return tuple(map(str, range(int(arrays["train_labels"].max(initial=0)) + 1)))
    names = arrays["classes"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise ValueError(f"classes in {path} must be a row of different names, got {names.dtype} of {names.shape}")
    return tuple(names.tolist())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataNotFound(f"there is no file {path}")
    try:
        # Opened here, since np.load leaves a file that it can't read open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated, damaged or no .npz of plain arrays: {error}") from error


def _split(path: Path, name: str, arrays: dict[str, np.ndarray], classes: int) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise ValueError(
            f"{name}_images in {path} must be uint8 of shape (n, height, width, 3), got {images.dtype} of "
            f"{images.shape}; grey images: np.repeat(images[..., None], 3, axis=3)"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{name}_labels in {path} must be {len(images)} integers, one an image; "
            f"got {labels.dtype} of {labels.shape}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(f"{name}_labels[{wrong[0]}] in {path} is {labels[wrong[0]]}, of {classes} classes from 0 on")
    return Split(images, labels.astype(np.int32))
