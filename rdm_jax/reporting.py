"""What a run leaves behind, whatever it ran: JSON with its provenance, and self-contained HTML pages.

Pages need no network, no script and no other file. Cells and paragraphs are ready-made HTML: escape what is not.
"""

import base64
import html
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np

__all__ = ["dumps", "facts", "figure", "page", "plain", "provenance", "table", "tag", "write"]


def plain(value: Any, digits: int = 6) -> Any:
    """Numbers, arrays and nested containers as JSON has them: lists, few digits, None for NaN and infinity.

    Args:
        value: anything made of numbers, text, paths, arrays, dicts, lists and (named) tuples.
        digits: significant ones of a float.

    Returns:
        The same of dicts, lists, numbers, text and None; a named tuple becomes a dict.

    >>> plain({"a": np.array([1 / 3, np.nan]), "b": (np.int64(2), "text", True)})
    {'a': [0.333333, None], 'b': [2, 'text', True]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry, digits) for key, entry in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict(), digits)
    if isinstance(value, list | tuple):
        return [plain(entry, digits) for entry in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist(), digits)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Versions, commit and hardware: what a number needs beside it to be believed.

    Args:
        packages: names of the packages whose versions matter; those that are not installed are left out.

    Returns:
        A dict for JSON: ``python``, ``packages``, ``commit`` (None outside a git checkout), ``machine``.

    >>> sorted(provenance(["numpy"]))
    ['commit', 'machine', 'packages', 'python']
    """
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
    }


def facts(run: dict[str, Any]) -> str:
    """The provenance in one line of plain text.

    Args:
        run: what ``provenance`` returned.

    Returns:
        The line.

    >>> facts({"python": "3.12.1", "packages": {"jax": "0.10.2"}, "commit": "abc", "machine": "x86_64, 2 cores, cpu"})
    'Python 3.12.1, jax 0.10.2; commit abc; x86_64, 2 cores, cpu'
    """
    packages = "".join(f", {name} {version}" for name, version in run["packages"].items())
    return f"Python {run['python']}{packages}; commit {run['commit']}; {run['machine']}"


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: to a temporary neighbour first, then renamed.

    Args:
        path: the file.
        content: text (as UTF-8) or bytes.

    Returns:
        None.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> write(path, "whole")
    >>> path.read_text()
    'whole'
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def dumps(value: Any) -> str:
    """JSON with keys in the order of writing; NaN and infinity are refused, since JSON has none.

    Args:
        value: numbers, strings, and lists and dicts of them.

    Returns:
        The text.

    Raises:
        ValueError: a number is NaN or infinite.

    >>> dumps({"ranks": 2})
    '{\\n "ranks": 2\\n}\\n'
    """
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def tag(name: str, content: str, **attributes: str) -> str:
    """One HTML element.

    Args:
        name: of the element.
        content: HTML.
        attributes: plain text; a trailing underscore is dropped, for ``class_``.

    Returns:
        HTML.

    >>> tag("p", "a", class_="note")
    '<p class="note">a</p>'
    """
    pairs = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return f"<{name}{pairs}>{content}</{name}>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], **attributes: str) -> str:
    """An HTML table that scrolls sideways where the page is narrow.

    Args:
        header: HTML of the column titles.
        rows: HTML of the cells.
        attributes: of the table.

    Returns:
        HTML.

    >>> table(["a"], [["1"]]).count("<td>")
    1
    """
    head = tag("thead", tag("tr", "".join(tag("th", name, scope="col") for name in header)))
    body = "".join(tag("tr", "".join(tag("td", cell) for cell in row)) for row in rows)
    return tag("div", tag("table", head + tag("tbody", body), **attributes), class_="wide")


def figure(image: bytes, caption: str) -> str:
    """A PNG with its caption, embedded.

    Args:
        image: the bytes of the PNG.
        caption: plain text; also what a screen reader says.

    Returns:
        HTML.

    >>> figure(b"", "a & b").count("a &amp; b")
    2
    """
    source = "data:image/png;base64," + base64.b64encode(image).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def page(title: str, outcome: str, notes: str, body: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        outcome: the run in one sentence, plain text.
        notes: provenance and how to read the page, plain text.
        body: HTML.

    Returns:
        HTML.

    >>> page("Title", "All well.", "jax 0.10", tag("p", "body")).startswith("<!doctype html>")
    True
    """
    template = Template(resources.files("rdm_jax").joinpath("page.html").read_text())
    plain = {"title": title, "outcome": outcome, "notes": notes}
    return template.substitute({name: html.escape(text) for name, text in plain.items()}, body=body)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
