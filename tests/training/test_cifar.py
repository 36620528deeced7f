"""CIFAR: an archive of the official layout but ten images a file, served on this machine, becomes a data set."""

import functools
import http.server
import io
import os
import tarfile
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tensorflow_datasets.image_classification.cifar import Cifar10, Cifar100

from rdm_jax.training import _cifar
from rdm_jax.training.data import load
from rdm_jax.training.dataset import DataNotFound
from tests.training import tiny

PREPARED = os.environ.get("RDM_JAX_DATA")
NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": ["apple", *(f"fine_{number:02d}" for number in range(1, 100))],
}
COARSE = ["aquatic_mammals", *(f"coarse_{number:02d}" for number in range(1, 20))]


def records(name, per_class, first):
    """One of the binary files: labels, then the pixels, red before green before blue."""
    rng = np.random.default_rng(first)
    labels = np.repeat(np.arange(len(NAMES[name])), per_class)
    columns = [labels[:, None], rng.integers(0, 256, (len(labels), 3072))]
    return np.hstack([labels[:, None] // 5, *columns] if name == "cifar100" else columns).astype(np.uint8)


def archive(path, name, files):
    """The official layout with these records, and the names of the classes."""
    prefix = {"cifar10": "cifar-10-batches-bin/", "cifar100": "cifar-100-binary/"}[name]
    texts = {"cifar10": {"batches.meta.txt": NAMES[name]}, "cifar100": {}}[name]
    if name == "cifar100":
        texts = {"fine_label_names.txt": NAMES[name], "coarse_label_names.txt": COARSE}
    contents = {file: some if isinstance(some, bytes) else some.tobytes() for file, some in files.items()}
    contents |= {file: "\n".join([*lines, ""]).encode() for file, lines in texts.items()}
    with tarfile.open(path, "w:gz") as tar:
        for file, content in contents.items():
            info = tarfile.TarInfo(prefix + file)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def server(tmp_path):
    """A folder that is served, and its address."""
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


@pytest.fixture
def source(server, monkeypatch):
    """Archives come from the server, and ten test and fifty training images of each class are a tenth of that."""
    for cls in (Cifar10, Cifar100):
        official = cls._cifar_info.fget
        local = lambda self, official=official: official(self)._replace(  # noqa: E731
            url=server[1] + os.path.basename(official(self).url)
        )
        monkeypatch.setattr(cls, "_cifar_info", property(local))
    monkeypatch.setattr(_cifar, "SAMPLES", {"train": 50, "test": 10})
    return server[0]


CIFAR10 = {
    **{f"data_batch_{number}.bin": records("cifar10", 1, number) for number in range(1, 6)},
    "test_batch.bin": records("cifar10", 1, 6),
}


def rows(part):
    """Records as in the file, sorted: a data set is shuffled when it is prepared."""
    pixels = part.images.transpose(0, 3, 1, 2).reshape(part.samples, -1)
    return np.unique(np.hstack([part.labels[:, None], pixels]), axis=0)


def test_cifar10_is_fetched_and_prepared_once(source, tmp_path):
    archive(source / "cifar-10-binary.tar.gz", "cifar10", CIFAR10)
    dataset = load("cifar10", tmp_path / "data")
    *train, test = CIFAR10.values()
    assert_array_equal(rows(dataset.train), np.unique(np.concatenate(train), axis=0))
    assert_array_equal(rows(dataset.test), np.unique(test, axis=0))
    assert dataset.classes == tuple(NAMES["cifar10"])
    assert dataset.mean == (0.4914, 0.4822, 0.4465) and dataset.std == (0.2470, 0.2435, 0.2616)
    (source / "cifar-10-binary.tar.gz").unlink()
    assert_array_equal(load("cifar10", tmp_path / "data").train.images, dataset.train.images)


def test_cifar100_has_fine_and_coarse_labels(source, tmp_path, monkeypatch):
    monkeypatch.setattr(_cifar, "SAMPLES", {"train": 200, "test": 100})
    files = {"train.bin": records("cifar100", 2, 1), "test.bin": records("cifar100", 1, 2)}
    archive(source / "cifar-100-binary.tar.gz", "cifar100", files)
    fine = load("cifar100", tmp_path)
    assert_array_equal(rows(fine.train), np.unique(files["train.bin"][:, 1:], axis=0))
    assert fine.mean == (0.5071, 0.4865, 0.4409) and fine.std == (0.2673, 0.2564, 0.2762)
    coarse = load("cifar100", tmp_path, label="coarse_label")
    assert coarse.classes == tuple(COARSE)
    assert_array_equal(coarse.train.labels, fine.train.labels // 5)


def test_without_network_the_reason_and_a_way_out_come_soon(source, tmp_path):
    with pytest.raises(DataNotFound, match=r"cifar10 is not prepared in .* can't be reached .* data set synthetic"):
        load("cifar10", tmp_path / "data")
    with pytest.raises(DataNotFound, match="nothing is prepared there"):
        load("cifar10", tmp_path / "data", download=False)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {**CIFAR10, "data_batch_2.bin": CIFAR10["data_batch_2.bin"].tobytes()[:-7]},
            "data_batch_2.bin in .* truncated",
        ),
        ({"data_batch_1.bin": CIFAR10["data_batch_1.bin"]}, "data_batch_2.bin.* can't be read from .*tar.gz"),
    ],
    ids=["truncated", "missing"],
)
def test_an_archive_that_is_not_right_is_named(source, tmp_path, files, message):
    archive(source / "cifar-10-binary.tar.gz", "cifar10", files)
    with pytest.raises(ValueError, match=message):
        load("cifar10", tmp_path / "data")


def test_a_truncated_archive_is_named(source, tmp_path):
    path = source / "cifar-10-binary.tar.gz"
    archive(path, "cifar10", CIFAR10)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cifar-10-batches-bin/.* can't be read from .*tar.gz; delete the archive"):
        load("cifar10", tmp_path / "data")


def prepared_as(folder, classes, labels):
    """Something that calls itself CIFAR-10."""
    import tensorflow_datasets as tfds

    features = {**tiny.FEATURES, "label": tfds.features.ClassLabel(names=classes)}
    both = {
        split: [{**one, "label": label} for one, label in zip(tiny.examples(len(some)), some, strict=True)]
        for split, some in labels.items()
    }
    return tiny.write(folder, both, features, name="cifar10")


def test_what_calls_itself_cifar_must_be_it(tmp_path, monkeypatch):
    names, even = NAMES["cifar10"], list(range(10))
    folder = prepared_as(tmp_path / "few", names, {"train": even, "test": even})
    with pytest.raises(ValueError, match=rf"dataset_info.json in {folder} counts .*'train': 10.* has .*'train': 50000"):
        load("cifar10", tmp_path / "few")
    monkeypatch.setattr(_cifar, "SAMPLES", {"train": 10, "test": 10})
    assert load("cifar10", tmp_path / "few").train.samples == 10
    folder = prepared_as(tmp_path / "renamed", names[::-1], {"train": even, "test": even})
    with pytest.raises(
        ValueError, match=rf"{folder}/label.labels.txt must name .* from airplane on; it has truck, ship"
    ):
        load("cifar10", tmp_path / "renamed")
    folder = prepared_as(tmp_path / "mislabelled", names, {"train": even, "test": [0, *even[:9]]})
    with pytest.raises(
        ValueError, match=rf"labels in {folder} are wrong: 2 of 10 images are of the class airplane, .* 1"
    ):
        load("cifar10", tmp_path / "mislabelled")
    assert load("cifar10", tmp_path / "mislabelled", limit=3).train.samples == 3


@pytest.mark.skipif(not PREPARED, reason="RDM_JAX_DATA names no folder with prepared data sets")
def test_all_of_cifar10():
    dataset = load("cifar10", PREPARED, download=False)
    assert dataset.train.images.shape == (50_000, 32, 32, 3) and dataset.test.images.shape == (10_000, 32, 32, 3)
    pixels = dataset.train.images.reshape(-1, 3)
    assert_array_equal(np.round(pixels.mean(0) / 255, 4), dataset.mean)
    squares = np.array([np.mean(np.square(column, dtype=np.uint16), dtype=float) for column in pixels.T])
    # Published to four decimals.
    np.testing.assert_allclose(np.sqrt(squares - pixels.mean(0) ** 2) / 255, dataset.std, atol=6e-5)
