"""How good features are at telling classes apart: weighted kNN, a linear probe, and a probe trained along.

The headline is ``linear_probe`` on frozen features, as ``embed`` gives them; ``knn_accuracy`` needs no training, and
``OnlineProbe`` costs next to nothing during a run. Features are taken as they are: nothing is standardised.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Int

from rdm_jax._checks import as_features, as_floating, choose, require
from rdm_jax.methods.transform import Number
from rdm_jax.training.dataset import batch_order
from rdm_jax.training.networks import Encoder
from rdm_jax.types import Array, ArrayLike, Features, Labels, PRNGKeyArray, Scalar

__all__ = [
    "OnlineProbe",
    "ProbeResult",
    "embed",
    "init_online_probe",
    "knn_accuracy",
    "linear_probe",
    "online_accuracy",
    "update_online_probe",
]

_RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class ProbeResult(NamedTuple):
    """Top-1 ``accuracy`` on the test rows, the learning ``rate`` chosen, and each rate's accuracy on rows held out."""

    accuracy: float
    rate: float
    held_out: dict[float, float]


class OnlineProbe(NamedTuple):
    """A linear classifier, logits z K + b, and the velocities of its momentum."""

    kernel: Float[Array, "d classes"]
    bias: Float[Array, " classes"]
    kernel_velocity: Float[Array, "d classes"]
    bias_velocity: Float[Array, " classes"]


def embed(
    encoder: Encoder,
    params: Any,
    stats: Any,
    images: Any,
    *,
    transform: Callable[[Array, Array], ArrayLike],
    batch: int = 512,
    stages: Sequence[str] | None = None,
    sharding: jax.sharding.Sharding | None = None,
    first: int = 0,
) -> dict[str, np.ndarray]:
    """Features of many images, batch by batch, with the running statistics of batch norm.

    Args:
        encoder: the network.
        params: its parameters.
        stats: its running statistics.
        images: (n, ...), as a rule uint8.
        transform: ``(images, numbers) -> inputs``, from a batch and its samples' numbers to what the encoder
            takes. It is compiled together with the encoder: pass the same function again, and it is so only once.
        batch: images at a time; the last batch is filled up, so that one compiled function serves.
        stages: names of those to return, ``"features"`` being what comes out last; None: all.
        sharding: of a batch over devices; None: it goes where the parameters are.
        first: the first sample's number for ``transform``; a random one draws another view with another.

    Returns:
        Name to (n, .) array, in memory, on every process.

    Raises:
        ValueError: no images; a batch of less than 1; an unknown stage.

    >>> from rdm_jax.training import mlp_encoder
    >>> encoder = mlp_encoder((8,), features=2)
    >>> params, stats = encoder.init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> scaled = lambda images, numbers: images / 255
    >>> found = embed(encoder, params, stats, np.zeros((5, 3), np.uint8), transform=scaled, batch=2)
    >>> {name: rows.shape for name, rows in found.items()}
    {'backbone': (5, 8), 'features': (5, 2), 'projector0': (5, 128)}
    """
    if batch < 1 or len(images) == 0:
        raise ValueError(f"there must be an image and a batch of at least 1, got {len(images)} images, batch {batch}")
    size = batch if sharding is not None else min(batch, len(images))
    run = partial(_encoded, encoder=encoder, transform=transform)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(images), size):
        numbers = np.minimum(np.arange(start, start + size), len(images) - 1)
        inputs = (np.asarray(images[start : start + size]), (first + numbers).astype(np.int32))
        inputs = (np.concatenate([inputs[0], np.repeat(inputs[0][-1:], size - len(inputs[0]), axis=0)]), inputs[1])
        if sharding is not None:
            inputs = jax.device_put(inputs, sharding)
        if not parts:
            known = tuple(jax.eval_shape(partial(run, names=None), params, stats, *inputs))
            names = known if stages is None else tuple(choose(name, known, "stages") for name in stages)
        found = run(params, stats, *inputs, names=names)
        parts.append({name: _local(found[name])[: len(images) - start] for name in names})
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def knn_accuracy(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    k: int = 20,
    temperature: Number = 0.07,
    batch: int = 1000,
) -> float:
    """Top-1 accuracy of a vote among the k nearest training rows, each with weight exp(cos(test, train) / T).

    Of neighbours equally near the first count, and of classes with equal votes the lowest wins. A row of zeros has
    cosine 0 with all.

    Args:
        train_features: (n, d).
        train_labels: (n,) integers >= 0.
        test_features: (m, d).
        test_labels: (m,) integers >= 0.
        k: neighbours that vote.
        temperature: T > 0.
        batch: test rows at a time; (batch, n) similarities are in memory at once.

    Returns:
        The fraction of test rows whose class is found.

    Raises:
        ValueError: rows and labels that do not match; NaN or inf; less than k training rows, or two classes among them;
            k, T or batch that are not positive.

    >>> knn_accuracy([[1, 0], [2, 1], [0, 3]], [0, 0, 1], [[3, 1], [1, 3]], [0, 1], k=1)
    1.0

    Source: Wu et al. 2018.
    """
    train, labels, test, truth = _checked(train_features, train_labels, test_features, test_labels)
    if not 1 <= k <= len(train):
        raise ValueError(f"k neighbours are 1 to the {len(train)} training rows, got k = {k}")
    if batch < 1 or not temperature > 0:
        raise ValueError(f"batch and temperature must be positive, got {batch} and {temperature}")
    classes, size, correct = int(labels.max()) + 1, min(batch, len(test)), 0
    known, wanted, units = _unit(train), jnp.asarray(labels), _unit(test)
    for start in range(0, len(test), size):
        rows = units[start : start + size]
        rows = jnp.pad(rows, ((0, size - len(rows)), (0, 0)))
        found = np.asarray(_voted(known, wanted, rows, jnp.asarray(temperature, known.dtype), k, classes))
        expected = truth[start : start + size]
        correct += int(np.sum(found[: len(expected)] == expected))
    return correct / len(test)


def linear_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    epochs: int = 100,
    rates: Sequence[Number] = _RATES,
    batch_size: int = 256,
    momentum: Number = 0.9,
    drops: Sequence[int] = (60, 80),
    held_out: Number = 0.1,
    views: Sequence[ArrayLike] = (),
    seed: int = 0,
) -> ProbeResult:
    """Top-1 accuracy of a linear classifier trained on frozen features, with the best of several learning rates.

    Softmax cross-entropy, SGD with momentum, v <- m v + gradient, K <- K - rate v, from zero, without weight decay. All
    rates are trained at once without a part of the training rows, and the one with the highest accuracy on that part
    is chosen (the lowest of equals). With it the classifier is trained anew on all training rows, and then tested.

    The batches of an epoch are those of ``batch_order``; the part held out is the first of a permutation by the seed.
    A batch has at most as many rows as there are.

    Args:
        train_features: (n, d), neither standardised nor normalised here.
        train_labels: (n,) integers >= 0.
        test_features: (m, d).
        test_labels: (m,) integers >= 0.
        epochs: passes over the training rows.
        rates: learning rates to choose from, not scaled by the batch.
        batch_size: rows a step; what does not fill a batch is left out, another part in every epoch.
        momentum: m in [0, 1).
        drops: epochs from which on the rate is a tenth of what it was before.
        held_out: fraction of the training rows on which the rate is chosen.
        views: features (n, d) of random views of the training rows, such as cropped and flipped ones. They take turns,
            one an epoch, as what is trained on; the rate is still chosen on ``train_features``. None: these are it.
        seed: of the order and of the part held out.

    Returns:
        ProbeResult. A rate that did not stay finite has accuracy 0 on the part held out.

    Raises:
        ValueError: rows and labels that do not match; NaN or inf; a single class; options outside their range.

    >>> linear_probe([[-1], [1]] * 8, [0, 1] * 8, [[-2], [3]], [0, 1], epochs=2, rates=(0.5,)).accuracy
    1.0

    Source: da Costa et al. 2022 (solo-learn).
    """
    train, labels, test, truth = _checked(train_features, train_labels, test_features, test_labels)
    rates = sorted({float(rate) for rate in rates})
    if epochs < 1 or batch_size < 1 or not 0 <= momentum < 1:
        raise ValueError(f"need epochs, batch_size >= 1 and momentum in [0, 1), got {epochs}, {batch_size}, {momentum}")
    if not rates or not all(0 < rate < np.inf for rate in rates):
        raise ValueError(f"rates must be positive numbers, at least one, got {rates}")
    aside = round(held_out * len(train)) or 1
    if not 0 < held_out < 1 or aside >= len(train):
        raise ValueError(f"held_out is a fraction of {len(train)} rows, between 0 and 1, got {held_out}")
    # The last number sets it apart from the orders of the epochs.
    order = np.random.default_rng([seed, 0, 1]).permutation(len(train))
    fit = partial(
        _fit, classes=int(labels.max()) + 1, epochs=epochs, batch=batch_size, momentum=momentum, drops=drops, seed=seed
    )
    seen = [as_features(view, "views")[0] for view in views] or [train]
    if any(view.shape != train.shape for view in seen):
        raise ValueError(f"views must be of the training rows, {train.shape}, got {[view.shape for view in seen]}")
    choosing = fit([view[order[aside:]] for view in seen], labels[order[aside:]], rates)
    accuracies = [float(x) for x in _accuracies(choosing, train[order[:aside]], labels[order[:aside]], len(rates))]
    rate = rates[int(np.argmax(accuracies))]
    final = fit(seen, labels, [rate])
    return ProbeResult(float(_accuracies(final, test, truth, 1)[0]), rate, dict(zip(rates, accuracies, strict=True)))


def init_online_probe(key: PRNGKeyArray, width: int, classes: int) -> OnlineProbe:
    """A linear classifier before its first step: weights uniform within 1 / sqrt(width), no bias.

    Args:
        key: a jax random key.
        width: d, of the features.
        classes: how many.

    Returns:
        The probe, a pytree.

    Raises:
        ValueError: a width below 1 or less than two classes.

    >>> init_online_probe(jax.random.key(0), 4, 3).kernel.shape
    (4, 3)
    """
    if width < 1 or classes < 2:
        raise ValueError(f"a classifier needs a width >= 1 and at least two classes, got {width} and {classes}")
    bound = width**-0.5
    kernel = jax.random.uniform(key, (width, classes), minval=-bound, maxval=bound)
    bias = jnp.zeros(classes, kernel.dtype)
    return OnlineProbe(kernel, bias, jnp.zeros_like(kernel), bias)


def update_online_probe(
    probe: OnlineProbe,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    rate: Number | Array = 0.1,
    momentum: Number | Array = 0.9,
) -> tuple[OnlineProbe, Scalar, Scalar]:
    """One step of SGD on softmax cross-entropy: v <- m v + gradient, K <- K - rate v; no gradient in the features.

    Args:
        probe: before the step.
        features: (n, d), or (views, n, d) for several views of the same samples.
        labels: (n,) integers, 0 to classes - 1.
        rate: learning rate.
        momentum: m in [0, 1).

    Returns:
        The probe after the step, and its accuracy and mean loss on these features before it.

    Raises:
        ValueError: features and labels of other shapes; NaN or inf; labels that are no classes.

    >>> probe = init_online_probe(jax.random.key(0), 1, 2)
    >>> for _ in range(20):
    ...     probe, accuracy, loss = update_online_probe(probe, [[-1.0], [1.0]], [0, 1])
    >>> float(accuracy), bool(loss < 0.5)
    (1.0, True)

    Source: da Costa et al. 2022 (solo-learn).
    """
    rows, classes = _rows(probe, features, labels)
    logits = _logits(probe, rows)
    logs, truth = jax.nn.log_softmax(logits), jax.nn.one_hot(classes, len(probe.bias), dtype=logits.dtype)
    slope = (jnp.exp(logs) - truth) / len(rows)
    kernel_velocity = momentum * probe.kernel_velocity + jnp.matmul(rows.T, slope, precision="highest")
    bias_velocity = momentum * probe.bias_velocity + jnp.sum(slope, axis=0)
    after = OnlineProbe(
        probe.kernel - rate * kernel_velocity, probe.bias - rate * bias_velocity, kernel_velocity, bias_velocity
    )
    return after, jnp.mean(jnp.argmax(logits, axis=1) == classes), -jnp.mean(jnp.sum(truth * logs, axis=1))


def online_accuracy(probe: OnlineProbe, features: ArrayLike, labels: ArrayLike) -> Scalar:
    """Top-1 accuracy of the probe as it is.

    Args:
        probe: of ``init_online_probe`` or ``update_online_probe``.
        features: (n, d), or (views, n, d) for several views of the same samples.
        labels: (n,) integers, 0 to classes - 1.

    Returns:
        The fraction of rows whose class has the largest logit.

    Raises:
        ValueError: as for ``update_online_probe``.

    >>> probe = OnlineProbe(jnp.array([[-1.0, 1.0]]), jnp.zeros(2), jnp.zeros((1, 2)), jnp.zeros(2))
    >>> float(online_accuracy(probe, [[-1.0], [1.0]], [0, 1]))
    1.0
    """
    rows, classes = _rows(probe, features, labels)
    return jnp.mean(jnp.argmax(_logits(probe, rows), axis=1) == classes)


@partial(jax.jit, static_argnames=("encoder", "transform", "names"))
def _encoded(
    params: Any,
    stats: Any,
    images: Array,
    numbers: Array,
    *,
    encoder: Encoder,
    transform: Callable[[Array, Array], ArrayLike],
    names: tuple[str, ...] | None,
) -> dict[str, Array]:
    encoded = encoder.apply(params, stats, transform(images, numbers), False)
    found = {**encoded.stages, "features": encoded.features}
    return found if names is None else {name: found[name] for name in names}


def _local(array: Array) -> np.ndarray:
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _checked(
    train_features: ArrayLike, train_labels: ArrayLike, test_features: ArrayLike, test_labels: ArrayLike
) -> tuple[Features, np.ndarray, Float[Array, "m d"], np.ndarray]:
    train, test = as_features(train_features, "train_features")[0], as_features(test_features, "test_features")[0]
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"train_features have {train.shape[1]} columns, test_features {test.shape[1]}: embed both alike"
        )
    labels, truth = _labels(train_labels, len(train), "train"), _labels(test_labels, len(test), "test")
    if labels.min() == labels.max():
        raise ValueError(f"all train_labels are {labels[0]}: there must be at least two classes to tell apart")
    return train, labels, test, truth


def _labels(labels: ArrayLike, rows: int, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (rows,):
        raise ValueError(f"{name}_labels must be one for each of the {rows} rows of {name}_features, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        raise ValueError(f"{name}_labels must be integers >= 0, got {array.dtype} from {array.min()} on")
    return array.astype(np.int32)


@jax.jit
def _unit(features: Features) -> Features:
    # By the largest entry first, so that no square overflows or vanishes.
    scaled = _divided(features, jnp.max(jnp.abs(features), axis=1, keepdims=True))
    return _divided(scaled, jnp.linalg.norm(scaled, axis=1, keepdims=True))


def _divided(features: Features, sizes: Float[Array, "n 1"]) -> Features:
    return features / jnp.where(sizes > 0, sizes, 1)


@partial(jax.jit, static_argnums=(4, 5))
def _voted(
    known: Features, labels: Labels, rows: Float[Array, "m d"], temperature: Scalar, k: int, classes: int
) -> Int[Array, " m"]:
    cosines, nearest = _nearest(jnp.matmul(rows, known.T, precision="highest"), k)
    # Relative to the nearest: the vote is the same, and nothing overflows.
    weights = jnp.exp((cosines - cosines[:, :1]) / temperature)
    voters = labels[nearest][:, :, None] == jnp.arange(classes)[None, None]
    return jnp.argmax(jnp.sum(jnp.where(voters, weights[:, :, None], 0), axis=1), axis=1)


def _nearest(cosines: Float[Array, "m n"], k: int) -> tuple[Float[Array, "m k"], Int[Array, "m k"]]:
    """The k largest of each row, in falling order, the first of equals first, as ``lax.top_k`` does more slowly.

    Each is in one of the k groups with the largest maxima: a group before its own has an entry before it.
    """
    rows, n = cosines.shape
    size = max(round((n / k) ** 0.5), 1)
    padded = jnp.pad(cosines, ((0, 0), (0, -n % size)), constant_values=-jnp.inf)
    groups = padded.reshape(rows, -1, size)
    # In their own order, so that equals stay in theirs.
    chosen = jnp.sort(jax.lax.top_k(jnp.max(groups, axis=2), min(k, groups.shape[1]))[1], axis=1)
    entries = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(rows, -1)
    values, places = jax.lax.top_k(entries, k)
    return values, jnp.take_along_axis(chosen, places // size, axis=1) * size + places % size


def _fit(
    views: Sequence[Features],
    labels: np.ndarray,
    rates: list[float],
    *,
    classes: int,
    epochs: int,
    batch: int,
    momentum: Number,
    drops: Sequence[int],
    seed: int,
) -> Float[Array, "width columns"]:
    """Weights (d + 1, rates * classes), the last row being the bias: all rates in one matrix product."""
    several = [_with_ones(view) for view in views]
    weights = jnp.zeros((several[0].shape[1], len(rates) * classes), several[0].dtype)
    velocity, truth = weights, jnp.asarray(labels)
    for epoch in range(epochs):
        rows = several[epoch % len(several)]
        steps = np.repeat(rates, classes) * 0.1 ** sum(drop <= epoch for drop in drops)
        order = batch_order(len(rows), min(batch, len(rows)), seed=seed, epoch=epoch)
        sizes, keeps = jnp.asarray(steps, rows.dtype)[None], jnp.asarray(momentum, rows.dtype)
        weights, velocity = _epoch(weights, velocity, rows, truth, order, sizes, keeps, classes)
    return weights


@partial(jax.jit, static_argnums=7)
def _epoch(
    weights: Float[Array, "width columns"],
    velocity: Float[Array, "width columns"],
    rows: Float[Array, "n width"],
    labels: Labels,
    order: Int[Array, "steps batch"],
    sizes: Float[Array, "1 columns"],
    momentum: Scalar,
    classes: int,
) -> tuple[Float[Array, "width columns"], Float[Array, "width columns"]]:
    def step(carry: tuple[Array, Array], chosen: Array) -> tuple[tuple[Array, Array], None]:
        weights, velocity = carry
        batch, truth = rows[chosen], jax.nn.one_hot(labels[chosen], classes, dtype=rows.dtype)
        logits = jnp.matmul(batch, weights, precision="highest").reshape(len(chosen), -1, classes)
        slope = (jax.nn.softmax(logits) - truth[:, None]).reshape(len(chosen), -1) / len(chosen)
        velocity = momentum * velocity + jnp.matmul(batch.T, slope, precision="highest")
        return (weights - sizes * velocity, velocity), None

    return jax.lax.scan(step, (weights, velocity), order)[0]


def _with_ones(features: Features) -> Float[Array, "n width"]:
    return jnp.concatenate([features, jnp.ones((len(features), 1), features.dtype)], axis=1)


def _accuracies(
    weights: Float[Array, "width columns"], features: Features, labels: np.ndarray, rates: int
) -> Float[np.ndarray, " rates"]:
    rows, columns = _with_ones(features), weights.reshape(len(weights), rates, -1)
    correct = sum(
        np.sum(_hits(weights, rows[start : start + 8192], jnp.asarray(labels[start : start + 8192]), rates), axis=0)
        for start in range(0, len(rows), 8192)
    )
    finite = np.isfinite(np.asarray(columns)).all(axis=(0, 2))
    return np.where(finite, np.asarray(correct) / len(rows), 0.0)


@partial(jax.jit, static_argnums=3)
def _hits(
    weights: Float[Array, "width columns"], rows: Float[Array, "n width"], labels: Labels, rates: int
) -> Bool[Array, "n rates"]:
    logits = jnp.matmul(rows, weights, precision="highest").reshape(len(rows), rates, -1)
    return jnp.argmax(logits, axis=2) == labels[:, None]


def _rows(probe: OnlineProbe, features: ArrayLike, labels: ArrayLike) -> tuple[Features, Labels]:
    """Rows of all views, and a label for each."""
    array, classes = as_floating(features, "features"), jnp.asarray(labels)
    width, count = probe.kernel.shape
    if array.ndim not in (2, 3) or array.shape[-1] != width or classes.shape != array.shape[-2:-1]:
        raise ValueError(
            f"features must be (n, {width}) or (views, n, {width}) and labels (n,), "
            f"got {array.shape} and {classes.shape}"
        )
    require(jnp.all(jnp.isfinite(array)), f"features of shape {array.shape} hold NaN or inf: find what made them")
    require((classes >= 0) & (classes < count), f"labels must be 0 to {count - 1}, the classes of this probe")
    rows = jax.lax.stop_gradient(array.reshape(-1, width).astype(probe.kernel.dtype))
    return rows, jnp.tile(classes, len(rows) // len(classes))


def _logits(probe: OnlineProbe, rows: Features) -> Float[Array, "n classes"]:
    return jnp.matmul(rows, probe.kernel, precision="highest") + probe.bias[None]
