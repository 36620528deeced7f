"""Effective rank and filters with their gradient, against torch and NumPy written from the definition, on the CPU.

Ours: ``feature_effective_rank``, and ``filters.apply`` with the gradient of <Y, G>. Theirs, in float32 as well: the
singular values, and the entropy of their squares; the SVD Z = U S V^T, the d x d operator W = V g(S) V^T, the product
Z W, and the gradient G W (in torch by its autograd, with W constant): the formulas of the published code.

Each side runs in processes of its own and they take turns, because a library's idle threads go on spinning for a
while, each on a core that the next would need. LAPACK's threads do so within a side too, and gain nothing on small
matrices. So each side gets all threads or one for LAPACK (torch: for everything), whichever is faster in a first try.
A ratio is theirs over ours.
"""

import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from evidence import evidence

from rdm_jax.filters import Filter, apply, power
from rdm_jax.spectra import feature_effective_rank

TORCH = importlib.util.find_spec("torch") is not None
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LAPACK_THREADS = ["OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
# This setting makes LAPACK slow on some processors, NumPy's most of all, which would flatter us.
CORETYPE = "OPENBLAS_CORETYPE"
SHAPES = [(256, 256), (256, 2048), (4096, 2048), (100000, 512)]
QUICK_SHAPES = [(32, 32), (32, 128)]
GOAL = ("filter power(1.0)", (256, 2048))
Task = Callable[[], object]


def features(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose second moment has eigenvalues about 1, 1/2, 1/3, ..., and a cotangent."""
    rng = np.random.default_rng(seed)
    scales = np.arange(1, shape[1] + 1, dtype=np.float32) ** -0.5
    return rng.standard_normal(shape, np.float32) * scales, rng.standard_normal(shape, np.float32)


def ours(filter: Filter | None, array: np.ndarray, cotangent: np.ndarray) -> Task:
    """Filtered features and gradient, or the effective rank if there is no filter."""

    def both(z, g):
        filtered, pullback = jax.vjp(lambda z: apply(filter, z), z)
        return filtered, pullback(g)

    compiled = jax.jit(both if filter else lambda z, g: feature_effective_rank(z))
    operands = jnp.asarray(array), jnp.asarray(cotangent)
    return lambda: jax.block_until_ready(compiled(*operands))


def by_torch(filter: Filter | None, array: np.ndarray, cotangent: np.ndarray) -> Task:
    """The same by torch."""
    import torch  # here, as the other sides need not wait for it

    torch.set_num_threads(int(os.environ[LAPACK_THREADS[0]]))
    z, g = torch.tensor(array, requires_grad=True), torch.tensor(cotangent)

    def rank():
        shares = torch.linalg.svdvals(z.detach()) ** 2
        return torch.exp(torch.special.entr(shares / shares.sum()).sum())

    def both():
        with torch.no_grad():
            _, values, rows = torch.linalg.svd(z, full_matrices=False)
            operator = (rows.T * values ** filter.parameters[0]) @ rows
        filtered, z.grad = z @ operator, None
        filtered.backward(g)
        return filtered.detach(), z.grad

    return both if filter else rank


def by_numpy(filter: Filter | None, array: np.ndarray, cotangent: np.ndarray) -> Task:
    """The same by NumPy."""

    def rank():
        shares = np.linalg.svd(array, compute_uv=False) ** 2
        shares = shares[shares > 0] / shares.sum()
        return np.exp(-np.sum(shares * np.log(shares)))

    def both():
        _, values, rows = np.linalg.svd(array, full_matrices=False)
        operator = (rows.T * values ** filter.parameters[0]) @ rows
        return array @ operator, cotangent @ operator

    return both if filter else rank


PEERS = {"torch": by_torch, "numpy": by_numpy} if TORCH else {"numpy": by_numpy}
SIDES = {"ours": ours, **PEERS}
Processes = dict[int, ProcessPoolExecutor]  # of one side, by the number of LAPACK's threads
current: dict[str, Task] = {}  # what this process repeats, if it belongs to a side


def start(threads: int) -> ProcessPoolExecutor:
    """A process with this many threads for LAPACK, which reads the setting when it is loaded."""
    os.environ.update(dict.fromkeys(LAPACK_THREADS, str(threads)))
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    pool.submit(os.getpid).result()
    return pool


def prepare(side: str, filter: Filter | None, shape: tuple[int, int], seed: int) -> list[np.ndarray]:
    """Make a side's task the current one; returns what it computes, as products with a fixed vector."""
    forget()
    current["task"] = SIDES[side](filter, *features(shape, seed))
    arrays = [np.atleast_1d(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(current["task"]())]
    return [array @ np.cos(np.arange(array.shape[-1])) for array in arrays]


def forget() -> None:
    """Free the memory of the current task."""
    current.clear()


def timed() -> float:
    """Seconds of one call; of a short one the fastest of several, since interruptions only ever slow it down."""
    time.sleep(0.25)
    times = []
    while not times or (sum(times) < 0.2 and len(times) < 7):
        start = time.perf_counter()
        current["task"]()
        times.append(time.perf_counter() - start)
    return min(times)


def ready(processes: Processes, side: str, *problem) -> tuple[int, list[np.ndarray]]:
    """Prepare one side; returns the number of LAPACK's threads that makes it faster, and what it computes."""
    results = [process.submit(prepare, side, *problem).result() for process in processes.values()]
    tries = {threads: process.submit(timed).result() for threads, process in processes.items()}
    fastest = min(tries, key=tries.get)
    for threads in set(processes) - {fastest}:
        processes[threads].submit(forget).result()
    return fastest, results[0]


def measure(sides: dict[str, Processes], filter: Filter | None, shape: tuple[int, int], rounds: int, seed: int) -> dict:
    """Seconds of each side, a number a round, and its LAPACK's threads; the results must agree first."""
    prepared = {side: ready(processes, side, filter, shape, seed) for side, processes in sides.items()}
    for side, (_, result) in prepared.items():
        for mine, other in zip(prepared["ours"][1], result, strict=True):
            error = np.linalg.norm(mine - other) / np.linalg.norm(mine)
            if not error < 2e-3:
                raise RuntimeError(f"{side} differs from ours at {shape} for {filter} by {error:.1e}")
    threads = {side: number for side, (number, _) in prepared.items()}
    turns = [{side: sides[side][threads[side]].submit(timed).result() for side in sides} for _ in range(rounds)]
    return {"seconds": {side: [turn[side] for turn in turns] for side in sides}, "lapack_threads": threads}


def row(what: str, shape: tuple[int, int], measured: dict) -> dict:
    """The measurement with the ratios of its rounds: their median and their range."""
    ours = measured["seconds"]["ours"]
    ratios = {
        peer: [theirs / mine for theirs, mine in zip(measured["seconds"][peer], ours, strict=True)] for peer in PEERS
    }
    return {
        "what": what,
        "shape": shape,
        **measured,
        "ratio": {peer: statistics.median(values) for peer, values in ratios.items()},
        "range": {peer: [min(values), max(values)] for peer, values in ratios.items()},
    }


def line(result: dict) -> str:
    """One line of the table."""
    cells = [f"{result['what']:19} {'{} x {}'.format(*result['shape']):>12}", time_of(result, "ours")]
    for peer in ("torch", "numpy"):
        if peer in result["ratio"]:
            low, high = result["range"][peer]
            cells.append(f"{time_of(result, peer)} {result['ratio'][peer]:6.1f} ({low:.1f} to {high:.1f})".ljust(31))
        else:
            cells.append("        -      -".ljust(31))
    return "  ".join(cells).rstrip()


def time_of(result: dict, side: str) -> str:
    """Median milliseconds, and the number of LAPACK's threads."""
    return f"{1e3 * statistics.median(result['seconds'][side]):9.1f}/{result['lapack_threads'][side]}"


def main(quick: bool = False, out: pathlib.Path | None = None, rounds: int = 5, seed: int = 0) -> None:
    """Print times and ratios; goals: the filter power(1) at 256 x 2048 10 times as fast as torch, nothing slower.

    Args:
        quick: Two small shapes, one round.
        out: Folder to write decompositions.json to.
        rounds: Turns of each side.
        seed: Of the features.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.pop(CORETYPE, None)
    if not TORCH:
        print("torch is missing, and so are its columns: pip install -e '.[bench]'")
    sides = {side: {threads: start(threads) for threads in ({1} if quick else {1, THREADS})} for side in SIDES}
    torch = version("torch") if TORCH else None
    about = evidence(threads=THREADS, torch=torch, rounds=1 if quick else rounds, seed=seed)
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print("Milliseconds / threads of LAPACK, and their time over ours:")
    print(f"{'':19} {'shape':>12}  {'ours':>11}  {'torch':>11}  ratio{'':13}  {'numpy':>11}  ratio")
    results = []
    for what, filter in {"effective rank": None, **{f"filter {f}": f for f in (power(1), power(-0.5))}}.items():
        for shape in QUICK_SHAPES if quick else SHAPES:
            results.append(row(what, shape, measure(sides, filter, shape, about["rounds"], seed)))
            print(line(results[-1]), flush=True)
    slower = [f"{r['what']} at {r['shape']}" for r in results if any(ratio < 1 for ratio in r["ratio"].values())]
    print("Slower than a peer: " + (", ".join(slower) or "nothing"))
    for r in results:
        if (r["what"], r["shape"]) == GOAL and TORCH:
            print(f"{GOAL[0]} at {GOAL[1]}: {r['ratio']['torch']:.1f} times as fast as torch; the goal is 10")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "decompositions.json").write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
