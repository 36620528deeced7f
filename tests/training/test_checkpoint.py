"""What is restored is what was saved, bit for bit, on any number of devices; what is damaged or half written is not."""

import json
import logging
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rdm_jax.training import checkpoint
from rdm_jax.training.checkpoint import CheckpointError, latest, read_meta, restore, save, saved_steps
from rdm_jax.training.step import Params, TrainState

ROWS = 16


def state(number=0):
    """With all that a run may carry; every leaf depends on the number."""
    key = jax.random.key(number)
    encoder = {"kernel": jax.random.normal(key, (ROWS, 3)), "scale": jnp.array([-0.0, jnp.nan, number], jnp.bfloat16)}
    keys = (key, jax.random.split(jax.random.key(number, impl="rbg"), 2))
    return TrainState(
        params=Params(encoder, {"queue": jnp.zeros((0, 4)), "mask": jnp.array([True, number % 2 == 0])}),
        stats=None,
        target=None,
        states=keys,
        optimizer=(None, {"a/b": jnp.arange(5) + number}),
        step=jnp.int32(number),
    )


ABSTRACT = jax.eval_shape(state)


def contents(tree):
    """Shape, dtype and bytes of each leaf, and the structure."""
    plain = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)
    ]
    types = [str(x.dtype) for x in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), types, [(x.shape, np.asarray(x).tobytes()) for x in plain]


def refused(folder, match, wanted=ABSTRACT, **options):
    with pytest.raises(CheckpointError, match=match) as found:
        restore(folder, wanted, **options)
    assert str(folder) in str(found.value)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Steps 1 and 2, whole; to be copied."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    for step in (1, 2):
        save(folder, step, state(step), meta={"loss": [0.5 / step, None], "name": "run"})
    return folder


@pytest.fixture
def run(pair, tmp_path):
    return shutil.copytree(pair, tmp_path / "run")


def manifest(folder, step):
    return folder / f"step_{step:08d}" / "manifest.json"


def reseal(path, change):
    """A manifest that is whole, of other contents."""
    text = json.loads(path.read_text())
    change(text)
    path.write_text(json.dumps({**text, "sha256": checkpoint._seal(text)}))


def test_what_is_restored_is_what_was_saved(pair):
    for step in (1, 2):
        restored, meta = restore(pair, ABSTRACT, step=step)
        assert contents(restored) == contents(state(step)) != contents(state(3 - step))
        assert meta == read_meta(pair, step=step) == {"loss": [0.5 / step, None], "name": "run"}
    assert contents(restore(pair, ABSTRACT)[0]) == contents(state(2))
    assert latest(pair) == 2 and saved_steps(str(pair)) == [1, 2]


def test_a_random_key_goes_on_as_it_would_have(pair):
    restored, _ = restore(pair, ABSTRACT)
    for ours, theirs in zip(restored.states, state(2).states, strict=True):
        draw = jax.vmap(jax.random.bits) if ours.ndim else jax.random.bits
        np.testing.assert_array_equal(draw(ours), draw(theirs))


def test_a_state_of_nothing_but_empty_arrays(tmp_path):
    save(tmp_path, 0, {"none": jnp.zeros((0, 2))}, meta={})
    assert restore(tmp_path, {"none": jnp.zeros((0, 2))})[0]["none"].shape == (0, 2)


def test_the_last_are_kept_and_what_was_left_is_not(tmp_path):
    tree = {"weight": jnp.ones(2)}
    for step in (1, 2, 3, 7, 9):
        save(tmp_path, step, tree, meta={}, keep=3)
    assert saved_steps(tmp_path) == [3, 7, 9]
    (tmp_path / "step_00000004" / "arrays_0").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    save(tmp_path, 5, {"weight": 2 * jnp.ones(2)}, meta={}, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step_00000005"]
    save(tmp_path, 5, {"weight": 3 * jnp.ones(2)}, meta={}, keep=1)
    assert restore(tmp_path, tree)[0]["weight"].tolist() == [3, 3]
    assert len(list((tmp_path / "step_00000005").iterdir())) == 2


def test_a_step_that_is_saved_again_stays_until_it_is(tmp_path, monkeypatch):
    save(tmp_path, 5, {"weight": jnp.ones(2)}, meta={}, keep=1)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 5, {"weight": jnp.zeros(2)}, meta={}, keep=1)
    assert restore(tmp_path, {"weight": jnp.zeros(2)})[0]["weight"].tolist() == [1, 1]


def test_a_flipped_byte_in_any_file_is_refused_by_name(run):
    arrays = run / "step_00000002" / "arrays_0"
    folders = {record["folder"]: name for name, record in json.loads(manifest(run, 2).read_text())["leaves"].items()}
    named = set()
    for path in sorted(path for path in arrays.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
            leaf = folders.get(path.relative_to(arrays).parts[0])
            refused(run, f"step 2 .*bytes{f' of {leaf!r}' if leaf else ''} are damaged.*step 1 is whole")
            named.add(leaf)
        path.write_bytes(whole)
    assert named == {None, *folders.values()} - {"params/method/queue"}
    assert contents(restore(run, ABSTRACT)[0]) == contents(state(2))


def test_a_missing_file_is_refused_by_name(run):
    for folder in (run / "step_00000002" / "arrays_0").glob("*.params.encoder.kernel"):
        shutil.rmtree(folder)
    refused(run, "'params/encoder/kernel'.*step 1 is whole")
    shutil.rmtree(run / "step_00000001" / "arrays_0")
    refused(run, "no earlier step fits or is whole")


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_arrays_stored_anew_are_refused(run, dtype):
    """By another program, as another dtype or of other values, with digests of the files that fit."""
    place = run / "step_00000002" / "arrays_0"
    found = json.loads(manifest(run, 2).read_text())["leaves"]
    tree = {found[name]["folder"]: leaf for name, leaf in checkpoint._stored(state(2)).items() if leaf.size}
    kernel = found["params/encoder/kernel"]["folder"]
    tree[kernel] = (tree[kernel] + (dtype == jnp.float32)).astype(dtype)
    shutil.rmtree(place)
    checkpoint._write_arrays(checkpoint._root(place), tree)
    files = {
        name: checkpoint._file_digest(checkpoint._root(place / name))
        for name in checkpoint._files(checkpoint._root(place))
    }
    reseal(manifest(run, 2), lambda text: text.update(files=files))
    what = "its digest differs" if dtype == jnp.float32 else "stored with dtype float16, and was saved with float32"
    refused(run, f"'params/encoder/kernel' is .*{what}.*step 1 is whole")


@pytest.mark.parametrize(
    ("encoder", "match"),
    [
        ({"kernel": jnp.zeros((ROWS, 3), jnp.bfloat16)}, "kernel' was saved with dtype float32, and .* has bfloat16"),
        ({"kernel": jnp.zeros((3, ROWS))}, r"kernel' was saved with shape \[16, 3\], and the state has \[3, 16\]"),
        ({"bias": jnp.zeros(3)}, "it has no 'params/encoder/bias', which the state has"),
        (None, "it has 'params/encoder/kernel', which the state has not"),
    ],
)
def test_a_checkpoint_of_another_state_is_refused_by_name(pair, encoder, match):
    other = encoder and {**ABSTRACT.params.encoder, **encoder}
    refused(pair, match, ABSTRACT._replace(params=ABSTRACT.params._replace(encoder=other)))


def test_another_kind_of_random_key_is_refused_by_name(pair):
    keys = (jax.random.key(0, impl="rbg"), ABSTRACT.states[1])
    refused(
        pair, r"'states/0' was saved with dtype key<fry>, and the state has key<rbg>", ABSTRACT._replace(states=keys)
    )


def cut(path):
    path.write_text(path.read_text()[:-1])


def change(path):
    path.write_text(path.read_text().replace('"loss"', '"lost"'))


@pytest.mark.parametrize("spoil", [os.remove, cut, change])
def test_a_step_without_a_whole_manifest_is_none(run, spoil):
    spoil(manifest(run, 2))
    assert saved_steps(run) == [1] and read_meta(run)["loss"][0] == 0.5
    assert contents(restore(run, ABSTRACT)[0]) == contents(state(1))
    refused(run, "no whole checkpoint of step 2, but of 1", step=2)
    spoil(manifest(run, 1))
    refused(run, "no whole checkpoint: start a run there without resuming")
    assert latest(run) is None


def test_a_manifest_of_other_contents_is_noticed(run):
    reseal(manifest(run, 2), lambda text: text["leaves"].pop("step"))
    refused(run, "it has no 'step'")


def test_what_can_not_be_saved(tmp_path):
    for step, keep in ((-1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"got step {step} and keep {keep}"):
            save(tmp_path, step, {}, meta={}, keep=keep)
    with pytest.raises(ValueError, match="JSON can hold"):
        save(tmp_path, 0, {}, meta={"array": jnp.ones(1)})
    with pytest.raises(ValueError, match="two leaves of the state are named 'a/b'"):
        save(tmp_path, 0, {"a": {"b": 1}, "a/b": 2}, meta={})
    assert list(tmp_path.iterdir()) == []


def test_saving_is_quiet_and_leaves_the_log_as_it_was(tmp_path, caplog):
    before = list(logging.getLogger("absl").filters)
    with caplog.at_level(logging.WARNING):
        save(tmp_path, 0, {"weight": jnp.ones(2)}, meta={})
    assert caplog.records == [] and logging.getLogger("absl").filters == before


# One process on 8 devices: restores what 1 device saved, and saves the same rows for 1 device to restore.
ON_EIGHT = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from rdm_jax.training.checkpoint import restore, save
from tests.training.test_checkpoint import ABSTRACT, ROWS, contents, state
mesh = jax.make_mesh((8,), ("rows",))
def placed(leaf):
    axes = PartitionSpec("rows") if leaf.shape[:1] == (ROWS,) else PartitionSpec()
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, axes))
one, eight = sys.argv[1:]
restored, _ = restore(one, jax.tree.map(placed, ABSTRACT))
assert len(jax.devices()) == 8 and contents(restored) == contents(state(2))
kernel = restored.params.encoder["kernel"]
assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 3)} and len(kernel.sharding.device_set) == 8
save(eight, 2, restored, meta={"devices": 8})
"""


def test_any_number_of_devices_restores_what_another_saved(pair, tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", ON_EIGHT, str(pair), str(tmp_path / "run")]
    subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}, check=True, timeout=120)
    restored, meta = restore(tmp_path / "run", ABSTRACT)
    assert contents(restored) == contents(state(2)) and meta == {"devices": 8}
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored)} == {1}


# One process that starts others, before it has begun to compute: each is killed at another moment of its second save,
# the moments being the times at which Python touches the disk.
KILLED = """
import os, signal, sys
import jax, jax.numpy as jnp
from rdm_jax.training.checkpoint import save
TOUCHES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
def second_save(folder, end):
    state = lambda number: {name: jnp.full((3, 2), number) for name in "abc"}
    save(folder, 1, state(1), meta={}, keep=1)
    touches = []
    def count(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wxa"
        if (writes or event in TOUCHES) and str(arguments[0]).startswith(folder):
            touches.append(event)
            if len(touches) == end:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    save(folder, 2, state(2), meta={}, keep=1)
    return len(touches)
def begun(folder, end, channel):
    child = os.fork()
    if not child:
        total = second_save(folder, end)
        os.write(channel, bytes([total]))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
base, wanted = sys.argv[1], int(sys.argv[2])
read, write = os.pipe()
assert begun(base + "/whole", 0, write) == 0
total = os.read(read, 1)[0]
for end in sorted({1 + (total - 1) * part // (wanted - 1) for part in range(wanted)}):
    print(end, begun(f"{base}/{end}", end, write), flush=True)
"""
MOMENTS = 7


def test_killed_at_any_moment_of_a_save_a_whole_checkpoint_is_left(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(MOMENTS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    lines, abstract = done.stdout.splitlines(), {name: jax.ShapeDtypeStruct((3, 2), jnp.int32) for name in "abc"}
    assert len(lines) == MOMENTS and latest(tmp_path / "whole") == 2
    found = []
    for moment, code in map(str.split, lines):
        folder = tmp_path / moment
        assert code == "-9"
        found.append(latest(folder))
        restored = restore(folder, abstract)[0]
        assert all(np.all(leaf == found[-1]) for leaf in restored.values())
        save(folder, 2, restored, meta={}, keep=1)
        assert contents(restore(folder, abstract)[0]) == contents(restored)
        assert [path.name for path in folder.iterdir()] == ["step_00000002"]
        assert len(list((folder / "step_00000002").iterdir())) == 2
    # Neither all before the manifest was there nor all after, in the order of the moments.
    assert set(found) == {1, 2} and found == sorted(found)


def test_orbax_alone_would_not_notice(tmp_path):
    """Why there are digests: it casts to the dtype that it is asked for."""
    checkpoint._write_arrays(checkpoint._root(tmp_path / "arrays"), {"weight": jnp.full(3, 1.25)})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    how = {"weight": ocp.ArrayRestoreArgs(dtype=jnp.int32, sharding=place)}
    with ocp.Checkpointer(checkpoint._handler()) as reader:
        found = reader.restore(tmp_path / "arrays", ocp.args.PyTreeRestore(restore_args=how))
    assert found["weight"].tolist() == [1, 1, 1]
