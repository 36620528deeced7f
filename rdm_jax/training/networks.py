"""Encoders as pure functions of pytrees: a Flax module is taken apart once, and any network may take its place."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rdm_jax._checks import choose
from rdm_jax.methods.transform import Number
from rdm_jax.types import Array, ArrayLike, PRNGKeyArray

__all__ = ["Encoded", "Encoder", "encode_views", "mlp_encoder", "module_encoder"]

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

    Batch norm has momentum 0.9 and eps 1e-5, over the batch of one view, as published; the running variance is that
    over n. Layers before a batch norm have no bias. Everything is computed in float32.

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
    choose(activation, _ACTIVATIONS, "activation")
    if min([*hidden, *projector, features]) < 1:
        raise ValueError(f"layers need at least 1 unit, got {hidden}, {projector} and {features} features")
    layers = [(name, width) for name, width in zip(_layer_names(len(hidden)), hidden, strict=True)]
    layers += [(f"projector{i}", width) for i, width in enumerate(projector)]
    options = _Options(layers, features, activation, batch_norm, final_norm, float(scale))
    return module_encoder(lambda shape, rngs: _Perceptron(shape, options, rngs))


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


class _Options(NamedTuple):
    layers: list[tuple[str, int]]
    features: int
    activation: str
    batch_norm: bool
    final_norm: bool
    scale: float


class _Perceptron(nnx.Module):
    def __init__(self, shape: tuple[int, ...], options: _Options, rngs: nnx.Rngs) -> None:
        self.names = tuple(name for name, _ in options.layers)
        self.activation, self.batch_norm, self.final_norm = options[2:5]
        widths = [*shape[-1:], *(width for _, width in options.layers)]
        for name, before, after in zip(self.names, widths, widths[1:], strict=False):
            setattr(self, name, nnx.Linear(before, after, use_bias=not self.batch_norm, rngs=rngs))
            if self.batch_norm:
                setattr(self, f"{name}_norm", _batch_norm(after, rngs, affine=True))
        start = jax.nn.initializers.variance_scaling(options.scale**2, "fan_in", "truncated_normal")
        use_bias = not options.final_norm
        self.output = nnx.Linear(widths[-1], options.features, use_bias=use_bias, kernel_init=start, rngs=rngs)
        if options.final_norm:
            self.output_norm = _batch_norm(options.features, rngs, affine=False)

    def __call__(self, inputs: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
        values, stages = inputs.astype(jnp.float32), {}
        for name in self.names:
            values = getattr(self, name)(values)
            if self.batch_norm:
                values = getattr(self, f"{name}_norm")(values, use_running_average=not train)
            values = stages[name] = _ACTIVATIONS[self.activation](values)
        values = self.output(values)
        return self.output_norm(values, use_running_average=not train) if self.final_norm else values, stages


def _layer_names(depth: int) -> list[str]:
    return [f"layer{i}" for i in range(depth - 1)] + ["backbone"] * bool(depth)


def _batch_norm(width: int, rngs: nnx.Rngs, *, affine: bool) -> nnx.BatchNorm:
    # The fast variance is a difference of two large numbers where the mean is large.
    return nnx.BatchNorm(
        width,
        momentum=0.9,
        epsilon=1e-5,
        use_bias=affine,
        use_scale=affine,
        use_fast_variance=False,
        rngs=rngs,
    )


def _pure(module: nnx.Module, kind: type) -> Any:
    return nnx.to_pure_dict(nnx.state(module, kind))
