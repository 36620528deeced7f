"""Branch transforms: what one side of a method does to features, and what theory says that does to their spectrum.

Features are (n, d), or (views, n, d) for several views of the same n samples at once. Each transform says what it
does with several views: whether a statistic is of one view or of all of them. Everything is a plain reduction over
the batch axis, so that features sharded over a mesh give the statistics of the global batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, as_spectrum, poison, require
from rdm_jax.types import Array, ArrayLike, Gains, Outputs, PRNGKeyArray, Scalar, Spectrum, Views

__all__ = ["Context", "Transform", "chain", "identity", "isotropic", "make_transform", "stop_gradient"]


class Context(NamedTuple):
    """What transforms and their responses need beside the features; leave out what is not known.

    For ``apply``: ``train``: a Python bool, whether batch statistics are used and states are updated. ``epoch``: the
    time for schedules, queues and frozen parameters, a number that may be traced.

    For ``response``, all in the eigenbasis of the second moment C = E[z z^T] that the spectrum belongs to:
    ``signal``: (d,) m_i = v_i^T sym(E[z+ z^T]) v_i, or instead ``noise``: the view noise's variance nu in every
    direction. ``ridge`` rho and ``progress`` alpha t of a learned predictor. ``mean``: (d,) v_i^T E[z]. ``center``:
    (d,) what a moving-average centre has reached; None: the mean. ``samples``: n, the rows of a batch. ``width``: d, if
    the spectrum has fewer values, as it may for n < d.

    >>> Context(epoch=3).train
    True
    """

    train: bool = True
    epoch: ArrayLike | None = None
    signal: ArrayLike | None = None
    noise: ArrayLike | None = None
    ridge: ArrayLike = 0.0
    progress: ArrayLike = jnp.inf
    mean: ArrayLike | None = None
    center: ArrayLike | None = None
    samples: int | None = None
    width: int | None = None


# A number that is known when a transform is built; at run time an int is no float.
Number = int | float

Init = Callable[[PRNGKeyArray, Any], tuple[dict[str, Any], Any]]
Response = Callable[[ArrayLike, Context], Gains | None]
Carry = Callable[[ArrayLike, Context], Context]


class Transform(NamedTuple):
    """One step of a branch, as pure functions.

    ``init(key, features) -> (params, state)``: only shape and dtype of the features are used. ``params`` is a dict
    whose keys are ``names``: two transforms that share a name share the parameters. ``state`` keeps its structure,
    shapes and dtypes for good, so that it passes through ``lax.scan``.

    ``apply(params, state, features, context) -> (features, state)``: any float dtype in, at least float32 inside and
    out; pure, jit- and grad-safe.

    ``response(spectrum, context) -> gains``: ``spectrum`` (..., d) are eigenvalues of the second moment of what comes
    in, ``gains`` (..., d) multiply the singular values, direction by direction. None where theory is silent, or where
    the context lacks what it takes.

    ``carry(spectrum, context) -> context``: the context for what comes after, in the same eigenbasis.

    ``side``: ``"online"`` or ``"target"`` if the transform makes sense there only. ``stops``: whether no gradient
    reaches the features. ``frozen``: pairs of a parameter's name and the epoch until which it is frozen.
    """

    init: Init
    apply: Callable[[dict[str, Any], Any, ArrayLike, Context], tuple[Outputs, Any]]
    response: Response
    carry: Carry
    names: tuple[str, ...] = ()
    side: str | None = None
    stops: bool = False
    frozen: tuple[tuple[str, Number], ...] = ()


def make_transform(
    apply: Callable[[dict[str, Any], Any, Views, Context], tuple[Outputs, Any]],
    response: Callable[[Spectrum, Context], Gains | None],
    init: Init | None = None,
    carry: Carry | None = None,
    **fields: Any,
) -> Transform:
    """A transform from the functions that are special about it; the rest is that of a filter without parameters.

    Args:
        apply: (params, state, features, context) -> (features, state); the features come checked, in at least float32.
        response: (spectrum, context) -> gains or None; the spectrum comes checked, and invalid ones are poisoned after.
        init: (key, features) -> (params, state); None: no parameters and no state.
        carry: (spectrum, context) -> context; None: as filter gains do, mean and centre times g, signal times g^2.
        **fields: ``names``, ``side``, ``stops`` and ``frozen`` of the transform.

    Returns:
        The transform.

    >>> double = make_transform(lambda params, state, z, c: (2 * z, state), lambda spectrum, c: 2 + 0 * spectrum)
    >>> double.apply({}, (), jnp.ones((1, 1)), Context())[0].tolist(), double.response([3.0], Context()).tolist()
    ([[2.0]], [2.0])
    """

    @functools.wraps(apply)
    def checked_apply(params: dict[str, Any], state: Any, features: ArrayLike, context: Context) -> tuple[Outputs, Any]:
        output, new = apply(params, state, _as_views(features), context)
        return output, jax.tree.map(lambda leaf, before: leaf.astype(before.dtype), new, state)

    @functools.wraps(response)
    def checked_response(spectrum: ArrayLike, context: Context) -> Gains | None:
        values, valid = as_spectrum(spectrum)
        gains = response(values, context)
        return None if gains is None else poison(gains, valid[..., None])

    def as_filter(spectrum: ArrayLike, context: Context) -> Context:
        return _filtered_context(spectrum, checked_response(spectrum, context), context)

    made = init or (lambda key, features: ({}, ()))
    return Transform(made, checked_apply, checked_response, carry or as_filter, **fields)


def chain(*transforms: Transform) -> Transform:
    """One transform after another; their responses compose: gains multiply, each sees the spectrum before it.

    g(lambda) = g_1(lambda) g_2(g_1^2 lambda) ...

    Args:
        *transforms: in the order in which they are applied; none is the identity.

    Returns:
        The transform. Its state is the tuple of their states.

    Raises:
        ValueError: two of them have parameters of the same name, or belong on different sides.

    >>> from rdm_jax.filters import power
    >>> from rdm_jax.methods import filtering
    >>> both = chain(filtering(power(1), side="online"), filtering(power(-0.5), side="online"))  # s^2, then its root
    >>> [round(float(gain), 4) for gain in both.response([16.0, 1.0], Context(samples=1))]
    [1.0, 1.0]

    Source: docs/theory.md, notation.
    """
    names = [name for transform in transforms for name in transform.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two transforms of this chain have parameters named {twice[0]!r}; give one another name=")
    sides = {transform.side for transform in transforms} - {None}
    if len(sides) > 1:
        raise ValueError("this chain has a transform for the online side and one for the target side; split it in two")
    steps = _Chain(transforms)
    return Transform(
        steps.init,
        steps.apply,
        steps.response,
        steps.carry,
        names=tuple(names),
        side=sides.pop() if sides else None,
        stops=any(transform.stops for transform in transforms),
        frozen=tuple(pair for transform in transforms for pair in transform.frozen),
    )


def identity() -> Transform:
    """Nothing: features pass as they are, gain 1.

    Returns:
        The transform.

    >>> identity().response([3.0, 1.0], Context()).tolist()
    [1.0, 1.0]

    Source: docs/theory.md T8, the symmetric design.
    """
    return make_transform(lambda params, state, features, context: (features, state), _ones)


def stop_gradient() -> Transform:
    """Features pass as they are, gradients do not; gain 1.

    Returns:
        The transform, for the target side: an online branch without gradient would never learn.

    >>> stopped = lambda z: stop_gradient().apply({}, (), z, Context())[0].sum()
    >>> jax.grad(stopped)(jnp.ones((2, 1))).tolist()
    [[0.0], [0.0]]

    Source: Chen and He 2021 (SimSiam).
    """
    return make_transform(
        lambda params, state, features, context: (jax.lax.stop_gradient(features), state),
        _ones,
        side="target",
        stops=True,
    )


def isotropic(inner: Transform) -> Transform:
    """The same output, with the backward pass of the identity: p = W z forwards, dL/dz = dL/dp backwards.

    With any loss this is IsoLoss: for squared error its gradient in z is W z - z+, for the cosine it is that of
    -z^T sg(z+ / (|p| |z+|) - (p^T z+) p / (|p|^3 |z+|)). The factor l_m by which the usual backward pass through a
    predictor with eigenvalues l_m slows down small modes is gone. The value is that of the loss itself, where the
    published surrogate has another value and the same gradient.

    Args:
        inner: a predictor without learned parameters, with as many outputs as inputs.

    Returns:
        The transform, for the online side; its response is that of ``inner``.

    Raises:
        ValueError: ``inner`` has parameters, which would never learn.

    >>> halved = isotropic(make_transform(lambda p, s, z, c: (z / 2, s), lambda spectrum, c: spectrum * 0 + 0.5))
    >>> jax.value_and_grad(lambda z: halved.apply({}, (), z, Context())[0].sum())(jnp.ones((1, 1)))[1].tolist()
    [[1.0]]

    Source: Halvagal, Laborieux and Zenke 2023.
    """
    if inner.names:
        raise ValueError(f"isotropic() lets no gradient reach the parameters {inner.names}: give it a closed-form one")

    def apply(params: dict[str, Any], state: Any, features: ArrayLike, context: Context) -> tuple[Views, Any]:
        views = _as_views(features)
        output, state = inner.apply(params, state, views, context)
        # The difference is exactly 0, but carries the gradient of the identity.
        return jax.lax.stop_gradient(output) + (views - jax.lax.stop_gradient(views)), state

    return inner._replace(apply=apply, side="online")


def read_epoch(context: Context, why: str) -> Scalar:
    """The epoch as an array, or an error that says what needs it."""
    if context.epoch is None:
        raise ValueError(f"{why} depends on the epoch: pass Context(epoch=...)")
    return jnp.asarray(context.epoch, jnp.result_type(float))


def each_view(apply: Callable[[Views, Any], tuple[Views, Any]], features: Views, state: Any) -> tuple[Views, Any]:
    """Apply to one view after another, the state going from one to the next."""
    if features.ndim == 2:
        return apply(features, state)
    outputs = []
    for view in features:
        output, state = each_view(apply, view, state)
        outputs.append(output)
    return jnp.stack(outputs), state


def beside_rows(vector: Array, features: Views) -> Array:
    """A (d,) vector with as many axes as the features."""
    return jnp.expand_dims(vector, tuple(range(features.ndim - 1)))


def read_width(spectrum: Spectrum, context: Context) -> int:
    """d, the number of features that a spectrum belongs to."""
    return spectrum.shape[-1] if context.width is None else context.width


def _as_views(features: ArrayLike) -> Views:
    array = as_floating(features, "features")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"features must have shape (n, d) or (views, n, d) with n, d >= 1, got {array.shape}")
    return array


def _ones(spectrum: Spectrum, context: Context) -> Gains:
    return jnp.ones_like(spectrum)


def _filtered_context(spectrum: ArrayLike, gains: Gains | None, context: Context) -> Context:
    """The context after gains g: a mean in the same basis is multiplied by g, signal and noise by g^2."""
    if gains is None:
        return context._replace(signal=None, noise=None, mean=None, center=None)
    signal = read_signal(spectrum, context)
    times = lambda value, factor: None if value is None else jnp.asarray(value) * factor  # noqa: E731
    return context._replace(
        signal=times(signal, gains**2),
        noise=None,
        mean=times(context.mean, gains),
        center=times(context.center, gains),
    )


def read_signal(spectrum: ArrayLike, context: Context) -> Spectrum | None:
    """m from the context, as given or as max(lambda - nu, 0); None if neither is known."""
    if context.signal is not None and context.noise is not None:
        raise ValueError("the context has both signal and noise, and m = lambda - nu: give one of them")
    if context.noise is not None:
        noise = as_floating(context.noise, "noise")
        require(noise >= 0, f"noise is a variance in the unit of the spectrum and must be >= 0, got {context.noise}")
        return poison(jnp.maximum(as_floating(spectrum, "spectrum") - noise, 0), noise >= 0)
    return None if context.signal is None else as_floating(context.signal, "signal")


class _Chain:
    """The functions of a chain."""

    def __init__(self, transforms: tuple[Any, ...]) -> None:
        self.transforms: tuple[Transform, ...] = transforms

    def init(self, key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        params: dict[str, Any] = {}
        states = []
        for number, transform in enumerate(self.transforms):
            made, state = transform.init(jax.random.fold_in(key, number), features)
            features = _output_shape(transform, made, state, features)
            params |= made
            states.append(state)
        return params, tuple(states)

    def apply(self, params: dict[str, Any], state: Any, features: ArrayLike, context: Context) -> tuple[Outputs, Any]:
        output, states = _as_views(features), []
        for transform, before in zip(self.transforms, state, strict=True):
            own = {name: params[name] for name in transform.names}
            output, after = transform.apply(own, before, output, context)
            states.append(after)
        return output, tuple(states)

    def response(self, spectrum: ArrayLike, context: Context) -> Gains | None:
        values, valid = as_spectrum(spectrum)
        total = jnp.ones_like(values)
        for transform in self.transforms:
            gains = transform.response(values, context)
            if gains is None:
                return None
            context = transform.carry(values, context)
            total, values = total * gains, gains**2 * values
        return poison(total, valid[..., None])

    def carry(self, spectrum: ArrayLike, context: Context) -> Context:
        values, _ = as_spectrum(spectrum)
        for transform in self.transforms:
            gains = transform.response(values, context)
            context = transform.carry(values, context)
            if gains is None:
                return context
            values = gains**2 * values
        return context


def _output_shape(transform: Transform, params: dict[str, Any], state: Any, features: Any) -> jax.ShapeDtypeStruct:
    shape = jax.ShapeDtypeStruct(features.shape, features.dtype)
    return jax.eval_shape(lambda z: transform.apply(params, state, z, Context(epoch=0.0))[0], shape)
