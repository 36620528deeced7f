"""When a run is probed, and what is kept of it: the record of each probe, and how modes grew in the few steps after it.

Eigenvectors turn within tens of steps. So each probe has a second one a few steps later, near enough for most modes to
be found again; growth is never read from one instant of probing to the next.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding

from rdm_jax.reporting import plain
from rdm_jax.training.board import Board, scalars
from rdm_jax.training.diagnosis import diagnose
from rdm_jax.training.learner import Learner, Learning
from rdm_jax.training.monitor import probe_state, state_rates
from rdm_jax.training.places import in_store, place, write_text
from rdm_jax.training.probe import Record, StageRecord, follow, line_of
from rdm_jax.types import Array, Gains, Moment

__all__ = ["Instants", "Metrics", "Watch", "read_metrics"]

METRICS = "metrics.jsonl"
GAP = 5  # steps after which most modes are still to be found, on every network tried


class Instants(NamedTuple):
    """The steps at which a run is probed: multiples of ``every``, and the last one; each again ``gap`` steps later.

    >>> at = Instants(every=10, gap=3, total=25)
    >>> [step for step in range(26) if at.due(step)], [step for step in range(26) if at.closes(step)]
    ([0, 10, 20, 25], [3, 13, 23])
    >>> at.stops(8, 21)
    [10, 13, 20, 21]
    """

    every: int
    gap: int
    total: int

    def due(self, step: int) -> bool:
        """Whether a probe is made after so many steps."""
        return step % self.every == 0 or step == self.total

    def closes(self, step: int) -> bool:
        """Whether it is the second one of a pair."""
        return step >= self.gap and (step - self.gap) % self.every == 0

    def stops(self, begin: int, end: int) -> list[int]:
        """The steps after ``begin`` at which something is due, up to ``end``, which is always one."""
        return [step for step in range(begin + 1, end + 1) if self.due(step) or self.closes(step) or step == end]


class _Opened(NamedTuple):
    """The first probe of a pair, and the rates of free features and of the flow, if they are wanted."""

    step: int
    record: Record
    rates: dict[str, Gains]


@dataclass
class Metrics:
    """The lines of ``metrics.jsonl``, each a JSON object with ``kind`` and ``step``; written by process 0 alone.

    Their single numbers go to ``board`` as well, if there is one. In a store, where nothing can be appended, the file
    is written anew by ``flush``; those of training alone wait for it.
    """

    path: epath.Path
    board: Board | None = None
    lines: list[str] = field(default_factory=list, init=False)

    def cut(self, step: int) -> None:
        """Drop what came after a step: a resumed run writes it again."""
        if jax.process_index() == 0:
            kept = [entry for entry in read_metrics(self.path) if entry["step"] <= step]
            self.lines = [json.dumps(entry) + "\n" for entry in kept]
            self.flush()

    def add(self, kind: str, step: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Append a line and return it."""
        line = {"kind": kind, "step": step, **plain(entry)}
        if jax.process_index() == 0:
            self.lines.append(json.dumps(line) + "\n")
            if not in_store(self.path):
                with self.path.open("a") as file:
                    file.write(self.lines[-1])
            elif kind != "train":
                self.flush()
            if self.board is not None:
                for tag, value in scalars(line).items():
                    self.board.add_scalar(tag, value, step)
        return line

    def flush(self) -> None:
        """Write the file anew."""
        write_text(self.path, "".join(self.lines))

    def close(self) -> None:
        """Write what waits."""
        if in_store(self.path) and jax.process_index() == 0:
            self.flush()
        if self.board is not None:
            self.board.close()


def read_metrics(path: str | os.PathLike[str], kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's metrics; a last line that a kill cut short is left out.

    Args:
        path: ``metrics.jsonl``, or its folder.
        kind: only these: ``train``, ``probe``, ``growth``, ``alarm``; None: all.

    Returns:
        A dict for each.

    >>> read_metrics("no such folder")
    []
    """
    found = place(path)
    found = found / METRICS if found.suffix != ".jsonl" else found
    lines = found.read_text().split("\n")[:-1] if found.exists() else []
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if kind in (None, entry["kind"])]


@runtime_checkable
class Show(Protocol):
    """What is told of a run while it goes on."""

    def step(self, done: int, total: int, entry: Mapping[str, Any]) -> None:
        """Some more steps are done; ``entry`` is the line of the metrics, if any."""

    def note(self, text: str) -> None:
        """Something that its user should know."""


@dataclass
class Watch:
    """Probes a run at its instants and writes what it finds.

    Args:
        learner: of the run.
        views: of the probe set, (2, n, height, width, channels).
        instants: when.
        metrics: where to.
        show: is told of each probe, and of complete collapse.
        rates: also compute the rates of free features and of the flow, at several times a probe's cost.
        replicated: how the probe set lies on the devices.
    """

    learner: Learner
    views: Array
    instants: Instants
    metrics: Metrics
    show: Show
    rates: bool
    replicated: NamedSharding
    opened: _Opened | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Place the probe set, and compile once for it."""
        views, steps = jax.device_put(self.views, self.replicated), self.learner.steps_per_epoch
        encoder, method = self.learner.encoder, self.learner.method

        @jax.jit
        def probed(state: Any, views: Array) -> Record:
            return probe_state(encoder, method, state, views, steps_per_epoch=steps)

        @jax.jit
        def modes(state: Any, views: Array) -> tuple[StageRecord, Moment]:
            record = probe_state(encoder, method, state, views, steps_per_epoch=steps)
            return record.features, record.vectors  # what else a probe measures is not computed

        @jax.jit
        def moving(state: Any, views: Array) -> dict[str, Gains]:
            return state_rates(encoder, method, state, views, steps_per_epoch=steps)

        self._probed = lambda state: jax.tree.map(np.asarray, probed(state.train, views))
        self._modes = lambda state: jax.tree.map(np.asarray, modes(state.train, views))
        self._moving = lambda state: jax.tree.map(np.asarray, moving(state.train, views)) if self.rates else {}

    def look(self, step: int, state: Learning, *, known: bool = False) -> None:
        """Probe if it is time to, after so many steps.

        Args:
            step: how many.
            state: of the run.
            known: whether the line of this step is already written, by the run that this one goes on with.
        """
        record = self._probed(state) if self.instants.due(step) else None
        if self.opened is not None and self.instants.closes(step):
            self._close(step, *(self._modes(state) if record is None else (record.features, record.vectors)))
        if record is not None:
            if not known:
                self._tell(step, self.metrics.add("probe", step, line_of(record)))
            if step < self.instants.total:
                self.opened = _Opened(step, record, self._moving(state))

    def _tell(self, step: int, line: Mapping[str, Any]) -> None:
        self.show.step(step, 0, line)
        found = diagnose(line)
        if found.collapsed:
            self.show.note(self.metrics.add("alarm", step, {"text": f"{found.state}: {found.reasons[0]}"})["text"])

    def resumable(self, step: int) -> bool:
        """Whether a run that goes on from here can write all that this one would."""
        return self.opened is None or self.opened.step == step

    def _close(self, step: int, features: StageRecord, vectors: Any) -> None:
        """Growth rates of the modes, log lambda' = 2 r: what was predicted, and what came."""
        assert self.opened is not None
        since, before, rates = self.opened
        self.opened = None
        followed = follow(before, before._replace(features=features, vectors=vectors))
        entry = {
            "since": since,
            "spectrum": before.features.eigenvalues,
            "kept": followed.kept,
            "measured": followed.growth / (2 * (step - since)),
            "predicted": before.rates,
            **rates,
            "entropy_rate": before.entropy_rate,
            "measured_entropy_rate": np.log(features.rank / before.features.rank) / (step - since),
        }
        self.metrics.add("growth", step, entry)
