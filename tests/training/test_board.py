"""What TensorBoard is given, and that a run goes on without it."""

import importlib.util

import pytest

from rdm_jax.training import open_board, scalars
from rdm_jax.training.places import place
from rdm_jax.training.watch import Metrics, read_metrics

STAGE = {"rank": 3.0, "eigenvalues": [1.0, 2.0]}
PROBE = {
    "kind": "probe",
    "step": 7,
    "online": STAGE,
    "stages": {"backbone": {"rank": 2.0}},
    "rank_difference": 0.5,
    "predicted": {"rank_difference": None},
    "alignment": [1.0],
}


def test_single_numbers_and_ranks_are_kept():
    assert scalars(PROBE) == {"probe/online rank": 3.0, "probe/backbone rank": 2.0, "probe/rank_difference": 0.5}


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed")
def test_a_run_writes_event_files(tmp_path):
    board = open_board(tmp_path / "tensorboard")
    metrics = Metrics(place(tmp_path) / "metrics.jsonl", board)
    metrics.add("train", 5, {"loss": 0.25})
    metrics.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()
    assert read_metrics(tmp_path) == [{"kind": "train", "step": 5, "loss": 0.25}]


def test_without_tensorboardx_there_is_no_board(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert open_board(tmp_path) is None
    Metrics(place(tmp_path) / "metrics.jsonl").close()
