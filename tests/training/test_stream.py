"""Images read from disk while training goes on: which, in which order, by which process, and how they are cut."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from numpy.testing import assert_array_equal
from PIL import Image

from rdm_jax.training import init_learning, saved
from rdm_jax.training.data import load
from rdm_jax.training.dataset import Split, batch_order
from rdm_jax.training.stream import Stream, stream_batches
from tests.training import tiny, tiny_run

TRAIN = 12


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Images of several sizes, all of them 4 high or wider than high."""
    base = tmp_path_factory.mktemp("prepared")
    features = {**tiny.FEATURES, "image": tfds.features.Image(shape=(None, None, 3))}
    some = [
        {"image": tiny.encoded(tiny.image(level, 4, 4 + level % 3 * 4)), "label": level % 3} for level in range(TRAIN)
    ]
    tiny.write(base, {"train": some, "validation": some[:5]}, features)
    return base


@pytest.fixture(scope="module")
def stream(prepared):
    return load("tiny", prepared).train


def levels(batch):
    return batch.images[:, 2, 2, 0].astype(int)


def test_what_is_of_several_sizes_is_a_stream(stream, prepared):
    assert isinstance(stream, Stream) and stream.samples == TRAIN
    image, label = stream.read(3)
    assert image.height == 4 and label == np.asarray(image)[2, 2, 0] % 3
    assert load("tiny", prepared, limit=4).train.samples == 4


def test_batches_are_those_of_the_order(stream):
    order = np.array([[3, 1, 4], [0, 11, 5]])
    first, second = stream_batches(stream, order, size=4, threads=2)
    assert first.images.shape == (3, 4, 4, 3) and first.images.dtype == np.uint8
    assert_array_equal([first.numbers, second.numbers], order)
    for batch in (first, second):
        assert_array_equal(batch.labels, levels(batch) % 3)
        assert_array_equal(
            levels(batch), [np.asarray(stream.read(int(number))[0])[2, 2, 0] for number in batch.numbers]
        )


def test_processes_together_get_what_one_gets(stream):
    order = batch_order(TRAIN, 6, seed=1, epoch=0)
    alone = list(stream_batches(stream, order, size=4, process=0, processes=1))
    shares = [list(stream_batches(stream, order, size=4, process=process, processes=3)) for process in range(3)]
    for step, batch in enumerate(alone):
        for whole, *parts in zip(batch, *(share[step] for share in shares), strict=True):
            assert_array_equal(whole, np.concatenate(parts))
    with pytest.raises(ValueError, match="a batch of 6 can't be shared equally by 4 processes"):
        stream_batches(stream, order, process=0, processes=4)


def test_an_epoch_goes_on_in_the_middle(stream):
    order = batch_order(TRAIN, 3, seed=1, epoch=4)
    rest = list(stream_batches(stream, order[2:], size=4))
    for batch, expected in zip(rest, list(stream_batches(stream, order, size=4))[2:], strict=True):
        assert_array_equal(batch.images, expected.images)


def test_the_middle_square_is_scaled():
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[:, 3:7] = np.arange(48).reshape(4, 4, 3) * 5
    (batch,) = stream_batches(Stream([(Image.fromarray(pixels), 2)]), np.array([[0]]), size=4)
    assert_array_equal(batch.images[0], pixels[:, 3:7])
    (batch,) = stream_batches(Stream([(Image.fromarray(pixels), 2)]), np.array([[0]]), size=8)
    expected = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC, box=(3, 0, 7, 4))
    assert_array_equal(batch.images[0], np.asarray(expected))


def test_some_classes(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    kept = tmp_path / "tiny" / "1.0.0" / "rdm_jax.label.train.npy"
    for _ in range(2):  # the second time by the list of labels that the first has kept
        part = load("tiny", tmp_path, classes=["cow", "bee"]).train
        (batch,) = stream_batches(part, np.arange(8)[None], size=4)
        assert part.samples == 8
        assert sorted(levels(batch)) == [level for level in range(TRAIN) if level % 3]
        assert_array_equal(batch.labels, np.where(levels(batch) % 3 == 2, 0, 1))
        assert_array_equal(np.sort(np.load(kept)), np.arange(TRAIN) // 4)


@pytest.mark.parametrize("labels", [np.zeros(3, np.int32), np.full(12, 7, np.int32), np.zeros(12), None])
def test_a_list_of_labels_that_is_not_right_is_named(prepared, tmp_path, labels):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tiny" / "1.0.0" / "rdm_jax.label.train.npy"
    path.write_bytes(b"no array") if labels is None else np.save(path, labels)
    message = "is truncated or damaged" if labels is None else "does not hold 12 labels of 3 classes"
    with pytest.raises(ValueError, match=f"{path} {message}; delete it"):
        load("tiny", tmp_path, classes=["ant"])


def test_a_list_of_labels_of_other_data_is_noticed(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    np.save(tmp_path / "tiny" / "1.0.0" / "rdm_jax.label.train.npy", np.zeros(12, np.int32))
    part = load("tiny", tmp_path, classes=["ant"]).train
    with pytest.raises(ValueError, match=r"record \d of .*array_record.* is not of the class that it was chosen for"):
        list(stream_batches(part, np.arange(12)[None], size=4))


def test_orders_are_permutations_that_differ():
    orders = [batch_order(1000, 64, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert order.shape == (15, 64) and order.dtype == np.int32
        assert len(np.unique(order)) == order.size and order.min() >= 0 and order.max() < 1000
    same = [np.sum(a == b) for a, b in zip(orders, orders[1:] + orders[:1], strict=True)]
    assert max(same) < 10, "about one place in a thousand"
    assert_array_equal(orders[0], batch_order(1000, 64, seed=0, epoch=0))


def test_every_sample_is_left_out_alike():
    left = np.zeros(10)
    for epoch in range(1000):
        left += np.bincount(batch_order(10, 4, seed=3, epoch=epoch).ravel(), minlength=10) == 0
    # Two of ten in each epoch: binomial, five standard deviations.
    assert np.max(np.abs(left - 200)) < 5 * np.sqrt(1000 * 0.2 * 0.8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 11}, "a batch holds 1 to 10 samples of this data set, got 11"),
        ({"batch": 0}, "got 0"),
        ({"seed": -1}, "seed and epoch must be >= 0, got -1 and 0"),
    ],
)
def test_senseless_orders(options, message):
    with pytest.raises(ValueError, match=message):
        batch_order(10, **{"batch": 4, "seed": 0, "epoch": 0, **options})


def test_a_streamed_set_is_evaluated_as_one_in_memory(stream, prepared, monkeypatch):
    monkeypatch.setattr(saved, "BLOCK", 8)  # which the twelve images do not fill
    data = dataclasses.replace(load("tiny", prepared), train=stream, test=stream)
    own, plan = tiny_run.learner(), tiny_run.PLAN._replace(size=4)
    state = init_learning(own, (4, 4, 3))
    (batch,) = stream_batches(stream, np.arange(TRAIN)[None], size=4)
    held = dataclasses.replace(data, train=Split(batch.images, batch.labels), test=stream)
    found = saved.features_of(own, plan, data, state, ["backbone"])[0]
    expected = saved.features_of(own, plan, held, state, ["backbone"])[0]
    np.testing.assert_allclose(found.features["backbone"], expected.features["backbone"], rtol=1e-5, atol=1e-6)
    assert_array_equal(found.labels, batch.labels)
    views = [saved.random_views(own, plan, part, state, 2) for part in (data, held)]
    for ours, theirs in zip(*views, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(views[0][0] - views[0][1]).max() > 1e-3
