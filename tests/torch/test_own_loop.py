"""The example of docs/own_loop.md with a loop of torch's."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_the_loop_of_torch_shows_the_rank_that_a_predictor_keeps():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "own_loop.md").read_text(), re.M | re.S)
    (code,) = [block for block in blocks if "import torch" in block]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (rank, difference, index), (lower, *nothing) = (
        list(map(float, re.findall(r"-?\d+\.\d", line))) for line in done.stdout.splitlines()
    )
    assert rank > 1.2 * lower and difference > 0.1 and index > 0.5
    assert [abs(number) for number in nothing] == [0, 0]
