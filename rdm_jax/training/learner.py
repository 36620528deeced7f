"""One compiled update of a run on images: views drawn on the device, the method's step, a classifier trained beside it.

Batch statistics, filters, assignments and moments are those of the global batch: under a mesh of devices the update is
one program over all of them, which computes what one device would, up to the order of sums.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rdm_jax.methods import Method
from rdm_jax.methods.losses import unit_rows
from rdm_jax.training.augment import ViewConfig, augment_views
from rdm_jax.training.evaluation import OnlineProbe, init_online_probe, update_online_probe
from rdm_jax.training.networks import Encoder
from rdm_jax.training.step import Pass, Schedule, TrainState, init_state, make_step
from rdm_jax.types import Array, Scalar

__all__ = ["Learner", "Learning", "Measures", "device_mesh", "init_learning", "make_update"]

BATCH = "batch"  # the one axis of the mesh


class Learner(NamedTuple):
    """What a run is made of, but for its data; ``views``: one configuration for each of the two."""

    encoder: Encoder
    method: Method
    optimizer: optax.GradientTransformation
    views: Sequence[ViewConfig]
    classes: int
    steps_per_epoch: int
    seed: int = 0
    ema: Schedule = 0.99
    microbatches: int = 1


class Learning(NamedTuple):
    """All that changes in a run: the method's state, and the classifier that learns beside it on detached features."""

    train: TrainState
    probe: OnlineProbe


class Measures(NamedTuple):
    """Of one step: the loss, the online classifier's accuracy on the batch, and how far the features are from collapse.

    ``spread``: sqrt(d) times the mean over features of the standard deviation of z/|z|: 1 if isotropic, 0 if all are
    the same.
    """

    loss: Scalar
    accuracy: Scalar
    spread: Scalar


def device_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis over all devices of all processes.

    Args:
        devices: these instead.

    Returns:
        The mesh.

    >>> device_mesh().axis_names
    ('batch',)
    """
    chosen = jax.devices() if devices is None else devices
    return jax.make_mesh((len(chosen),), (BATCH,), axis_types=(AxisType.Auto,), devices=chosen)


def init_learning(learner: Learner, shape: tuple[int, int, int]) -> Learning:
    """The state before the first step.

    Args:
        learner: of the run; its seed decides the weights.
        shape: height, width and channels of a view.

    Returns:
        The state; jit-safe, so that ``jax.eval_shape`` gives its shapes.

    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import method_views, mlp_encoder
    >>> encoder, method = mlp_encoder((8,), features=4), get("rdm_simsiam")
    >>> learner = Learner(encoder, method, optax.sgd(0.1), method_views("rdm_simsiam"), classes=3, steps_per_epoch=10)
    >>> init_learning(learner, (2, 2, 3)).probe.kernel.shape
    (8, 3)
    """
    views = jax.ShapeDtypeStruct((2, 2, *shape), jnp.float32)
    first, second = jax.random.split(jax.random.key(learner.seed))
    state = init_state(learner.encoder, learner.method, learner.optimizer, first, views)
    encode = lambda: learner.encoder.apply(state.params.encoder, state.stats, jnp.zeros((2, *shape)), False)  # noqa: E731
    width = jax.eval_shape(encode).stages["backbone"].shape[1]
    return Learning(state, init_online_probe(second, width, learner.classes))


def make_update(
    learner: Learner, mesh: Mesh | None = None
) -> Callable[[Learning, Array, Array, Array], tuple[Learning, Measures]]:
    """The update: two random views of every image, the method's step, and a step of the online classifier.

    A view depends on the seed, the epoch and the sample's number alone, not on the batch or the device.

    Args:
        learner: of the run.
        mesh: of the devices that share the batch; None: one device.

    Returns:
        ``(state, images, labels, numbers) -> (state, measures)`` for images (n, height, width, 3) uint8, and the
        numbers of the samples in the data set. To be jitted by the caller.

    >>> import optax
    >>> from rdm_jax.methods import get
    >>> from rdm_jax.training import method_views, mlp_encoder, synthetic_images
    >>> encoder, method = mlp_encoder((8,), features=4), get("rdm_simsiam")
    >>> learner = Learner(encoder, method, optax.sgd(0.1), method_views("rdm_simsiam"), classes=10, steps_per_epoch=10)
    >>> images, labels, _ = synthetic_images(6)
    >>> state = init_learning(learner, (32, 32, 3))
    >>> after, measures = jax.jit(make_update(learner))(state, images, labels, jnp.arange(6))
    >>> int(after.train.step), bool(0 < measures.spread < 1.1)
    (1, True)
    """
    step = make_step(
        learner.encoder,
        learner.method,
        learner.optimizer,
        ema=learner.ema,
        steps_per_epoch=learner.steps_per_epoch,
        microbatches=learner.microbatches,
        watch=_watched,
    )

    def update(state: Learning, images: Array, labels: Array, numbers: Array) -> tuple[Learning, Measures]:
        epoch = state.train.step // learner.steps_per_epoch
        key = jax.random.fold_in(jax.random.key(learner.seed), epoch)
        images, labels, numbers = (_shared(mesh, part) for part in (images, labels, numbers))
        views = _shared(mesh, augment_views(learner.views, images, numbers, key=key), axis=1)
        train, (loss, (features, backbone)) = step(state.train, views)
        rows = backbone.reshape(-1, backbone.shape[-1])
        probe, accuracy, _ = update_online_probe(state.probe, rows, jnp.concatenate([labels, labels]))
        return Learning(train, probe), Measures(loss, accuracy, _spread(features))

    return update


def _watched(done: Pass) -> tuple[Array, Array]:
    return done.online.features, done.online.stages["backbone"]


def _shared(mesh: Mesh | None, rows: Array, axis: int = 0) -> Array:
    """The rows of a batch, each device its share."""
    if mesh is None:
        return rows
    spec = PartitionSpec(*(None,) * axis, BATCH)
    return jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, spec))


def _spread(features: Array) -> Scalar:
    unit = unit_rows(jax.lax.stop_gradient(features).reshape(-1, features.shape[-1]))
    return jnp.mean(jnp.std(unit, axis=0)) * features.shape[-1] ** 0.5
