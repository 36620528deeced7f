"""Runs that lie in a store: files are written whole, and found again."""

import os

import pytest

from rdm_jax.training.places import in_store, place, write_text
from rdm_jax.training.watch import Metrics, read_metrics


@pytest.fixture
def store(monkeypatch):
    """A store that holds its files in a dict, and lets nobody append."""
    files = {}
    kind = type(place("gs://bucket/run"))

    def refuse(self, *arguments, **options):
        raise AssertionError("nothing can be appended in a store")

    monkeypatch.setattr(kind, "write_text", lambda self, text: files.__setitem__(os.fspath(self), text))
    monkeypatch.setattr(kind, "read_text", lambda self: files[os.fspath(self)])
    monkeypatch.setattr(kind, "exists", lambda self: os.fspath(self) in files)
    monkeypatch.setattr(kind, "open", refuse)
    return files


def test_an_address_survives_pathlib(tmp_path):
    assert os.fspath(place("gs:/bucket/run")) == "gs://bucket/run" and in_store(place("s3://bucket/run"))
    assert os.fspath(place(tmp_path)) == os.fspath(tmp_path) and not in_store(place(tmp_path))


def test_metrics_in_a_store_are_written_whole(store):
    metrics = Metrics(place("gs://bucket/run") / "metrics.jsonl")
    metrics.add("train", 5, {"loss": 1.0})
    assert not store, "lines of training wait"
    metrics.add("probe", 5, {"rank": 2.0})
    assert [line["kind"] for line in read_metrics("gs://bucket/run")] == ["train", "probe"]
    metrics.add("train", 10, {"loss": 0.5})
    metrics.close()
    assert len(read_metrics("gs:/bucket/run")) == 3


def test_a_resumed_run_keeps_what_came_before(store):
    first = Metrics(place("gs://bucket/run") / "metrics.jsonl")
    for step in (5, 10):
        first.add("probe", step, {})
    again = Metrics(place("gs://bucket/run") / "metrics.jsonl")
    again.cut(5)
    again.add("probe", 15, {})
    assert [line["step"] for line in read_metrics("gs://bucket/run")] == [5, 15]


def test_a_file_is_written_whole_or_not_at_all(store, tmp_path):
    write_text(place("gs://bucket/a.txt"), "one")
    write_text(place(tmp_path) / "a.txt", "two")
    assert store == {"gs://bucket/a.txt": "one"} and (tmp_path / "a.txt").read_text() == "two"
