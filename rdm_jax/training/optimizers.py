"""The optimisers of the recipes: SGD with coupled weight decay, LARS as published, and their learning rates."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rdm_jax._checks import as_floating, choose
from rdm_jax.methods.transform import Number
from rdm_jax.types import Array, Scalar

__all__ = ["Descent", "lars", "one_dimensional", "sgd", "warmup_cosine"]

Schedule = Number | Callable[[Array], Array]
Mask = Callable[[Any], Any]


class Descent(NamedTuple):
    """The optimiser's memory: how many steps were made, and the momentum, of the parameters' structure."""

    step: Array
    momentum: Any


def sgd(
    learning_rate: Schedule,
    *,
    weight_decay: Number = 0.0,
    momentum: Number = 0.9,
    rates: Mapping[str, Schedule] | None = None,
) -> optax.GradientTransformation:
    """SGD with momentum and coupled decay: m <- mu m + g + wd p, then p <- p - lr m.

    Args:
        learning_rate: lr, or a function of the step.
        weight_decay: wd, on all parameters.
        momentum: mu.
        rates: other learning rates for parameters of the method by name, such as ``{"predictor": 0.5}``; the parameters
            are then ``Params``.

    Returns:
        The optimiser; its memory is ``Descent``.

    Raises:
        ValueError: decay below 0 or momentum outside [0, 1); in ``init``, a name in ``rates`` that is no parameter.

    >>> optimizer, p = sgd(0.5, weight_decay=0.25), jnp.array([4.0])
    >>> memory = optimizer.init(p)
    >>> for _ in range(2):
    ...     updates, memory = optimizer.update(jnp.array([1.0]), memory, p)
    ...     p = optax.apply_updates(p, updates)
    >>> [round(float(x), 4) for x in (p[0], memory.momentum[0])]  # m: 2, then 1.8 + 1 + 0.75
    [1.225, 3.55]

    Source: Chen and He 2021 (SimSiam), published code.
    """
    decay = _checked("weight_decay", weight_decay)

    def direction(parameter: Array, gradient: Array, rate: Array, excluded: bool) -> Array:
        return gradient + decay * parameter

    return _descent(direction, learning_rate, momentum, rates, None)


def lars(
    learning_rate: Schedule,
    *,
    weight_decay: Number = 0.0,
    momentum: Number = 0.9,
    eta: Number = 0.02,
    eps: Number = 1e-8,
    clip: bool = True,
    exclude: Mask | None = None,
    rates: Mapping[str, Schedule] | None = None,
) -> optax.GradientTransformation:
    """LARS with its trust clipped at the learning rate: m <- mu m + t (g + wd p), then p <- p - lr m.

    t = eta |p| / (|g| + wd |p| + eps) for each array, and with ``clip`` min(t / lr, 1). As published, an array of which
    |p| or |g| is 0 takes m <- mu m + g. (``optax.lars`` does not clip, and multiplies by lr before the momentum.)

    Args:
        learning_rate: lr, or a function of the step.
        weight_decay: wd.
        momentum: mu.
        eta: the trust coefficient.
        eps: against division by 0.
        clip: whether to clip.
        exclude: parameters to the same structure of bools: true where neither decay nor trust applies, m <- mu m + g.
            Such as ``one_dimensional``; None: nowhere.
        rates: as for ``sgd``.

    Returns:
        The optimiser; its memory is ``Descent``.

    Raises:
        ValueError: as for ``sgd``.

    >>> optimizer, p = lars(0.5, weight_decay=0.5, eta=0.4), jnp.array([3.0, 4.0])
    >>> updates, _ = optimizer.update(jnp.array([0.0, 1.5]), optimizer.init(p), p)  # t: min(2 / 4 / 0.5, 1) = 1
    >>> updates.round(4).tolist()
    [-0.75, -1.75]

    Source: You, Gitman and Ginsburg 2017; Grill et al. 2020 (BYOL), published code.
    """
    decay = _checked("weight_decay", weight_decay)

    def direction(parameter: Array, gradient: Array, rate: Array, excluded: bool) -> Array:
        if excluded:
            return gradient
        length, slope = (jnp.sqrt(jnp.sum(jnp.square(array))) for array in (parameter, gradient))
        trust = eta * length / (slope + decay * length + eps)
        if clip:
            # A rate of 0 clips as every small one does: the momentum remembers this step when the rate has risen.
            trust = jnp.where(rate > 0, jnp.minimum(trust / jnp.where(rate > 0, rate, 1.0), 1.0), 1.0)
        return jnp.where((length > 0) & (slope > 0), trust * (gradient + decay * parameter), gradient)

    return _descent(direction, learning_rate, momentum, rates, exclude)


def one_dimensional(params: Any) -> Any:
    """Which parameters are vectors, that is biases and the scales of norms: no decay, no trust in some recipes.

    Args:
        params: any pytree of arrays.

    Returns:
        The same structure of bools.

    >>> one_dimensional({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
    {'bias': True, 'kernel': False}

    Source: Grill et al. 2020 (BYOL).
    """
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


def warmup_cosine(
    peak: Number, *, steps: int, warmup_steps: int = 0, start: Number = 3e-5, final: Number = 0.0
) -> Callable[[Array], Scalar]:
    """A learning rate that rises linearly and falls along half a cosine, step by step.

    lr(t) = start + (peak - start) t / w below w = ``warmup_steps``; then, with s = (t - w) / (T - w),
    lr(t) = final + (peak - final) (1 + cos(pi s)) / 2; ``final`` from T on.

    Args:
        peak: at step w.
        steps: T.
        warmup_steps: w; 0: no rise.
        start: at step 0.
        final: at step T.

    Returns:
        A function of the step, which may be traced.

    Raises:
        ValueError: fewer than 1 step; a warm-up that is negative or does not end before the last step; rates below 0.

    >>> rate = warmup_cosine(1.0, steps=6, warmup_steps=2, start=0.5, final=0.25)
    >>> [round(float(rate(jnp.array(t))), 4) for t in (0, 1, 2, 4, 6, 7)]
    [0.5, 0.75, 1.0, 0.625, 0.25, 0.25]

    Source: Loshchilov and Hutter 2017; Goyal et al. 2017.
    """
    if steps < 1 or not 0 <= warmup_steps < steps:
        raise ValueError(f"a schedule needs 0 <= warmup_steps < steps, got {warmup_steps} and {steps}: train longer")
    if not min(peak, start, final) >= 0:
        raise ValueError(f"learning rates are at least 0, got peak={peak}, start={start} and final={final}")

    def rate(step: Array) -> Scalar:
        step = as_floating(step, "step")
        rising = start + (peak - start) * step / max(warmup_steps, 1)
        share = jnp.clip((step - warmup_steps) / (steps - warmup_steps), 0, 1)
        falling = final + (peak - final) * (1 + jnp.cos(jnp.pi * share)) / 2
        return jnp.where(step < warmup_steps, rising, falling)

    return rate


def _checked(name: str, value: Number) -> Number:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value


def _descent(
    direction: Callable[[Array, Array, Array, bool], Array],
    learning_rate: Schedule,
    momentum: Number,
    rates: Mapping[str, Schedule] | None,
    exclude: Mask | None,
) -> optax.GradientTransformation:
    """m <- mu m + direction, p <- p - lr m: momentum before the learning rate, so that a new rate acts at once."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is in [0, 1), got {momentum}")
    own: dict[str, Schedule] = dict(rates or {})

    def init(params: Any) -> Descent:
        names = {_method_parameter(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)} - {None}
        for name in own:
            choose(name, sorted(map(str, names)), "parameter with a learning rate of its own")
        return Descent(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, memory: Descent, params: Any = None) -> tuple[Any, Descent]:
        if params is None:
            raise ValueError("weight decay and trust need the parameters: call update(gradients, memory, params)")
        usual = jnp.asarray(_at(learning_rate, memory.step))
        special = {name: jnp.asarray(_at(schedule, memory.step)) for name, schedule in own.items()}
        rate = jax.tree_util.tree_map_with_path(
            lambda path, _: special.get(_method_parameter(path) or "", usual), params
        )
        excluded = exclude(params) if exclude else jax.tree.map(lambda _: False, params)
        found = jax.tree.map(direction, params, gradients, rate, excluded)
        velocity = jax.tree.map(lambda m, d: (momentum * m + d).astype(m.dtype), memory.momentum, found)
        updates = jax.tree.map(lambda lr, m: (-lr * m).astype(m.dtype), rate, velocity)
        return updates, Descent(memory.step + 1, velocity)

    return optax.GradientTransformation(init, update)


def _at(schedule: Schedule, step: Array) -> Any:
    return schedule(step) if callable(schedule) else schedule


def _method_parameter(path: tuple[Any, ...]) -> str | None:
    """The name of the method's parameter that a leaf of ``Params`` belongs to; None for the encoder's."""
    keys = [getattr(entry, "name", getattr(entry, "key", None)) for entry in path]
    return str(keys[1]) if keys[:1] == ["method"] and len(keys) > 1 else None
