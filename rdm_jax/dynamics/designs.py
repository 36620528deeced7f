"""Designs as data: what is asymmetric about a method. One design serves prediction, simulation and statistics.

A design is frozen, hashable and equal by value, so fields made from equal designs are the same object and compile once.
It holds no arrays: those are in the parameters, which may be mapped over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rdm_jax._checks import choose
from rdm_jax.types import Array

__all__ = ["FeatureDesign", "LinearDesign"]

# gains(spectrum, signal, parameters): one gain per mode of lambda and m
GainFunction = Callable[[Array, Array, Any], Array]

LOSSES = ("squared", "cosine")


@dataclass(frozen=True)
class LinearDesign:
    """A linear dual-branch design: encoder W, predictor W_p, target W_a.

    Args:
        predictor: "learned" (a state of its own), "symmetric" (learned, its gradient symmetrised), "none" (W_p = I), or
            a closed form: a function ``gains(spectrum, signal, parameters)`` of the actual correlation E[z z^T], as
            ``isoloss_gains``.
        target: "ratio" (W_a = tau W) or "average" (W_a' = beta (W - W_a)).
        loss: "squared", E|p - t|^2 / 2, or "cosine", mean field: -E[p.t] / sqrt(E|p|^2 E|t|^2).
        isotropic: the gradient to the encoder skips the predictor (IsoLoss's equalised variants).
        stop_gradient: False lets the gradient flow into the target as well; needs "ratio".

    Raises:
        ValueError: another option, or a combination that makes no sense.

    Source: Tian, Chen and Ganguli 2021; Halvagal, Laborieux and Zenke 2023.

    >>> LinearDesign() == LinearDesign(predictor="learned", target="ratio")
    True
    """

    predictor: str | GainFunction = "learned"
    target: str = "ratio"
    loss: str = "squared"
    isotropic: bool = False
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        if not callable(self.predictor):
            choose(self.predictor, ("learned", "symmetric", "none"), "predictor")
        choose(self.target, ("ratio", "average"), "target")
        choose(self.loss, LOSSES, "loss")
        if not self.stop_gradient and self.target == "average":
            raise ValueError(
                "a moving average of the weights has no gradient: use stop_gradient=True or target='ratio'"
            )

    @property
    def learns_predictor(self) -> bool:
        """Whether the predictor is part of the state."""
        return self.predictor in ("learned", "symmetric")


@dataclass(frozen=True)
class FeatureDesign:
    """A design on free features ("unconstrained features"): the features themselves descend the loss.

    Args:
        loss: "squared", E|p - t|^2 / 2; "cosine", mean field: -E[p.t] / sqrt(E|p|^2 E|t|^2); "sample cosine", that of
            each sample: -E cos(p, t) (exact flow only).
        online: filter of the online branch: a function ``gains(spectrum, signal, parameters)`` such as ``power_gains``;
            "learned": a linear predictor that is part of the state; None: no filter.
        target: filter of the target branch, or None.
        noise: "none" (both views are one, m = lambda), "persistent" (isotropic of variance nu at all times,
            m = lambda - nu), or "free" (the views' noise moves with the features: m is part of the state).
        isotropic: the gradient to the features skips the online filter.

    Raises:
        ValueError: another option, or a combination that makes no sense.

    Source: docs/theory.md, part B (growth rates in feature space).

    >>> FeatureDesign(loss="squared").online is None
    True
    """

    loss: str = "cosine"
    online: str | GainFunction | None = None
    target: GainFunction | None = None
    noise: str = "none"
    isotropic: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.online, str):
            choose(self.online, ("learned",), "online")
        choose(self.loss, (*LOSSES, "sample cosine"), "loss")
        choose(self.noise, ("none", "persistent", "free"), "noise")
        if self.loss == "sample cosine" and self.noise == "persistent":
            raise ValueError(
                "the cosine of each sample needs both views, not only E[z+ | z]: use noise='free', or loss='cosine'"
            )

    @property
    def learns_predictor(self) -> bool:
        """Whether the predictor is part of the state."""
        return self.online == "learned"
