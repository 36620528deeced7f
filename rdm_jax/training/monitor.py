"""A training run's own probe, and the two steps between predicted growth rates and those that are measured.

Four growth rates of the same modes, each of which drops one idealisation of the one before:

    predicted   from the spectrum, the measured filter and the views' shared part: free features, mean field
    free        the loss's own gradient in the features, sample by sample: no mean field, no linear filter
    flow        the same gradient through the network's parameters: features move together
    measured    from one probe to the next: finite steps, momentum, weight decay, batches other than the probe's

Where a prediction fails, the first pair that disagrees says why.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, rounding
from rdm_jax.methods import Context, Method, evaluate, without_constant_mode
from rdm_jax.spectra import eigensystem, second_moment
from rdm_jax.training.measure import Moments, measure
from rdm_jax.training.networks import Encoder, encode_views
from rdm_jax.training.probe import LossKind, Record, loss_kind, rank_errors, read
from rdm_jax.training.step import Params, Pass, TrainState, forward
from rdm_jax.types import Array, ArrayLike, Gains, Scalar, Views

__all__ = ["Velocities", "measure_state", "mode_rates", "probe_state", "read_state", "state_rates", "velocities"]


class Velocities(NamedTuple):
    """The features that a probe calls z, (2, n, d), and how they move per unit of time (of all 2n rows' mean loss).

    ``free``: if the encoder's outputs were free. ``flow``: through the parameters.
    """

    features: Views
    free: Views
    flow: Views


def probe_state(
    encoder: Encoder, method: Method, state: TrainState, views: ArrayLike, *, steps_per_epoch: int = 1
) -> Record:
    """Probe a run on a fixed set of two views, as if that were its next batch; the state stays as it is.

    Batch statistics, filters and assignments are over the probe set, so it should be large.

    Args:
        encoder: the network.
        method: from ``rdm_jax.methods.get``.
        state: of the run.
        views: (2, n, ...) inputs of the probe set.
        steps_per_epoch: as for ``make_step``.

    Returns:
        The record, with the encoder's stages and its output as ``projector``.

    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import init_state, mlp_encoder
    >>> views = jax.random.normal(jax.random.key(0), (2, 64, 5))
    >>> encoder, method = mlp_encoder((8,), features=3), get("rdm_simsiam")
    >>> state = init_state(encoder, method, optax.sgd(0.1), jax.random.key(1), views)
    >>> record = jax.jit(lambda state: probe_state(encoder, method, state, views))(state)
    >>> sorted(record.stages), bool(record.rank_difference > 0)
    (['backbone', 'projector', 'projector0'], True)

    Source: docs/theory.md T3, S1, S4.
    """
    done = _passed(encoder, method, state, views, steps_per_epoch)
    rows, moments = done.evaluation.measured, _moments(method, done)
    record = read_state(
        method, moments, step=state.step, samples=jnp.asarray(views).shape[1], steps_per_epoch=steps_per_epoch
    )
    errors = rank_errors(rows.online, rows.target, rows.online_input, moments, method=method)
    return record._replace(errors=errors)


def measure_state(
    encoder: Encoder, method: Method, state: TrainState, views: ArrayLike, *, steps_per_epoch: int = 1
) -> Moments:
    """The first half of ``probe_state``: moments, which are quick to record and can be merged over batches.

    Args:
        encoder: as for ``probe_state``.
        method: as for ``probe_state``.
        state: as for ``probe_state``.
        views: as for ``probe_state``.
        steps_per_epoch: as for ``probe_state``.

    Returns:
        The moments.

    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import init_state, mlp_encoder
    >>> views = jax.random.normal(jax.random.key(0), (2, 64, 5))
    >>> encoder, method = mlp_encoder((), features=3), get("rdm_simsiam")
    >>> state = init_state(encoder, method, optax.sgd(0.1), jax.random.key(1), views)
    >>> measure_state(encoder, method, state, views).features.moment().shape
    (3, 3)
    """
    return _moments(method, _passed(encoder, method, state, views, steps_per_epoch))


def _passed(encoder: Encoder, method: Method, state: TrainState, views: ArrayLike, steps_per_epoch: int) -> Pass:
    context = Context(epoch=state.step / steps_per_epoch)
    return forward(encoder, method, state.params, state, views, context)


def _moments(method: Method, done: Pass) -> Moments:
    measured = done.evaluation.measured
    return measure(
        measured.online,
        measured.target,
        features=measured.online_input,
        target_features=measured.target_input,
        stages={**done.online.stages, "projector": done.online.features},
        method=method,
    )


def read_state(
    method: Method, moments: Moments, *, step: Array | int = 0, samples: int | None = None, steps_per_epoch: int = 1
) -> Record:
    """The second half of ``probe_state``: the record that belongs to the moments of a run.

    Args:
        method: as for ``probe_state``.
        moments: of ``measure_state``, merged or not.
        step: at which they were taken, for schedules.
        samples: rows of the batches that filters saw; None: unknown, and the response of filters that depend on the
            batch size is too. The scale of a power filter is all that hangs on it.
        steps_per_epoch: as for ``probe_state``.

    Returns:
        The record.

    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import measure
    >>> z = jax.random.normal(jax.random.key(0), (2, 64, 3)) * jnp.array([[[3.0, 2.0, 1.0]]])
    >>> record = read_state(get("symsimsiam"), measure(z, z, features=z))
    >>> abs(round(float(record.predicted.rank_difference), 4))
    0.0
    """
    epoch = jnp.asarray(step) / steps_per_epoch
    kind = _kind(method, len(moments.pull))
    return read(moments, method=method, kind=kind, context=Context(epoch=epoch, samples=samples))


def velocities(encoder: Encoder, method: Method, state: TrainState, views: ArrayLike, context: Context) -> Velocities:
    """How gradient descent would move the features that a probe calls z, if the encoder's outputs were free, and as is.

    free: dh/dt = -2n dL/dh of the encoder's outputs h (2, n, d), carried to z by the head. flow: dw/dt = -dL/dw of all
    parameters, carried to z by the network. Batch statistics are differentiated through.

    Args:
        encoder: the network.
        method: from ``rdm_jax.methods.get``.
        state: of the run.
        views: (2, n, ...) inputs.
        context: ``train`` and ``epoch``.

    Returns:
        Velocities, in units of z: ``free`` per step at learning rate 1 of every row by itself (the factor 2n undoes the
        mean over rows), ``flow`` per step of plain gradient descent at learning rate 1.

    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import init_state, mlp_encoder
    >>> views = jax.random.normal(jax.random.key(0), (2, 64, 5))
    >>> encoder, method = mlp_encoder((), features=3), get("rdm_simsiam")
    >>> state = init_state(encoder, method, optax.sgd(0.1), jax.random.key(1), views)
    >>> moving = jax.jit(lambda state: velocities(encoder, method, state, views, Context()))(state)
    >>> radial = jnp.sum(moving.free * moving.features) / jnp.sum(moving.features**2)
    >>> round(abs(float(radial)), 4)  # a cosine's gradient is at right angles to z, if the filter is a power
    0.0
    """

    def start(params: Params) -> Views:
        encoded = encode_views(encoder, params.encoder, state.stats, views, context.train).features
        return _headed(method, params, state, encoded, context)

    def loss(params: Params) -> Scalar:
        return forward(encoder, method, params, state, views, context).evaluation.loss

    descent = jax.tree.map(jnp.negative, jax.grad(loss)(state.params))
    features, flow = jax.jvp(start, (state.params,), (descent,))
    encoded = encode_views(encoder, state.params.encoder, state.stats, views, context.train).features
    slope = jax.grad(_loss_of_features(encoder, method, state, views, context))(encoded)
    push = -encoded.shape[0] * encoded.shape[1] * slope
    _, free = jax.jvp(lambda h: _headed(method, state.params, state, h, context), (encoded,), (push,))
    return Velocities(features, free, flow)


def mode_rates(features: ArrayLike, velocity: ArrayLike) -> Gains:
    """Growth rates of the modes of C_z as the features move: r_i = v_i^T sym(E[z' z^T]) v_i / lambda_i.

    Args:
        features: z (..., n, d); leading axes are views, all of one second moment.
        velocity: z', of the same shape.

    Returns:
        (d,) rates of lambda_i' = 2 r_i lambda_i, largest eigenvalue first; 0 where lambda is rounding.

    >>> z = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> [round(float(rate), 4) for rate in mode_rates(z, z * jnp.array([[0.5, -3.0]]))]
    [0.5, -3.0]

    Source: docs/theory.md L2, first-order perturbation of eigenvalues.
    """
    z, motion = (as_floating(a, name) for a, name in ((features, "features"), (velocity, "velocity")))
    rows = z.reshape(-1, z.shape[-1])
    values, vectors = eigensystem(second_moment(rows))
    along = [jnp.matmul(a.reshape(-1, z.shape[-1]), vectors, precision="highest") for a in (z, motion)]
    alive = values > rounding(values)
    change = jnp.mean(along[0] * along[1], axis=0)
    return jnp.where(alive, change / jnp.where(alive, values, 1), 0)


def state_rates(
    encoder: Encoder, method: Method, state: TrainState, views: ArrayLike, *, steps_per_epoch: int = 1
) -> dict[str, Gains]:
    """Growth rates of the modes of a run's features, if these were free and by the gradient flow.

    Args:
        encoder: as for ``probe_state``.
        method: as for ``probe_state``.
        state: as for ``probe_state``.
        views: as for ``probe_state``.
        steps_per_epoch: as for ``probe_state``.

    Returns:
        ``free`` and ``flow``, (d,) each, of ``mode_rates`` and ``velocities``.

    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import init_state, mlp_encoder
    >>> views = jax.random.normal(jax.random.key(0), (2, 64, 5))
    >>> encoder, method = mlp_encoder((), features=3), get("rdm_simsiam")
    >>> state = init_state(encoder, method, optax.sgd(0.1), jax.random.key(1), views)
    >>> {name: rates.shape for name, rates in state_rates(encoder, method, state, views).items()}
    {'free': (3,), 'flow': (3,)}
    """
    moving = velocities(encoder, method, state, views, Context(epoch=state.step / steps_per_epoch))
    return {name: mode_rates(moving.features, way) for name, way in (("free", moving.free), ("flow", moving.flow))}


def _loss_of_features(
    encoder: Encoder, method: Method, state: TrainState, views: ArrayLike, context: Context
) -> Callable[[Views], Scalar]:
    """The loss as a function of the online encoder's outputs (and of the target's, where they are the same)."""
    if state.target is None:
        return lambda h: evaluate(method, state.params.method, state.states, h, h, context).loss
    weights, stats = state.target
    theirs = encode_views(encoder, weights.encoder, stats, views, context.train).features
    own = weights.method
    return lambda h: evaluate(method, state.params.method, state.states, h, theirs, context, target_params=own).loss


def _headed(method: Method, params: Params, state: TrainState, encoded: Views, context: Context) -> Views:
    own = {name: params.method[name] for name in method.head.names}
    features = method.head.apply(own, state.states.online[0], encoded, context)[0]
    return without_constant_mode(features) if method.assignments else features


def _kind(method: Method, width: int) -> LossKind:
    """The loss's kind; a gradient that passes the online branch as it passes the identity reaches z without a gain."""
    kind = loss_kind(method)
    return kind if kind.direct or method.online.names else kind._replace(direct=_is_passed(method, width))


def _is_passed(method: Method, width: int) -> bool:
    """Whether a gradient does, seen by sending random numbers through; so it is under ``isotropic`` (IsoLoss)."""
    with jax.ensure_compile_time_eval():
        features, sent = jax.random.normal(jax.random.key(0), (2, 2, 2 * width, width))
        _, states = method.online.init(jax.random.key(1), features)
        _, pull = jax.vjp(lambda z: method.online.apply({}, states, z, Context(epoch=0.0))[0], features)
        return bool(jnp.allclose(pull(sent)[0], sent, rtol=1e-4, atol=1e-4))
