"""The examples of docs/own_loop.md, run as a reader would run them; that of torch is in tests/torch."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_loop.md").read_text()
NUMBER = r"[-+]?\d+\.?\d*"


def blocks(language, containing):
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    (one,) = [block for block in found if containing in block]
    return one


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_loop_of_flax_and_optax_prints_what_the_page_says(tmp_path):
    code = blocks("python", "flax")
    printed = run(tmp_path, "-W", "error", "-c", code).splitlines()
    said = re.findall(r"^# (.*)", code, re.M)
    assert [re.sub(NUMBER, "", line) for line in printed] == [re.sub(NUMBER, "", line) for line in said]
    # Other roundings let two trainings part a little.
    for line, expected in zip(printed, said, strict=True):
        numbers = [list(map(float, re.findall(NUMBER, text))) for text in (line, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.3)
    ranks = [float(re.search(r"(\d+\.\d);", line)[1]) for line in printed[::2]]
    assert ranks[0] > 1.2 * ranks[1], "the rank is higher with a predictor"


def test_saved_features_are_written_and_read(tmp_path):
    run(tmp_path, "-c", blocks("python", "np.save"))
    command = blocks("sh", "rdm_jax probe").split()
    said = run(tmp_path, *command[1:])
    assert "two views" in said and "low-pass index +" in said and "log lambda" in said
    assert sorted(path.name for path in (tmp_path / "probe").iterdir()) == ["filter.png", "probe.json", "spectra.png"]
