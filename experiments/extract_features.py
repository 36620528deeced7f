"""Write the features of a trained network as .npy files, and its backbone's weights for use elsewhere.

python experiments/extract_features.py runs/byol --stages backbone --out features
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from rdm_jax import commandline
from rdm_jax.training.saved import features_of, open_run


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """Write train_STAGE.npy and test_STAGE.npy (n, d), their labels, and backbone.npz with the encoder's weights."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    out: Path = Path("features")
    """A new or empty folder for the files."""
    stages: tuple[str, ...] = ("backbone",)
    """stage1 ... stage4, backbone, projector0 ..., features."""
    step: int | None = None
    """Of the checkpoint (default: the last)."""
    data_dir: Path | None = None
    """Where the data set is now, if it has moved."""


def main(options: ExtractOptions) -> int:
    """Read the run, embed, write."""
    try:
        commandline.require_vacant(options.out)
        saved = open_run(options.run, step=options.step, data_dir=options.data_dir)
        found = features_of(saved.learner, saved.plan, saved.dataset, saved.state, list(options.stages))
    except (commandline.UsageError, ValueError) as error:
        commandline.complain(error)
        return commandline.BAD_USAGE
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("train", "test"), found, strict=True):
        for stage, rows in part.features.items():
            np.save(options.out / f"{name}_{stage}.npy", rows)
            print(f"{options.out / f'{name}_{stage}.npy'}: {rows.shape[0]} x {rows.shape[1]}")
        np.save(options.out / f"{name}_labels.npy", part.labels)
    np.savez(options.out / "backbone.npz", **_flat(saved.state.train.params.encoder, saved.state.train.stats))
    print(f"{options.out / 'backbone.npz'}: weights and running statistics by path")
    return 0


def _flat(params: object, stats: object) -> dict[str, np.ndarray]:
    trees = {"params": params, "stats": stats}
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {"/".join(str(entry.key) for entry in path): np.asarray(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(ExtractOptions, prog="python experiments/extract_features.py")))
