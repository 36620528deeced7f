"""Folders of runs: on a disk, or in a store such as gs://bucket/run."""

import os
from pathlib import Path

from etils import epath

from rdm_jax import reporting

__all__ = ["in_store", "place", "write_text"]

_STORES = ("gs", "s3", "az")


def place(folder: str | os.PathLike[str]) -> epath.Path:
    """Where a run lies.

    Args:
        folder: a path; of an address such as gs://bucket/run pathlib leaves gs:/bucket/run, which is meant as well.

    Returns:
        A path that is read and written in the same way wherever it is.

    >>> str(place(Path("gs://bucket/run") / "config.json")), str(place("runs/byol"))
    ('gs://bucket/run/config.json', 'runs/byol')
    """
    text = os.fspath(folder)
    scheme, separator, rest = text.partition(":/")
    if separator and scheme in _STORES:
        text = f"{scheme}://{rest.lstrip('/')}"
    return epath.Path(text)


def in_store(where: epath.Path) -> bool:
    """Whether it is in a store, whose files are written whole and never appended to.

    Args:
        where: of ``place``.

    Returns:
        True or False.

    >>> in_store(place("gs://bucket/run")), in_store(place("runs/byol"))
    (True, False)
    """
    return "://" in os.fspath(where)


def write_text(where: epath.Path, content: str) -> None:
    """Write a text file whole or not at all.

    Args:
        where: the file, of ``place``.
        content: its text.

    Returns:
        None.

    >>> import tempfile
    >>> file = place(tempfile.mkdtemp()) / "a.txt"
    >>> write_text(file, "whole")
    >>> file.read_text()
    'whole'
    """
    if in_store(where):
        where.write_text(content)
    else:
        reporting.write(Path(os.fspath(where)), content)
