"""How long importing a part of rdm_jax takes beyond importing jax, each import in a fresh process."""

import json
import pathlib
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version

import tyro

PARTS = ["rdm_jax.spectra", "rdm_jax.filters", "rdm_jax.theory", "rdm_jax.dynamics", "rdm_jax.claims"]
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str, first: str = "sys") -> float:
    """Seconds that the import of ``module`` takes once ``first`` is imported."""
    code = f"import {first}; {TIMED.format(module)}"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def measure(repeats: int) -> dict[str, float]:
    """Median seconds of importing jax, and of each part after it; in turns, so that a busy spell hits all alike."""
    rounds = [{"jax": seconds("jax")} | {part: seconds(part, "jax") for part in PARTS} for _ in range(repeats)]
    return {name: statistics.median(times[name] for times in rounds) for name in rounds[0]}


def main(quick: bool = False, out: pathlib.Path | None = None) -> None:
    """Print the times, and their ratio to that of jax; goal: rdm_jax.spectra under 0.3 s.

    Args:
        quick: Measure each once instead of eleven times.
        out: Folder to write import_time.json to.
    """
    times = measure(1 if quick else 11)
    for name, time in times.items():
        print(f"{name:18} {time:6.3f} s  {time / times['jax']:5.2f} x jax")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        evidence = {"python": platform.python_version(), "jax": version("jax"), "machine": platform.platform()}
        (out / "import_time.json").write_text(json.dumps({"seconds": times, **evidence}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
