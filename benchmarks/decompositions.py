"""Effective rank and filters with their gradient, against torch and NumPy written from the definition, on the CPU.

Ours: ``feature_effective_rank``, and ``filters.apply`` with the gradient of <Y, G>. Theirs, in float32 as well: the
singular values, and the entropy of their squares; the SVD Z = U S V^T, the d x d operator W = V g(S) V^T, the product
Z W, and the gradient G W (in torch by its autograd, with W constant): the formulas of the published code. All get the
same threads and take turns, after a pause in which the others' idle threads fall asleep. A ratio is theirs over ours.
"""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from rdm_jax.filters import Filter, apply, power
from rdm_jax.spectra import feature_effective_rank

try:
    import torch
except ImportError:
    torch = None

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
SHAPES = [(256, 256), (256, 2048), (4096, 2048), (100000, 512)]
# This setting makes NumPy slow on some processors, which would flatter us; it acts when NumPy is imported.
CORETYPE = "OPENBLAS_CORETYPE"
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


PEERS = {"torch": by_torch, "numpy": by_numpy} if torch else {"numpy": by_numpy}


def timed(task: Task) -> float:
    """Seconds of one call; of a short one the fastest of several, since interruptions only ever slow it down."""
    time.sleep(0.25)
    times = []
    while not times or (sum(times) < 0.2 and len(times) < 7):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(filter: Filter | None, shape: tuple[int, int], rounds: int, seed: int) -> dict[str, list[float]]:
    """Seconds of each side, a number a round; the results must agree first."""
    operands = features(shape, seed)
    tasks = {name: make(filter, *operands) for name, make in {"ours": ours, **PEERS}.items()}
    results = {name: task() for name, task in tasks.items()}
    for name, result in results.items():
        for mine, other in zip(jax.tree.leaves(results["ours"]), jax.tree.leaves(result), strict=True):
            error = np.linalg.norm(mine - np.asarray(other)) / np.linalg.norm(mine)
            if not error < 2e-3:
                raise RuntimeError(f"{name} differs from ours at {shape} for {filter} by {error:.1e}")
    turns = [{name: timed(task) for name, task in tasks.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in tasks}


def row(what: str, shape: tuple[int, int], seconds: dict[str, list[float]]) -> dict:
    """The medians and the ratios of the rounds: their median and their range."""
    ratios = {
        peer: [theirs / mine for theirs, mine in zip(seconds[peer], seconds["ours"], strict=True)] for peer in PEERS
    }
    return {
        "what": what,
        "shape": shape,
        "seconds": seconds,
        "ratio": {peer: statistics.median(values) for peer, values in ratios.items()},
        "range": {peer: [min(values), max(values)] for peer, values in ratios.items()},
    }


def line(result: dict) -> str:
    """One line of the table."""
    cells = [f"{result['what']:19} {'{} x {}'.format(*result['shape']):>12}"]
    cells.append(f"{1e3 * statistics.median(result['seconds']['ours']):9.1f}")
    for peer in ("torch", "numpy"):
        if peer in result["ratio"]:
            low, high = result["range"][peer]
            median = 1e3 * statistics.median(result["seconds"][peer])
            cells.append(f"{median:9.1f} {result['ratio'][peer]:6.1f} ({low:.1f} to {high:.1f})".ljust(31))
        else:
            cells.append("        -      -".ljust(31))
    return "  ".join(cells).rstrip()


def evidence(rounds: int, seed: int) -> dict:
    """What the numbers were measured with."""
    try:
        cpu = next(text for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if "model name" in text)
    except (OSError, StopIteration):
        cpu = platform.processor()
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=pathlib.Path(__file__).parent
    )
    return {
        "cpu": cpu.partition(": ")[2] or cpu,
        "threads": THREADS,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "numpy")},
        "torch": torch.__version__ if torch else None,
        CORETYPE: os.environ.get(f"REMOVED_{CORETYPE}", "not set"),
        "commit": git.stdout.strip() or None,
        "rounds": rounds,
        "seed": seed,
    }


def main(quick: bool = False, out: pathlib.Path | None = None, rounds: int = 5, seed: int = 0) -> None:
    """Print times and ratios; goals: the filter power(1) at 256 x 2048 10 times as fast as torch, nothing slower.

    Args:
        quick: Two small shapes, one round.
        out: Folder to write decompositions.json to.
        rounds: Turns of each side.
        seed: Of the features.
    """
    jax.config.update("jax_platforms", "cpu")
    if torch:
        torch.set_num_threads(THREADS)
    else:
        print("torch is missing, and so are its columns: pip install -e '.[bench]'")
    about = evidence(1 if quick else rounds, seed)
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"{'':19} {'shape':>12}  {'ours ms':>9}  {'torch ms':>9}  ratio{'':15}  {'numpy ms':>9}  ratio")
    results = []
    for what, filter in {"effective rank": None, **{f"filter {f}": f for f in (power(1), power(-0.5))}}.items():
        for shape in QUICK_SHAPES if quick else SHAPES:
            results.append(row(what, shape, measure(filter, shape, about["rounds"], seed)))
            print(line(results[-1]), flush=True)
    slower = [f"{r['what']} at {r['shape']}" for r in results if any(ratio < 1 for ratio in r["ratio"].values())]
    print("Slower than a peer: " + (", ".join(slower) or "nothing"))
    for r in results:
        if (r["what"], r["shape"]) == GOAL and torch:
            print(f"{GOAL[0]} at {GOAL[1]}: {r['ratio']['torch']:.1f} times as fast as torch; the goal is 10")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "decompositions.json").write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


def restart_without(variable: str) -> None:
    """Start anew without an environment variable, remembering what it was."""
    os.environ[f"REMOVED_{variable}"] = f"{os.environ.pop(variable)}, removed for this run"
    os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    if CORETYPE in os.environ:
        restart_without(CORETYPE)
    tyro.cli(main)
