"""Every script that a person can run, found by glob, in its smallest form."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALLEST = {"benchmarks": ["--quick"], "experiments": ["--preset", "smoke"]}
# In test_training.py, since all but the first need a run.
ELSEWHERE = {"resnet_cifar", "evaluate", "extract_features", "report", "growth_causes"}
SCRIPTS = [
    (str(path.relative_to(ROOT)), options)
    for folder, options in SMALLEST.items()
    for path in ROOT.glob(f"{folder}/*.py")
    if path.stem not in ELSEWHERE
]


@pytest.mark.parametrize(
    ("script", "options"), sorted(SCRIPTS), ids=lambda value: value if isinstance(value, str) else ""
)
def test_script_runs_and_leaves_results(script, options, tmp_path):
    command = [sys.executable, script, *options, "--out", tmp_path / "out"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # What is compiled here runs a few times only.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout and list((tmp_path / "out").glob("*.json"))
