"""The float side of the engine: random instances (`check`) and the gradient search (`attack`, `ablate`).

Everything is float64 and vectorised. All restarts of a search run at once in one compiled loop, and
dropping a hypothesis is a run-time switch, so the statement and all its ablations share that loop.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rdm_jax.claims.claim import Ablation, Claim, Instance, Raw, Stratum
from rdm_jax.claims.tape import Tape, blank_tapes
from rdm_jax.types import Array

# For programs that run a few times only: half the time to compile.
UNOPTIMISED = {"xla_backend_optimization_level": 0}

_CHUNK_VALUES = 2**15  # numbers in one array of a chunk: small enough for the cache
_SAMPLE = 2**14  # draws of a stratum that are kept for `certify`
_RESOLVED = 1e4  # a margin is divided by its distance only where rounding is 1e-4 of that distance
_STEPS = 60
_BLOCK = 256  # restarts of a search that run at once
_LEARNING_RATE = 0.08
_UNRESOLVED = 1e30


class Batch(NamedTuple):
    """Instances with their free parameters, numbers of modes, validity, margins and margins per distance, (n, k)."""

    raw: Raw
    instance: Instance
    modes: Any
    valid: Any
    margin: Any
    ratio: Any


class Worst(NamedTuple):
    """The smallest value of one conclusion and the instance where it was met."""

    value: float
    modes: int
    instance: Instance


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What random instances showed.

    ``worst`` and ``worst_normalised`` have one entry a conclusion: the smallest margin, and the smallest margin
    per distance to the equality set. ``negative`` counts margins below minus their stated error.
    """

    instances: int
    high_dimensional: int
    drawn: int
    undefined: int
    negative: tuple[int, ...]
    worst: tuple[Worst | None, ...]
    worst_normalised: tuple[Worst | None, ...]
    sample: tuple[Batch, ...]


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What the gradient search found: ``best`` (normalised) and ``lowest`` (raw) margins, one a conclusion.

    ``suspects`` are the best points whose raw float margin is negative; balls must tell whether they are violations.
    """

    starts: int
    undefined: int
    best: tuple[Worst | None, ...]
    lowest: tuple[Worst | None, ...]
    suspects: tuple[tuple[int, Worst], ...]


def require_x64() -> None:
    """Raise unless float64 is enabled: margins near equality mean nothing in float32."""
    if jnp.zeros(()).dtype != jnp.float64:
        raise ValueError("claims are decided in float64: call jax.config.update('jax_enable_x64', True) at start-up")


def generator(claim_name: str, purpose: str, seed: int) -> np.random.Generator:
    """Random numbers that depend on the seed and on what they are for, not on the order in which things run."""
    return np.random.Generator(np.random.Philox([seed, zlib.crc32(f"{claim_name}/{purpose}".encode())]))


def _distance(claim: Claim, instance: Instance) -> Array:
    ones = jnp.ones(len(claim.conclusions))
    return ones if claim.distance is None else jnp.broadcast_to(claim.distance(instance), ones.shape)


def _errors(claim: Claim) -> np.ndarray:
    return np.array([conclusion.error for conclusion in claim.conclusions])


def _valid(claim: Claim, instance: Instance, required: Array) -> Array:
    if not claim.hypotheses:
        return jnp.asarray(True)
    instance = jax.lax.stop_gradient(instance)
    held = jnp.stack([jnp.all(hypothesis.holds(instance)) for hypothesis in claim.hypotheses])
    return jnp.all(held | ~required)


def _switches(claim: Claim, ablation: Ablation | None) -> tuple[np.ndarray, np.ndarray]:
    """Which ablation is on, and which hypotheses are still required."""
    dropped = np.array([a is ablation for a in claim.ablations], dtype=bool)
    drops = ablation.drops if ablation else ()
    return dropped, np.array([h.name not in drops for h in claim.hypotheses], dtype=bool)


def _build(claim: Claim, raw: Raw, dropped: Array) -> Instance:
    return claim.build(raw, {a.name: dropped[i] for i, a in enumerate(claim.ablations)})


def _normalised(claim: Claim, instance: Instance, margin: Array) -> Array:
    """Margin per distance where that can be resolved in float64, a large constant elsewhere."""
    distance = _distance(claim, instance)
    resolved = distance > _RESOLVED * _errors(claim)
    return jnp.where(resolved, margin / jnp.where(resolved, distance, 1.0), _UNRESOLVED)


def _sample(claim: Claim, stratum: Stratum, vectors: Array, scalars: Array) -> tuple[Raw, Array]:
    tape = Tape(vectors, scalars)
    modes = jnp.array(stratum.dims)[tape.integer(0, len(stratum.dims))]
    return claim.sample(tape, modes), modes


def _compiler_options(claim: Claim, stratum: Stratum) -> dict[str, Any]:
    return {} if stratum is claim.strata[0] else UNOPTIMISED


@functools.lru_cache(maxsize=8)
def _drawer(claim: Claim, stratum: Stratum) -> Any:
    dropped, required = map(jnp.asarray, _switches(claim, None))

    def one(vectors: Array, scalars: Array) -> Batch:
        raw, modes = _sample(claim, stratum, vectors, scalars)
        instance = _build(claim, raw, dropped)
        margin = claim.margin(instance)
        ratio = _normalised(claim, instance, margin)
        return Batch(raw, instance, modes, _valid(claim, instance, required), margin, ratio)

    return jax.jit(jax.vmap(one), compiler_options=_compiler_options(claim, stratum))


def _chunk(stratum: Stratum) -> int:
    return _CHUNK_VALUES // stratum.width


def batches(claim: Claim, stratum: Stratum, seed: int, purpose: str = "check") -> Iterator[Batch]:
    """Batches of random instances, all of one size, without end."""
    count = _chunk(stratum)
    draw = _drawer(claim, stratum)
    random = generator(claim.name, f"{purpose}/{stratum.width}", seed)
    while True:
        yield jax.tree.map(np.asarray, draw(*blank_tapes(random, count, claim.rows, stratum.width)))


def _concatenate(several: Iterable[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *several)


def _take(batch: Batch, column: np.ndarray, index: int) -> Worst:
    instance = jax.tree.map(lambda leaf: leaf[index], batch.instance)
    return Worst(float(column[index]), int(batch.modes[index]), instance)


def _lower(current: Worst | None, batch: Batch, column: np.ndarray) -> Worst | None:
    index = int(np.argmin(column))
    if column[index] >= _UNRESOLVED or (current is not None and current.value <= column[index]):
        return current
    return _take(batch, column, index)


def check(claim: Claim, *, instances: int = 500_000, seed: int = 0) -> CheckResult:
    """Try a claim on random instances that satisfy its hypotheses; keep the worst of them.

    Args:
      claim: the claim.
      instances: how many to try, over all strata of the claim; rounded up to whole batches.
      seed: the same seed gives the same numbers on the same machine.

    Returns:
      A `CheckResult`. Draws that fail a hypothesis do not count as instances.

    Raises:
      ValueError: float64 is not enabled, or none of the first draws of a stratum satisfies the hypotheses.

    >>> from rdm_jax.claims.example import SQUARES
    >>> with jax.enable_x64(True):
    ...     result = check(SQUARES, instances=1000)
    >>> result.instances >= 1000, result.negative
    (True, (0, 0))
    """
    require_x64()
    errors, size = _errors(claim), len(claim.conclusions)
    valid = high = drawn = undefined = 0
    negative = np.zeros(size, int)
    worst: list[Worst | None] = [None] * size
    normalised: list[Worst | None] = [None] * size
    sample: list[Batch] = []
    for stratum in claim.strata:
        enough = valid + round(instances * stratum.share)
        kept: list[Batch] = []
        for batch in batches(claim, stratum, seed):
            if len(kept) * _chunk(stratum) < _SAMPLE:
                kept.append(batch)
            if not any(np.any(b.valid) for b in kept):
                tried = f"{len(batch.valid)} draws of width {stratum.width}"
                raise ValueError(f"claim {claim.name}: none of {tried} satisfies the hypotheses")
            ok = batch.valid[:, None]
            margin = np.where(ok, batch.margin, _UNRESOLVED)
            ratio = np.where(ok, batch.ratio, _UNRESOLVED)
            drawn += len(batch.valid)
            valid += int(batch.valid.sum())
            high += int((batch.valid & (batch.modes >= 32)).sum())
            undefined += int(np.any(ok & ~np.isfinite(batch.margin), axis=1).sum())
            negative += (margin < -errors).sum(axis=0)
            margin, ratio = (np.nan_to_num(a, nan=_UNRESOLVED) for a in (margin, ratio))
            worst = [_lower(worst[i], batch, margin[:, i]) for i in range(size)]
            normalised = [_lower(normalised[i], batch, ratio[:, i]) for i in range(size)]
            if valid >= enough:
                break
        sample.append(_concatenate(kept))
    return CheckResult(
        valid, high, drawn, undefined, tuple(map(int, negative)), tuple(worst), tuple(normalised), tuple(sample)
    )


class _Track(NamedTuple):
    """The best point of every restart so far: its value, and its instance."""

    value: Any
    instance: Instance


def _keep(track: _Track, value: Array, instance: Instance) -> _Track:
    better = value < track.value

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 1)), new, old)

    return _Track(jnp.where(better, value, track.value), jax.tree.map(choose, instance, track.instance))


def _is_free(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _split(raw: Raw) -> tuple[Any, Any]:
    free = jax.tree.map(lambda leaf: leaf if _is_free(leaf) else None, raw)
    return free, jax.tree.map(lambda leaf: None if _is_free(leaf) else leaf, raw)


def _join(free: Any, fixed: Any) -> Raw:
    return jax.tree.map(lambda a, b: b if a is None else a, free, fixed, is_leaf=lambda leaf: leaf is None)


@functools.lru_cache(maxsize=8)
def _searcher(claim: Claim, stratum: Stratum) -> Any:
    """The compiled search: (raw, switches) -> (undefined points, best ratios, lowest margins, with their instances)."""
    optimizer = optax.adam(_LEARNING_RATE)

    def objective(free: Any, fixed: Any, which: Array, dropped: Array, required: Array) -> Any:
        instance = _build(claim, _join(free, fixed), dropped)
        margin = claim.margin(instance)
        ratio = _normalised(claim, instance, margin)[which]
        return ratio, (_valid(claim, instance, required), margin[which], instance)

    gradient = jax.vmap(jax.value_and_grad(objective, has_aux=True), in_axes=(0, 0, 0, None, None))

    def search(raw: Raw, instance: Instance, target: Array, dropped: Array, required: Array) -> Any:
        free, fixed = _split(raw)
        nothing = _Track(jnp.full(target.shape, jnp.inf), instance)

        def step(carry: Any, _: None) -> Any:
            free, state, best, lowest, undefined = carry
            (ratio, (valid, margin, instance)), slope = gradient(free, fixed, target, dropped, required)
            best = _keep(best, jnp.where(valid, ratio, jnp.inf), instance)
            lowest = _keep(lowest, jnp.where(valid, margin, jnp.inf), instance)
            undefined += jnp.sum(valid & ~jnp.isfinite(margin))
            slope = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), slope)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(free, updates), state, best, lowest, undefined), None

        carry = (free, optimizer.init(free), nothing, nothing, jnp.zeros((), int))
        _, _, best, lowest, undefined = jax.lax.scan(step, carry, None, length=_STEPS)[0]
        return undefined, best, lowest

    return jax.jit(search, compiler_options=_compiler_options(claim, stratum))


# The attack and all ablations of a claim set out from the same points.
@functools.lru_cache(maxsize=8)
def _starting_points(claim: Claim, stratum: Stratum, count: int, seed: int) -> Batch:
    chunks = -(-count // _chunk(stratum))
    drawn = itertools.islice(batches(claim, stratum, seed, purpose="attack"), chunks)
    return jax.tree.map(lambda leaf: leaf[:count], _concatenate(drawn))


def _blocks(claim: Claim, starts: int, seed: int) -> Iterator[tuple[Stratum, Batch]]:
    """Starting points, in blocks of one size a stratum; the numbers of a stratum are rounded up to whole blocks."""
    for stratum, count in _starts(claim, starts).items():
        size = min(count, _BLOCK)
        points = _starting_points(claim, stratum, -(-count // size) * size, seed)
        for begin in range(0, count, size):
            yield stratum, jax.tree.map(lambda leaf, b=begin, n=size: leaf[b : b + n], points)


def _search(
    claim: Claim, ablation: Ablation | None, starts: int, seed: int, enough: Callable[[SearchResult], bool]
) -> SearchResult:
    require_x64()
    size = len(claim.conclusions)
    result = SearchResult(0, 0, (None,) * size, (None,) * size, ())
    for stratum, begin in _blocks(claim, starts, seed):
        which = (result.starts + np.arange(len(begin.modes))) % size
        found = _searcher(claim, stratum)(begin.raw, begin.instance, which, *_switches(claim, ablation))
        result = _merge(result, begin, which, *jax.tree.map(np.asarray, found))
        if enough(result):
            break
    return result


def _merge(
    result: SearchResult, begin: Batch, which: np.ndarray, undefined: Any, best: _Track, lowest: _Track
) -> SearchResult:
    """The result with what one more block of restarts has found."""

    def lower(record: tuple[Worst | None, ...], track: _Track) -> tuple[Worst | None, ...]:
        value = np.nan_to_num(track.value, nan=_UNRESOLVED, posinf=_UNRESOLVED)
        batch = begin._replace(instance=track.instance)
        return tuple(_lower(r, batch, np.where(which == i, value, _UNRESOLVED)) for i, r in enumerate(record))

    batch = begin._replace(instance=lowest.instance)
    negative = np.flatnonzero(lowest.value < 0).tolist()
    suspects = tuple((int(which[i]), _take(batch, lowest.value, i)) for i in negative)
    return SearchResult(
        result.starts + len(which),
        result.undefined + int(undefined),
        lower(result.best, best),
        lower(result.lowest, lowest),
        result.suspects + suspects,
    )


def _starts(claim: Claim, starts: int) -> dict[Stratum, int]:
    """Restarts for each stratum: most in the first (small) one, a sixteenth for the others, which cost as much."""
    first, *others = [stratum for stratum in claim.strata if stratum.searched]
    each = starts // (16 * max(len(others), 1))
    shares = {first: starts - each * len(others), **dict.fromkeys(others, each)}
    return {stratum: share for stratum, share in shares.items() if share}


def attack(claim: Claim, *, starts: int = 4096, seed: int = 0) -> SearchResult:
    """Search for a violation by gradient descent on the normalised margin, all restarts at once.

    The hypotheses are built in by the claim's parametrisation, so every point of the search satisfies them.

    Args:
      claim: the claim.
      starts: restarts; each attacks one conclusion, in turn.
      seed: the same seed gives the same numbers on the same machine.

    Returns:
      A `SearchResult`; whether a negative float margin is a violation is for `certify` to say.

    Raises:
      ValueError: float64 is not enabled.

    >>> from rdm_jax.claims.example import SQUARES
    >>> with jax.enable_x64(True):
    ...     result = attack(SQUARES, starts=64)
    >>> result.starts, round(result.best[0].value, 1) >= 0.0  # (large^2 - small^2)/(large - small)
    (64, True)
    """
    return _search(claim, None, starts, seed, lambda result: False)


def ablate(
    claim: Claim,
    ablation: Ablation,
    *,
    starts: int = 4096,
    seed: int = 0,
    enough: Callable[[SearchResult], bool] = lambda result: False,
) -> SearchResult:
    """The search of `attack` with the same budget, with the hypotheses that ``ablation`` names dropped.

    Args:
      claim: the claim.
      ablation: one of its ablations.
      starts: restarts, as in `attack`.
      seed: the same seed gives the same numbers on the same machine.
      enough: asked after every block of restarts whether what was found so far is enough; the rest is not searched.

    Returns:
      A `SearchResult`; its suspects are the candidates for a `counterexample`.

    Raises:
      ValueError: float64 is not enabled, or the claim has no such ablation.

    >>> from rdm_jax.claims.example import SQUARES
    >>> with jax.enable_x64(True):
    ...     result = ablate(SQUARES, SQUARES.ablations[0], starts=64)
    >>> result.lowest[0].value < 0  # without large >= small
    True
    """
    if ablation not in claim.ablations:
        raise ValueError(f"claim {claim.name} has no ablation {ablation.name!r}: {[a.name for a in claim.ablations]}")
    return _search(claim, ablation, starts, seed, enough)
