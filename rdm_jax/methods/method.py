"""A method: two chains of transforms and a loss, and its evaluation on two views. It has no mathematics of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import choose
from rdm_jax.methods.assignments import queued
from rdm_jax.methods.losses import Loss, cross_entropy
from rdm_jax.methods.transform import Context, Number, Transform, chain, identity
from rdm_jax.types import Array, ArrayLike, Gains, Outputs, PRNGKeyArray, Scalar, Views

__all__ = ["Evaluation", "Measured", "Method", "States", "evaluate"]


class States(NamedTuple):
    """What the branches carry from step to step: centres, queues, correlations, running statistics."""

    online: Any
    target: Any


class Measured(NamedTuple):
    """The features to measure, each (2, n, .), without gradient.

    ``online`` and ``target`` are what the method's table line says. ``online_input`` and ``target_input`` are those
    that the predicted responses start from: after the head, with the online and with the target weights.
    """

    online: Outputs
    target: Outputs
    online_input: Outputs
    target_input: Outputs


class Evaluation(NamedTuple):
    """What ``evaluate`` returns: a scalar loss, the states for the next step, and the features to measure."""

    loss: Scalar
    states: States
    measured: Measured


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Method:
    """Two branches and a loss; made by ``get``, or by hand for a design of one's own.

    Args:
        name: for reports.
        head: what both branches begin with (prototypes, say), with parameters of the same names.
        online: what the online branch does then.
        target: what the target branch does then.
        loss: of online and target outputs (n, .) of an ordered pair of views.
        readout: what is done to the online output before it is measured (a softmax that the loss contains).
        target_weights: ``"shared"``: those of the online side; ``"ema"``: moving averages of them, kept by the trainer.
        pairs: ``"mean"`` or ``"sum"`` of the loss over the two ordered pairs of views.
        queue: (size, epoch from which on it is used) of the target branch's queue of past inputs; None for none.
        measured: what ``Measured.online`` and ``Measured.target`` are, in a line each.
        assignments: whether the outputs are probabilities, whose spectra are stated ``without_constant_mode``.
        collapse_loss: the value at which the loss stays if the outputs are uniform, where that is a free alarm.
        warnings: what theory has against this design, for reports: then it is a negative control.
        options: what ``get`` was given, defaults included.

    Raises:
        ValueError: a combination that makes no sense: a transform on the wrong side, EMA weights without
            ``stop_gradient``, a cross-entropy whose target is no assignment, an unknown word.

    >>> from rdm_jax.methods import get
    >>> get("swav").target_weights, round(get("swav").collapse_loss, 4)
    ('shared', 8.0064)
    """

    name: str
    online: Transform
    target: Transform
    loss: Loss
    measured: tuple[str, str]
    head: Transform = dataclasses.field(default_factory=identity)
    readout: Transform = dataclasses.field(default_factory=identity)
    target_weights: str = "shared"
    pairs: str = "mean"
    queue: tuple[int, Number] | None = None
    assignments: bool = False
    collapse_loss: float | None = None
    warnings: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        choose(self.target_weights, ("shared", "ema"), "target_weights")
        choose(self.pairs, ("mean", "sum"), "pairs")
        for side, other in (("online", "target"), ("target", "online")):
            if getattr(self, side).side == other:
                raise ValueError(f"{self.name}: the {side} branch has a transform that belongs on the {other} side")
        if self.head.side:
            raise ValueError(f"{self.name}: the head serves both sides, but has a transform for one: {self.head.side}")
        if self.target_weights == "ema" and not self.target.stops:
            raise ValueError(f"{self.name}: moving-average weights learn nothing from gradients: add stop_gradient()")
        if self.loss is cross_entropy and not self.assignments:
            raise ValueError(f"{self.name}: cross_entropy wants assignments as targets: end in softmax() or sinkhorn()")
        if self.readout.names:
            raise ValueError(f"{self.name}: the readout has parameters {self.readout.names}, which nothing would train")

    @property
    def online_branch(self) -> Transform:
        """All that is done to the encoder's online output on its way to the loss."""
        return chain(self.head, self.online)

    @property
    def target_branch(self) -> Transform:
        """All that is done to the encoder's target output on its way to the loss."""
        branch = chain(self.head, self.target)
        return queued(branch, *self.queue) if self.queue else branch

    @property
    def frozen(self) -> dict[str, Number]:
        """Name of a parameter to the epoch until which it is frozen: the trainer masks all of its updates."""
        return dict(self.online_branch.frozen)

    def init(self, key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], States]:
        """Parameters by name, and the states of both branches.

        Args:
            key: a jax random key.
            features: (2, n, d), both views of a batch as the encoder gives them; only shape and dtype are used.

        Returns:
            The parameters, a dict of plain pytrees, those of a name that both branches have once; and the states.
        """
        if len(features.shape) != 3 or features.shape[0] != 2:
            raise ValueError(f"features must be both views of a batch, (2, n, d), got shape {features.shape}")
        first, second = jax.random.split(key)
        params, online = self.online_branch.init(first, features)
        more, target = self.target_branch.init(second, features)
        return more | params, States(online, target)

    def target_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the parameters that the target branch has: what a trainer keeps moving averages of under "ema".

        Args:
            params: as ``init`` gives them.

        Returns:
            A dict; empty if the target branch has no parameters.
        """
        return {name: params[name] for name in self.target_branch.names}

    def online_response(self, spectrum: ArrayLike, context: Context) -> Gains | None:
        """Predicted gains from ``Measured.online_input`` to ``Measured.online``; None where theory is silent.

        Args:
            spectrum: eigenvalues of the input's second moment; ``without_constant_mode`` if ``assignments``.
            context: what is known of it.

        Returns:
            Gains on singular values, or None.
        """
        return chain(self.online, self.readout).response(spectrum, context)

    def target_response(self, spectrum: ArrayLike, context: Context) -> Gains | None:
        """Predicted gains from ``Measured.target_input`` to ``Measured.target``; None where theory is silent.

        Args:
            spectrum: eigenvalues of the input's second moment; ``without_constant_mode`` if ``assignments``.
            context: what is known of it.

        Returns:
            Gains on singular values, or None.
        """
        return self.target.response(spectrum, context)


def evaluate(
    method: Method,
    params: Mapping[str, Any],
    states: States,
    online_views: Array | Sequence[Array],
    target_views: Array | Sequence[Array],
    context: Context,
    *,
    target_params: Mapping[str, Any] | None = None,
) -> Evaluation:
    """The loss of a method on two views, over both ordered pairs: (online 1, target 2) and (online 2, target 1).

    Each branch sees both views at once, so that every state is updated once a step and by both views, as published:
    a moving-average centre moves by the mean over both target views, after both were centred by the old one; a
    correlation takes in both online views before either is predicted; each view has its own queue, which it enters
    after use, and its own batch statistics; running statistics are updated by one view after the other.

    Args:
        method: from ``get``; static under jit.
        params: as ``method.init`` gives them; the only argument besides the views through which gradients flow.
        states: as ``method.init`` or the last step gave them.
        online_views: (2, n, d), or two arrays (n, d), from the encoder with online weights.
        target_views: the same from the encoder with target weights; the same arrays if they are shared.
        context: ``train`` and, for schedules, queues and frozen parameters, ``epoch``.
        target_params: moving averages of ``method.target_params(params)``; to be given if and only if
            ``method.target_weights`` is "ema".

    Returns:
        loss, states and measured. With jax.value_and_grad(has_aux=True) return (loss, (states, measured)) from it.

    Raises:
        ValueError: views of another shape; ``target_params`` left out under "ema" or given under "shared".

    >>> from rdm_jax.methods import get
    >>> method, views = get("simsiam", hidden=()), jnp.ones((2, 4, 3))
    >>> params, states = method.init(jax.random.key(0), views)
    >>> params["predictor"]["linear0"]["kernel"] = jnp.eye(3)
    >>> round(float(evaluate(method, params, states, views, views, Context()).loss), 4)
    -1.0

    Source: Zhuo et al. 2023 for the two branches; the sources of the methods for the rest.
    """
    online_input, target_input = _as_pair(online_views, "online_views"), _as_pair(target_views, "target_views")
    theirs = _target_weights(method, params, target_params)
    if method.target.stops:
        # What comes out is the same; but no time is spent on derivatives that the branch would drop.
        theirs, target_input = jax.lax.stop_gradient((theirs, target_input))
    online, online_state = _run(method.online_branch, params, states.online, online_input, context)
    target, target_state = _run(method.target_branch, theirs, states.target, target_input, context)
    losses = jnp.stack([method.loss(online[0], target[1]), method.loss(online[1], target[0])])
    inner = states.target.inner if method.queue else states.target
    measured = Measured(
        _run(method.readout, {}, method.readout.init(jax.random.key(0), online)[1], online, context)[0],
        target,
        _run(method.head, params, states.online[0], online_input, context)[0],
        _run(method.head, theirs, inner[0], target_input, context)[0],
    )
    loss = jnp.mean(losses) if method.pairs == "mean" else jnp.sum(losses)
    return Evaluation(loss, States(online_state, target_state), jax.lax.stop_gradient(measured))


def _run(
    branch: Transform, params: Mapping[str, Any], state: Any, features: Views, context: Context
) -> tuple[Outputs, Any]:
    return branch.apply({name: params[name] for name in branch.names}, state, features, context)


def _target_weights(
    method: Method, params: Mapping[str, Any], target_params: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    if (target_params is None) == (method.target_weights == "ema"):
        wanted = "needs target_params, the moving averages of method.target_params(params)"
        refused = "shares its weights: target_params would be ignored"
        raise ValueError(f"{method.name} {wanted if target_params is None else refused}")
    return params if target_params is None else target_params


def _as_pair(views: Array | Sequence[Array], name: str) -> Views:
    array = jnp.stack([jnp.asarray(view) for view in views])
    if array.ndim != 3 or array.shape[0] != 2:
        raise ValueError(f"{name} must be two views of shape (n, d) each, got {array.shape}")
    return array
