"""A run that was left on disk, read back: its options, data, network and weights."""

import functools
import json
from collections.abc import Callable
from functools import partial
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
from rdm_jax.training.places import place
from rdm_jax.training.run import CHECKPOINTS, Plan
from rdm_jax.training.stream import Stream, stream_batches
from rdm_jax.types import Array

CONFIG = "config.json"
BLOCK = 512  # images that are embedded at a time


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
    root = place(folder)
    path = root / CONFIG
    if not path.exists():
        raise ValueError(f"{folder} holds no run: {CONFIG} is missing")
    options = _options(json.loads(path.read_text()), data_dir)
    dataset = read_data(options)
    learner, plan = build(options, dataset)
    shapes = jax.eval_shape(lambda: init_learning(learner, (plan.size, plan.size, 3)))
    state, _ = checkpoint.restore(root / CHECKPOINTS, shapes, step=step)
    return Saved(options, dataset, learner, plan, state, int(state.train.step))


class Embedded(NamedTuple):
    """Features (n, d) of a part of a data set, by stage, and its labels (n,)."""

    features: dict[str, np.ndarray]
    labels: np.ndarray


def features_of(
    learner: Learner, plan: Plan, dataset: Dataset, state: Learning, stages: list[str] | None
) -> tuple[Embedded, Embedded]:
    """Features of all images as they are, with running statistics.

    Args:
        learner: of the run.
        plan: of the run.
        dataset: in memory or streamed.
        state: of the run.
        stages: names, such as ``["backbone"]``; None: all.

    Returns:
        Of the training and of the test images.

    Raises:
        ValueError: an unknown stage; a file that can't be read, by name.
    """
    view = evaluation_view("none", size=plan.size, mean=dataset.mean, std=dataset.std)
    train, test = (_embedded(learner, plan, part, state, view, 0, stages) for part in (dataset.train, dataset.test))
    return train, test


def random_views(learner: Learner, plan: Plan, dataset: Dataset, state: Learning, count: int) -> list[np.ndarray]:
    """Backbone features of cropped and flipped training images, as a linear probe is trained on.

    Args:
        learner: of the run.
        plan: of the run.
        dataset: in memory or streamed.
        state: of the run.
        count: views of each image.

    Returns:
        So many arrays (n, d).

    Raises:
        ValueError: a file that can't be read, by name.
    """
    view = evaluation_view("crop_flip", size=plan.size, mean=dataset.mean, std=dataset.std)
    drawn = (_embedded(learner, plan, dataset.train, state, view, 1 + i, ["backbone"]) for i in range(count))
    return [found.features["backbone"] for found in drawn]


def _embedded(
    learner: Learner,
    plan: Plan,
    part: Split | Stream,
    state: Learning,
    view: ViewConfig,
    number: int,
    stages: list[str] | None,
) -> Embedded:
    """Other numbers draw other views of the same images, and one compiled function serves for all."""
    run = partial(
        embed,
        learner.encoder,
        state.train.params.encoder,
        state.train.stats,
        transform=_viewed(view),
        batch=BLOCK,
        stages=stages,
    )
    if isinstance(part, Split):
        return Embedded(run(images=part.images, first=number * part.samples), np.asarray(part.labels))
    # Every process reads all images; what fills up the last block is cut off again.
    order = np.minimum(np.arange(-(-part.samples // BLOCK) * BLOCK), part.samples - 1).reshape(-1, BLOCK)
    blocks: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    for batch in stream_batches(part, order, size=plan.size, process=0, processes=1):
        blocks.append(run(images=batch.images, first=number * part.samples + int(batch.numbers[0])))
        labels.append(batch.labels)
    whole = {name: np.concatenate([block[name] for block in blocks])[: part.samples] for name in blocks[0]}
    return Embedded(whole, np.concatenate(labels)[: part.samples])


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
