"""Evaluate a trained network: kNN and linear probe on its frozen backbone.

python experiments/evaluate.py runs/byol
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from rdm_jax import commandline, reporting
from rdm_jax.training.saved import open_run
from rdm_jax.training.scores import score


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained network: kNN and linear probe on its frozen backbone, as JSON."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    step: int | None = None
    """Of the checkpoint (default: the last)."""
    data_dir: Path | None = None
    """Where the data set is now, if it has moved."""
    linear: bool = True
    """Train the linear probe as well."""
    linear_crops: int = 10
    """Cropped and flipped views of each image for it, in turns; 0: the images as they are."""


def main(options: EvaluateOptions) -> int:
    """Print the accuracies."""
    try:
        saved = open_run(options.run, step=options.step, data_dir=options.data_dir)
        of_run = saved.learner, saved.plan, saved.dataset, saved.state
        scores = score(*of_run, linear=options.linear, crops=options.linear_crops)
    except ValueError as error:
        commandline.complain(error)
        return commandline.BAD_USAGE
    print(reporting.dumps({"step": saved.step, **reporting.plain(scores)}), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(EvaluateOptions, prog="python experiments/evaluate.py")))
