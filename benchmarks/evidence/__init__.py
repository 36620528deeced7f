"""What the numbers of a benchmark were measured with."""

import os
import pathlib
import platform
import subprocess
from importlib.metadata import version
from typing import Any


def evidence(**more: Any) -> dict[str, Any]:
    """Processor, load, versions and commit, and what else a benchmark has to say."""
    try:
        cpu = next(text for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if "model name" in text)
    except (OSError, StopIteration):
        cpu = platform.processor()
    here = pathlib.Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=here)
    return {
        "cpu": cpu.partition(": ")[2] or cpu,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "numpy")},
        "commit": git.stdout.strip() or None,
        **more,
    }
