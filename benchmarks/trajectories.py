"""Eigenmode trajectories per second: ``dynamics.solve``, compiled and mapped over, against a loop of SciPy's solve_ivp.

Every trajectory has a start, a noise, a rate and a weight decay of its own, from 0.1 to 1.5 of the critical value, and
runs to t = 20 / weight decay. Both sides use an explicit method of order 8 by Dormand and Prince (here Dopri8, there
DOP853) with the same tolerances, in float64 on the CPU; SciPy's right-hand side is NumPy over all modes at once. Of
those that both integrate the ends must agree. They take turns; a ratio is ours over theirs.
"""

import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.integrate import solve_ivp

from rdm_jax.dynamics import (
    EigenmodeParameters,
    Eigenmodes,
    LinearDesign,
    Solution,
    critical_weight_decay,
    eigenmode_field,
    require_success,
    solve,
)
from rdm_jax.reporting import facts, provenance

MODES = 4
BATCH = 250  # trajectories that are stepped together, as long as the slowest needs: what they need stays in the cache
TRAJECTORIES, QUICK_TRAJECTORIES = 10_000, 200
SUBSET, QUICK_SUBSET = 100, 5  # trajectories of the SciPy loop
HORIZON = 20  # in units of 1 / weight decay
RTOL, ATOL = 1e-10, 1e-12
AGREEMENT = 1e-8

Problem = dict[str, np.ndarray]


def draw(count: int, seed: int) -> Problem:
    """Starts and parameters."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0, 1, count)
    return {
        "predictor": np.exp(rng.uniform(-4, 1, (count, MODES))),
        "encoder": np.exp(rng.uniform(-4, 1, (count, MODES))),
        "predictor_rate": np.exp(rng.uniform(-1, 1, count)),
        "noise": noise,
        "weight_decay": np.asarray(critical_weight_decay(noise)) * rng.uniform(0.1, 1.5, count),
    }


def trajectory(
    predictor: jax.Array, encoder: jax.Array, predictor_rate: jax.Array, noise: jax.Array, weight_decay: jax.Array
) -> Solution:
    """Our solution of one member."""
    args = EigenmodeParameters(predictor_rate, noise=noise, weight_decay=weight_decay)
    times = jnp.array([0.0, HORIZON]) / weight_decay
    return solve(eigenmode_field(LinearDesign()), Eigenmodes(predictor, encoder), args, times, rtol=RTOL, atol=ATOL)


def trajectories(problem: dict[str, jax.Array]) -> Solution:
    """All of them, in batches of similar length."""
    order = jnp.argsort(problem["weight_decay"])
    ordered = {name: values[order] for name, values in problem.items()}
    found = jax.lax.map(lambda member: trajectory(**member), ordered, batch_size=BATCH)
    return jax.tree.map(lambda leaf: leaf[jnp.argsort(order)], found)


def slope(t: float, state: np.ndarray, alpha: float, sigma: float, eta: float) -> np.ndarray:
    """The same field in NumPy."""
    p, s = state[:MODES], state[MODES:]
    error = 1 - (1 + sigma) * p
    return np.concatenate([alpha * s * error - eta * p, 2 * s * (p * error - eta)])


def scipy_end(problem: Problem, i: int) -> np.ndarray:
    """SciPy's end of one trajectory."""
    start = np.append(problem["predictor"][i], problem["encoder"][i])
    numbers = tuple(float(problem[name][i]) for name in ("predictor_rate", "noise", "weight_decay"))
    end = HORIZON / numbers[-1]
    return solve_ivp(slope, (0, end), start, "DOP853", [end], args=numbers, rtol=RTOL, atol=ATOL).y[:, -1]


def timed(task: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def measure(count: int, subset: int, rounds: int, seed: int) -> dict:
    """Seconds of all trajectories here and of a subset there, a number a round, and how far their ends are apart."""
    problem = draw(count, seed)
    run = jax.jit(trajectories)
    start = time.perf_counter()
    found = jax.block_until_ready(run(problem))
    compiling = time.perf_counter() - start
    require_success(found, problem)
    ours = np.concatenate([found.record.predictor[:, -1], found.record.encoder[:, -1]], axis=1)
    theirs = np.array([scipy_end(problem, i) for i in range(subset)])
    turns = [
        (
            timed(lambda: jax.block_until_ready(run(problem))),
            timed(lambda: [scipy_end(problem, i) for i in range(subset)]),
        )
        for _ in range(rounds)
    ]
    ratios = [(count / mine) / (subset / other) for mine, other in turns]
    return {
        "trajectories": {"rdm_jax": count, "scipy": subset},
        "modes": MODES,
        "seconds_of_first_call": compiling,
        "seconds": {"rdm_jax": [mine for mine, _ in turns], "scipy": [other for _, other in turns]},
        "steps": {"mean": float(np.mean(found.steps)), "most": int(np.max(found.steps))},
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "difference": float(np.abs(ours[:subset] - theirs).max()),
    }


def main(quick: bool = False, out: pathlib.Path | None = None, rounds: int = 3, seed: int = 0) -> int:
    """Print seconds and the ratio. Exit code 1 if the ends disagree.

    Args:
        quick: A few trajectories, one round.
        out: Folder to write trajectories.json to.
        rounds: Turns of each side.
        seed: Of starts and parameters.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    about = {**provenance(["jax", "numpy", "scipy", "diffrax"]), "load": os.getloadavg()[0], "seed": seed}
    print(f"{facts(about)}, load {about['load']:.1f}, seed {seed}")
    sizes = (QUICK_TRAJECTORIES, QUICK_SUBSET, 1) if quick else (TRAJECTORIES, SUBSET, rounds)
    result = measure(*sizes, seed)
    agrees = result["difference"] <= AGREEMENT
    low, high = result["range"]
    mine, theirs = (statistics.median(result["seconds"][name]) for name in ("rdm_jax", "scipy"))
    print(f"rdm_jax: {sizes[0]} trajectories of {MODES} modes in {mine:.2f} s")
    print(f"the first call, which compiles: {result['seconds_of_first_call']:.1f} s")
    print(f"steps: {result['steps']['mean']:.0f} on average, {result['steps']['most']} at most")
    print(f"SciPy: {sizes[1]} trajectories in {theirs:.2f} s")
    print(f"Ratio of trajectories per second: {result['ratio']:.0f} ({low:.0f} to {high:.0f})")
    print(f"The ends differ by at most {result['difference']:.1e}: {'they agree' if agrees else 'that is too much'}.")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = {**about, "rounds": sizes[2], "rtol": RTOL, "atol": ATOL, **result}
        (out / "trajectories.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
