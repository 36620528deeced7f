"""The table of named methods: which transforms, which loss, which weights; defaults are the published recipes'.

name         head                    online                 target (each with stop_gradient)     loss, pairs
simsiam      -                       predictor              -                                    -cos, mean
byol         -                       predictor              - (EMA)                              2 - 2 cos, sum
swav         l2, prototypes          sharpen                sinkhorn with queue                  cross-entropy, mean
dino         l2, prototypes          sharpen                centre, sharpen, softmax (EMA)       cross-entropy, mean
symsimsiam   centre, l2              -                      - (no stop_gradient)                 -cos, mean
rdm_simsiam  -                       filter | -             - | filter                           -cos, mean
rdm_byol     -                       filter | -             - | filter (EMA)                     2 - 2 cos, sum
directpred   -                       closed form            - (EMA)                              2 - 2 cos, sum
isoloss      -                       isotropic closed form  - (EMA)                              2 - 2 cos, sum
linear       -                       matrix                 -                                    |p - t|^2 / 2, mean
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rdm_jax._checks import choose
from rdm_jax.filters import Filter
from rdm_jax.methods.assignments import linear_schedule, prototypes, queued, sharpen, sinkhorn, softmax
from rdm_jax.methods.centering import center_ema, center_features, l2_normalize
from rdm_jax.methods.closed_form import direct_copy, direct_pred, direct_set
from rdm_jax.methods.filtering import filter_warnings, filtering, parse_filter
from rdm_jax.methods.losses import (
    Loss,
    byol_loss,
    cross_entropy,
    mean_field_cosine,
    negative_cosine,
    squared_error,
)
from rdm_jax.methods.method import Method
from rdm_jax.methods.predictors import linear_predictor, mlp_predictor
from rdm_jax.methods.transform import Number, Transform, chain, identity, isotropic, stop_gradient

__all__ = ["METHODS", "TRANSFORMS", "get"]

TRANSFORMS: Mapping[str, Callable[..., Transform]] = MappingProxyType(
    {
        make.__name__: make
        for make in (
            center_ema,
            center_features,
            chain,
            direct_copy,
            direct_pred,
            direct_set,
            filtering,
            identity,
            isotropic,
            l2_normalize,
            linear_predictor,
            mlp_predictor,
            prototypes,
            queued,
            sharpen,
            sinkhorn,
            softmax,
            stop_gradient,
        )
    }
)

_LOSSES: dict[str, Loss] = {
    "negative_cosine": negative_cosine,
    "byol": byol_loss,
    "squared_error": squared_error,
    "mean_field_cosine": mean_field_cosine,
}
_PREDICTED = ("predictor output p of either view", "encoder output z of the other view")
_NO_STOP = "negative control: without stop_gradient the loss pulls the target along, and the representation collapses"


def get(name: str, **options: Any) -> Method:
    """A method of the table, with options; what is left out has the published value.

    ===========  =======================================================================================
    simsiam      hidden=(512,), activation="relu", batch_norm=True, stopped=True, loss="negative_cosine"
    byol         hidden=(4096,), activation="relu", batch_norm=True, weights="ema", loss="byol"
    swav         count=3000, temperature=0.1, epsilon=0.05, iterations=3, queue=3840, queue_start=50, frozen_epochs=2
    dino         count=4096, temperature=0.1, teacher_temperature=(0.04, 0.07, 50) or a number, momentum=0.9,
                 frozen_epochs=1
    symsimsiam   loss="negative_cosine"
    rdm_simsiam  filter="power:1" (online) or "power:-0.5" (target), side="online", method="exact", scale="batch",
                 loss="negative_cosine"
    rdm_byol     as rdm_simsiam, and weights="ema", loss="byol"
    directpred   momentum=0.3, epsilon=0.01, floor=1e-4, weights="ema", loss="byol"
    isoloss      exponent=0.5, momentum=0.998, epsilon=0.0, normalize=True, weights="ema", loss="byol"
    linear       scale=1.0, stopped=True, weights="shared", loss="squared_error"
    ===========  =======================================================================================

    Args:
        name: of the method.
        **options: of that method, by keyword.

    Returns:
        The method; its ``warnings`` say where theory advises against it.

    Raises:
        ValueError: an unknown name or option, with the nearest; an option out of range.

    >>> get("rdm_simsiam").options["filter"], get("rdm_simsiam", side="target").options["filter"]
    (power(1.0), power(-0.5))
    >>> get("simsiam", hiden=(8,))
    Traceback (most recent call last):
        ...
    ValueError: option of simsiam must be one of 'hidden', 'activation', 'batch_norm', 'stopped', 'loss'; got 'hiden': \
did you mean 'hidden'?

    Source: the sources of the methods; Zhuo et al. 2023.
    """
    make = METHODS[choose(name, METHODS, "method")]
    known = inspect.signature(make)
    for option in options:
        choose(option, known.parameters, f"option of {name}")
    arguments = known.bind(**options)
    arguments.apply_defaults()
    method = make(**options)
    return dataclasses.replace(method, options={**arguments.arguments, **method.options})


def _simsiam(
    *,
    hidden: Sequence[int] = (512,),
    activation: str = "relu",
    batch_norm: bool = True,
    stopped: bool = True,
    loss: str = "negative_cosine",
) -> Method:
    return Method(
        name="simsiam",
        online=mlp_predictor(hidden, activation=activation, batch_norm=batch_norm),
        target=stop_gradient() if stopped else identity(),
        loss=_loss(loss),
        measured=_PREDICTED,
        warnings=() if stopped else (_NO_STOP,),
    )


def _byol(
    *,
    hidden: Sequence[int] = (4096,),
    activation: str = "relu",
    batch_norm: bool = True,
    weights: str = "ema",
    loss: str = "byol",
) -> Method:
    return Method(
        name="byol",
        online=mlp_predictor(hidden, activation=activation, batch_norm=batch_norm),
        target=stop_gradient(),
        loss=_loss(loss),
        target_weights=weights,
        pairs="sum",
        measured=_PREDICTED,
    )


def _swav(
    *,
    count: int = 3000,
    temperature: Number = 0.1,
    epsilon: Number = 0.05,
    iterations: int = 3,
    queue: int = 3840,
    queue_start: Number = 50,
    frozen_epochs: Number = 2,
) -> Method:
    if queue == 0 and queue_start != 50:
        raise ValueError("queue_start would be ignored: queue=0 is no queue")
    return Method(
        name="swav",
        head=chain(l2_normalize(), prototypes(count, frozen_epochs=frozen_epochs)),
        online=sharpen(temperature),
        target=chain(stop_gradient(), sinkhorn(iterations, epsilon)),
        readout=softmax(),
        loss=cross_entropy,
        queue=(queue, queue_start) if queue else None,
        measured=("softmax of either view's scores over the temperature", "Sinkhorn assignments of the other view"),
        assignments=True,
        collapse_loss=math.log(count),
    )


def _dino(
    *,
    count: int = 4096,
    temperature: Number = 0.1,
    teacher_temperature: Number | tuple[Number, Number, int] = (0.04, 0.07, 50),
    momentum: Number = 0.9,
    frozen_epochs: Number = 1,
) -> Method:
    teacher = linear_schedule(*teacher_temperature) if isinstance(teacher_temperature, tuple) else teacher_temperature
    return Method(
        name="dino",
        head=chain(l2_normalize(), prototypes(count, frozen_epochs=frozen_epochs)),
        online=sharpen(temperature),
        target=chain(stop_gradient(), center_ema(momentum), sharpen(teacher), softmax()),
        readout=softmax(),
        loss=cross_entropy,
        target_weights="ema",
        measured=("softmax of either view's student logits", "softmax of the other view's centred teacher logits"),
        assignments=True,
        collapse_loss=math.log(count),
    )


def _symsimsiam(*, loss: str = "negative_cosine") -> Method:
    return Method(
        name="symsimsiam",
        head=chain(center_features(), l2_normalize()),
        online=identity(),
        target=identity(),
        loss=_loss(loss),
        measured=("centred unit features of either view", "centred unit features of the other view"),
        warnings=("negative control: no asymmetry, so no rank difference; dimensional collapse under view noise (T8)",),
    )


def _rdm_simsiam(
    *,
    filter: str | Filter | None = None,
    side: str = "online",
    method: str = "exact",
    scale: str = "batch",
    loss: str = "negative_cosine",
) -> Method:
    gain = _filter(filter, side)
    return _rdm("rdm_simsiam", gain, side, method, scale, _loss(loss), "shared", "mean")


def _rdm_byol(
    *,
    filter: str | Filter | None = None,
    side: str = "online",
    method: str = "exact",
    scale: str = "batch",
    weights: str = "ema",
    loss: str = "byol",
) -> Method:
    gain = _filter(filter, side)
    return _rdm("rdm_byol", gain, side, method, scale, _loss(loss), weights, "sum")


def _rdm(
    name: str,
    gain: Filter,
    side: str,
    method: str,
    scale: str,
    loss: Loss,
    weights: str,
    pairs: str,
) -> Method:
    filtered = filtering(gain, side=side, method=method, scale=scale)
    online, target = ("filtered", "unfiltered") if side == "online" else ("unfiltered", "filtered")
    return Method(
        name=name,
        online=filtered if side == "online" else identity(),
        target=stop_gradient() if side == "online" else chain(filtered, stop_gradient()),
        loss=loss,
        target_weights=weights,
        pairs=pairs,
        measured=(f"{online} encoder output of either view", f"{target} encoder output of the other view"),
        warnings=filter_warnings(gain, side),
        options={"filter": gain},
    )


def _directpred(
    *,
    momentum: Number = 0.3,
    epsilon: Number = 0.01,
    floor: Number = 1e-4,
    weights: str = "ema",
    loss: str = "byol",
) -> Method:
    return Method(
        name="directpred",
        online=direct_pred(momentum=momentum, epsilon=epsilon, floor=floor),
        target=stop_gradient(),
        loss=_loss(loss),
        target_weights=weights,
        pairs="sum",
        measured=_PREDICTED,
    )


def _isoloss(
    *,
    exponent: Number = 0.5,
    momentum: Number = 0.998,
    epsilon: Number = 0.0,
    normalize: bool = True,
    weights: str = "ema",
    loss: str = "byol",
) -> Method:
    return Method(
        name="isoloss",
        online=isotropic(direct_set(exponent, momentum=momentum, epsilon=epsilon, normalize=normalize)),
        target=stop_gradient(),
        loss=_loss(loss),
        target_weights=weights,
        pairs="sum",
        measured=_PREDICTED,
    )


def _linear(
    *, scale: Number = 1.0, stopped: bool = True, weights: str = "shared", loss: str = "squared_error"
) -> Method:
    return Method(
        name="linear",
        online=linear_predictor(scale=scale),
        target=stop_gradient() if stopped else identity(),
        loss=_loss(loss),
        target_weights=weights,
        measured=_PREDICTED,
        warnings=() if stopped else (_NO_STOP,),
    )


def _loss(name: str) -> Loss:
    return _LOSSES[choose(name, _LOSSES, "loss")]


def _filter(filter: str | Filter | None, side: str) -> Filter:
    default = {"online": "power:1", "target": "power:-0.5"}[choose(side, ("online", "target"), "side")]
    spec = default if filter is None else filter
    return parse_filter(spec) if isinstance(spec, str) else spec


METHODS: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {
        "simsiam": _simsiam,
        "byol": _byol,
        "swav": _swav,
        "dino": _dino,
        "symsimsiam": _symsimsiam,
        "rdm_simsiam": _rdm_simsiam,
        "rdm_byol": _rdm_byol,
        "directpred": _directpred,
        "isoloss": _isoloss,
        "linear": _linear,
    }
)
