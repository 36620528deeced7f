"""The rigorous side of the engine: signs of margins in ball arithmetic, and counterexamples in short rationals.

A ball encloses the true value, so its sign can't be a rounding error. Precision is doubled until the ball
decides; where it never does, the verdict is "undecided", not a guess. A float instance is an exact rational point:
where it fails by less than rounding, and rounding has put it outside of the hypotheses, that is "outside".
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
from flint import arb, ctx, fmpq

from rdm_jax.claims.claim import Ablation, Claim, Instance
from rdm_jax.claims.search import Batch, Worst

Verdict = Literal["holds", "fails", "undecided", "outside"]

_PRECISIONS = (96, 192, 384, 768, 1536)  # bits
_IDENTITY_RADIUS = arb(2) ** -60  # an identity holds when its residual is enclosed this tightly around 0
_DIGITS = (1, 2, 3, 4, 6, 9)
_CANDIDATES = 24


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The verdict on one conclusion at one instance, and the ball that decided it."""

    verdict: Verdict
    ball: Any
    equality: bool


@dataclasses.dataclass(frozen=True)
class CertifyResult:
    """Counts of verdicts over (instance, conclusion) pairs.

    ``outside`` counts pairs that fail at instances which rounding has put outside of the hypotheses; ``equality``
    counts pairs on the equality set, which hold as equalities; ``misjudged`` counts float margins further from their
    ball than the stated error, ``deviation`` is the largest deviation in units of that error.
    """

    instances: int
    holds: int
    fails: int
    undecided: int
    outside: int
    equality: int
    misjudged: int
    deviation: float
    failing: Worst | None = None


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """An instance in short exact rationals that satisfies every hypothesis but the dropped ones, and fails."""

    conclusion: str
    modes: int
    digits: int | None
    instance: dict[str, Any]
    margin: str


def _convert(instance: Instance, modes: int, width: int, number: Any) -> Instance:
    """Arrays to object arrays of exact numbers, the mode axis (the last, of the stratum's width) cut to the modes."""

    def leaf(value: Any) -> Any:
        value = np.asarray(value)
        if value.ndim and value.shape[-1] == width:
            value = value[..., :modes]
        if not np.issubdtype(value.dtype, np.floating):
            return value if value.ndim else value.item()
        if not value.ndim:
            return number(value.item())
        exact = np.empty(value.shape, dtype=object)
        exact.ravel()[:] = [number(entry) for entry in value.ravel().tolist()]
        return exact

    return jax.tree.map(leaf, instance)


def _to_ball(exact: Instance) -> Instance:
    def leaf(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == object:
            balls = np.empty(value.shape, dtype=object)
            balls.ravel()[:] = [arb(entry) for entry in value.ravel()]
            return balls
        return arb(value) if isinstance(value, fmpq) else value

    return jax.tree.map(leaf, exact, is_leaf=lambda value: isinstance(value, fmpq))


def _judge(kind: str, ball: Any, equality: bool | None) -> Verdict:
    if not ball.is_finite():
        return "undecided"
    if kind == "identity" or equality:
        if not ball.contains(0):
            return "fails"
        return "holds" if ball.rad() < _IDENTITY_RADIUS else "undecided"
    if ball > 0 or (equality is None and ball >= 0):
        return "holds"
    return "fails" if ball < 0 else "undecided"


def certify_instance(claim: Claim, instance: Instance, *, which: Iterable[int] | None = None) -> list[Certificate]:
    """Verdicts on one instance.

    Args:
        claim: the claim.
        instance: of rationals (fmpq) or balls (arb), in object arrays where the claim has arrays.
        which: numbers of the conclusions to decide, all of them by default.

    Returns:
        A `Certificate` for each.

    >>> from rdm_jax.claims.example import SQUARES, Pair
    >>> [c.verdict for c in certify_instance(SQUARES, Pair(fmpq(1, 3), fmpq(1, 2)))]  # 1/9 < 1/4
    ['fails', 'holds']
    """
    which = range(len(claim.conclusions)) if which is None else list(which)
    found: dict[int, Certificate] = {}
    precision = ctx.prec
    try:
        for ctx.prec in _PRECISIONS:
            balls_in = _to_ball(instance)
            balls = claim.ball_margin(balls_in)
            equal = claim.equality(balls_in) if claim.equality else [None] * len(claim.conclusions)
            for i in which:
                if i not in found or found[i].verdict == "undecided":
                    verdict = _judge(claim.conclusions[i].kind, balls[i], equal[i])
                    found[i] = Certificate(verdict, balls[i], bool(equal[i]))
            if all(found[i].verdict != "undecided" for i in which):
                break
    finally:
        ctx.prec = precision
    return [found[i] for i in which]


def _deviation(value: float, ball: Any, error: float) -> float:
    """How far a float lies outside its ball, in units of its stated error."""
    return max(0.0, float((abs(arb(value) - ball.mid()) - ball.rad()).mid()) / error)


def _certify_floats(
    claim: Claim, instance: Instance, modes: int, width: int, which: Iterable[int] | None = None
) -> list[Certificate]:
    """Verdicts on an instance of floats.

    "outside" where it fails by less than the stated float error and does not satisfy the hypotheses exactly.
    """
    which = range(len(claim.conclusions)) if which is None else list(which)
    certificates = certify_instance(claim, _convert(instance, modes, width, arb), which=which)

    def slight(number: int, certificate: Certificate) -> bool:
        return certificate.verdict == "fails" and bool(certificate.ball > -claim.conclusions[number].error)

    slips = [slight(number, certificate) for number, certificate in zip(which, certificates, strict=True)]
    if not any(slips) or _satisfies(claim, None, _convert(instance, modes, width, lambda x: _shorten(x, None))):
        return certificates
    outside = [dataclasses.replace(certificate, verdict="outside") for certificate in certificates]
    return [o if slip else c for slip, o, c in zip(slips, outside, certificates, strict=True)]


def certify(claim: Claim, batch: Batch, *, limit: int | None = None) -> CertifyResult:
    """Decide the sign of every margin of a batch of instances in ball arithmetic.

    Args:
      claim: the claim.
      batch: instances with their float margins, as `check` keeps them in ``CheckResult.sample``.
      limit: stop after this many valid instances.

    Returns:
      A `CertifyResult`. Float margins are held against their balls with the error that the conclusion states.

    >>> from rdm_jax.claims import check
    >>> from rdm_jax.claims.example import SQUARES
    >>> with jax.enable_x64(True):
    ...     sample = check(SQUARES, instances=100).sample[0]
    >>> result = certify(SQUARES, sample, limit=5)
    >>> result.instances, result.holds, result.misjudged
    (5, 10, 0)
    """
    counts = dict.fromkeys(get_args(Verdict), 0)
    equality = misjudged = done = 0
    deviation, failing = 0.0, None
    width = _width(claim, batch)
    for index in np.flatnonzero(batch.valid)[:limit]:
        modes = int(batch.modes[index])
        instance = jax.tree.map(lambda leaf, i=index: leaf[i], batch.instance)
        certificates = _certify_floats(claim, instance, modes, width)
        for which, (conclusion, certificate) in enumerate(zip(claim.conclusions, certificates, strict=True)):
            counts[certificate.verdict] += 1
            equality += certificate.equality
            away = _deviation(float(batch.margin[index, which]), certificate.ball, conclusion.error)
            misjudged, deviation = misjudged + (away > 1), max(deviation, away)
            if certificate.verdict == "fails" and failing is None:
                failing = Worst(float(certificate.ball.mid()), modes, instance)
        done += 1
    return CertifyResult(done, **counts, equality=equality, misjudged=misjudged, deviation=deviation, failing=failing)


def _width(claim: Claim, batch: Batch) -> int:
    """The stratum's width: the batch remembers only arrays, the modes tell which stratum they came from."""
    largest = int(np.max(batch.modes))
    return next(s.width for s in claim.strata if largest <= s.width)


def certify_suspects(claim: Claim, suspects: Sequence[tuple[int, Worst]]) -> list[tuple[int, Worst, Verdict]]:
    """Verdicts on (conclusion, instance) pairs whose float margin is negative."""
    out = []
    for which, worst in suspects:
        width = next(s.width for s in claim.strata if worst.modes in s.dims)
        (certificate,) = _certify_floats(claim, worst.instance, worst.modes, width, which=[which])
        out.append((which, worst, certificate.verdict))
    return out


def _shorten(value: float, digits: int | None) -> fmpq:
    """The exact rational of a float, or of its rounding to so many significant decimal digits."""
    if digits is None or value == 0:
        numerator, denominator = float(value).as_integer_ratio()
        return fmpq(numerator, denominator)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    scale = int(exponent) - (digits - 1)
    whole = int(mantissa.replace(".", ""))
    return fmpq(whole * 10**scale) if scale >= 0 else fmpq(whole, 10**-scale)


def _satisfies(claim: Claim, ablation: Ablation | None, exact: Instance) -> bool:
    drops, instead = (ablation.drops, ablation.instead) if ablation else ((), ())
    required = [h for h in claim.hypotheses if h.name not in drops]
    return all(bool(np.all(h.holds(exact))) for h in (*required, *instead))


def _readable(exact: Instance) -> dict[str, Any]:
    def text(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [text(entry) for entry in value]
        return str(value) if isinstance(value, fmpq) else int(value)

    return {name: text(value) for name, value in exact._asdict().items()}


def counterexample(
    claim: Claim, ablation: Ablation | None, suspects: Sequence[tuple[int, Worst]]
) -> Counterexample | None:
    """The shortest certified counterexample among the suspects of a search, or None.

    Few modes come before an early conclusion, and that before few digits. Every hypothesis that is not dropped is
    verified on the exact rationals, and the margin is negative in ball arithmetic.

    Args:
        claim: the claim.
        ablation: the one that was searched, None for the statement itself.
        suspects: (conclusion, instance) pairs, as in `SearchResult`.

    Returns:
        A `Counterexample`, or None.

    >>> from rdm_jax.claims.example import SQUARES, Pair
    >>> suspect = (0, Worst(-0.14, 2, Pair(np.array(0.3333), np.array(0.5001))))
    >>> counterexample(SQUARES, SQUARES.ablations[0], [suspect]).instance
    {'large': '3/10', 'small': '1/2'}
    """
    for modes, which in sorted({(worst.modes, which) for which, worst in suspects}):
        mine = [worst for i, worst in suspects if i == which and worst.modes == modes]
        mine = sorted(mine, key=lambda worst: worst.value)[:_CANDIDATES]
        width = next(s.width for s in claim.strata if modes in s.dims)
        for digits in (*_DIGITS, None):
            for worst in mine:
                exact = _convert(worst.instance, modes, width, lambda value, n=digits: _shorten(value, n))
                if not _satisfies(claim, ablation, exact):
                    continue
                certificate = certify_instance(claim, exact, which=[which])[0]
                if certificate.verdict == "fails":
                    margin = certificate.ball.str(6, radius=False)
                    return Counterexample(claim.conclusions[which].name, modes, digits, _readable(exact), margin)
    return None
