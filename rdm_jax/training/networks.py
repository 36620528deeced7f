"""Encoders as pure functions of pytrees: a Flax module is taken apart once, and any network may take its place."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rdm_jax._checks import choose
from rdm_jax.methods.transform import Number
from rdm_jax.types import Array, ArrayLike, PRNGKeyArray

__all__ = ["BatchNorm", "Encoded", "Encoder", "Projector", "encode_views", "mlp_encoder", "module_encoder"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}


class Encoded(NamedTuple):
    """What an encoder gives: ``features`` (n, d), ``stages`` by name (n, .), and the running statistics after it."""

    features: Array
    stages: dict[str, Array]
    stats: Any


class Encoder(NamedTuple):
    """A network as two pure functions; whatever has them can be trained.

    ``init(key, example) -> (params, stats)``: ``example`` is a batch of inputs (n, ...) of which only shape and dtype
    are used. ``stats`` are running statistics, not trained; both are pytrees whose structure and dtypes stay.

    ``apply(params, stats, inputs, train) -> Encoded``: one view of a batch, (n, ...). ``train``, a Python bool, says
    whether batch statistics are used and the running ones updated. ``stages`` are the features on the way, pooled to
    (n, .); the last of them, ``"backbone"``, is what is kept after training.
    """

    init: Callable[[PRNGKeyArray, Any], tuple[Any, Any]]
    apply: Callable[[Any, Any, ArrayLike, bool], Encoded]


def module_encoder(build: Callable[[tuple[int, ...], nnx.Rngs], nnx.Module]) -> Encoder:
    """An encoder from a Flax NNX module.

    Args:
        build: ``(shape, rngs) -> module`` for inputs (n, *shape); the module is called as ``module(inputs, train=...)``
            and returns the features and a dict of its stages. Its state is ``nnx.Param`` and ``nnx.BatchStat``.

    Returns:
        The encoder.

    >>> class Double(nnx.Module):
    ...     def __call__(self, inputs, *, train):
    ...         return 2 * inputs, {"backbone": inputs}
    >>> encoder = module_encoder(lambda shape, rngs: Double())
    >>> params, stats = encoder.init(jax.random.key(0), jnp.ones((1, 1)))
    >>> encoder.apply(params, stats, jnp.ones((1, 1)), True).features.tolist()
    [[2.0]]
    """

    # A graph holds no arrays, so one is made for each shape and serves under any trace.
    @functools.cache
    def graph(shape: tuple[int, ...]) -> Any:
        return nnx.graphdef(nnx.eval_shape(lambda: build(shape, nnx.Rngs(0))))

    def init(key: PRNGKeyArray, example: Any) -> tuple[Any, Any]:
        module = build(tuple(example.shape[1:]), nnx.Rngs(key))
        return _pure(module, nnx.Param), _pure(module, nnx.BatchStat)

    def apply(params: Any, stats: Any, inputs: ArrayLike, train: bool) -> Encoded:
        inputs = jnp.asarray(inputs)
        module = nnx.merge(graph(tuple(inputs.shape[1:])), nnx.State(params), nnx.State(stats), copy=True)
        features, stages = module(inputs, train=train)
        return Encoded(features, stages, _pure(module, nnx.BatchStat))

    return Encoder(init, apply)


def mlp_encoder(
    hidden: Sequence[int] = (128, 128),
    *,
    projector: Sequence[int] = (128,),
    features: int = 32,
    activation: str = "relu",
    batch_norm: bool = True,
    final_norm: bool = False,
    scale: Number = 1.0,
) -> Encoder:
    """A perceptron and a projector: (linear, batch norm, activation) for each hidden width, then linear to d features.

    Inputs of more than one axis, such as images, are flattened.
    Batch norm is over the batch of one view, as published: see ``BatchNorm``. Layers before a batch norm have no bias.
    Everything is computed in float32.

    Args:
        hidden: widths of the encoder's layers; none: the projector sees the inputs.
        projector: widths of the projector's hidden layers. With neither, the whole is an affine map.
        features: d, the width of what comes out, without activation.
        activation: ``"relu"`` or ``"gelu"``.
        batch_norm: whether hidden layers are normalised.
        final_norm: whether the features are, without learned scale and shift, as SimSiam's are.
        scale: factor on the initial weights of the last layer.

    Returns:
        The encoder; stages ``layer0`` ..., then ``backbone``, the last layer of the encoder, and ``projector0`` ....

    Raises:
        ValueError: a width below 1; an unknown activation.

    >>> encoder = mlp_encoder((8, 8), projector=(6,), features=3)
    >>> params, stats = encoder.init(jax.random.key(0), jnp.zeros((4, 5)))
    >>> encoded = encoder.apply(params, stats, jnp.ones((4, 5)), True)
    >>> encoded.features.shape, {name: stage.shape[1] for name, stage in encoded.stages.items()}
    ((4, 3), {'layer0': 8, 'backbone': 8, 'projector0': 6})

    Source: Chen and He 2021 (SimSiam); Ioffe and Szegedy 2015.
    """
    layers = {name: width for name, width in zip(_layer_names(len(hidden)), hidden, strict=True)}
    layers |= {f"projector{i}": width for i, width in enumerate(projector)}
    _check(layers, features, activation, final_norm)
    start = jax.nn.initializers.variance_scaling(float(scale) ** 2, "fan_in", "truncated_normal")

    def build(shape: tuple[int, ...], rngs: nnx.Rngs) -> Projector:
        return Projector(
            math.prod(shape),
            layers,
            features,
            activation=activation,
            batch_norm=batch_norm,
            final_norm=final_norm,
            output_init=start,
            rngs=rngs,
        )

    return module_encoder(build)


def encode_views(encoder: Encoder, params: Any, stats: Any, views: ArrayLike, train: bool) -> Encoded:
    """Both views, one after the other: batch statistics are of each by itself, running ones are updated by both.

    Args:
        encoder: the network.
        params: its parameters.
        stats: its running statistics.
        views: (2, n, ...) inputs, or another number of views.
        train: as for ``Encoder.apply``.

    Returns:
        Encoded with features (2, n, d), stages (2, n, .) and the statistics after both.

    >>> encoder = mlp_encoder((), projector=(), features=2)
    >>> params, stats = encoder.init(jax.random.key(0), jnp.zeros((4, 3)))
    >>> encode_views(encoder, params, stats, jnp.zeros((2, 4, 3)), True).features.shape
    (2, 4, 2)

    Source: Chen and He 2021 (SimSiam), published code.
    """
    outputs = []
    for view in jnp.asarray(views):
        # Not one call on both: batch statistics would mix, and convolutions in a loop are slow on a CPU.
        outputs.append(encoder.apply(params, stats, view, train))
        stats = outputs[-1].stats
    features, stages = jax.tree.map(lambda *both: jnp.stack(both), *[output[:2] for output in outputs])
    return Encoded(features, stages, stats)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with statistics in float32 whatever the inputs' type.

    y = scale (x - mean) / sqrt(var + eps) + bias, with the batch's mean and its variance over n in training, and the
    running ones in evaluation: r <- 0.9 r + 0.1 (the batch's), where the variance is that over n - 1.

    Args:
        width: d, of the last axis.
        affine: whether there are ``scale`` and ``bias`` (d,), parameters that start as 1 and 0.
        start: what ``scale`` starts as, if not 1.
        groups: equal parts of the batch, in order, that are normalised each by itself; the running statistics take the
            mean of theirs. With one part a device, on a batch shared by devices, nothing is sent between them.
        momentum: the weight of the past, 0.9 in the line above.
        epsilon: eps.

    Raises:
        ValueError: fewer than one part; on call, a batch that has no such parts.

    >>> norm = BatchNorm(1, momentum=0.5)
    >>> norm(jnp.array([[1.0], [3.0]]), train=True).round(3).tolist(), norm.mean[...].tolist(), norm.var[...].tolist()
    ([[-1.0], [1.0]], [1.0], [1.5])

    Source: Ioffe and Szegedy 2015.
    """

    def __init__(
        self,
        width: int,
        *,
        affine: bool = True,
        start: Number = 1.0,
        groups: int = 1,
        momentum: Number = 0.9,
        epsilon: Number = 1e-5,
    ) -> None:
        if groups < 1:
            raise ValueError(f"batch norm needs at least 1 part of the batch, got groups={groups}")
        self.affine, self.groups, self.momentum, self.epsilon = affine, groups, momentum, epsilon
        if affine:
            self.scale = nnx.Param(jnp.full(width, start, jnp.float32))
            self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(width, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(width, jnp.float32))

    def __call__(self, values: Array, *, train: bool) -> Array:
        """Normalise a batch; in training, update the running statistics.

        Args:
            values: (n, ..., d).
            train: whether to use the statistics of the batch.

        Returns:
            (n, ..., d) of the inputs' type.
        """
        wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        row = (*(1,) * (values.ndim - 1), -1)
        if train:
            result = self._by_batch(wide)
        else:
            mean, var = self.mean[...].reshape(row), self.var[...].reshape(row)
            result = (wide - mean) * jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            result = result * self.scale[...].reshape(row) + self.bias[...].reshape(row)
        return result.astype(values.dtype)

    def _by_batch(self, wide: Array) -> Array:
        """Standardised by the batch's own statistics, which move the running ones."""
        if wide.shape[0] % self.groups:
            raise ValueError(f"a batch of {wide.shape[0]} has no {self.groups} equal parts for batch norm")
        parts = wide.reshape(self.groups, -1, *wide.shape[1:])
        standard, mean, variance = _standardised(parts, self.epsilon)
        n = math.prod(parts.shape[1:-1])
        found = {"mean": jnp.mean(mean, 0), "var": jnp.mean(variance, 0) * n / max(n - 1, 1)}
        for name, value in found.items():
            old = getattr(self, name)
            old[...] = (self.momentum * old[...] + (1 - self.momentum) * value.reshape(-1)).astype(old[...].dtype)
        return standard.reshape(wide.shape)


# The derivative in closed form takes half the time of the one that jax would derive step by step.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _standardised(parts: Array, epsilon: Number) -> tuple[Array, Array, Array]:
    """h = (x - mean) / sqrt(var + eps) of each part, and mean and variance over n, with axes of length 1."""
    axes = tuple(range(1, parts.ndim - 1))
    mean = jnp.mean(parts, axes, keepdims=True)
    # Not mean(x^2) - mean(x)^2, a difference of two large numbers where the mean is large.
    variance = jnp.mean(jnp.square(parts - mean), axes, keepdims=True)
    return (parts - mean) * jax.lax.rsqrt(variance + epsilon), mean, variance


@_standardised.defjvp
def _standardised_jvp(
    epsilon: Number, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """dh = (dx - mean(dx) - h mean(h dx)) / sqrt(var + eps)."""
    ((parts,), (moved,)) = primals, tangents
    standard, mean, variance = _standardised(parts, epsilon)
    axes, scale = tuple(range(1, parts.ndim - 1)), jnp.sqrt(variance + epsilon)
    shift = jnp.mean(moved, axes, keepdims=True)
    along = jnp.mean(standard * moved, axes, keepdims=True)
    return (standard, mean, variance), ((moved - shift - standard * along) / scale, shift, 2 * scale * along)


class Projector(nnx.Module):
    """A perceptron: (linear, batch norm, activation) for each hidden width, then linear to d features.

    Layers before a batch norm have no bias.

    Args:
        inputs: width of what comes in.
        hidden: the hidden layers' widths by name, or widths alone: they are then called ``projector0`` ....
        features: d.
        activation: ``"relu"`` or ``"gelu"``.
        batch_norm: whether hidden layers are normalised.
        final_norm: whether the features are, without learned scale and shift; ``"affine"``: with them.
        groups: as for ``BatchNorm``.
        dtype: of the products; None: float32, as parameters, stages and features are.
        kernel_init: how the hidden layers' weights start; None: normal numbers of variance 1 / width, cut at two
            standard deviations.
        output_init: how the last layer's do.
        rngs: of Flax.

    Raises:
        ValueError: a width below 1; an unknown activation; an unknown ``final_norm``.

    >>> projector = Projector(4, (8,), 3, rngs=nnx.Rngs(0))
    >>> features, stages = projector(jnp.ones((5, 4)), train=True)
    >>> features.shape, {name: stage.shape for name, stage in stages.items()}
    ((5, 3), {'projector0': (5, 8)})

    Source: Chen and He 2021 (SimSiam); Grill et al. 2020 (BYOL).
    """

    def __init__(
        self,
        inputs: int,
        hidden: Mapping[str, int] | Sequence[int],
        features: int,
        *,
        activation: str = "relu",
        batch_norm: bool = True,
        final_norm: bool | str = False,
        groups: int = 1,
        dtype: Any = None,
        kernel_init: Any = None,
        output_init: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        layers = hidden if isinstance(hidden, Mapping) else {f"projector{i}": width for i, width in enumerate(hidden)}
        _check(layers, features, activation, final_norm)
        self.names, self.activation = tuple(layers), activation
        self.batch_norm, self.final_norm = batch_norm, bool(final_norm)
        default = nnx.nn.linear.default_kernel_init

        def linear(before: int, after: int, use_bias: bool, start: Any) -> nnx.Linear:
            options = {"use_bias": use_bias, "dtype": dtype or jnp.float32, "kernel_init": start or default}
            return nnx.Linear(before, after, **options, rngs=rngs)

        widths = [inputs, *layers.values()]
        for name, before, after in zip(self.names, widths, widths[1:], strict=False):
            setattr(self, name, linear(before, after, not batch_norm, kernel_init))
            if batch_norm:
                setattr(self, f"{name}_norm", BatchNorm(after, groups=groups))
        self.output = linear(widths[-1], features, not final_norm, output_init)
        if final_norm:
            self.output_norm = BatchNorm(features, affine=final_norm == "affine", groups=groups)

    def __call__(self, values: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
        """Features and, by name, the hidden layers.

        Args:
            values: (n, inputs), or of more axes, such as images, which are flattened.
            train: as for ``BatchNorm``.

        Returns:
            (n, d), and each hidden layer (n, width).
        """
        values, stages = values.reshape(len(values), -1).astype(jnp.float32), {}
        for name in self.names:
            values = getattr(self, name)(values)
            if self.batch_norm:
                values = getattr(self, f"{name}_norm")(values, train=train)
            values = _ACTIVATIONS[self.activation](values)
            stages[name] = values.astype(jnp.float32)
        values = self.output(values).astype(jnp.float32)
        return self.output_norm(values, train=train) if self.final_norm else values, stages


def _check(layers: Mapping[str, int], features: int, activation: str, final_norm: bool | str) -> None:
    """Raise ValueError for a perceptron that cannot be built."""
    choose(activation, _ACTIVATIONS, "activation")
    if final_norm not in (True, False, "affine"):
        raise ValueError(f"final_norm is True, False or 'affine', got {final_norm!r}")
    if min([*layers.values(), features]) < 1:
        raise ValueError(f"layers need at least 1 unit, got {list(layers.values())} and {features} features")


def _layer_names(depth: int) -> list[str]:
    return [f"layer{i}" for i in range(depth - 1)] + ["backbone"] * bool(depth)


def _pure(module: nnx.Module, kind: type) -> Any:
    return nnx.to_pure_dict(nnx.state(module, kind))
