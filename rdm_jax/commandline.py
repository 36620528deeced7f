"""What all command lines share: options with presets, a folder for the results, a terminal, signals, exit codes."""

import dataclasses
import difflib
import itertools
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = [
    "BAD_USAGE",
    "FAILED",
    "Options",
    "Stopped",
    "UsageError",
    "complain",
    "prepare",
    "progress",
    "read",
    "require_vacant",
    "signals",
]

FAILED, BAD_USAGE = 1, 2


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of every experiment; its own are added in a subclass, whose ``__post_init__`` refuses bad values."""

    preset: Literal["paper", "small", "smoke"] = "paper"
    """Sizes: paper for results, small for a quick look, smoke to see that it runs. Other options override it."""
    out: Path | None = None
    """A new or empty folder for the results (default: a new one in results/)."""
    seed: int = 0
    """The same seed gives the same numbers on the same machine."""
    print_config: bool = False
    """Print all options with their values and stop."""

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be at least 0 and below 2**31, got {self.seed}")

    def require_at_least(self, **least: int) -> None:
        """Refuse an option below its least value, by its name on the command line; None is no value."""
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and not value >= limit:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {limit}, got {value}")


_Chosen = TypeVar("_Chosen", bound=Options)


class UsageError(Exception):
    """A bad option or input; the message says what to change."""


class Stopped(BaseException):
    """SIGINT (Ctrl-C) or SIGTERM arrived; ``code`` is what the process should exit with."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


def read(presets: Mapping[str, _Chosen], prog: str, arguments: Sequence[str] | None = None) -> _Chosen:
    """Options from a command line: those of the preset it names, overridden by whatever else it says.

    Args:
        presets: options by name; the first is the default.
        prog: how the command is called, for the help.
        arguments: the words after the command; None: those of the process.

    Returns:
        The options. Bad ones end the process with code 2 and a sentence, unknown ones with the nearest names.

    >>> presets = {"paper": Options(), "smoke": Options(preset="smoke", seed=3)}
    >>> read(presets, "try", ["--preset", "smoke"]).seed, read(presets, "try", ["--seed", "5"]).seed
    (3, 5)
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    default = presets.get(_preset(words), next(iter(presets.values())))
    try:
        return tyro.cli(type(default), default=default, args=words, prog=prog)
    except SystemExit as ending:
        if ending.code:
            _hint(words, default)
        raise


def prepare(out: Path | None, name: str) -> Path:
    """The folder for the results, made and empty.

    Args:
        out: where the user wants it; None: ``results/name``, or ``results/name-2`` and so on if that exists.
        name: of what is run.

    Returns:
        The folder.

    Raises:
        UsageError: ``out`` is a file, or a folder that holds something.

    >>> import tempfile
    >>> folder = prepare(Path(tempfile.mkdtemp()) / "new", "try")
    >>> folder.name, list(folder.iterdir())
    ('new', [])
    """
    folder = _first_free(Path("results"), name) if out is None else out
    require_vacant(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can't be made ({error.strerror}): name another folder with --out") from error
    return folder


def require_vacant(folder: Path) -> None:
    """Refuse a folder that holds something; it need not exist.

    Args:
        folder: for results.

    Returns:
        None.

    Raises:
        UsageError: it is a file, or a folder that is not empty.

    >>> require_vacant(Path("no such folder"))
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: --out must name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is not empty: name a new folder with --out, or remove it")


def progress(console: Console) -> Progress:
    """A progress display that disappears when it ends, and shows nothing where the output is no terminal.

    Args:
        console: where to show it.

    Returns:
        rich's Progress, to be used as a context; its tasks have a description and a completed share.

    >>> import io
    >>> progress(Console(file=io.StringIO())).disable
    True
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise ``Stopped`` within the block, so that what is finished can be saved.

    Returns:
        A context.

    >>> import os
    >>> try:
    ...     with signals():
    ...         os.kill(os.getpid(), signal.SIGTERM)
    ... except Stopped as stopped:
    ...     print(stopped.code)
    143
    """

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def complain(message: object) -> None:
    """Say on stderr what went wrong.

    Args:
        message: a sentence, or an error that has one.

    Returns:
        None.

    >>> complain("a sentence")
    """
    print(f"error: {message}", file=sys.stderr)


def _preset(words: Sequence[str]) -> str:
    """What follows the last --preset, right or wrong; tyro judges it."""
    named = ""
    for word, following in itertools.pairwise([*words, ""]):
        if word == "--preset":
            named = following
        elif word.startswith("--preset="):
            named = word.partition("=")[2]
    return named


def _hint(words: Sequence[str], options: Options) -> None:
    """Name the nearest option for each that does not exist; tyro does so only if it is very near."""
    known = ["--help", *(f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options))]
    known += [f"--no-{name[2:]}" for name in known]
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            complain(f"there is no {name}; did you mean {difflib.get_close_matches(name, known, n=1, cutoff=0)[0]}?")


def _first_free(parent: Path, name: str) -> Path:
    candidates = (parent / (name if number == 1 else f"{name}-{number}") for number in range(1, 1_000_000))
    return next(path for path in candidates if not path.exists())
