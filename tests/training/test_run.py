"""A run ends where it would have ended, whatever stopped it on the way; and says so when it can't go on."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.training import checkpoint, device_mesh, probe_state
from rdm_jax.training.learner import init_learning, make_update
from rdm_jax.training.run import CHECKPOINTS, Diverged, Interrupted, _advance, alarms, probe_views
from rdm_jax.training.watch import read_metrics
from tests.training import tiny_run

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 15


def same(first, second):
    leaves = [jax.tree.leaves(tree) for tree in (first, second)]
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(*leaves, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, tiny_run.run(folder)


def test_a_run_leaves_its_metrics_and_probes(whole):
    folder, state = whole
    assert int(state.train.step) == STEPS
    losses = read_metrics(folder, "train")
    assert [entry["step"] for entry in losses] == [5, 10, 15]
    assert all(np.isfinite(entry["loss"]) and entry["images_per_second"] > 0 for entry in losses)
    probes = read_metrics(folder, "probe")
    assert [entry["step"] for entry in probes] == [0, 5, 10, 15]
    own, data = tiny_run.learner(), tiny_run.dataset()
    views, numbers = probe_views(own, data, tiny_run.PLAN)
    assert len(set(numbers.tolist())) == 16
    record = probe_state(own.encoder, own.method, state.train, views, steps_per_epoch=5)
    assert probes[-1]["rank_difference"] == pytest.approx(float(record.rank_difference), rel=1e-3)
    assert probes[-1]["stages"]["backbone"]["rank"] == pytest.approx(float(record.stages["backbone"].rank), rel=1e-3)


def test_growth_is_read_a_few_steps_after_each_probe(whole):
    folder, _ = whole
    pairs = read_metrics(folder, "growth")
    assert [(line["since"], line["step"]) for line in pairs] == [(0, 5), (5, 10), (10, 15)]
    before, after = read_metrics(folder, "probe")[1:3]
    # Modes that were found again, in order, grew as their eigenvalues did, log lambda' = 2 r.
    first = pairs[1]["spectrum"][0]
    assert first == before["features"]["eigenvalues"][0]
    changes = np.log(np.array(after["features"]["eigenvalues"]) / first) / 10
    assert pairs[1]["kept"][0] and np.abs(changes - pairs[1]["measured"][0]).min() < 1e-4
    ranks = [line["features"]["rank"] for line in (before, after)]
    assert pairs[1]["measured_entropy_rate"] == pytest.approx(np.log(ranks[1] / ranks[0]) / 5, abs=1e-5)


def test_a_compiled_loop_takes_the_same_steps_as_one_by_one():
    own, data = tiny_run.learner(), tiny_run.dataset()
    order = np.arange(24).reshape(3, 8).astype(np.int32)
    ends = []
    for looped in (False, True):
        advance = _advance(own, data, tiny_run.PLAN, device_mesh(), looped)
        ((state, measures),) = advance(init_learning(own, (8, 8, 3)), order)
        ends.append((measures.loss, jax.tree.leaves(state)))
    assert len(ends[0][0]) == 3
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-5)
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_killed_at_any_moment_and_resumed_it_ends_the_same_bitwise(whole, tmp_path):
    folder, cache = tmp_path / "killed", {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    for moment in ("5", "save 1", "10", "save 1", "15"):
        process = started("dying", folder, moment, **cache)
        _, said = process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL, said
    show = tiny_run.Silent()
    state = tiny_run.run(folder, show)
    assert show.notes and "resumed after step" in show.notes[0]
    assert same(state, whole[1])
    kept = [[e for e in read_metrics(place) if e["kind"] != "alarm"] for place in (folder, whole[0])]
    for ours, theirs in zip(*kept, strict=True):
        for entry in (ours, theirs):
            entry.pop("images_per_second", None)
        assert ours == theirs


def started(*words, devices=1, **environment):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.tiny_run", *map(str, words)]
    environment |= {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def ended(*processes):
    heard = []
    for process in processes:
        heard.append(process.communicate(timeout=240)[1])
        assert process.returncode == 0, heard[-1]
    return heard


def agrees(whole, folder):
    """Up to rounding: sums over the batch are made in another order, and training multiplies what that changes."""
    losses = [[line["loss"] for line in read_metrics(place, "train")] for place in (folder, whole[0])]
    np.testing.assert_allclose(*losses, rtol=2e-4)
    ranks = [[line["features"]["rank"] for line in read_metrics(place, "probe")] for place in (folder, whole[0])]
    np.testing.assert_allclose(*ranks, rtol=1e-3)
    with np.load(folder / "end.npz") as found:
        for ours, theirs in zip(found.values(), jax.tree.leaves(whole[1]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=5e-4)


def test_eight_devices_train_as_one_and_one_reads_their_checkpoint(whole, tmp_path):
    ended(started("alone", tmp_path, devices=8))
    agrees(whole, tmp_path)
    own = tiny_run.learner()
    shapes = jax.eval_shape(lambda: init_learning(own, (8, 8, 3)))
    state, meta = checkpoint.restore(tmp_path / CHECKPOINTS, shapes)
    with np.load(tmp_path / "end.npz") as found:
        assert same(state, list(found.values())) and meta == {"a": 1}
    assert len(jax.tree.leaves(state)[0].devices()) == 1


def test_two_processes_train_as_one_and_stop_together(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    said = ended(*(started("shared", tmp_path, port, process, devices=2) for process in (0, 1)))
    # The signal reached one of them alone.
    assert all("stopped by SIGTERM after step 5" in text for text in said)
    agrees(whole, tmp_path)


def test_a_signal_saves_and_the_resumed_run_ends_the_same(whole, tmp_path):
    class Signals(tiny_run.Silent):
        def step(self, done, total, entry):
            if entry["kind"] == "train" and done == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM after step 5, saved: go on with --resume") as caught:
        tiny_run.run(tmp_path, Signals(), plan=tiny_run.PLAN._replace(save_every=0))
    assert caught.value.code == 143
    assert checkpoint.latest(tmp_path / CHECKPOINTS) == 5
    assert same(tiny_run.run(tmp_path), whole[1])


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    tiny_run.run(tmp_path, plan=tiny_run.PLAN._replace(epochs=1))
    files = [path for path in (tmp_path / CHECKPOINTS).glob("step_*/arrays_*/**/*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        tiny_run.run(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path):
    with pytest.raises(Diverged, match=r"became nan at step \d+; .*smaller --learning-rate"):
        tiny_run.run(tmp_path, rate=1e30, method="linear")


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    lines = [json.dumps({"kind": "train", "step": step}) for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n" + lines[0][:7])
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]


def test_alarms_are_for_collapse_only():
    own = tiny_run.learner()
    assert list(alarms(own, {"loss": 1.0, "spread": 0.9})) == []
    assert "nearly the same" in next(alarms(own, {"loss": 1.0, "spread": 0.05}))


def test_views_depend_on_the_sample_and_the_epoch_not_on_its_place_in_the_batch():
    own, data = tiny_run.learner("linear"), tiny_run.dataset()
    seen = []

    def encode(params, stats, x, train):
        seen.append(x)
        return own.encoder.apply(params, stats, x, train)

    watched = own._replace(encoder=own.encoder._replace(apply=encode))
    state = init_learning(own, (8, 8, 3))
    update = make_update(watched)
    numbers = np.array([3, 5, 8, 9])
    for chosen in (numbers, numbers[::-1]):
        update(state, *map(jnp.asarray, (data.train.images[chosen], data.train.labels[chosen], chosen)))
    first, second, third, fourth = (np.asarray(x) for x in (seen[0], seen[1], seen[2], seen[3]))
    np.testing.assert_allclose(first, third[::-1], atol=1e-6)
    np.testing.assert_allclose(second, fourth[::-1], atol=1e-6)
    assert np.abs(first - second).max() > 0.1
