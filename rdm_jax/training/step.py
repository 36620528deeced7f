"""One pure training step for any method of the table and any encoder, and many of them in one compiled scan."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rdm_jax._checks import as_floating, require
from rdm_jax.methods import Context, Evaluation, Method, States, evaluate
from rdm_jax.methods.transform import Number
from rdm_jax.training.networks import Encoded, Encoder, encode_views
from rdm_jax.types import Array, ArrayLike, PRNGKeyArray, Scalar

__all__ = [
    "Params",
    "Pass",
    "Target",
    "TrainState",
    "ema_schedule",
    "forward",
    "init_state",
    "make_step",
    "train",
]

Schedule = Number | Callable[[Array], Array]


class Params(NamedTuple):
    """Parameters of the encoder, and those of the method by name."""

    encoder: Any
    method: dict[str, Any]


class Target(NamedTuple):
    """The target branch's own weights: moving averages of parameters, and running statistics of its own batches."""

    params: Params
    stats: Any


class TrainState(NamedTuple):
    """All that a run carries from step to step; ``target`` is None for a method whose branches share weights."""

    params: Params
    stats: Any
    target: Target | None
    states: States
    optimizer: optax.OptState
    step: Array


class Pass(NamedTuple):
    """Both branches on two views: what the method made of them, and what the encoders gave."""

    evaluation: Evaluation
    online: Encoded
    target: Encoded


def init_state(
    encoder: Encoder, method: Method, optimizer: optax.GradientTransformation, key: PRNGKeyArray, views: Any
) -> TrainState:
    """The state before the first step; target weights start as the online ones.

    Args:
        encoder: the network.
        method: from ``rdm_jax.methods.get``.
        optimizer: of optax, over ``Params``.
        key: a jax random key.
        views: (2, n, ...) an example of the two views of a batch; only shape and dtype are used.

    Returns:
        The state.

    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import mlp_encoder
    >>> example = jnp.zeros((2, 4, 3))
    >>> state = init_state(mlp_encoder((8,)), get("byol"), optax.sgd(0.1), jax.random.key(0), example)
    >>> sorted(state.params.method), state.target is None, int(state.step)
    (['predictor'], False, 0)
    """
    example = jax.ShapeDtypeStruct(views.shape, views.dtype)

    # Compiled as one: step by step, a deep network would take a minute.
    @jax.jit
    def start(key: PRNGKeyArray) -> TrainState:
        one, two = jax.random.split(key)
        weights, stats = encoder.init(one, jax.ShapeDtypeStruct(views.shape[1:], views.dtype))
        features = jax.eval_shape(lambda x: encode_views(encoder, weights, stats, x, True).features, example)
        own, states = method.init(two, features)
        params = Params(weights, own)
        ema = method.target_weights == "ema"
        target = Target(Params(weights, method.target_params(own)), stats) if ema else None
        return TrainState(params, stats, target, states, optimizer.init(params), jnp.zeros((), jnp.int32))

    return start(key)


def forward(
    encoder: Encoder, method: Method, params: Params, state: TrainState, views: ArrayLike, context: Context
) -> Pass:
    """Both branches and the loss on two views; gradients flow through ``params`` only.

    Args:
        encoder: the network.
        method: from ``rdm_jax.methods.get``.
        params: what to differentiate by, as a rule ``state.params``.
        state: of the run; nothing of it is changed.
        views: (2, n, ...) inputs.
        context: ``train`` and ``epoch``.

    Returns:
        Pass: the evaluation and what both encoders gave.

    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import mlp_encoder
    >>> encoder, method, views = mlp_encoder(()), get("symsimsiam"), jnp.ones((2, 4, 3))
    >>> state = init_state(encoder, method, optax.sgd(0.1), jax.random.key(0), views)
    >>> loss = jax.jit(lambda s: forward(encoder, method, s.params, s, views, Context()).evaluation.loss)(state)
    >>> abs(float(loss))  # constant features, centred to 0
    0.0
    """
    online = encode_views(encoder, params.encoder, state.stats, views, context.train)
    if state.target is None:
        evaluation = evaluate(method, params.method, state.states, online.features, online.features, context)
        return Pass(evaluation, online, online)
    theirs, stats = jax.lax.stop_gradient(state.target)
    target = encode_views(encoder, theirs.encoder, stats, views, context.train)
    evaluation = evaluate(
        method, params.method, state.states, online.features, target.features, context, target_params=theirs.method
    )
    return Pass(evaluation, online, target)


def make_step(
    encoder: Encoder,
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    ema: Schedule = 0.99,
    steps_per_epoch: int = 1,
    microbatches: int = 1,
    watch: Callable[[Pass], Any] | None = None,
) -> Callable[[TrainState, ArrayLike], tuple[TrainState, Any]]:
    """The step: gradients, optimiser, then the moving averages of the target's weights.

    W <- W + update(gradient), and after it W_a <- tau W_a + (1 - tau) W where the method has target weights of its own.
    Parameters that the method freezes keep their values and their optimiser's state until their epoch. The step is
    pure; jit it, scan it, or vmap it over states.

    Args:
        encoder: the network.
        method: from ``rdm_jax.methods.get``.
        optimizer: of optax, over ``Params``.
        ema: tau in [0, 1], or a function of the step such as ``ema_schedule(0.99, 1.0, steps)``. Without target weights
            it has no meaning.
        steps_per_epoch: what the method's schedules count in: the epoch is step / steps_per_epoch.
        microbatches: equal parts of the batch that go through the network one after the other, to save memory; the
            gradient is their mean. Batch statistics, filters and assignments are then those of each part.
        watch: what else to return of the pass, arrays (2, n, ...), such as ``lambda done: done.online.stages``.

    Returns:
        ``(state, views) -> (state, loss)`` for views (2, n, ...); ``(state, (loss, watched))`` with ``watch``.

    Raises:
        ValueError: tau outside [0, 1]; less than one step an epoch or one part; a batch that has no such parts.

    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import mlp_encoder
    >>> encoder, method, optimizer = mlp_encoder((), projector=(), features=2), get("rdm_byol"), optax.sgd(0.5)
    >>> views = jax.random.normal(jax.random.key(0), (2, 8, 3))
    >>> state = init_state(encoder, method, optimizer, jax.random.key(1), views)
    >>> after, loss = jax.jit(make_step(encoder, method, optimizer, ema=0.75))(state, views)
    >>> weights = [p.encoder["output"]["kernel"] for p in (state.params, after.params, after.target.params)]
    >>> bool(abs(weights[2] - 0.75 * weights[0] - 0.25 * weights[1]).max() < 1e-6), int(after.step)
    (True, 1)

    Source: the sources of the methods; Grill et al. 2020 for the moving averages.
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
    if microbatches < 1:
        raise ValueError(f"microbatches must be at least 1, got {microbatches}")
    if not callable(ema):
        require(0 <= ema <= 1, f"ema is a weight in [0, 1], got {ema}")

    def objective(params: Params, state: TrainState, views: Array, context: Context) -> tuple[Scalar, Any]:
        done = forward(encoder, method, params, state, views, context)
        target = None if state.target is None else state.target._replace(stats=done.target.stats)
        carried = state._replace(stats=done.online.stats, states=done.evaluation.states, target=target)
        return done.evaluation.loss, (carried, watch(done) if watch else ())

    def step(state: TrainState, views: ArrayLike) -> tuple[TrainState, Any]:
        epoch = state.step / steps_per_epoch
        found, passed = [], state
        for part in _parts(jnp.asarray(views), microbatches):
            slope = jax.value_and_grad(objective, has_aux=True)
            (loss, (passed, seen)), gradients = slope(state.params, passed, part, Context(epoch=epoch))
            found.append((loss, gradients, seen))
        losses, several, seen = zip(*found, strict=True)
        loss, gradients = (jax.tree.map(lambda *x: sum(x) / microbatches, *values) for values in (losses, several))
        updates, memory = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        frozen = {name: epoch < until for name, until in method.frozen.items()}
        params, memory = _held(frozen, (state.params, state.optimizer), (params, memory))
        target = passed.target
        if target is not None:
            rate = ema(state.step) if callable(ema) else ema
            target = target._replace(params=_averaged(method, target.params, params, rate))
        after = TrainState(params, passed.stats, target, passed.states, memory, state.step + 1)
        return after, (loss, jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *seen)) if watch else loss

    return step


def train(
    step: Callable[[TrainState, ArrayLike], tuple[TrainState, Scalar]],
    state: TrainState,
    batches: Callable[[Array], Array],
    record: Callable[[TrainState], Any],
    *,
    steps: int,
    every: int,
) -> tuple[TrainState, Array, Any]:
    """Many steps in one scan, with records at intervals; to be jitted by the caller, and vmapped over seeds.

    For perceptrons: gradients of convolutions in a scan are slow on a CPU, where the step is better called from Python.

    Args:
        step: from ``make_step``.
        state: to begin with.
        batches: the step's number to the two views of its batch.
        record: the state to any pytree of arrays, such as a probe's.
        steps: how many, a multiple of ``every``.
        every: steps between records.

    Returns:
        The state after them, the losses (steps,), and the records before the first step, after every ``every`` and so
        after the last, stacked on a new first axis.

    Raises:
        ValueError: steps that are not a positive multiple of every.

    >>> count = lambda state, views: (state._replace(step=state.step + 1), views.sum())
    >>> start = TrainState(None, None, None, None, None, jnp.array(0))
    >>> _, losses, records = train(count, start, lambda i: jnp.ones(1) * i, lambda s: s.step, steps=4, every=2)
    >>> losses.tolist(), records.tolist()
    ([0.0, 1.0, 2.0, 3.0], [0, 2, 4])
    """
    if every < 1 or steps < every or steps % every:
        raise ValueError(f"steps must be a positive multiple of every, got steps={steps} and every={every}")

    def one(state: TrainState, _: None) -> tuple[TrainState, Scalar]:
        return step(state, batches(state.step))

    def advance(state: TrainState) -> tuple[TrainState, Array]:
        return jax.lax.scan(one, state, length=every)

    def wait(state: TrainState) -> tuple[TrainState, Array]:
        return state, jnp.zeros_like(jax.eval_shape(advance, state)[1])

    # The last record is one more round without steps: a second copy of it would double the time to compile.
    def round(state: TrainState, more: Array) -> tuple[TrainState, tuple[Array, Any]]:
        before = record(state)
        state, losses = jax.lax.cond(more, advance, wait, state)
        return state, (losses, before)

    rounds = jnp.arange(steps // every + 1) < steps // every
    state, (losses, records) = jax.lax.scan(round, state, rounds)
    return state, losses[:-1].reshape(-1), records


def _parts(views: Array, count: int) -> list[Array]:
    if views.shape[1] % count:
        raise ValueError(f"a batch of {views.shape[1]} has no {count} equal parts: change one of them")
    return jnp.split(views, count, axis=1)


def ema_schedule(first: Number, last: Number, steps: int) -> Callable[[Array], Scalar]:
    """A cosine from ``first`` to ``last``: tau(t) = last - (last - first) (cos(pi t / T) + 1) / 2, constant after T.

    Args:
        first: tau at step 0.
        last: tau at step T.
        steps: T, at least 1.

    Returns:
        A function of the step, which may be traced.

    Raises:
        ValueError: weights outside [0, 1], or fewer than 1 step.

    >>> [round(float(ema_schedule(0.8, 1.0, 10)(jnp.array(t))), 4) for t in (0, 5, 10, 11)]
    [0.8, 0.9, 1.0, 1.0]

    Source: Grill et al. 2020 (BYOL).
    """
    if steps < 1 or not 0 <= first <= 1 or not 0 <= last <= 1:
        raise ValueError(f"ema_schedule needs weights in [0, 1] and steps >= 1, got {first}, {last} and {steps}")

    def rate(step: Array) -> Scalar:
        share = jnp.minimum(as_floating(step, "step") / steps, 1)
        return last - (last - first) * (jnp.cos(jnp.pi * share) + 1) / 2

    return rate


def _averaged(method: Method, target: Params, params: Params, rate: Array | Number) -> Params:
    followed = Params(params.encoder, method.target_params(params.method))
    return jax.tree.map(lambda old, new: (rate * old + (1 - rate) * new).astype(old.dtype), target, followed)


def _held(frozen: dict[str, Array], before: Any, after: Any) -> Any:
    """The new leaves, but the old ones of frozen parameters: in the parameters and in all that mirrors them."""
    if not frozen:
        return after

    def pick(path: tuple[Any, ...], old: Array, new: Array) -> Array:
        name = _method_parameter(path)
        return jnp.where(frozen[name], old, new) if name in frozen else new

    return jax.tree_util.tree_map_with_path(pick, before, after)


def _method_parameter(path: Iterable[Any]) -> str | None:
    """The name of the method's parameter that a leaf belongs to: the key after ``Params.method``."""
    keys = [getattr(entry, "name", getattr(entry, "key", None)) for entry in path]
    return str(keys[keys.index("method") + 1]) if "method" in keys[:-1] else None
