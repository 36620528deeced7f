"""A training run from the command line: what it leaves, what can be made of it, and what it refuses."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
# What is compiled here runs a few times only.
QUICK = "--xla_backend_optimization_level=0"


def run(script, *words):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, f"experiments/{script}.py", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "new"
    done = run("resnet_cifar", "--preset", "smoke", "--method", "rdm_simsiam", "--side", "target", "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_run_leaves_results(trained):
    folder, said = trained
    results = json.loads((folder / "results.json").read_text())
    assert results["config"]["method"] == "rdm_simsiam" and results["config"]["side"] == "target"
    assert 0 <= results["scores"]["trained"]["knn"] <= 1
    # The filter on the target's side is a power below 0, so that the target's rank is the larger one.
    assert results["end"]["target_rank"] > results["end"]["online_rank"] > 1
    assert results["end"]["predicted_rank_difference"] > 0
    assert "effective rank online" in said and max(map(len, said.split("Results:")[0].splitlines())) <= 100


def test_the_same_command_is_refused_and_resume_has_nothing_left_to_do(trained):
    folder, _ = trained
    options = ("--preset", "smoke", "--method", "rdm_simsiam", "--side", "target", "--out", folder)
    assert "exists and is not empty" in run("resnet_cifar", *options).stderr
    changed = run("resnet_cifar", *options, "--resume", "--batch-size", 16)
    assert changed.returncode == 2 and "batch_size was 32, now 16" in changed.stderr
    again = run("resnet_cifar", *options, "--resume")
    assert again.returncode == 0 and "resumed after step 6 of 6" in again.stdout, again.stderr


def test_its_network_can_be_evaluated_and_its_features_written(trained, tmp_path):
    folder, _ = trained
    scores = json.loads((folder / "results.json").read_text())["scores"]["trained"]
    done = run("evaluate", folder, "--linear-crops", 0)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"step": 6, **scores}
    written = run("extract_features", folder, "--stages", "backbone", "stage1", "--out", tmp_path / "features")
    assert written.returncode == 0, written.stderr
    rows = {path.name: np.load(path) for path in (tmp_path / "features").glob("*.npy")}
    assert rows["train_backbone.npy"].shape == (96, 32) and rows["test_stage1.npy"].shape == (96, 4)
    weights = np.load(tmp_path / "features" / "backbone.npz")
    assert any(name.startswith("params/") for name in weights) and any(name.startswith("stats/") for name in weights)
    wrong = run("extract_features", folder, "--stages", "backbon", "--out", tmp_path / "other")
    assert wrong.returncode == 2 and "did you mean 'backbone'" in wrong.stderr
    assert not (tmp_path / "other").exists()


def test_its_probes_are_told_of_on_one_page(trained, tmp_path):
    done = run("report", trained[0], "--out", tmp_path / "report", "--no-pdf")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert "RDM-SimSiam target" in page and "effective rank is the higher one at 100%" in page
    assert max(map(len, done.stdout.split("Report:")[0].splitlines())) <= 100


def test_its_steps_can_be_taken_again(trained, tmp_path):
    done = run("growth_causes", trained[0], "--repeats", 2, "--steps", 1, "--out", tmp_path / "causes")
    assert done.returncode == 0, done.stdout + done.stderr
    (part,) = json.loads((tmp_path / "causes" / "results.json").read_text())["parts"].values()
    names = ["as trained", "no momentum from before", "a tenth of the rate, no momentum from before"]
    assert [entry["name"] for entry in part["data"]["settings"]] == names


def test_what_is_not_there_is_said_in_a_sentence(tmp_path):
    for script in ("evaluate", "extract_features"):
        done = run(script, tmp_path)
        assert done.returncode == 2 and "config.json is missing" in done.stderr
    done = run("resnet_cifar", "--dataset", "cifar10", "--data-dir", tmp_path, "--filter", "power:1")
    assert done.returncode == 2 and "simsiam has no filter" in done.stderr + done.stdout
