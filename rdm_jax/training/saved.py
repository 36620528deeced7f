"""A run that was left on disk, read back: its options, data, network and weights."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rdm_jax.training import checkpoint
from rdm_jax.training.augment import ViewConfig, augment, evaluation_view
from rdm_jax.training.config import TrainOptions, build, read_data
from rdm_jax.training.dataset import Dataset, Split
from rdm_jax.training.evaluation import embed
from rdm_jax.training.learner import Learner, Learning, init_learning
from rdm_jax.training.run import CHECKPOINTS, Plan
from rdm_jax.training.stream import Stream
from rdm_jax.types import Array

CONFIG = "config.json"


class Saved(NamedTuple):
    """A run as it was at a step."""

    options: TrainOptions
    dataset: Dataset
    learner: Learner
    plan: Plan
    state: Learning
    step: int


def open_run(folder: Path, *, step: int | None = None, data_dir: Path | None = None) -> Saved:
    """Read a run's configuration and a checkpoint.

    Args:
        folder: of the run.
        step: of the checkpoint; None: the last.
        data_dir: where the data set is now, if it has moved.

    Returns:
        The run.

    Raises:
        ValueError: no run in the folder, no checkpoint of that step, or a damaged one.

    >>> open_run(Path("no such run"))
    Traceback (most recent call last):
        ...
    ValueError: no such run holds no run: config.json is missing
    """
    path = folder / CONFIG
    if not path.exists():
        raise ValueError(f"{folder} holds no run: {CONFIG} is missing")
    options = _options(json.loads(path.read_text()), data_dir)
    dataset = read_data(options)
    learner, plan = build(options, dataset)
    shapes = jax.eval_shape(lambda: init_learning(learner, (plan.size, plan.size, 3)))
    state, _ = checkpoint.restore(folder / CHECKPOINTS, shapes, step=step)
    return Saved(options, dataset, learner, plan, state, int(state.train.step))


def features_of(
    learner: Learner, plan: Plan, dataset: Dataset, state: Learning, stages: list[str] | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features of all images as they are, with running statistics.

    Args:
        learner: of the run.
        plan: of the run.
        dataset: in memory.
        state: of the run.
        stages: names, such as ``["backbone"]``; None: all.

    Returns:
        By stage, of the training and the test images, (n, d) each.

    Raises:
        ValueError: a data set that is streamed from disk; an unknown stage.
    """
    view = evaluation_view("none", size=plan.size, mean=dataset.mean, std=dataset.std)
    found = [_embedded(learner, dataset, part, state, view, 0, stages) for part in (dataset.train, dataset.test)]
    return {name: (found[0][name], found[1][name]) for name in found[0]}


def random_views(learner: Learner, plan: Plan, dataset: Dataset, state: Learning, count: int) -> list[np.ndarray]:
    """Backbone features of cropped and flipped training images, as a linear probe is trained on.

    Args:
        learner: of the run.
        plan: of the run.
        dataset: in memory.
        state: of the run.
        count: views of each image.

    Returns:
        So many arrays (n, d).

    Raises:
        ValueError: a data set that is streamed from disk.
    """
    view = evaluation_view("crop_flip", size=plan.size, mean=dataset.mean, std=dataset.std)
    drawn = (_embedded(learner, dataset, dataset.train, state, view, 1 + i, ["backbone"]) for i in range(count))
    return [found["backbone"] for found in drawn]


def _embedded(
    learner: Learner,
    dataset: Dataset,
    part: Split | Stream,
    state: Learning,
    view: ViewConfig,
    number: int,
    stages: list[str] | None,
) -> dict[str, np.ndarray]:
    if not isinstance(part, Split):
        raise ValueError(f"{dataset.name} is streamed from disk, and only sets in memory can be embedded so far")
    params, stats = state.train.params.encoder, state.train.stats
    # Other numbers draw other views, and one compiled function serves for all.
    first = number * len(part.images)
    return embed(learner.encoder, params, stats, part.images, transform=_viewed(view), stages=stages, first=first)


# Once for each view: what is compiled with it is kept by the function.
@functools.cache
def _viewed(view: ViewConfig) -> Callable[[Array, Array], Array]:
    return lambda images, numbers: augment(view, images, numbers, key=jax.random.key(0))


def _options(config: dict[str, Any], data_dir: Path | None) -> TrainOptions:
    """The options of ``config.json``, with paths as such."""
    paths = {name: config[name] and Path(config[name]) for name in ("out", "data_dir")}
    if data_dir is not None:
        paths["data_dir"] = data_dir
    return TrainOptions(**{**config, **paths, "resume": False, "distributed": False})
