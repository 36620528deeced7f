"""A training run: a folder with metrics, probes and checkpoints, which can be stopped at any time and resumed.

The order of samples and every random number follow from the seed and the step, so that a run that was killed and
resumed ends where an uninterrupted one ends: bitwise, on the same machine.
"""

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rdm_jax.reporting import plain
from rdm_jax.training import checkpoint
from rdm_jax.training.augment import augment_views
from rdm_jax.training.dataset import Dataset, Split, batch_order
from rdm_jax.training.learner import Learner, Learning, Measures, init_learning, make_update
from rdm_jax.training.monitor import probe_state
from rdm_jax.training.probe import Record
from rdm_jax.training.stream import Stream, stream_batches
from rdm_jax.types import Array

__all__ = ["Diverged", "Interrupted", "Plan", "alarms", "probe_views", "read_metrics", "train_run"]

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
_CHUNK = {"cpu": 5}  # steps between two looks at the loss and at signals
_ACCELERATED = 50
_PROBE_SEED = 2**31 - 1  # the views of the probe set are the same in all runs on a data set


class Plan(NamedTuple):
    """How long, and how often what. Epochs; ``probe``: samples of the probe set, ``size``: of a view in pixels."""

    epochs: int
    batch: int
    size: int
    probe_every: int = 1
    save_every: int = 1
    probe: int = 2048


class Diverged(RuntimeError):
    """The loss is no number any more; the message says where, and how to go on."""


class Interrupted(RuntimeError):
    """A signal stopped the run after it was saved; ``code`` is what the process should exit with."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}, saved: go on with --resume")
        self.code = 128 + number


@runtime_checkable
class Show(Protocol):
    """What is told of a run while it goes on."""

    def step(self, done: int, total: int, entry: Mapping[str, Any]) -> None:
        """Some more steps are done; ``entry`` is the line of the metrics, if any."""

    def note(self, text: str) -> None:
        """Something that its user should know."""


@dataclasses.dataclass
class _Metrics:
    """The lines of ``metrics.jsonl``, each a JSON object with ``kind`` and ``step``; written by process 0 alone."""

    path: Path

    def cut(self, step: int) -> None:
        """Drop what came after a step: a resumed run writes it again."""
        if jax.process_index() == 0:
            kept = [entry for entry in read_metrics(self.path) if entry["step"] <= step]
            self.path.write_text("".join(json.dumps(entry) + "\n" for entry in kept))

    def add(self, kind: str, step: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Append a line and return it."""
        line = {"kind": kind, "step": step, **plain(entry)}
        if jax.process_index() == 0:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return line


def read_metrics(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's metrics; a last line that a kill cut short is left out.

    Args:
        path: ``metrics.jsonl``, or its folder.
        kind: only these: ``train``, ``probe``, ``alarm``; None: all.

    Returns:
        A dict for each.

    >>> read_metrics(Path("no such folder"))
    []
    """
    path = path / METRICS if path.suffix != ".jsonl" else path
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if kind in (None, entry["kind"])]


def train_run(
    learner: Learner, dataset: Dataset, plan: Plan, folder: Path, *, mesh: Mesh, meta: Mapping[str, Any], show: Show
) -> Learning:
    """Train to the end of the plan, from the last whole checkpoint in the folder if there is one.

    Args:
        learner: what is trained.
        dataset: on what.
        plan: how long.
        folder: for ``metrics.jsonl`` and ``checkpoints``; it exists.
        mesh: of the devices.
        meta: goes into every checkpoint, such as the configuration.
        show: is told what happens.

    Returns:
        The state at the end, which is also saved.

    Raises:
        Diverged: a loss is not finite; the last checkpoint is from before that.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved.
        CheckpointError: a checkpoint is damaged.

    >>> import tempfile
    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import device_mesh, load, method_views, mlp_encoder
    >>> encoder, method = mlp_encoder((8,), features=4), get("rdm_simsiam")
    >>> learner = Learner(encoder, method, optax.sgd(0.1), method_views("rdm_simsiam"), classes=10, steps_per_epoch=2)
    >>> class Quiet:
    ...     step = note = lambda self, *told: None
    >>> plan, folder = Plan(epochs=1, batch=8, size=32, probe=16), Path(tempfile.mkdtemp())
    >>> data = load("synthetic", limit=16)
    >>> state = train_run(learner, data, plan, folder, mesh=device_mesh(), meta={}, show=Quiet())
    >>> int(state.train.step), [line["step"] for line in read_metrics(folder, "probe")]
    (2, [0, 2])
    """
    total, metrics = plan.epochs * learner.steps_per_epoch, _Metrics(folder / METRICS)
    replicated = NamedSharding(mesh, PartitionSpec())
    make = lambda: init_learning(learner, (plan.size, plan.size, 3))  # noqa: E731
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), jax.eval_shape(make)
    )
    last = checkpoint.latest(folder / CHECKPOINTS)
    if last is None:
        state = jax.jit(make, out_shardings=replicated)()
    else:
        state, _ = checkpoint.restore(folder / CHECKPOINTS, shapes, step=last)
        show.note(f"resumed after step {last} of {total}")
    metrics.cut(-1 if last is None else last)
    probe = _prober(learner, dataset, plan, replicated)
    advance = _advance(learner, dataset, plan, mesh)
    step = int(state.train.step)
    if last is None:
        _note_probe(metrics, probe(state), 0, show)
    with _signals() as arrived:
        for epoch in range(step // learner.steps_per_epoch, plan.epochs):
            order = batch_order(dataset.train.samples, plan.batch, seed=learner.seed, epoch=epoch)
            begun, first = time.perf_counter(), step
            for after, measures in advance(state, order[step % learner.steps_per_epoch :]):
                state, step = after, step + len(measures.loss)
                if not np.all(np.isfinite(measures.loss)):
                    raise Diverged(_diverged(step - len(measures.loss), np.asarray(measures.loss), folder))
                speed = (step - first) * plan.batch / (time.perf_counter() - begun)
                entry = {name: float(np.mean(value)) for name, value in measures._asdict().items()}
                entry |= {"epoch": step / learner.steps_per_epoch, "images_per_second": speed}
                show.step(step, total, metrics.add("train", step, entry))
                if arrived:
                    checkpoint.save(folder / CHECKPOINTS, step, state, meta=meta)
                    raise Interrupted(arrived[0], step)
            for text in alarms(learner, entry):
                show.note(metrics.add("alarm", step, {"text": text})["text"])
            if _due(epoch + 1, plan.probe_every, plan.epochs):
                _note_probe(metrics, probe(state), step, show)
            if _due(epoch + 1, plan.save_every, plan.epochs):
                checkpoint.save(folder / CHECKPOINTS, step, state, meta=meta)
    return state


def alarms(learner: Learner, entry: Mapping[str, Any]) -> Iterator[str]:
    """What in the measures of a step looks like complete collapse.

    Args:
        learner: of the run; its method says at which loss uniform assignments stand.
        entry: with ``loss`` and ``spread``.

    Returns:
        A sentence for each.

    >>> from rdm_jax.methods import get
    >>> learner = Learner(None, get("dino"), None, (), 10, 1)
    >>> list(alarms(learner, {"loss": 8.3178, "spread": 0.5}))
    ['the loss stands at ln K = 8.3178: assignments are uniform, which is complete collapse']

    Source: Caron et al. 2021 (uniform assignments); Chen and He 2021 (standard deviation of unit features).
    """
    fixed = learner.method.collapse_loss
    if fixed is not None and math.isclose(entry["loss"], fixed, rel_tol=1e-4):
        yield f"the loss stands at ln K = {fixed:.4f}: assignments are uniform, which is complete collapse"
    if entry["spread"] < 0.1:
        yield f"features of all images are nearly the same (spread {entry['spread']:.3f} of 1): complete collapse"


def probe_views(learner: Learner, dataset: Dataset, plan: Plan) -> tuple[Array, np.ndarray]:
    """Two views of a fixed random part of the training images, the same in every run, and the images' numbers.

    Args:
        learner: for its views.
        dataset: for its images.
        plan: for the number of samples and the size.

    Returns:
        (2, n, size, size, 3) float32, and (n,) int32.

    >>> from rdm_jax.training import load, method_views
    >>> learner = Learner(None, None, None, method_views("byol"), 10, 1)
    >>> views, numbers = probe_views(learner, load("synthetic", limit=16), Plan(epochs=1, batch=8, size=32, probe=5))
    >>> views.shape, len(set(numbers.tolist()))
    ((2, 5, 32, 32, 3), 5)
    """
    count = min(plan.probe, dataset.train.samples)
    chosen = np.sort(np.random.default_rng(_PROBE_SEED).permutation(dataset.train.samples)[:count]).astype(np.int32)
    if isinstance(dataset.train, Split):
        images = dataset.train.images[chosen]
    else:
        images = next(stream_batches(dataset.train, chosen[None], size=plan.size, process=0, processes=1)).images
    return augment_views(learner.views, images, chosen, key=jax.random.key(_PROBE_SEED)), chosen


def _prober(learner: Learner, dataset: Dataset, plan: Plan, replicated: NamedSharding) -> Callable[[Learning], Record]:
    views = jax.device_put(probe_views(learner, dataset, plan)[0], replicated)

    @jax.jit
    def probed(state: Any, views: Array) -> Record:
        return probe_state(learner.encoder, learner.method, state, views, steps_per_epoch=learner.steps_per_epoch)

    return lambda state: jax.tree.map(np.asarray, probed(state.train, views))


def _note_probe(metrics: _Metrics, record: Record, step: int, show: Show) -> None:
    """All of a record but its eigenvectors."""
    kept = {name: value for name, value in record._asdict().items() if name != "vectors"}
    entry = metrics.add("probe", step, kept)
    show.step(step, 0, entry)


def _advance(
    learner: Learner, dataset: Dataset, plan: Plan, mesh: Mesh
) -> Callable[[Learning, np.ndarray], Iterable[tuple[Learning, Measures]]]:
    """What trains on the batches of an order, chunk by chunk."""
    update, replicated = make_update(learner, mesh), NamedSharding(mesh, PartitionSpec())
    if not isinstance(dataset.train, Split):
        return _streamed(update, dataset.train, plan, mesh)
    images, labels = jax.device_put((dataset.train.images, dataset.train.labels), replicated)

    def one(state: Learning, images: Array, labels: Array, numbers: Array) -> tuple[Learning, Measures]:
        return update(state, images[numbers], labels[numbers], numbers)

    # Gradients of convolutions in a scan are slow on a CPU: there the program is one step.
    scanned = jax.default_backend() != "cpu"

    @jax.jit
    def many(state: Learning, images: Array, labels: Array, orders: Array) -> tuple[Learning, Measures]:
        if scanned:
            return jax.lax.scan(lambda carry, numbers: one(carry, images, labels, numbers), state, orders)
        state, measures = one(state, images, labels, orders[0])
        return state, jax.tree.map(lambda leaf: leaf[None], measures)

    def advance(state: Learning, order: np.ndarray) -> Iterator[tuple[Learning, Measures]]:
        size = _CHUNK.get(jax.default_backend(), _ACCELERATED)
        for begin in range(0, len(order), size):
            chunk, found = order[begin : begin + size], []
            for part in [chunk] if scanned else np.split(chunk, len(chunk)):
                state, measures = many(state, images, labels, jax.device_put(part, replicated))
                found.append(measures)
            yield state, jax.tree.map(lambda *leaves: np.concatenate([np.asarray(x) for x in leaves]), *found)

    return advance


def _streamed(
    update: Callable[..., tuple[Learning, Measures]], stream: Stream, plan: Plan, mesh: Mesh
) -> Callable[[Learning, np.ndarray], Iterator[tuple[Learning, Measures]]]:
    """The same from disk, where each process reads its part of every batch."""
    split, once = NamedSharding(mesh, PartitionSpec("batch")), jax.jit(update)

    def advance(state: Learning, order: np.ndarray) -> Iterator[tuple[Learning, Measures]]:
        for batch in stream_batches(stream, order, size=plan.size):
            parts = [jax.make_array_from_process_local_data(split, part) for part in batch]
            state, measures = once(state, *parts)
            yield state, jax.tree.map(lambda leaf: np.asarray(leaf)[None], measures)

    return advance


def _due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)


def _diverged(before: int, losses: np.ndarray, folder: Path) -> str:
    step = before + int(np.argmax(~np.isfinite(losses))) + 1
    last = checkpoint.latest(folder / CHECKPOINTS)
    kept = "no checkpoint was made before" if last is None else f"the checkpoint of step {last} is whole"
    return (
        f"the loss became {losses[~np.isfinite(losses)][0]} at step {step}; {kept}. Start a new run with a smaller "
        "--learning-rate, or in float32 if --dtype was another"
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Remember SIGINT and SIGTERM until the chunk is done; a second one is not waited for."""
    arrived: list[int] = []

    def note(number: int, frame: Any) -> None:
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
