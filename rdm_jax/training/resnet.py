"""Residual networks with the features of every stage, and the stem that small images need."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rdm_jax._checks import choose
from rdm_jax.training.networks import BatchNorm, Encoder, Projector, module_encoder
from rdm_jax.types import Array

__all__ = ["resnet_encoder"]

# Blocks in each stage, and whether they are bottlenecks.
_DEPTHS: dict[int, tuple[tuple[int, ...], bool]] = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    50: ((3, 4, 6, 3), True),
}
_EXPANSION = 4
# The published networks' linear layers start uniform with variance 1 / (3 width), a third of Flax's.
_LINEAR = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_CONVOLUTION = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def resnet_encoder(
    depth: int = 18,
    *,
    width: int = 64,
    stem: str = "cifar",
    stem_padding: int | None = None,
    projector: Sequence[int] = (2048, 2048),
    features: int = 2048,
    projector_norm: bool = True,
    activation: str = "relu",
    final_norm: bool | str = True,
    zero_init: bool = False,
    dtype: Any = jnp.float32,
    norm_groups: int = 1,
) -> Encoder:
    """A residual network, average pooling, and a projector; the defaults are SimSiam's on CIFAR.

    Stage k of four has width 2^(k-1) ``width``, four times that with bottlenecks, and halves the image but for the
    first. Of depth 50 the stride is in the 3 x 3 convolution. Convolutions start normal with variance 2 / fan_out, and
    the projector's weights uniform with variance 1 / (3 fan_in), biases 0.

    Args:
        depth: 18, 50 (bottlenecks), or 10, which has one block a stage.
        width: of the first stage; 64 is the published one.
        stem: ``"cifar"``: 3 x 3; ``"imagenet"``: 7 x 7 with stride 2, then a maximum over 3 x 3 with stride 2.
        stem_padding: pixels on every side in the first convolution; None: 1 and 3. Published CIFAR runs also have 2.
        projector: widths of the projector's hidden layers.
        features: d, the width of what comes out.
        projector_norm: whether the projector's hidden layers are normalised.
        activation: the projector's, ``"relu"`` or ``"gelu"``.
        final_norm: whether the features are normalised, without learned scale and shift; ``"affine"``: with them.
        zero_init: whether the last scale of each block starts at 0, so that blocks add nothing at first.
        dtype: of convolutions and products, such as ``jnp.bfloat16``. Parameters, batch statistics and all that comes
            out are float32.
        norm_groups: parts of the batch that are normalised each by itself, in the network and the projector.

    Returns:
        The encoder of images (n, height, width, 3); stages ``stage1`` to ``stage4``, each averaged over the image, of
        which ``backbone`` is the last, then ``projector0`` ....

    Raises:
        ValueError: another depth or stem; a width, a padding or a number of parts that is too small.

    >>> encoder = resnet_encoder(10, width=2, projector=(8,), features=4)
    >>> images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    >>> params, stats = jax.eval_shape(encoder.init, jax.random.key(0), images)
    >>> stages = jax.eval_shape(lambda *x: encoder.apply(*x, True), params, stats, images).stages
    >>> {name: stage.shape[1] for name, stage in stages.items()}
    {'backbone': 16, 'projector0': 8, 'stage1': 2, 'stage2': 4, 'stage3': 8, 'stage4': 16}

    Source: He et al. 2016; Chen and He 2021 (SimSiam); Goyal et al. 2017 for ``zero_init``.
    """
    choose(stem, ("cifar", "imagenet"), "stem")
    if depth not in _DEPTHS:
        raise ValueError(f"depth is one of {', '.join(map(str, _DEPTHS))}, got {depth}")
    if width < 1 or norm_groups < 1 or (stem_padding is not None and stem_padding < 0):
        raise ValueError(
            "a network needs width >= 1, norm_groups >= 1 and stem_padding >= 0, "
            f"got {width}, {norm_groups} and {stem_padding}"
        )
    padding = {"cifar": 1, "imagenet": 3}[stem] if stem_padding is None else stem_padding

    def build(shape: tuple[int, ...], rngs: nnx.Rngs) -> _Network:
        if len(shape) != 3:
            raise ValueError(f"a residual network takes images (n, height, width, channels), got (n, *{shape})")
        make = _Layers(dtype, norm_groups, rngs)
        blocks, bottleneck = _DEPTHS[depth]
        trunk = _Trunk(shape[-1], width, blocks, bottleneck, stem, padding, zero_init, make)
        head = Projector(
            trunk.width,
            projector,
            features,
            activation=activation,
            batch_norm=projector_norm,
            final_norm=final_norm,
            groups=norm_groups,
            dtype=dtype,
            kernel_init=_LINEAR,
            output_init=_LINEAR,
            rngs=rngs,
        )
        return _Network(trunk, head)

    # Once, without arrays, so that a bad option is refused here.
    nnx.eval_shape(lambda: build((8, 8, 3), nnx.Rngs(0)))
    return module_encoder(build)


class _Layers:
    """Makes the layers of one network: what they have in common."""

    def __init__(self, dtype: Any, groups: int, rngs: nnx.Rngs) -> None:
        self.dtype, self.groups, self.rngs = dtype, groups, rngs

    def convolution(self, before: int, after: int, size: int, stride: int, padding: int | None = None) -> nnx.Conv:
        sides = size // 2 if padding is None else padding
        return nnx.Conv(
            before,
            after,
            (size, size),
            strides=stride,
            padding=[(sides, sides)] * 2,
            use_bias=False,
            kernel_init=_CONVOLUTION,
            dtype=self.dtype,
            conv_general_dilated=_convolution,
            rngs=self.rngs,
        )

    def norm(self, width: int, start: float = 1.0) -> BatchNorm:
        return BatchNorm(width, start=start, groups=self.groups)


def _convolution(inputs: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """``jax.lax.conv_general_dilated``, whose gradient in the kernel, on a CPU, is summed over parts of the batch.

    XLA computes that gradient as a convolution with a kernel as large as the image, which takes up to three times as
    long in one piece. In a batch that devices share a part would lie on one of them, so there it stays whole.
    """

    def convolve(images: Array, weights: Array) -> Array:
        return jax.lax.conv_general_dilated(images, weights, strides, padding, **options)

    whole = jax.custom_jvp(convolve)

    @whole.defjvp
    def derivative(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        out = convolve(*primals)
        parts = jnp.split(primals[0], _parts(out.shape))
        by_kernel = jnp.concatenate([convolve(part, tangents[1]) for part in parts])
        return out, convolve(tangents[0], primals[1]) + by_kernel

    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return whole(inputs, kernel) if one_cpu else convolve(inputs, kernel)


def _parts(shape: tuple[int, ...]) -> int:
    """The most equal parts of a batch, up to 16, that have a thousand pixels each."""
    largest = max(1, min(16, math.prod(shape[:-1]) // 1000))
    return max(k for k in range(1, largest + 1) if shape[0] % k == 0)


class _Block(nnx.Module):
    """x + f(x), then ReLU: f is 3 x 3, 3 x 3; or 1 x 1, 3 x 3, 1 x 1 for a bottleneck."""

    def __init__(
        self, before: int, inner: int, after: int, stride: int, sizes: tuple[int, ...], zero: bool, make: _Layers
    ) -> None:
        self.depth = len(sizes)
        widths = [before, *(inner,) * (self.depth - 1), after]
        strided = sizes.index(3)
        for i, size in enumerate(sizes):
            start = 0.0 if zero and i == self.depth - 1 else 1.0
            stride_here = stride if i == strided else 1
            setattr(self, f"conv{i}", make.convolution(widths[i], widths[i + 1], size, stride_here))
            setattr(self, f"norm{i}", make.norm(widths[i + 1], start))
        self.shortened = stride != 1 or before != after
        if self.shortened:
            self.shortcut = make.convolution(before, after, 1, stride)
            self.shortcut_norm = make.norm(after)

    def __call__(self, inputs: Array, *, train: bool) -> Array:
        values = inputs
        for i in range(self.depth):
            values = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(values), train=train)
            values = jax.nn.relu(values) if i < self.depth - 1 else values
        if self.shortened:
            inputs = self.shortcut_norm(self.shortcut(inputs), train=train)
        return jax.nn.relu(inputs + values)


class _Trunk(nnx.Module):
    """All but the projector."""

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: tuple[int, ...],
        bottleneck: bool,
        stem: str,
        padding: int,
        zero_init: bool,
        make: _Layers,
    ) -> None:
        self.imagenet = stem == "imagenet"
        size, stride = (7, 2) if self.imagenet else (3, 1)
        self.stem = make.convolution(channels, width, size, stride, padding)
        self.stem_norm = make.norm(width)
        sizes, expansion = ((1, 3, 1), _EXPANSION) if bottleneck else ((3, 3), 1)
        before, names = width, []
        for k, count in enumerate(blocks):
            inner = width * 2**k
            for j in range(count):
                block = _Block(before, inner, inner * expansion, 1 + (k > 0 and j == 0), sizes, zero_init, make)
                setattr(self, f"stage{k + 1}_block{j}", block)
                names.append((f"stage{k + 1}", f"stage{k + 1}_block{j}"))
                before = inner * expansion
        self.names, self.width = tuple(names), before

    def __call__(self, images: Array, *, train: bool) -> dict[str, Array]:
        values = jax.nn.relu(self.stem_norm(self.stem(images), train=train))
        if self.imagenet:
            values = nnx.max_pool(values, (3, 3), strides=(2, 2), padding=[(1, 1)] * 2)
        last: dict[str, Array] = {}
        for stage, block in self.names:
            last[stage] = values = getattr(self, block)(values, train=train)
        return {stage: jnp.mean(values.astype(jnp.float32), axis=(1, 2)) for stage, values in last.items()}


class _Network(nnx.Module):
    def __init__(self, trunk: _Trunk, projector: Projector) -> None:
        self.trunk, self.projector = trunk, projector

    def __call__(self, images: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
        stages = self.trunk(images.astype(jnp.float32), train=train)
        stages["backbone"] = stages["stage4"]
        features, hidden = self.projector(stages["backbone"], train=train)
        return features, {**stages, **hidden}
