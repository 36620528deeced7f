"""What the probes of a run say, in words: collapsed or healthy, since when, at which stage, and what to do next."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rdm_jax.training.probe import Record, line_of

__all__ = ["Diagnosis", "diagnose", "span"]

HELD = 0.999  # share of the second moment that counts as all of it; a convention, and no result
CONSTANT = 0.01  # share of the second moment that is variance: below it all samples have the same features
LINE = 1.5  # effective rank below which one direction is all there is
SAME = 1e-3  # rank difference below which the branches are alike
FLAT = 0.05  # low-pass index within which a filter passes all modes alike
_HEALTHY, _DIMENSIONAL, _COMPLETE = "healthy", "dimensional collapse", "complete collapse"


class Diagnosis(NamedTuple):
    """``state``: "complete collapse", "dimensional collapse" or "healthy"; ``str()`` gives all of it in sentences.

    ``since``: the first probe from which on the features were so, by its place. ``stage``: the first one, from the
    input on, that is no better than the features; None if healthy. ``filter``: "low-pass", "high-pass" or "all-pass",
    the online branch as seen from the target's. ``rising``: whether theory has the effective rank rise; None if the
    view noise is unknown. ``reasons`` and ``advice`` are sentences.
    """

    state: str
    since: int
    stage: str | None
    filter: str
    rising: bool | None
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def collapsed(self) -> bool:
        """Whether the collapse is complete."""
        return self.state == _COMPLETE

    def __str__(self) -> str:
        """All sentences."""
        return " ".join((f"{self.state.capitalize()}.", *self.reasons, *self.advice))


def diagnose(records: Record | Mapping[str, Any] | Sequence[Record | Mapping[str, Any]]) -> Diagnosis:
    """Say what probes mean.

    Of a stage with n samples of d features (both views together), with eigenvalues of the second moment: *complete
    collapse* if less than 1% of the second moment is variance (all samples are the same) or the effective rank is below
    1.5 (they lie on a line); *dimensional collapse* if 99.9% of it lies in fewer than half of the min(n, d) directions
    there are; else *healthy*. That a batch norm at the end keeps the variance up is why the rank is asked as well. The
    limits are conventions. Features of few dimensions may serve well, so hold a collapse against the accuracy.

    Args:
        records: of ``probe``, or lines of kind ``probe`` in a run's metrics; several in the order of training.

    Returns:
        Diagnosis.

    Raises:
        ValueError: no record.

    >>> import jax.numpy as jnp
    >>> from rdm_jax.training import probe
    >>> z = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> found = diagnose(probe(z * jnp.array([[1.0, 0.5]]), z))
    >>> found.state, found.filter
    ('healthy', 'low-pass')
    >>> print(diagnose([probe(z, z), probe(z[:, :1] * jnp.ones((1, 2)), z[:, :1] * jnp.ones((1, 2)))]).state)
    complete collapse

    Source: Jing et al. 2022 (dimensional collapse: features in a subspace); Chen and He 2021 (complete collapse: the
    standard deviation falls to 0); Zhuo et al. 2023 (effective rank near 1; low-pass filters); docs/theory.md S1.
    """
    several: Any = [records] if isinstance(records, Record | Mapping) else records
    lines = [_line(record) for record in several]
    if not lines:
        raise ValueError("there is nothing to diagnose: no probe was made")
    states = [_state(line["features"]) for line in lines]
    last, state = lines[-1], states[-1]
    since = max((i + 1 for i, before in enumerate(states) if before != state), default=0)
    kind, speed = filter_kind(last), last["entropy_rate"]
    rising = None if speed is None else speed > 0
    stage = None if state == _HEALTHY else _first(last, state)
    reasons = (_said_of(last["features"], state, since, len(lines)), *_said_of_stages(last, stage, state))
    reasons += (_said_of_filter(kind, last["rank_difference"], last["errors"]["rank_difference"]),)
    if rising is not None:
        way = "rise" if rising else "fall"
        reasons += (f"By the Wiener threshold (S1) the effective rank of the features is about to {way}.",)
    return Diagnosis(state, since, stage, kind, rising, reasons, tuple(_advice(state, kind, rising, stage)))


def span(eigenvalues: Sequence[float] | np.ndarray) -> int:
    """How many directions hold 99.9% of a second moment.

    Args:
        eigenvalues: (d,) in any order.

    Returns:
        Between 1 and d.

    >>> span([1.0, 1.0, 1e-9])
    2
    """
    values = np.sort(np.asarray(eigenvalues, np.float64))[::-1]
    return int(np.searchsorted(np.cumsum(values), HELD * values.sum()) + 1)


def _line(record: Record | Mapping[str, Any]) -> Mapping[str, Any]:
    return line_of(record) if isinstance(record, Record) else record


def _state(stage: Mapping[str, Any]) -> str:
    if stage["rank"] is None or stage["varying"] < CONSTANT or stage["rank"] < LINE:
        return _COMPLETE
    return _DIMENSIONAL if span(stage["eigenvalues"]) < _room(stage) / 2 else _HEALTHY


def _room(stage: Mapping[str, Any]) -> float:
    """Directions that so many samples can show: the null level is never above min(n, d), nor below half of it."""
    return float(min(len(stage["eigenvalues"]), 2 * stage["null"]))


def _first(line: Mapping[str, Any], state: str) -> str:
    """The first stage, from the input on, that is in no better a state than the features."""
    bad = (_COMPLETE,) if state == _COMPLETE else (_COMPLETE, _DIMENSIONAL)
    ordered = sorted(line["stages"], key=_depth)
    return next((name for name in ordered if _state(line["stages"][name]) in bad), "features")


def _depth(name: str) -> tuple[int, str]:
    """Stages in the order in which they are passed: residual stages, backbone, hidden layers, projector's output."""
    order = ("stage", "backbone", "projector")
    place = next((i for i, start in enumerate(order) if name.startswith(start)), len(order))
    return place, name if name != "projector" else "projector~"


def filter_kind(line: Mapping[str, Any]) -> str:
    """ "low-pass", "high-pass", "all-pass", or "unknown" where the target's eigenvalues have no order."""
    low_pass, difference = line["low_pass"], line["rank_difference"]
    if low_pass is None:
        return "unknown"
    if difference is not None and abs(difference) < SAME:
        return "all-pass"  # the order of gains that differ by rounding says nothing
    return "low-pass" if low_pass > FLAT else "high-pass" if low_pass < -FLAT else "all-pass"


def _said_of(stage: Mapping[str, Any], state: str, since: int, count: int) -> str:
    width, rank = len(stage["eigenvalues"]), stage["rank"]
    if rank is None:
        return "The features are all zero."
    when = "" if count == 1 or since == 0 else f", since probe {since + 1} of {count}"
    same = (
        f" {1 - stage['varying']:.0%} of their second moment is one constant vector." if stage["varying"] < 0.5 else ""
    )
    return (
        f"The features' effective rank is {rank:.1f} of {width} (isotropic noise would show {stage['null']:.1f}), and "
        f"{span(stage['eigenvalues'])} directions hold 99.9% of their second moment{when}.{same}"
    )


def _said_of_stages(line: Mapping[str, Any], stage: str | None, state: str) -> tuple[str, ...]:
    if stage is None or not line["stages"]:
        return ()
    if stage == "features":
        return ("Every stage before them is better: it happens in the last layer.",)
    return (f"It is so from {stage} on.",)


def _said_of_filter(kind: str, difference: float | None, error: float | None) -> str:
    if kind == "unknown" or difference is None:
        return "What the online branch does to the target's modes is not defined."
    spread = "" if error is None else f" ± {error:.2g}"
    does = {
        "low-pass": "keeps the strong modes and weakens the others",
        "high-pass": "weakens the strong modes",
        "all-pass": "treats all modes alike",
    }[kind]
    return f"Seen from the target, the online branch {does} ({kind}); rank difference {difference:+.2g}{spread}."


def _advice(state: str, kind: str, rising: bool | None, stage: str | None) -> list[str]:
    if state == _HEALTHY:
        return ["Nothing to do; go on watching."]
    found = []
    if kind in ("all-pass", "unknown"):
        found.append(
            "Nothing gives the target the higher rank: add a predictor, or a fixed filter (low-pass online or "
            "high-pass on the target's side)."
        )
    if kind == "high-pass":
        found.append("The filter is on the wrong side: the target should have the higher effective rank (T1, T2).")
    if kind == "low-pass" and rising is False:
        found.append(
            "The filter is low-pass but not more so than the Wiener filter: take a stronger one, or weaker "
            "augmentations (less view noise)."
        )
    if kind == "low-pass" and rising is None:
        found.append("Pass a second view: with view noise known, theory says whether the filter is low-pass enough.")
    if stage not in (None, "features", "projector"):
        found.append(f"Look at {stage}: the loss sees only what gets that far.")
    return found or ["The rank is on its way up: wait, and look again."]
