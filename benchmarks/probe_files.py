"""The probe of saved features, `python -m rdm_jax probe`, at 50,000 samples of 2048 features in each branch.

Online and target outputs, float32 with spectra that fall off, are written to a temporary folder. Timed is the whole
command in a fresh process, from its start to its end: effective ranks with standard errors, the measured filter, the
report. The peer is NumPy in a fresh process, which loads both files, forms the two float32 Gram matrices and takes the
effective ranks of their eigenvalues, and no more. They take turns. Peak memory is what the system says of the process.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import tyro
from evidence import evidence

ROOT = pathlib.Path(__file__).parents[1]
SECONDS, GIBIBYTES = 20.0, 2.0
NUMPY = """
import sys
import numpy as np

for path in sys.argv[1:]:
    rows = np.load(path)
    values = np.linalg.eigvalsh(rows.T @ rows / np.float32(len(rows)))
    shares = values[values > 0] / values.sum()
    print(np.exp(-np.sum(shares * np.log(shares))))
"""


def write_features(folder: pathlib.Path, samples: int, width: int, seed: int) -> list[pathlib.Path]:
    """Target outputs with eigenvalues like 1/i, and online ones: the same through a low-pass filter."""
    rng, scale = np.random.default_rng(seed), np.arange(1, width + 1, dtype=np.float32) ** -0.5
    paths = [folder / "online.npy", folder / "target.npy"]
    online, target = (np.lib.format.open_memmap(path, "w+", np.float32, (samples, width)) for path in paths)
    for start in range(0, samples, 1000):
        rows = rng.standard_normal((min(1000, samples - start), width), np.float32) * scale
        target[start : start + 1000], online[start : start + 1000] = rows, rows * np.sqrt(scale)
    return paths


def timed(command: list[str], folder: pathlib.Path) -> dict[str, float]:
    """Seconds from start to end, processor seconds, and peak memory in GiB, of a command that succeeds."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    start = time.perf_counter()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError((folder / "said").read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": time.perf_counter() - start,
        "processor seconds": used.ru_utime + used.ru_stime,
        "gibibytes": used.ru_maxrss * unit / 2**30,
    }


def main(quick: bool = False, out: pathlib.Path | None = None, rounds: int = 3, seed: int = 0) -> None:
    """Print seconds, peak memory and the ratio to NumPy; the goals are 20 s on two quiet cores, and 2 GiB.

    Args:
        quick: 500 samples of 16 features, one round.
        out: Folder to write probe_files.json to.
        rounds: Turns of each side.
        seed: Of the features.
    """
    samples, width = (500, 16) if quick else (50_000, 2048)
    about = evidence(cores=os.cpu_count(), rounds=1 if quick else rounds, seed=seed)
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        online, target = map(str, write_features(folder, samples, width, seed))
        sides = {
            "ours": [sys.executable, "-m", "rdm_jax", "probe", "--online", online, "--target", target],
            "numpy": [sys.executable, "-c", NUMPY, online, target],
        }
        turns = [{side: timed(command, folder) for side, command in sides.items()} for _ in range(about["rounds"])]
    found = {side: {key: [turn[side][key] for turn in turns] for key in turns[0][side]} for side in sides}
    for side, values in found.items():
        shown = (f"{statistics.median(numbers):7.2f} {key}" for key, numbers in values.items())
        print(f"{side:6}", *shown, f"for {samples} x {width}, twice")
    ratios = [turn["ours"]["seconds"] / turn["numpy"]["seconds"] for turn in turns]
    goal = "" if quick else f"; the goals are at most {SECONDS:g} s on two quiet cores, and {GIBIBYTES:g} GiB"
    print(f"ours / numpy: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){goal}")
    result = {"samples": samples, "width": width, **found, "ratio": statistics.median(ratios)}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "probe_files.json").write_text(json.dumps({**about, "results": [result]}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
