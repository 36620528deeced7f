"""kNN, linear probe and online probe against loops in NumPy written from their definitions; embedding against apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rdm_jax.training.dataset import batch_order
from rdm_jax.training.evaluation import (
    OnlineProbe,
    embed,
    init_online_probe,
    knn_accuracy,
    linear_probe,
    online_accuracy,
    update_online_probe,
)
from rdm_jax.training.networks import Encoder, mlp_encoder

CLASSES = 4


def clusters(rng, n, width=6, spread=1.0):
    """Rows about one centre for each class, and the classes."""
    labels = rng.integers(0, CLASSES, n)
    centers = 2 * np.random.default_rng(1).normal(size=(CLASSES, width))
    return (centers[labels] + spread * rng.normal(size=(n, width))).astype(np.float32), labels


def voted(train, labels, test, k, temperature):
    """The class of each test row, neighbour by neighbour."""
    found = []
    for row in test.astype(float):
        cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in train.astype(float)]
        nearest = sorted(range(len(train)), key=lambda i: (-cosines[i], i))[:k]
        votes = [sum(np.exp(cosines[i] / temperature) for i in nearest if labels[i] == c) for c in range(CLASSES)]
        found.append(int(np.argmax(votes)))
    return np.array(found)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 10.0), (61, 0.1), (83, 0.5)])
def test_knn_votes_as_a_loop_does(rng, k, temperature):
    train, labels = clusters(rng, 83, spread=3.0)
    test, _ = clusters(rng, 40, spread=3.0)
    expected = voted(train, labels, test, k, temperature)
    options = {"k": k, "temperature": temperature, "batch": 16}
    # Each row's class in turn is called right, all others wrong: every single vote is seen.
    assert knn_accuracy(train, labels, test, expected, **options) == 1
    assert knn_accuracy(train, labels, test, (expected + 1) % CLASSES, **options) == 0
    half = np.where(np.arange(40) % 2, expected, (expected + 1) % CLASSES)
    assert knn_accuracy(train, labels, test, half, **options) == 0.5


def test_the_weights_of_a_vote_decide():
    # One neighbour at cosine 1, two at cosine 0.8: two at 0.8 win if 2 exp(-0.2 / T) > 1, for T > 0.2 / ln 2 = 0.2885.
    train, labels, test = [[1.0, 0.0], [4.0, 3.0], [4.0, -3.0], [-1.0, 0.0]], [2, 1, 1, 0], [[5.0, 0.0]]
    assert knn_accuracy(train, labels, test, [2], k=3, temperature=0.28) == 1
    assert knn_accuracy(train, labels, test, [1], k=3, temperature=0.30) == 1
    # So small a temperature would overflow a weight of exp(1 / T).
    assert knn_accuracy(train, labels, test, [2], k=4, temperature=1e-3) == 1


def test_length_is_of_no_matter_to_knn(rng):
    train, labels = clusters(rng, 50)
    test, truth = clusters(rng, 30)
    lengths = 10.0 ** rng.integers(-25, 25, (50, 1))
    scaled = (train * lengths).astype(np.float32)
    assert knn_accuracy(scaled, labels, test * np.float32(1e-30), truth) == knn_accuracy(train, labels, test, truth)


@pytest.mark.parametrize("n", [30, 31, 200])
def test_of_equal_neighbours_the_first_count_and_of_equal_votes_the_lowest_class(n):
    labels = np.arange(n) % CLASSES
    same = np.ones((n, 2))
    for k in (1, 3, 5, 6, 7, 30):
        # Of the first k, classes 0 to (k - 1) % 4 have one vote more than the others.
        assert knn_accuracy(same, labels, [[2, 2]], [0], k=k) == 1
        assert knn_accuracy(same, (labels + 3) % CLASSES, [[2, 2]], [3 if k % 4 == 1 else 0], k=k) == 1


def test_equal_neighbours_keep_their_order_whatever_else_is_near():
    # Of rows at cosine 0.8, the first two count beside the one at cosine 1, not the one that stands next to it.
    train = np.array([[4, 3], [4, 3], [1, 0], [4, 3]] + [[0, 1]] * 8)
    labels = [1, 1, 0, 2] + [3] * 8
    assert knn_accuracy(train, labels, [[2, 0]], [1], k=3, temperature=10.0) == 1


def probe_reference(train, labels, epochs, rates, batch, momentum, drops, seed, aside):
    """The accuracies of all rates on the rows held out, one after the other, in float64."""
    order = np.random.default_rng([seed, 0, 1]).permutation(len(train))
    held, kept = order[:aside], order[aside:]
    weights = {rate: trained(train[kept], labels[kept], epochs, rate, batch, momentum, drops, seed) for rate in rates}
    return {rate: top1(*fitted, train[held], labels[held]) for rate, fitted in weights.items()}


def trained(rows, labels, epochs, rate, batch, momentum, drops, seed):
    kernel, bias = np.zeros((rows.shape[1], CLASSES)), np.zeros(CLASSES)
    moved, shifted = np.zeros_like(kernel), np.zeros_like(bias)
    for epoch in range(epochs):
        if epoch in drops:
            rate = rate / 10
        for chosen in batch_order(len(rows), batch, seed=seed, epoch=epoch):
            x, logits = rows[chosen].astype(float), rows[chosen].astype(float) @ kernel + bias
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            slope = odds / odds.sum(axis=1, keepdims=True)
            slope[np.arange(batch), labels[chosen]] -= 1
            moved = momentum * moved + x.T @ slope / batch
            shifted = momentum * shifted + slope.mean(axis=0)
            kernel, bias = kernel - rate * moved, bias - rate * shifted
    return kernel, bias


def top1(kernel, bias, rows, labels):
    return np.mean(np.argmax(rows @ kernel + bias, axis=1) == labels)


@pytest.mark.parametrize("drops", [(), (2, 4), (4,)])
def test_linear_probe_is_the_loop(rng, drops):
    train, labels = clusters(rng, 300, spread=4.0)
    test, truth = clusters(rng, 200, spread=4.0)
    setting = {"epochs": 5, "momentum": 0.8, "drops": drops, "seed": 3}
    rates = (0.003, 0.3, 3.0)
    found = linear_probe(train, labels, test, truth, rates=rates, batch_size=32, held_out=0.4, **setting)
    expected = probe_reference(train, labels, rates=rates, batch=32, aside=120, **setting)
    assert_allclose([found.held_out[rate] for rate in rates], [expected[rate] for rate in rates], rtol=1e-6)
    assert found.rate == max(rates, key=expected.get)
    final = trained(train, labels, rate=found.rate, batch=32, **setting)
    assert_allclose(found.accuracy, top1(*final, test, truth), rtol=1e-6)


def test_views_take_turns_as_what_the_probe_is_trained_on():
    labels = np.repeat([0, 1], 40)
    rows = np.where(labels, 1.0, -1.0)[:, None] * np.ones((1, 2))
    right, wrong = rows * [1.0, 0.0], rows * [0.0, -1.0]
    setting = {"rates": (0.5,), "batch_size": 8}
    assert linear_probe(rows, labels, right, labels, views=[right], epochs=2, **setting).accuracy == 1
    # Two epochs see one view each, three the first one twice: what was seen last counts, but both leave their mark.
    seen = [
        linear_probe(rows, labels, rows * [1.0, 0.0], labels, views=[wrong, right], epochs=k, **setting) for k in (1, 2)
    ]
    assert seen[0].accuracy == 0.5 and seen[1].accuracy == 1
    with pytest.raises(ValueError, match="views must be of the training rows"):
        linear_probe(rows, labels, rows, labels, views=[rows[:3]])


def test_linear_probe_separates_what_is_separable_and_leaves_what_diverges(rng):
    # A large common mean: too small a rate does not get away from it.
    train, labels = clusters(rng, 120, spread=0.2)
    test, truth = clusters(rng, 60, spread=0.2)
    setting = {"epochs": 40, "rates": (1e38, 1e-6, 0.1), "drops": (24, 32), "held_out": 0.25}
    found = linear_probe(train + 5, labels, test + 5, truth, **setting)
    assert found.rate == 0.1 and found.accuracy == 1
    assert list(found.held_out) == [1e-6, 0.1, 1e38] and found.held_out[1e38] == 0 and found.held_out[1e-6] < 0.9


def test_of_equal_rates_the_lowest_is_chosen(rng):
    train, labels = clusters(rng, 120, spread=0.1)
    found = linear_probe(train, labels, train, labels, epochs=20, rates=(3.0, 0.5), held_out=0.25)
    assert found.held_out == {0.5: 1, 3.0: 1} and found.rate == 0.5


def few(**changes):
    rows = {
        "train_features": np.eye(4, dtype=np.float32),
        "train_labels": np.array([0, 1, 0, 1]),
        "test_features": np.ones((2, 4), np.float32),
        "test_labels": np.array([0, 1]),
    }
    return {**rows, **changes}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train_labels": np.arange(3)}, "train_labels must be one for each of the 4 rows"),
        ({"test_labels": np.zeros((2, 1), int)}, "test_labels must be one for each of the 2 rows"),
        ({"train_labels": np.array([0, 1, -1, 0])}, "train_labels must be integers >= 0, got int64 from -1"),
        ({"test_labels": np.array([0.0, 1.0])}, "test_labels must be integers >= 0, got float64"),
        ({"train_labels": np.full(4, 7)}, "all train_labels are 7: there must be at least two classes"),
        ({"train_features": np.full((4, 4), np.nan)}, "train_features of shape .* hold NaN or inf"),
        ({"test_features": np.full((2, 4), np.inf)}, "test_features of shape .* hold NaN or inf"),
        ({"test_features": np.ones((2, 3))}, "train_features have 4 columns, test_features 3"),
        ({"train_features": np.ones(4)}, r"train_features must have shape \(n, d\)"),
    ],
)
def test_features_and_labels_that_can_not_be_evaluated(changes, match):
    for evaluated in (lambda **rows: knn_accuracy(**rows, k=1), linear_probe):
        with pytest.raises(ValueError, match=match):
            evaluated(**few(**changes))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 5}, "k neighbours are 1 to the 4 training rows, got k = 5"),
        ({"k": 0}, "got k = 0"),
        ({"k": 1, "temperature": 0}, "batch and temperature must be positive, got 1000 and 0"),
        ({"k": 1, "batch": 0}, "got 0 and 0.07"),
    ],
)
def test_options_of_knn(options, match):
    with pytest.raises(ValueError, match=match):
        knn_accuracy(**few(), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": 0}, r"need epochs, .*got 0, 256, 0\.9"),
        ({"batch_size": 0}, "got 100, 0"),
        ({"momentum": 1.0}, r"got 100, 256, 1\.0"),
        ({"rates": ()}, "rates must be positive numbers, at least one"),
        ({"rates": (0.1, -1.0)}, "rates must be positive numbers"),
        ({"held_out": 1.0}, "held_out is a fraction of 4 rows"),
        ({"held_out": 0.0}, "held_out is a fraction of 4 rows"),
    ],
)
def test_options_of_the_linear_probe(options, match):
    with pytest.raises(ValueError, match=match):
        linear_probe(**few(), **options)


def test_an_update_of_the_online_probe_is_that_of_sgd(rng):
    views, labels = rng.normal(size=(2, 5, 3)).astype(np.float32), np.array([0, 1, 2, 3, 1])
    probe = init_online_probe(jax.random.key(0), 3, CLASSES)
    kernel, bias = np.asarray(probe.kernel, float), np.asarray(probe.bias, float)
    moved, shifted = np.zeros_like(kernel), np.zeros_like(bias)
    rows, truth = np.concatenate([views[0], views[1]]).astype(float), np.concatenate([labels, labels])
    for options in ({}, {"rate": 0.5, "momentum": 0.6}):
        odds = np.exp(rows @ kernel + bias)
        odds /= odds.sum(axis=1, keepdims=True)
        loss = -np.mean(np.log(odds[np.arange(10), truth]))
        right = np.mean(odds.argmax(axis=1) == truth)
        rate, momentum = options.get("rate", 0.1), options.get("momentum", 0.9)
        moved = momentum * moved + rows.T @ (odds - np.eye(CLASSES)[truth]) / 10
        shifted = momentum * shifted + np.mean(odds - np.eye(CLASSES)[truth], axis=0)
        kernel, bias = kernel - rate * moved, bias - rate * shifted
        assert_allclose(online_accuracy(probe, views, labels), right)
        probe, accuracy, found = jax.jit(update_online_probe)(probe, views, labels, **options)
        assert_allclose([accuracy, found], [right, loss], rtol=1e-5)
        for ours, theirs in zip(probe, (kernel, bias, moved, shifted), strict=True):
            assert_allclose(ours, theirs, atol=1e-6)


def test_the_online_probe_leaves_the_features_alone(rng):
    rows, labels = clusters(rng, 20)
    probe = init_online_probe(jax.random.key(0), 6, CLASSES)
    slope = jax.jit(jax.grad(lambda z: update_online_probe(probe, z, labels)[2]))(jnp.asarray(rows))
    assert_array_equal(slope, 0)


def test_the_online_probe_starts_as_it_says(key):
    probe = init_online_probe(key, 400, 50)
    # Uniform within 1 / 20: the largest of 20000 is near the bound, the spread is the bound over sqrt(3).
    assert 0.049 < np.abs(probe.kernel).max() <= 0.05
    assert_allclose(np.std(probe.kernel), 0.05 / 3**0.5, rtol=0.02)
    assert not any(map(np.any, probe[1:]))


@pytest.mark.parametrize(
    ("features", "labels", "match"),
    [
        (np.ones((2, 3)), [0, 1, 1], r"features must be \(n, 3\) or \(views, n, 3\) and labels \(n,\), got \(2, 3\)"),
        (np.ones((2, 4)), [0, 1], r"features must be \(n, 3\)"),
        (np.ones(3), [0], r"features must be \(n, 3\)"),
        (np.full((2, 3), np.nan), [0, 1], "hold NaN or inf"),
        (np.ones((2, 3)), [0, 2], "labels must be 0 to 1"),
    ],
)
def test_what_the_online_probe_does_not_take(features, labels, match):
    probe = init_online_probe(jax.random.key(0), 3, 2)
    for used in (update_online_probe, online_accuracy):
        with pytest.raises(ValueError, match=match):
            used(probe, features, labels)
    with pytest.raises(ValueError, match="width >= 1 and at least two classes, got 3 and 1"):
        init_online_probe(jax.random.key(0), 3, 1)


@pytest.fixture(scope="module")
def network():
    """Of images 2 x 2 x 3, with running statistics that are not those of any batch here."""
    flat = mlp_encoder((5,), projector=(4,), features=2)
    encoder = Encoder(flat.init, lambda params, stats, x, train: flat.apply(params, stats, x.reshape(-1, 12), train))
    params, stats = encoder.init(jax.random.key(0), jnp.zeros((1, 12)))
    stats = jax.jit(flat.apply, static_argnums=3)(params, stats, jax.random.normal(jax.random.key(1), (9, 12)), True)[2]
    return encoder, params, stats


@pytest.mark.parametrize(("n", "sharded"), [(7, False), (7, True), (2, False), (3, True)])
def test_embedding_is_applying_whatever_the_batches(network, rng, n, sharded):
    traced = []

    def transform(images, numbers):
        traced.append(images.shape)
        return images / 255 + 0.1 * numbers[:, None, None, None]

    images = rng.integers(0, 256, (n, 2, 2, 3), dtype=np.uint8)
    encoder, params, stats = network
    mesh = jax.make_mesh((1,), ("rows",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")) if sharded else None
    options = {"transform": transform, "batch": 3, "sharding": where}
    found = embed(encoder, params, stats, images, **options)
    expected = encoder.apply(params, stats, transform(jnp.asarray(images), jnp.arange(n)), False)
    assert list(found) == ["backbone", "features", "projector0"]
    for name, rows in {**expected.stages, "features": expected.features}.items():
        assert isinstance(found[name], np.ndarray)
        assert_allclose(found[name], rows, atol=1e-6)
    before = len(traced)
    again = embed(encoder, params, stats, images[::-1], **options)
    assert len(traced) == before and not np.allclose(again["backbone"], found["backbone"])
    assert list(embed(encoder, params, stats, images, stages=["features"], **options)) == ["features"]


def test_what_can_not_be_embedded(network):
    encoder, params, stats = network
    images, transform = np.zeros((2, 2, 2, 3), np.uint8), lambda images, numbers: images / 255
    with pytest.raises(ValueError, match=r"stages must be one of .*did you mean 'backbone'"):
        embed(encoder, params, stats, images, transform=transform, stages=["backbones"])
    for some, batch in ((images[:0], 1), (images, 0)):
        with pytest.raises(ValueError, match=f"got {len(some)} images, batch {batch}"):
            embed(encoder, params, stats, some, transform=transform, batch=batch)


def test_a_probe_passes_through_a_scan(rng):
    rows, labels = clusters(rng, 30, spread=0.3)
    step = lambda probe, _: update_online_probe(probe, rows, labels)[:2]  # noqa: E731
    probe, accuracy = jax.lax.scan(step, init_online_probe(jax.random.key(0), 6, CLASSES), length=60)
    assert isinstance(probe, OnlineProbe) and accuracy[-1] == online_accuracy(probe, rows, labels) == 1
