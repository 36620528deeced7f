"""The options of a training run, and what is built from them: the method's published recipe, unless told otherwise."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from rdm_jax import reporting
from rdm_jax._checks import choose
from rdm_jax.commandline import Options
from rdm_jax.methods import METHODS, Method, get
from rdm_jax.training.data import load
from rdm_jax.training.dataset import DataNotFound, Dataset, Split
from rdm_jax.training.learner import Learner
from rdm_jax.training.recipes import Recipe, make_encoder, make_optimizer, recipe
from rdm_jax.training.run import Plan
from rdm_jax.training.step import ema_schedule

_FILTERED = ("rdm_simsiam", "rdm_byol")
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class TrainOptions(Options):
    """Train a method with a ResNet on images. What is left at None is the published recipe's.

    The preset paper is the recipe; small has a ResNet-10 of width 8 with a projector to match, and smoke one of width 4
    on the synthetic images.
    """

    method: str = "simsiam"
    """simsiam, byol, swav, dino, symsimsiam, rdm_simsiam, rdm_byol, directpred, isoloss or linear."""
    side: Literal["online", "target"] = "online"
    """Of the filter (rdm_simsiam and rdm_byol)."""
    filter: str | None = None
    """power:EXPONENT, log, log1p, log1p_square or identity; default: power:1 online, power:-0.5 on the target side."""
    dataset: str = "cifar10"
    """cifar10, cifar100, synthetic, PATH.npz, or a data set that tensorflow-datasets has prepared."""
    data_dir: Path | None = None
    """Where prepared data sets are (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)."""
    fallback: str | None = None
    """A data set to take where there is none of that name."""
    limit: int | None = None
    """At most so many images of each split."""
    size: int | None = None
    """Pixels on each side of a view (default: the images' own; 224 where these differ)."""
    epochs: int = 400
    """Over the training images."""
    batch_size: int | None = None
    """Samples of a batch, over all devices."""
    microbatches: int = 1
    """Parts of a batch that go through the network one after the other, to save memory."""
    learning_rate: float | None = None
    """For 256 samples; it is scaled by batch_size/256."""
    weight_decay: float | None = None
    """Coupled, as in the recipes."""
    warmup_epochs: int | None = None
    """Of the learning rate."""
    depth: Literal[10, 18, 50] = 18
    """Of the ResNet."""
    width: int = 64
    """Channels of its first stage."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """3x3 convolution without pooling, or 7x7 with stride 2 and pooling."""
    stem_padding: int | None = None
    """Of the first convolution (default: 1 for cifar, where the published code has 2, and 3 for imagenet)."""
    shrink: int = 1
    """Divides the widths of projector and predictor, prototypes and queue; none falls below 64."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's arithmetic; parameters and statistics are float32."""
    local_norm: bool = False
    """Batch normalisation over each device's share of the batch instead of the whole of it."""
    probe: int = 2048
    """Samples of the probe set."""
    probe_every: float = 5
    """Epochs between two probes, 0.1 for ten an epoch; 0: only at both ends."""
    probe_rates: bool = False
    """At each probe also compute growth rates of free features and of the gradient flow (five times the cost)."""
    save_every: int = 5
    """Epochs between two checkpoints; 0: only at the end."""
    linear: bool = True
    """Train the linear probe at the end (kNN is always there)."""
    linear_crops: int = 10
    """Cropped and flipped views of each image for the linear probe, in turns; 0: the images as they are."""
    resume: bool = False
    """Go on with the run in --out."""
    distributed: bool = False
    """Join the other processes of this run (on a TPU pod jax finds them)."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where jax can't find it."""
    processes: int | None = None
    """How many there are, where jax can't know."""
    process: int | None = None
    """Number of this one."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense before anything is read or made."""
        super().__post_init__()
        choose(self.method, METHODS, "--method")
        if self.method not in _FILTERED and (self.filter is not None or self.side != "online"):
            raise ValueError(f"--filter and --side are for {' and '.join(_FILTERED)}; {self.method} has no filter")
        self.require_at_least(epochs=1, microbatches=1, width=1, shrink=1, probe=1, limit=1, size=1, batch_size=1)
        self.require_at_least(linear_crops=0, probe_every=0, save_every=0, stem_padding=0, weight_decay=0)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"--learning-rate must be above 0, got {self.learning_rate}")
        if self.resume and self.out is None:
            raise ValueError("--resume needs --out, the folder of the run to go on with")
        self.make_method()

    def make_method(self) -> Method:
        """The method with its own options."""
        own: dict[str, Any] = {}
        if self.method in _FILTERED:
            own = {"side": self.side} | ({} if self.filter is None else {"filter": self.filter})
        known = get(self.method).options
        if "hidden" in known:
            own["hidden"] = tuple(self.shrunk(width) for width in known["hidden"])
        own |= {name: self.shrunk(known[name]) for name in ("count", "queue") if name in known}
        if "queue_start" in known:
            own["queue_start"] = min(known["queue_start"], self.epochs // 2)
        return get(self.method, **own)

    def make_recipe(self) -> Recipe:
        """The published recipe with what was chosen instead."""
        published = recipe(self.method)
        chosen: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("learning_rate", "weight_decay", "batch_size", "warmup_epochs")
            if getattr(self, name) is not None
        }
        widths: dict[str, Any] = {
            "projector": tuple(self.shrunk(width) for width in published.projector),
            "features": self.shrunk(published.features),
        }
        return dataclasses.replace(published, **chosen, **widths)

    def shrunk(self, width: int) -> int:
        """A published width, divided by ``shrink``, but not below 64."""
        return max(width // self.shrink, min(width, 64))


def plain(options: TrainOptions) -> dict[str, Any]:
    """The options as JSON has them.

    Args:
        options: of a run.

    Returns:
        A dict.

    >>> plain(TrainOptions(method="byol"))["method"]
    'byol'
    """
    return reporting.plain(dataclasses.asdict(options))


def read_data(options: TrainOptions) -> Dataset:
    """The data set of a run, or the one to take where it is not there.

    Args:
        options: of the run.

    Returns:
        The data set; its name says which it is.

    Raises:
        DataNotFound: there is none of that name, and no other was named.
        ValueError: a damaged file, by name.

    >>> read_data(TrainOptions(dataset="synthetic", limit=10)).train.samples
    10
    """
    try:
        directory = None if options.dataset == "synthetic" else options.data_dir
        return load(options.dataset, directory, limit=options.limit)
    except DataNotFound as error:
        if options.fallback is None:
            raise
        print(f"{error} Taking {options.fallback} instead.", file=sys.stderr)
        return load(options.fallback, limit=options.limit)


def build(options: TrainOptions, dataset: Dataset, devices: int = 1) -> tuple[Learner, Plan]:
    """What is trained, and how long.

    Args:
        options: of the run.
        dataset: on what.
        devices: that share a batch.

    Returns:
        Learner and plan.

    Raises:
        ValueError: options that do not fit the data, the devices, or each other.

    >>> options = TrainOptions(dataset="synthetic", limit=64, batch_size=16, epochs=20, depth=10, width=2, shrink=32)
    >>> learner, plan = build(options, read_data(options))
    >>> learner.steps_per_epoch, plan.size, learner.classes
    (4, 32, 10)
    """
    own, method = options.make_recipe(), options.make_method()
    batch, samples = own.batch_size, dataset.train.samples
    if batch > samples:
        raise ValueError(f"a batch of {batch} is more than the {samples} training images: take a smaller --batch-size")
    if batch % (devices * options.microbatches):
        raise ValueError(
            f"a batch of {batch} can't be shared by {devices} devices in {options.microbatches} parts: "
            "change --batch-size or --microbatches"
        )
    size = options.size or _size(dataset)
    steps = samples // batch
    encoder = make_encoder(
        own,
        depth=options.depth,
        width=options.width,
        stem=options.stem,
        stem_padding=options.stem_padding,
        dtype=_DTYPES[options.dtype],
        norm_groups=devices if options.local_norm else 1,
    )
    views = [dataclasses.replace(view, size=size, mean=dataset.mean, std=dataset.std) for view in own.views]
    learner = Learner(
        encoder,
        method,
        make_optimizer(own, steps_per_epoch=steps, epochs=options.epochs, batch_size=batch),
        views,
        len(dataset.classes),
        steps,
        options.seed,
        0.99 if own.ema is None else ema_schedule(*own.ema, options.epochs * steps),
        options.microbatches,
    )
    every = options.probe_every, options.save_every
    return learner, Plan(options.epochs, batch, size, *every, options.probe, options.probe_rates)


def _size(dataset: Dataset) -> int:
    """The images' own side if they are square and in memory, else ImageNet's."""
    if not isinstance(dataset.train, Split):
        return 224
    height, width = dataset.train.images.shape[1:3]
    return min(height, width)
