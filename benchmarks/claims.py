"""Instances per second of each claim: the engine's compiled margin against a plain NumPy loop of the same claim.

Ours: ``jit(vmap(claim.margin))`` in float64 on a whole batch as the search draws it, compiled with the workers' flags.
Theirs: numpy_margins/, written from the statements, one instance at a time. Neither draws or checks hypotheses. On the
instances that both see, every margin must agree: within twice its stated error, one for each side. They take turns; a
ratio is ours over theirs.
"""

import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import tyro
from evidence import evidence
from numpy_margins import MARGINS

from rdm_jax.claims import Claim
from rdm_jax.claims.claim import Instance, Stratum
from rdm_jax.claims.runner import _XLA_FLAGS, find_statements, load_statement
from rdm_jax.claims.search import batches

ROOT = pathlib.Path(__file__).parents[1]
SUBSET, QUICK_SUBSET = 300, 50  # instances of the NumPy loop
QUICK_STATEMENTS = 3
SIDES = 2


def timed(task: Callable[[], object]) -> float:
    """Seconds of one call; of a short one the median of several."""
    times: list[float] = []
    while not times or (sum(times) < 0.1 and len(times) < 5):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def draw(claim: Claim, stratum: Stratum, subset: int, seed: int) -> tuple[Instance, np.ndarray, list[Instance]]:
    """A batch of the engine, the places of its first valid instances, and these one by one."""
    batch = next(batches(claim, stratum, seed))
    places = np.flatnonzero(batch.valid)[:subset]
    return batch.instance, places, [jax.tree.map(lambda leaf, i=i: leaf[i], batch.instance) for i in places]


def disagreement(claim: Claim, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    """The largest difference between margins (n, k) in units of the stated error, and of which conclusion."""
    errors = np.array([conclusion.error for conclusion in claim.conclusions])
    if theirs.shape != ours.shape:
        return float("inf"), f"{theirs.shape[1]} margins instead of {ours.shape[1]}"
    worst = np.nan_to_num(np.max(np.abs(ours - theirs) / errors, axis=0), nan=np.inf)
    return float(worst.max()), claim.conclusions[int(worst.argmax())].name


def measure(claim: Claim, stratum: Stratum, subset: int, rounds: int, seed: int) -> dict:
    """Instances per second of both sides, a number a round, and how far their margins are apart."""
    batch, places, instances = draw(claim, stratum, subset, seed)
    compiled, reference = jax.jit(jax.vmap(claim.margin)), MARGINS[claim.name]
    operand = jax.tree.map(jax.numpy.asarray, batch)
    ours = np.asarray(compiled(operand))
    difference, where = disagreement(claim, ours[places], np.array([reference(c) for c in instances]))
    sides = {
        "engine": (len(ours), lambda: jax.block_until_ready(compiled(operand))),
        "numpy": (len(instances), lambda: [reference(c) for c in instances]),
    }
    turns = [{name: count / timed(task) for name, (count, task) in sides.items()} for _ in range(rounds)]
    ratios = [turn["engine"] / turn["numpy"] for turn in turns]
    return {
        "claim": claim.name,
        "width": stratum.width,
        "instances": {name: count for name, (count, _) in sides.items()},
        "per_second": {name: [turn[name] for turn in turns] for name in sides},
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "difference": difference,
        "largest_in": where,
        "agrees": difference <= SIDES,
    }


def line(result: dict) -> str:
    """One line of the table."""
    engine, loop = (statistics.median(result["per_second"][name]) for name in ("engine", "numpy"))
    low, high = result["range"]
    return (
        f"{result['claim']:21} {result['width']:5}  {engine:12,.0f}  {loop:9,.0f}  {result['ratio']:7.0f}"
        f" {f'({low:.0f} to {high:.0f})':16} {result['difference']:10.1e}"
    )


def chosen(only: tuple[str, ...], quick: bool) -> Iterator[Claim]:
    """The claims of the statements asked for, as they lie in proofs_numeric/."""
    files = find_statements(ROOT / "proofs_numeric")
    unknown = [name for name in only if name not in files]
    if unknown:
        raise SystemExit(f"no such statement: {', '.join(unknown)}; there are {', '.join(files)}")
    names = only or (list(files)[:QUICK_STATEMENTS] if quick else files)
    if quick and not only:
        print(f"Quick: {', '.join(names)} only, of {len(files)} statements.")
    sys.path.insert(0, str(ROOT))  # the files import what they share from proofs_numeric
    for name in names:
        yield from load_statement(files[name]).claims


def faults_of(results: list[dict], missing: list[str]) -> list[str]:
    """What is wrong, a sentence each."""
    wrong = [
        f"{result['claim']}, width {result['width']}: the margins of NumPy and the claim differ by "
        f"{result['difference']:.1e} stated errors ({result['largest_in']})"
        for result in results
        if not result["agrees"]
    ]
    return [*wrong, *(f"{name}: no NumPy margin; write one in benchmarks/numpy_margins/" for name in missing)]


def main(
    quick: bool = False, out: pathlib.Path | None = None, only: tuple[str, ...] = (), rounds: int = 5, seed: int = 0
) -> int:
    """Print instances per second and ratios. Exit code 1 if margins disagree or a claim has no NumPy margin.

    Args:
        quick: The first statements only, their first stratum, one round.
        out: Folder to write claims.json to.
        only: Statements, such as T1 T2; by default all.
        rounds: Turns of each side.
        seed: Of the instances.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAGS}".strip()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    about = evidence(cores=os.cpu_count(), xla_flags=os.environ["XLA_FLAGS"], seed=seed)
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    results, missing = [], []
    subset, turns = (QUICK_SUBSET, 1) if quick else (SUBSET, rounds)
    for number, claim in enumerate(chosen(only, quick)):
        if number == 0:
            print(f"{'claim':21} width  {'engine 1/s':>12}  {'NumPy 1/s':>9}  {'ratio':>7} {'(range)':16} difference*")
        if claim.name not in MARGINS:
            missing.append(claim.name)
            print(f"{claim.name:21} missing")
            continue
        for stratum in claim.strata[:1] if quick else claim.strata:
            results.append(measure(claim, stratum, subset, turns, seed))
            print(line(results[-1]), flush=True)
            jax.clear_caches()
    print(f"* of the margins, at most, in units of the claim's stated error; up to {SIDES} is agreement.")
    if results:
        ratios = [result["ratio"] for result in results]
        print(f"Ratios: {min(ratios):.0f} to {max(ratios):.0f}, median {statistics.median(ratios):.0f}.")
    faults = faults_of(results, missing)
    print("\n".join(faults or ["All margins agree."]))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = {**about, "rounds": turns, "results": results, "missing": missing}
        (out / "claims.json").write_text(json.dumps(report, indent=2) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
