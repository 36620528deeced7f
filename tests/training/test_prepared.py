"""Image sets that tensorflow-datasets has prepared: what is read, and what is said about files that are not right."""

import io
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rdm_jax.training import data
from rdm_jax.training._prepared import find_folder
from rdm_jax.training.data import load
from rdm_jax.training.dataset import DataNotFound, Split
from tests.training import tiny

TRAIN, TEST = 14, 7


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set with images of level 0 to 13 for training and 20 to 26 for testing."""
    base = tmp_path_factory.mktemp("prepared")
    tiny.write(base, {"train": tiny.examples(TRAIN), "test": tiny.examples(TEST, 20)})
    return base


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy that a test may spoil: the folder to name, and the folder of the files."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path, tmp_path / "tiny" / "1.0.0"


def levels(part):
    return part.images[:, 1, 1, 0].astype(int)


def test_all_images_come_with_their_labels(prepared):
    dataset = load("tiny", prepared)
    assert dataset.classes == tiny.CLASSES and dataset.name == "tiny"
    for part, expected in ((dataset.train, range(TRAIN)), (dataset.test, range(20, 20 + TEST))):
        assert isinstance(part, Split) and part.images.dtype == np.uint8 and part.samples == len(expected)
        assert sorted(levels(part)) == list(expected)
        np.testing.assert_array_equal(part.labels, levels(part) % 3)
        np.testing.assert_array_equal(part.images, [tiny.image(level) for level in levels(part)])
    pixels = dataset.train.images.reshape(-1, 3) / 255
    np.testing.assert_allclose([dataset.mean, dataset.std], [pixels.mean(0), pixels.std(0)], rtol=1e-12)


def test_tensorflow_has_no_part_in_it(prepared):
    load("tiny", prepared)
    assert "tensorflow" not in sys.modules


def test_the_folder_may_come_from_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert load("tiny", limit=1).train.samples == 1


def shard(folder, number=1, split="train"):
    return folder / f"tiny-{split}.array_record-0000{number}-of-00002"


def truncate(folder):
    os.truncate(shard(folder), shard(folder).stat().st_size * 2 // 3)
    return shard(folder), "is missing, truncated or damaged"


def empty(folder):
    shard(folder, 0).write_bytes(b"")
    return shard(folder, 0), "is missing, truncated or damaged"


def remove(folder):
    shard(folder, 0, "test").unlink()
    return shard(folder, 0, "test"), "is missing, truncated or damaged"


def take_another(folder):
    shutil.copy(shard(folder, 0, "test"), shard(folder))
    return shard(folder), "holds [34] records where dataset_info.json counts 7"


def flip_a_byte(folder):
    data = bytearray(shard(folder).read_bytes())
    data[data.find(b"PNG") + 30 if b"PNG" in data else 600] ^= 0xFF
    shard(folder).write_bytes(data)
    return shard(folder), "damaged"


def name_another_class(folder):
    with open(folder / "label.labels.txt", "a") as file:
        file.write("dog\n")
    return folder / "label.labels.txt", "has 4 different names for the 3 classes of features.json"


def name_a_class_twice(folder):
    (folder / "label.labels.txt").write_text("ant\nbee\nant\n")
    return folder / "label.labels.txt", "has 2 different names for the 3 classes of features.json"


def count_fewer_classes(folder):
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace('"numClasses": "3"', '"numClasses": "2"'))
    (folder / "label.labels.txt").write_text("ant\nbee\n")
    return folder / "tiny-train.array_record-0000", "has the label 2, which is none of the 2 classes"


def lose_the_features(folder):
    (folder / "features.json").unlink()
    return folder, "is missing or damaged"


def spoil_the_description(folder):
    (folder / "dataset_info.json").write_text("{")
    return folder, "is missing or damaged"


def call_it_another_format(folder):
    text = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(text.replace('"fileFormat": "array_record"', '"fileFormat": "tfrecord"'))
    return folder, "is not in array_record files|is missing, truncated or damaged"


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        empty,
        remove,
        take_another,
        flip_a_byte,
        name_another_class,
        name_a_class_twice,
        count_fewer_classes,
        lose_the_features,
        spoil_the_description,
        call_it_another_format,
    ],
)
def test_a_file_that_is_not_right_is_named(copied, spoil):
    base, folder = copied
    file, message = spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load("tiny", base)
    assert str(file) in str(caught.value)
    assert not isinstance(caught.value, DataNotFound)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (io.BytesIO(b"no image at all"), "is no image that Pillow can read"),
        (tiny.encoded(tiny.image(9, 7, 5)), "is 7 x 5 pixels, where features.json has 6 x 5"),
    ],
)
def test_a_picture_that_is_not_right_is_named(tmp_path, file, message):
    some = tiny.examples(5)
    some[3]["image"] = file
    tiny.write(tmp_path, {"train": some, "test": tiny.examples(4)})
    with pytest.raises(ValueError, match=rf"record \d of .*tiny-train.array_record-0000\d-of-00002 {message}"):
        load("tiny", tmp_path)


def test_a_set_that_is_not_there(prepared, tmp_path):
    with pytest.raises(DataNotFound, match=r"no prepared data set 'tinny' in .*: there are tiny$"):
        load("tinny", prepared)
    with pytest.raises(DataNotFound, match="nothing is prepared there"):
        load("tiny", tmp_path)
    with pytest.raises(DataNotFound, match="nothing is prepared there"):
        load("tiny", tmp_path / "absent")


def test_the_newest_version_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.11"):
        (tmp_path / "set" / version).mkdir(parents=True)
        (tmp_path / "set" / version / "dataset_info.json").touch()
    assert find_folder("set", tmp_path).name == "1.10.0"


def test_a_configuration_is_part_of_the_name(prepared, tmp_path):
    shutil.copytree(prepared / "tiny", tmp_path / "tiny" / "small")
    assert load("tiny/small", tmp_path).train.samples == TRAIN
    with pytest.raises(DataNotFound, match="there are tiny/small"):
        load("tiny", tmp_path)


def test_splits_may_be_chosen(prepared):
    dataset = load("tiny", prepared, splits=("train[:50%]", "train[50%:]"))
    assert (dataset.train.samples, dataset.test.samples) == (7, 7)
    assert sorted([*levels(dataset.train), *levels(dataset.test)]) == list(range(TRAIN))
    with pytest.raises(ValueError, match=r"the split of .* must be one of 'train', 'test'; got 'tests': did you mean"):
        load("tiny", prepared, splits=("train", "tests"))


def test_validation_comes_before_test_and_something_must_be_there(tmp_path):
    tiny.write(
        tmp_path, {"train": tiny.examples(2), "test": tiny.examples(3), "validation": tiny.examples(4)}, name="a"
    )
    tiny.write(tmp_path, {"train": tiny.examples(4)}, name="b")
    assert load("a", tmp_path).test.samples == 4
    with pytest.raises(ValueError, match="has the splits train; choose one for training and one for testing"):
        load("b", tmp_path)


def test_the_label_may_be_chosen_and_must_be_one(tmp_path):
    features = {**tiny.FEATURES, "size": tfds.features.ClassLabel(names=["small", "large"])}
    both = {split: [{**one, "size": one["label"] // 2} for one in tiny.examples(6)] for split in ("train", "test")}
    tiny.write(tmp_path, both, features)
    assert load("tiny", tmp_path).classes == tiny.CLASSES
    sizes = load("tiny", tmp_path, label="size")
    assert sizes.classes == ("small", "large")
    np.testing.assert_array_equal(sizes.train.labels, levels(sizes.train) % 3 // 2)
    with pytest.raises(ValueError, match=r"the label of .* must be one of '\w+', '\w+'; got 'colour'"):
        load("tiny", tmp_path, label="colour")
    both = {split: [{**one, "size": 0} for one in tiny.examples(2)] for split in ("train", "test")}
    tiny.write(tmp_path, both, features, name="two", learned=None)
    with pytest.raises(
        ValueError, match=r"ClassLabel and has (label, size|size, label): name one of them with the option label"
    ):
        load("two", tmp_path)


def test_a_set_without_images(tmp_path):
    features = {"label": tiny.FEATURES["label"]}
    some = [{"label": 1}, {"label": 0}]
    tiny.write(tmp_path, {"train": some, "test": some}, features, learned=None)
    with pytest.raises(ValueError, match="needs one feature of the kind Image and has none"):
        load("tiny", tmp_path)


def test_grey_images_get_three_colours(tmp_path):
    features = {**tiny.FEATURES, "image": tfds.features.Image(shape=(tiny.HEIGHT, tiny.WIDTH, 1))}
    grey = lambda level: tiny.encoded(tiny.image(level)[..., 0])  # noqa: E731
    both = {split: [{"image": grey(level), "label": 0} for level in range(3)] for split in ("train", "test")}
    tiny.write(tmp_path, both, features)
    images = load("tiny", tmp_path).train.images
    assert images.shape == (3, tiny.HEIGHT, tiny.WIDTH, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


def test_some_classes_in_an_order_of_ones_own(prepared, tmp_path):
    (tmp_path / "list.txt").write_text("cow\n\n ant\n")
    for classes in (["cow", "ant"], tmp_path / "list.txt", str(tmp_path / "list.txt")):
        dataset = load("tiny", prepared, classes=classes)
        assert dataset.classes == ("cow", "ant")
        assert sorted(levels(dataset.train)) == [level for level in range(TRAIN) if level % 3 != 1]
        np.testing.assert_array_equal(dataset.train.labels, np.where(levels(dataset.train) % 3 == 2, 0, 1))


def test_a_list_of_classes_that_is_not_right(prepared, tmp_path):
    (tmp_path / "list.txt").write_text("cow\nbeee\n")
    with pytest.raises(ValueError, match=r"list.txt lists 'beee', which is no class .*: did you mean 'bee'"):
        load("tiny", prepared, classes=tmp_path / "list.txt")
    with pytest.raises(ValueError, match=r"absent.txt can't be read"):
        load("tiny", prepared, classes=tmp_path / "absent.txt")
    for classes in (["ant", "ant"], []):
        with pytest.raises(ValueError, match="classes must list at least one class, and none twice"):
            load("tiny", prepared, classes=classes)


def test_some_images(prepared):
    dataset = load("tiny", prepared, limit=5)
    assert (dataset.train.samples, dataset.test.samples) == (5, 5)
    assert len(set(levels(dataset.train))) == 5
    np.testing.assert_array_equal(dataset.train.labels, levels(dataset.train) % 3)
    np.testing.assert_array_equal(dataset.train.images, load("tiny", prepared, limit=5).train.images)
    assert load("tiny", prepared, classes=["bee"], limit=2).train.samples == 2
    with pytest.raises(ValueError, match="limit is a number of images >= 1 or None, got 0"):
        load("tiny", prepared, limit=0)


def test_a_large_set_stays_on_disk(prepared, monkeypatch):
    monkeypatch.setattr(data, "_IN_MEMORY", 3 * tiny.HEIGHT * tiny.WIDTH * TEST)
    dataset = load("tiny", prepared)
    assert isinstance(dataset.test, Split) and not isinstance(dataset.train, Split)
    assert dataset.train.samples == TRAIN
    assert dataset.std == (0.229, 0.224, 0.225), "those of ImageNet, where measuring would take a pass over all of it"
