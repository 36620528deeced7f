"""A training run: a folder with metrics, probes and checkpoints, which can be stopped at any time and resumed.

The order of samples and every random number follow from the seed and the step, so that a run that was killed and
resumed ends where an uninterrupted one ends: bitwise, on the same machine.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rdm_jax.training import checkpoint
from rdm_jax.training.augment import augment_views
from rdm_jax.training.board import open_board
from rdm_jax.training.dataset import Dataset, Split, batch_order
from rdm_jax.training.learner import Learner, Learning, Measures, init_learning, make_update
from rdm_jax.training.places import in_store, place
from rdm_jax.training.stream import Stream, stream_batches
from rdm_jax.training.watch import GAP, METRICS, Instants, Metrics, Show, Watch
from rdm_jax.types import Array, ArrayLike

__all__ = ["Diverged", "Interrupted", "Plan", "alarms", "probe_views", "train_run"]

CHECKPOINTS, BOARD = "checkpoints", "tensorboard"
_CHUNK = {"cpu": 5}  # steps between two looks at the loss and at signals
_ACCELERATED = 50
_PROBE_SEED = 2**31 - 1  # the views of the probe set are the same in all runs on a data set


class Plan(NamedTuple):
    """How long, and how often what. Epochs; ``probe``: samples of the probe set, ``size``: of a view in pixels.

    ``rates``: at each probe also compute growth rates of free features and of the flow.
    """

    epochs: int
    batch: int
    size: int
    probe_every: float = 1
    save_every: int = 1
    probe: int = 2048
    rates: bool = False


class Diverged(RuntimeError):
    """The loss is no number any more; the message says where, and how to go on."""


class Interrupted(RuntimeError):
    """A signal stopped the run after it was saved; ``code`` is what the process should exit with."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}, saved: go on with --resume")
        self.code = 128 + number


def train_run(
    learner: Learner, dataset: Dataset, plan: Plan, folder: Path, *, mesh: Mesh, meta: Mapping[str, Any], show: Show
) -> Learning:
    """Train to the end of the plan, from the last whole checkpoint in the folder if there is one.

    Args:
        learner: what is trained.
        dataset: on what.
        plan: how long.
        folder: for ``metrics.jsonl`` and ``checkpoints``; it exists, or is in a store (gs://bucket/run).
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
    >>> from rdm_jax.training import device_mesh, load, method_views, mlp_encoder, read_metrics
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
    root = place(folder)
    last = checkpoint.latest(root / CHECKPOINTS)
    state = _begun(learner, plan, root, last, NamedSharding(mesh, PartitionSpec()))
    board = open_board(folder / BOARD, last) if jax.process_index() == 0 and not in_store(root) else None
    with contextlib.closing(Metrics(root / METRICS, board)) as metrics:
        metrics.cut(-1 if last is None else last)
        if last is not None:
            show.note(f"resumed after step {last} of {plan.epochs * learner.steps_per_epoch}")
        return _go_on(learner, dataset, plan, root, state, last is not None, metrics, mesh=mesh, meta=meta, show=show)


def _begun(learner: Learner, plan: Plan, folder: epath.Path, last: int | None, sharding: NamedSharding) -> Learning:
    """The state before the first step, or that of the last checkpoint."""
    make = lambda: init_learning(learner, (plan.size, plan.size, 3))  # noqa: E731
    if last is None:
        return jax.jit(make, out_shardings=sharding)()
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), jax.eval_shape(make)
    )
    return checkpoint.restore(folder / CHECKPOINTS, shapes, step=last)[0]


def _go_on(
    learner: Learner,
    dataset: Dataset,
    plan: Plan,
    folder: epath.Path,
    state: Learning,
    resumed: bool,
    metrics: Metrics,
    *,
    mesh: Mesh,
    meta: Mapping[str, Any],
    show: Show,
) -> Learning:
    """From a state to the end of the plan."""
    step, total = int(state.train.step), plan.epochs * learner.steps_per_epoch
    watch = _watch(learner, dataset, plan, total, metrics, mesh, show)
    advance = _advance(learner, dataset, plan, mesh)
    watch.look(step, state, known=resumed)
    with _signals() as arrived:
        for epoch in range(step // learner.steps_per_epoch, plan.epochs):
            order = batch_order(dataset.train.samples, plan.batch, seed=learner.seed, epoch=epoch)
            first, trained, spent = epoch * learner.steps_per_epoch, 0, 0.0
            for stop in watch.instants.stops(step, first + len(order)):
                begun = time.perf_counter()
                for after, measures in advance(state, order[step - first : stop - first]):
                    if not np.all(np.isfinite(measures.loss)):
                        raise Diverged(_diverged(step, np.asarray(measures.loss), folder))
                    state, step, trained = after, step + len(measures.loss), trained + len(measures.loss)
                    speed = trained * plan.batch / (spent + time.perf_counter() - begun)
                    entry = {name: float(np.mean(value)) for name, value in measures._asdict().items()}
                    entry |= {"epoch": step / learner.steps_per_epoch, "images_per_second": speed}
                    show.step(step, total, metrics.add("train", step, entry))
                    number = _agreed(arrived)
                    if number and step < stop and watch.resumable(step):
                        _stop(number, folder, step, state, meta)
                spent += time.perf_counter() - begun
                watch.look(step, state)
            for text in alarms(learner, entry):
                show.note(metrics.add("alarm", step, {"text": text})["text"])
            if _due(epoch + 1, plan.save_every, plan.epochs):
                checkpoint.save(folder / CHECKPOINTS, step, state, meta=meta)
            if number:
                _stop(number, folder, step, state, meta)
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


def _watch(
    learner: Learner, dataset: Dataset, plan: Plan, total: int, metrics: Metrics, mesh: Mesh, show: Show
) -> Watch:
    every = max(1, round(plan.probe_every * learner.steps_per_epoch)) if plan.probe_every else total
    return Watch(
        learner,
        probe_views(learner, dataset, plan)[0],
        Instants(every, min(GAP, every), total),
        metrics,
        show,
        plan.rates,
        NamedSharding(mesh, PartitionSpec()),
    )


def _agreed(arrived: list[int]) -> int:
    """The signal that stops the run, 0 for none: one that reached any process stops them all."""
    own = arrived[0] if arrived else 0
    return own if jax.process_count() == 1 else int(np.max(multihost_utils.process_allgather(np.array(own))))


def _stop(number: int, folder: epath.Path, step: int, state: Learning, meta: Mapping[str, Any]) -> NoReturn:
    if checkpoint.latest(folder / CHECKPOINTS) != step:
        checkpoint.save(folder / CHECKPOINTS, step, state, meta=meta)
    raise Interrupted(number, step)


def _advance(
    learner: Learner, dataset: Dataset, plan: Plan, mesh: Mesh, looped: bool | None = None
) -> Callable[[Learning, np.ndarray], Iterable[tuple[Learning, Measures]]]:
    """What trains on the batches of an order, chunk by chunk."""
    update, replicated = make_update(learner, mesh), NamedSharding(mesh, PartitionSpec())
    if not isinstance(dataset.train, Split):
        return _streamed(update, dataset.train, plan, mesh)
    images, labels = jax.device_put((dataset.train.images, dataset.train.labels), replicated)

    def one(state: Learning, images: Array, labels: Array, numbers: Array) -> tuple[Learning, Measures]:
        return update(state, images[numbers], labels[numbers], numbers)

    # Gradients of convolutions in a loop are slow on a CPU: there the program is one step. Elsewhere one program takes
    # any number of steps up to a chunk.
    looped = jax.default_backend() != "cpu" if looped is None else looped
    size = _CHUNK.get(jax.default_backend(), _ACCELERATED)
    single = jax.jit(one)

    @jax.jit
    def many(
        state: Learning, images: Array, labels: Array, orders: Array, count: ArrayLike
    ) -> tuple[Learning, Measures]:
        def body(i: Array, carry: tuple[Learning, Measures]) -> tuple[Learning, Measures]:
            state, kept = carry
            state, measures = one(state, images, labels, orders[i])
            return state, jax.tree.map(lambda values, value: values.at[i].set(value), kept, measures)

        shapes = jax.eval_shape(one, state, images, labels, orders[0])[1]
        empty = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, empty))

    def advance(state: Learning, order: np.ndarray) -> Iterator[tuple[Learning, Measures]]:
        for begin in range(0, len(order), size):
            chunk = order[begin : begin + size]
            if looped:
                padded = np.concatenate([chunk, np.repeat(chunk[:1], size - len(chunk), axis=0)])
                state, found = many(state, images, labels, jax.device_put(padded, replicated), len(chunk))
                yield state, jax.tree.map(partial(_head, count=len(chunk)), found)
                continue
            kept = []
            for numbers in chunk:
                state, measures = single(state, images, labels, jax.device_put(numbers, replicated))
                kept.append(measures)
            yield state, jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *kept)

    return advance


def _head(values: Array, count: int) -> np.ndarray:
    return np.asarray(values)[:count]


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


def _diverged(before: int, losses: np.ndarray, folder: epath.Path) -> str:
    step = before + int(np.argmax(~np.isfinite(losses))) + 1
    last = checkpoint.latest(folder / CHECKPOINTS)
    kept = "no checkpoint was made before" if last is None else f"the checkpoint of step {last} is whole"
    return (
        f"the loss became {losses[~np.isfinite(losses)][0]} at step {step}; {kept}. Start a new run with a smaller "
        "--learning-rate, or in float32 if --dtype was another"
    )


@contextlib.contextmanager
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
