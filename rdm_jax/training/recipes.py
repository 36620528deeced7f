"""The published training recipe of each method, number by number, and what is built from it.

What the method itself has (predictor, prototypes, temperatures, queue) are the defaults of ``rdm_jax.methods.get``, and
the views those of ``method_views``.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from rdm_jax._checks import choose
from rdm_jax.methods import METHODS
from rdm_jax.training.augment import ViewConfig, method_views
from rdm_jax.training.networks import Encoder
from rdm_jax.training.optimizers import lars, one_dimensional, sgd, warmup_cosine
from rdm_jax.training.resnet import resnet_encoder

__all__ = ["Recipe", "make_encoder", "make_optimizer", "recipe"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a method is trained; frozen, so change it by ``dataclasses.replace``.

    Args:
        method: its name.
        optimizer: ``"sgd"`` or ``"lars"``.
        learning_rate: at a batch of 256, after the warm-up.
        weight_decay: coupled.
        min_rate: the learning rate at the end, whatever the batch.
        exclude: whether vectors (biases, scales of norms) get neither decay nor LARS's trust.
        constant: parameters of the method whose learning rate is constant, with neither warm-up nor fall.
        momentum: of the optimiser.
        eta: LARS's trust coefficient.
        clip: whether LARS's trust is clipped at the learning rate.
        batch_size: samples of a batch, over all devices.
        warmup_epochs: of the learning rate.
        warmup_start: the learning rate of the first step, whatever the batch.
        ema: the weight of the target's past at the first and the last step, a cosine between; None: no moving average.
        projector: widths of the projector's hidden layers.
        features: d, the width of what comes out of it.
        activation: of the projector.
        projector_norm: whether its hidden layers are normalised.
        final_norm: whether the features are, without scale and shift.
        zero_init: whether the last scale of each residual block starts at 0.
        views: what may happen in each of the two views.

    Raises:
        ValueError: an optimiser with an option of the other.

    >>> dataclasses.replace(recipe("byol"), batch_size=512).batch_size
    512

    Source: the sources of the methods; da Costa et al. 2022; Zhuo et al. 2023.
    """

    method: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    min_rate: float = 0.0
    exclude: bool = False
    constant: tuple[str, ...] = ()
    momentum: float = 0.9
    eta: float = 0.02
    clip: bool = True
    batch_size: int = 256
    warmup_epochs: int = 10
    warmup_start: float = 3e-5
    ema: tuple[float, float] | None = None
    projector: tuple[int, ...] = (2048, 2048)
    features: int = 2048
    activation: str = "relu"
    projector_norm: bool = True
    final_norm: bool | str = False
    zero_init: bool = False
    views: tuple[ViewConfig, ViewConfig]

    def __post_init__(self) -> None:
        choose(self.method, METHODS, "method")
        choose(self.optimizer, ("sgd", "lars"), "optimizer")
        if self.optimizer == "sgd" and self.exclude:
            raise ValueError("exclude is LARS's: SGD in these recipes decays all parameters")


def recipe(method: str) -> Recipe:
    """The recipe of a method of the table on CIFAR with a ResNet-18.

    Published are those of simsiam, byol, swav, dino, rdm_simsiam and rdm_byol. Departures:

    - All: the layers of a projector before a batch norm have no bias, where some published ones have biases that do
      nothing; the biases of the others start at 0, and not random. DINO's projector starts as the others' do, where the
      published one starts normal with standard deviation 0.02.
    - All: the learning rate of step t in the warm-up of w steps is that of t / w, so that the peak is at step w; the
      published code divides by w - 1.
    - swav: the last learning rate is 6e-4, and vectors have decay and trust; da Costa et al. 2022 have 0 and exclude
      them.
    - symsimsiam, linear: SimSiam's without its predictor, so that they differ from it by their method alone.
    - directpred: published with the rate 0.03 at a batch of 128, so 0.06 at 256, decay 4e-4, moving average 0.996,
      projector 512-128; the warm-up, the cosine and the views are SimSiam's.
    - isoloss: the same as directpred.

    Args:
        method: its name, such as ``"byol"``.

    Returns:
        The recipe.

    Raises:
        ValueError: an unknown method, with the nearest.

    >>> published = recipe("byol")
    >>> published.optimizer, published.learning_rate, published.ema, published.projector, published.features
    ('lars', 1.0, (0.99, 1.0), (4096,), 256)

    Source: the sources of the methods; Zhuo et al. 2023 and da Costa et al. 2022, published code.
    """
    own = _RECIPES[choose(method, _RECIPES, "method")]
    views = method_views("simsiam" if method == "linear" else method)
    return Recipe(method=method, views=views, **own)


def make_encoder(
    recipe: Recipe,
    *,
    depth: int = 18,
    width: int = 64,
    stem: str = "cifar",
    stem_padding: int | None = None,
    dtype: Any = jnp.float32,
    norm_groups: int = 1,
) -> Encoder:
    """The recipe's network: a ResNet with its projector.

    Args:
        recipe: of the method.
        depth: as for ``resnet_encoder``, and so are the others.
        width: of the first stage.
        stem: ``"cifar"`` or ``"imagenet"``.
        stem_padding: of the first convolution; None: 1 or 3, by the stem.
        dtype: of convolutions and products.
        norm_groups: parts of the batch that are normalised each by itself.

    Returns:
        The encoder.

    >>> import jax
    >>> encoder = make_encoder(recipe("dino"), depth=10, width=2)
    >>> params, _ = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    >>> params["projector"]["output"]["kernel"].shape
    (2048, 256)
    """
    return resnet_encoder(
        depth,
        width=width,
        stem=stem,
        stem_padding=stem_padding,
        projector=recipe.projector,
        features=recipe.features,
        projector_norm=recipe.projector_norm,
        activation=recipe.activation,
        final_norm=recipe.final_norm,
        zero_init=recipe.zero_init,
        dtype=dtype,
        norm_groups=norm_groups,
    )


def make_optimizer(
    recipe: Recipe, *, steps_per_epoch: int, epochs: int, batch_size: int | None = None
) -> optax.GradientTransformation:
    """The recipe's optimiser over ``Params``: its learning rate times batch / 256, warmed up, then along a cosine.

    Args:
        recipe: of the method.
        steps_per_epoch: batches in one pass over the data.
        epochs: of the whole run.
        batch_size: samples of a batch, over all devices; None: the recipe's.

    Returns:
        The optimiser; its memory is ``Descent``.

    Raises:
        ValueError: less than one step an epoch or one sample; a run that ends with the warm-up.

    >>> optimizer = make_optimizer(recipe("simsiam"), steps_per_epoch=195, epochs=400)
    >>> make_optimizer(recipe("simsiam"), steps_per_epoch=195, epochs=10)
    Traceback (most recent call last):
        ...
    ValueError: 10 epochs end with the warm-up of 10: train longer, or replace warmup_epochs in the recipe
    """
    batch = recipe.batch_size if batch_size is None else batch_size
    if steps_per_epoch < 1 or batch < 1:
        raise ValueError(f"a run needs steps_per_epoch >= 1 and batch_size >= 1, got {steps_per_epoch} and {batch}")
    if epochs <= recipe.warmup_epochs:
        raise ValueError(
            f"{epochs} epochs end with the warm-up of {recipe.warmup_epochs}: "
            "train longer, or replace warmup_epochs in the recipe"
        )
    peak = recipe.learning_rate * batch / 256
    schedule = warmup_cosine(
        peak,
        steps=epochs * steps_per_epoch,
        warmup_steps=recipe.warmup_epochs * steps_per_epoch,
        start=recipe.warmup_start,
        final=recipe.min_rate,
    )
    rates = dict.fromkeys(recipe.constant, peak)
    if recipe.optimizer == "sgd":
        return sgd(schedule, weight_decay=recipe.weight_decay, momentum=recipe.momentum, rates=rates)
    return lars(
        schedule,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        eta=recipe.eta,
        clip=recipe.clip,
        exclude=one_dimensional if recipe.exclude else None,
        rates=rates,
    )


_SIMSIAM: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "weight_decay": 1e-5,
    "projector": (2048, 2048),
    "features": 2048,
    "final_norm": True,
    "zero_init": True,
}
_BYOL: dict[str, Any] = {
    "optimizer": "lars",
    "learning_rate": 1.0,
    "weight_decay": 1e-5,
    "exclude": True,
    "ema": (0.99, 1.0),
    "projector": (4096,),
    "features": 256,
}
_DIRECTPRED: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.06,
    "weight_decay": 4e-4,
    "batch_size": 128,
    "ema": (0.996, 0.996),
    "projector": (512,),
    "features": 128,
}
_RECIPES: dict[str, dict[str, Any]] = {
    "simsiam": {**_SIMSIAM, "constant": ("predictor",)},
    "byol": _BYOL,
    "swav": {
        "optimizer": "lars",
        "learning_rate": 0.6,
        "weight_decay": 1e-6,
        "min_rate": 6e-4,
        "projector": (2048,),
        "features": 128,
    },
    "dino": {
        "optimizer": "lars",
        "learning_rate": 0.3,
        "weight_decay": 1e-6,
        "exclude": True,
        "ema": (0.9995, 1.0),
        "projector": (2048, 2048),
        "features": 256,
        "activation": "gelu",
        "projector_norm": False,
    },
    "symsimsiam": _SIMSIAM,
    "rdm_simsiam": _SIMSIAM,
    "rdm_byol": _BYOL,
    "directpred": _DIRECTPRED,
    "isoloss": _DIRECTPRED,
    "linear": _SIMSIAM,
}
