"""How good the features of a trained network are: kNN and linear probe on the frozen backbone."""

from typing import NamedTuple

from rdm_jax.training.dataset import Dataset
from rdm_jax.training.evaluation import knn_accuracy, linear_probe
from rdm_jax.training.learner import Learner, Learning
from rdm_jax.training.run import Plan
from rdm_jax.training.saved import features_of, random_views


class Scores(NamedTuple):
    """Top-1 accuracies on the test images, of backbone features; ``linear`` is None where it was not asked for.

    ``knn``: cosine, k = 20, T = 0.07; ``knn_200``: k = 200, T = 0.1.
    """

    knn: float
    knn_200: float
    linear: float | None


def score(learner: Learner, plan: Plan, dataset: Dataset, state: Learning, *, linear: bool, crops: int = 0) -> Scores:
    """Embed all images as they are, with running statistics, and see how well their classes are told apart.

    The published linear probe trains on images that are cropped and flipped anew in each of its 100 epochs; here on
    ``crops`` such views of each image, which take turns, or without any on the images as they are.

    Args:
        learner: of the run.
        plan: of the run, for the size of the images.
        dataset: whose training images are the neighbours, or what the probe is trained on.
        state: of the run.
        linear: whether to train the linear probe.
        crops: views of each training image for it.

    Returns:
        The accuracies.

    Raises:
        ValueError: a file that can't be read, by name.

    Source: Wu et al. 2018 (kNN); da Costa et al. 2022 (linear probe).
    """
    train, test = features_of(learner, plan, dataset, state, ["backbone"])
    rows = (train.features["backbone"], train.labels, test.features["backbone"], test.labels)
    several = min(200, len(train.labels))
    views = random_views(learner, plan, dataset, state, crops) if linear else []
    return Scores(
        knn_accuracy(*rows, k=min(20, len(train.labels))),
        knn_accuracy(*rows, k=several, temperature=0.1),
        linear_probe(*rows, views=views).accuracy if linear else None,
    )
