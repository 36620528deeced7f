"""Runs statements in worker processes, shows progress, and leaves a report whatever happens.

One statement is one task. XLA compiles on one thread a worker, so two workers keep two cores busy, and the numbers
do not depend on how many there are: every random stream belongs to a claim and the seed.
"""

import dataclasses
import gc
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import jax

from rdm_jax import plotting
from rdm_jax._xla import quick_flags
from rdm_jax.claims.claim import Statement
from rdm_jax.claims.verify import Budget, verify_statement

Record = dict[str, Any]

# One thread a worker: XLA makes a pool of NPROC, whose idle threads would spin.
_XLA_FLAGS = f"--xla_cpu_multi_thread_eigen=false {quick_flags()}"


class StatementError(ValueError):
    """A statement file that can't be used, with the reason in a sentence."""


def load_statement(path: Path | str) -> Statement:
    """The ``STATEMENT`` of a Python file.

    Raises:
      StatementError: the file is missing, does not import, or defines no `Statement` named ``STATEMENT``.
    """
    path = Path(path)
    if not path.is_file():
        raise StatementError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"statement_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise StatementError(f"{path} does not import: {type(error).__name__}: {error}") from error
    statement = getattr(module, "STATEMENT", None)
    if not isinstance(statement, Statement):
        raise StatementError(f"{path} must define STATEMENT = rdm_jax.claims.Statement(...)")
    return statement


def natural(name: str) -> tuple[str, int, str]:
    """Sort key that puts T2 before T10."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0), name


def find_statements(folder: Path) -> dict[str, Path]:
    """The statement files of a folder, by the name that their file begins with (``T6_squared_error.py`` is T6)."""
    files = (path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return dict(sorted(((path.stem.split("_")[0], path) for path in files), key=lambda item: natural(item[0])))


@dataclasses.dataclass(frozen=True)
class Event:
    """What happened: a stage begun (``text``), or a statement finished (``record``), in the worker of that number."""

    worker: int
    statement: str
    text: str = ""
    record: Record | None = None


def broken_record(name: str, title: str, reason: str) -> Record:
    """The record of a statement whose check could not be completed: a failure, not a pass."""
    blank: Record = {"claims": [], "orders": [], "laws": [], "figure": None, "caption": None, "seconds": 0.0}
    text: Record = {"name": name, "title": title, "text": "", "source": "", "not_checked": ""}
    return {**text, **blank, "verdict": "fails", "error": reason}


def _verify_file(
    path: Path, budget: Budget, seed: int, figures: Path | None, progress: Callable[[str], None]
) -> Record:
    statement = load_statement(path)
    record = verify_statement(statement, budget=budget, seed=seed, progress=progress)
    record = json.loads(json.dumps(record))
    if statement.figure and figures:
        image = plotting.render(statement.figure.draw, record["figure"])
        (figures / f"{statement.name}.png").write_bytes(image)
    return record


def _work(connection: Connection, budget: Budget, seed: int, figures: Path | None) -> None:
    """A worker: tasks (name, path) come in, stages and records go out; ends when the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(200_000)  # tracing makes many objects and few cycles
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAGS}".strip()
    os.environ["NPROC"] = "1"
    jax.config.update("jax_enable_x64", True)
    while True:
        try:
            name, path = connection.recv()
        except EOFError:
            return
        try:
            record = _verify_file(path, budget, seed, figures, lambda text: connection.send(("stage", text)))
        except Exception as error:
            detail = "".join(traceback.format_exception(error, limit=-3))
            record = broken_record(name, "not completed", f"{type(error).__name__}: {error}\n{detail}")
        jax.clear_caches()
        connection.send(("done", record))


class _Worker:
    def __init__(self, number: int, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.number, self.task = number, ""
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, name: str, path: Path) -> None:
        self.task = name
        self.connection.send((name, path))

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _messages(workers: Sequence[_Worker]) -> Iterator[tuple[_Worker, str, Any]]:
    """The next messages of busy workers; a worker that died says so itself here."""
    by_connection: dict[Any, _Worker] = {worker.connection: worker for worker in workers if worker.task}
    for connection in wait(list(by_connection)):
        worker = by_connection[connection]
        try:
            yield worker, *worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            reason = f"the worker process died (exit code {worker.process.exitcode}); out of memory, perhaps"
            yield worker, "died", broken_record(worker.task, "not completed", reason)


def run(
    tasks: Iterable[tuple[str, Path]], *, budget: Budget, seed: int, figures: Path | None, workers: int
) -> Generator[Event, None, None]:
    """Verify statement files in worker processes and yield what happens, as it happens.

    Args:
      tasks: (name, file) pairs.
      budget: how hard every claim is tried.
      seed: of all random streams.
      figures: a folder for the figures, or None.
      workers: how many processes.

    Yields:
      An `Event` for every stage and for every finished statement; closing the iterator stops the workers.
    """
    waiting = list(tasks)[::-1]
    arguments = (budget, seed, figures)
    pool = [_Worker(number, arguments) for number in range(min(workers, len(waiting)))]
    try:
        for worker in pool:
            worker.give(*waiting.pop())
        while any(worker.task for worker in pool):
            for worker, kind, content in _messages(pool):
                if kind == "stage":
                    yield Event(worker.number, worker.task, text=content)
                    continue
                yield Event(worker.number, worker.task, record=content)
                worker.task = ""
                if kind == "died":
                    pool[pool.index(worker)] = worker = _Worker(worker.number, arguments)
                if waiting:
                    worker.give(*waiting.pop())
    finally:
        for worker in pool:
            worker.stop()


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
