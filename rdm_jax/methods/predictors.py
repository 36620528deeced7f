"""Learned predictors: a matrix, and a multi-layer perceptron."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rdm_jax._checks import choose, is_traced
from rdm_jax.methods.transform import Context, Number, Transform, each_view, make_transform, read_signal
from rdm_jax.theory import lagging_predictor_gains
from rdm_jax.types import Array, Gains, PRNGKeyArray, Spectrum, Views

__all__ = ["linear_predictor", "mlp_predictor"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}


def linear_predictor(*, scale: Number = 1.0, name: str = "predictor") -> Transform:
    """A learned matrix without bias: p = W z, rows p_i = W z_i.

    Args:
        scale: entries of W start as normal numbers with standard deviation scale / sqrt(d).
        name: of the parameters W (d, d), which act on features from the left as ``rdm_jax.theory.wiener_predictor``.

    Returns:
        The transform, for the online side. Its response is that of the optimum, or with ``context.ridge`` and
        ``context.progress`` of a regularised or lagging one, g = m / (lambda + rho) (1 - exp(-alpha t (lambda + rho)));
        None if neither ``context.signal`` nor ``context.noise`` is known.

    Raises:
        ValueError: a scale that is negative.

    >>> swap = {"predictor": jnp.array([[0.0, 1.0], [2.0, 0.0]])}
    >>> linear_predictor().apply(swap, (), jnp.array([[3.0, 4.0]]), Context())[0].tolist()
    [[4.0, 6.0]]
    >>> linear_predictor().response([4.0, 2.0], Context(noise=1.0)).tolist()
    [0.75, 0.5]

    Source: Tian, Chen and Ganguli 2021; docs/theory.md T3, S2.
    """
    if scale < 0:
        raise ValueError(f"scale is that of random entries, at least 0, got {scale}")

    def init(key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        d = features.shape[-1]
        return {name: scale * d**-0.5 * jax.random.normal(key, (d, d), _dtype(features))}, ()

    def apply(params: dict[str, Any], state: Any, features: Views, context: Context) -> tuple[Views, Any]:
        return features @ params[name].T, state

    return make_transform(apply, _wiener, init, names=(name,), side="online")


def mlp_predictor(
    hidden: Sequence[int] = (512,),
    *,
    activation: str = "relu",
    batch_norm: bool = True,
    name: str = "predictor",
) -> Transform:
    """A perceptron with as many outputs as inputs: (linear, batch norm, activation) for each hidden width, then linear.

    Batch statistics are of each view by itself and over its whole batch, momentum 0.9, eps 1e-5; the running ones are
    updated by one view after the other, as published. The running variance is that over n, where torch has n - 1.
    Layers before a batch norm have no bias. With ``Context(train=False)`` the running statistics are used; with batch
    norm ``train`` must be a Python bool.

    Args:
        hidden: widths of the hidden layers; none is an affine map. SimSiam has (512,), BYOL (4096,).
        activation: ``"relu"`` or ``"gelu"``.
        batch_norm: whether hidden layers are normalised.
        name: of the parameters.

    Returns:
        The transform, for the online side. Its response is that of the optimal *linear* predictor, as
        ``linear_predictor``'s; for Gaussian features no other predictor does better.

    Raises:
        ValueError: a width below 1; an unknown activation; float64 features with batch norm.

    >>> transform = mlp_predictor((8,), batch_norm=False)
    >>> params, state = transform.init(jax.random.key(0), jnp.zeros((4, 3)))
    >>> transform.apply(params, state, jnp.zeros((4, 3)), Context())[0].tolist()[0]
    [0.0, 0.0, 0.0]

    Source: Grill et al. 2020 (BYOL); Chen and He 2021 (SimSiam); docs/theory.md T3.
    """
    choose(activation, _ACTIVATIONS, "activation")
    widths = [int(width) for width in hidden]
    normalised = batch_norm and bool(widths)
    if any(width < 1 for width in widths):
        raise ValueError(f"hidden layers need at least 1 unit each, got {hidden}")

    def build(d: int, dtype: Any, rngs: nnx.Rngs) -> _Perceptron:
        if normalised and dtype == jnp.float64:
            raise ValueError("batch norm keeps float32 statistics: pass features in float32, or batch_norm=False")
        return _Perceptron(d, widths, activation, batch_norm, dtype, rngs=rngs)

    # A graph holds no arrays, so that one made for a width serves under any trace.
    @functools.cache
    def graph(d: int, dtype: Any) -> Any:
        return nnx.graphdef(nnx.eval_shape(lambda: build(d, dtype, nnx.Rngs(0))))

    def init(key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        network = build(features.shape[-1], _dtype(features), nnx.Rngs(key))
        return {name: nnx.to_pure_dict(nnx.state(network, nnx.Param))}, nnx.to_pure_dict(
            nnx.state(network, nnx.BatchStat)
        )

    def apply(params: dict[str, Any], state: Any, features: Views, context: Context) -> tuple[Views, Any]:
        if normalised and is_traced(context.train):
            raise ValueError("batch norm needs a Python bool for train: make Context(train=...) inside the jitted step")

        def one(view: Views, state: Any) -> tuple[Views, Any]:
            network = nnx.merge(graph(view.shape[-1], view.dtype), nnx.State(params[name]), nnx.State(state), copy=True)
            output = network(view, use_running_average=not context.train)
            return output, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

        return each_view(one, features, state)

    return make_transform(apply, _wiener, init, names=(name,), side="online")


class _Perceptron(nnx.Module):
    """Layers by name, so that parameters are a dict of dicts."""

    def __init__(
        self, d: int, hidden: list[int], activation: str, batch_norm: bool, dtype: Any, *, rngs: nnx.Rngs
    ) -> None:
        self.depth, self.activation, self.batch_norm = len(hidden), activation, batch_norm
        for layer, (before, after) in enumerate(zip([d, *hidden], [*hidden, d], strict=True)):
            normalised = batch_norm and layer < len(hidden)
            linear = nnx.Linear(before, after, use_bias=not normalised, param_dtype=dtype, rngs=rngs)
            setattr(self, f"linear{layer}", linear)
            if normalised:
                setattr(self, f"norm{layer}", _batch_norm(after, rngs))

    def __call__(self, features: Views, *, use_running_average: bool) -> Views:
        for layer in range(self.depth):
            features = getattr(self, f"linear{layer}")(features)
            if self.batch_norm:
                features = getattr(self, f"norm{layer}")(features, use_running_average=use_running_average)
            features = _ACTIVATIONS[self.activation](features)
        return getattr(self, f"linear{self.depth}")(features)


def _batch_norm(width: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    # The fast variance is a difference of two large numbers where the mean is large.
    return nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def _dtype(features: Any) -> Any:
    return jnp.promote_types(features.dtype, jnp.float32)


def _wiener(spectrum: Spectrum, context: Context) -> Gains | None:
    signal = read_signal(spectrum, context)
    if signal is None:
        return None
    return lagging_predictor_gains(spectrum, signal, context.ridge, context.progress)
