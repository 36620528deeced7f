"""Features from NumPy files, in blocks of rows so that no file is held in memory; what is wrong is said by name."""

import dataclasses
import difflib
import itertools
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class Rows:
    """An array (n, d) in a file; ``member``: of an archive, None for a plain ``.npy``."""

    label: str
    path: Path
    member: str | None
    shape: tuple[int, int]
    dtype: np.dtype

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The rows as float32, in blocks of nearly equal length, at most ``size``, or 4 if that is more.

        Raises:
            ValueError: NaN, inf or what float32 can't hold, the same row throughout, or a file that ends too early.
        """
        n, first, varies = self.shape[0], None, False
        count = math.ceil(n / max(size, 4))  # so that no block has a single row
        bounds = [n * i // count for i in range(count + 1)]
        for start, block in zip(bounds[:-1], self._raw(bounds), strict=True):
            with np.errstate(over="ignore"):
                rows = np.array(block, np.float32)
            self._require_finite(block, rows, start)
            first = rows[0] if first is None else first
            varies = varies or bool((rows != first).any())
            yield rows
        if not varies:
            what = "all zero" if first is None or not first.any() else "the same in every row"
            raise ValueError(f"{self.label} is {what}: there is no spectrum to read; find what made it so")

    def _raw(self, bounds: list[int]) -> Iterator[np.ndarray]:
        try:
            if self.member is None:
                # Mapped anew for each block: the pages of those that are done need not stay in memory.
                for start, stop in itertools.pairwise(bounds):
                    yield np.lib.format.open_memmap(self.path, mode="r")[start:stop]
            else:
                yield from _unpacked(self.path, self.member, bounds)
        except _DAMAGED as error:
            raise ValueError(f"{self.label} is truncated or damaged ({_reason(error)}): save it anew") from error

    def _require_finite(self, block: np.ndarray, rows: np.ndarray, start: int) -> None:
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if not wrong.size:
            return
        if np.isfinite(block[wrong[0]]).all():
            raise ValueError(f"{self.label} goes beyond float32 in row {start + wrong[0]}: divide it by a constant")
        raise ValueError(
            f"{self.label} holds NaN or inf, first in row {start + wrong[0]}: drop such rows from all files, "
            "or find what made them"
        )


def open_rows(name: str) -> Rows:
    """The array in a file.

    Args:
        name: ``FILE.npy``, ``FILE.npz`` with one array, or ``FILE.npz:KEY``.

    Returns:
        Rows; no row is read yet.

    Raises:
        ValueError: no such file or key; not an (n, d) array of numbers, with n >= 2 and d >= 1; truncated.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "z.npy"
    >>> np.save(path, np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float16))
    >>> rows = open_rows(str(path))
    >>> rows.shape, [block.tolist() for block in rows.blocks(4)]
    ((3, 2), [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    """
    path, key = _split(name)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: check its name")
    try:
        keys = _keys(path)
        member = None if keys is None else f"{_chosen(path, key, keys)}.npy"
        shape, dtype = _header(path, member)
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    except _DAMAGED as error:
        raise ValueError(f"{name} can't be read ({_reason(error)}): save it anew with np.save") from error
    if key and member is None:
        raise ValueError(f"{path} is no archive, and has no array {key}: leave out :{key}")
    if dtype.kind not in "fiu":
        kind = "pickled Python objects" if dtype.hasobject else f"{dtype}"
        raise ValueError(f"{name} holds {kind} where real numbers are needed: save it with x.astype(np.float32)")
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise ValueError(f"{name} has shape {shape}: save one view in each file, (n, d) with n >= 2 samples")
    return Rows(name, path, member, (shape[0], shape[1]), dtype)


def _split(name: str) -> tuple[Path, str]:
    before, colon, key = name.rpartition(":")
    return (Path(before), key) if colon and before.endswith(".npz") else (Path(name), "")


def _keys(path: Path) -> list[str] | None:
    """The arrays of an archive; None for a plain file."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _chosen(path: Path, key: str, keys: list[str]) -> str:
    if key in keys or (len(keys) == 1 and not key):
        return key or keys[0]
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0)
    hint = f": name one of them, as in {path}:{near[0]}" if near else ""
    raise LookupError(f"{path} holds the arrays {', '.join(keys) or '(none)'}{hint}")


def _header(path: Path, member: str | None) -> tuple[tuple[int, ...], np.dtype]:
    if member is not None:
        with zipfile.ZipFile(path) as archive, archive.open(member) as packed:
            shape, _, dtype = _read_header(packed)
        return shape, dtype
    with open(path, "rb") as file:
        shape, _, dtype = _read_header(file)
        if not dtype.hasobject and path.stat().st_size - file.tell() < math.prod(shape) * dtype.itemsize:
            raise EOFError("it ends too early")
    return shape, dtype


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _unpacked(path: Path, member: str, bounds: list[int]) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        shape, by_columns, dtype = _read_header(file)
        if by_columns:
            whole = _numbers(file, dtype, shape[0] * shape[1]).reshape(shape[::-1]).T
        for start, stop in itertools.pairwise(bounds):
            if by_columns:
                yield whole[start:stop]
            else:
                yield _numbers(file, dtype, (stop - start) * shape[1]).reshape(-1, shape[1])


def _numbers(file: Any, dtype: np.dtype, count: int) -> np.ndarray:
    found = file.read(count * dtype.itemsize)
    if len(found) < count * dtype.itemsize:
        raise EOFError("it ends too early")
    return np.frombuffer(found, dtype)


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
