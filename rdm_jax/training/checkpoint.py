"""Checkpoints on a disk or a bucket: Orbax writes the arrays, a manifest of digests beside them says that all is there.

    FOLDER/step_00000040/arrays_0/      the arrays, as Orbax writes them
    FOLDER/step_00000040/manifest.json  shape, dtype and digest of each and of its files, and what the run noted

The manifest is written last and in one piece, and a step without one does not exist: whenever a run is killed, what was
whole before is whole after. Orbax itself may restore flipped bits and casts dtypes in silence, so a checkpoint is read
only if its files are those that were written, and used only if its arrays are those that were saved.

A folder is a path or a URL such as ``gs://bucket/run``, which takes what fsspec needs for it (for ``gs://`` the package
gcsfs). With several processes all call ``save`` and ``restore`` alike, on a folder that all of them see.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from rdm_jax.types import Array

__all__ = ["CheckpointError", "latest", "read_meta", "restore", "save", "saved_steps"]

Folder = str | os.PathLike[str]
Manifest = dict[str, Any]

_STEP = re.compile(r"step_(\d{8,})")
_MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that is not there, is damaged, or is of another state than the one asked for."""


def save(folder: Folder, step: int, state: Any, *, meta: Mapping[str, Any], keep: int = 2) -> None:
    """Write a checkpoint; it exists once all of it is written, and those before it stay until then.

    When it does, older ones than the last ``keep`` are removed, and so is what interrupted saves have left, and any
    later step: that is of a run which was left by restoring an earlier one.

    Args:
        folder: of the run's checkpoints; made if need be, and for nothing else.
        step: the number of steps taken, >= 0. One that is there already is replaced.
        state: any pytree of arrays and of random keys, such as a ``TrainState``, on any devices.
        meta: what JSON can hold: the configuration, metrics so far, the position in the data.
        keep: how many whole checkpoints stay, at least 1.

    Returns:
        Nothing; the checkpoint is written by then.

    Raises:
        ValueError: a negative step; keep < 1; meta that JSON can't hold; two leaves of one name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder, 40, {"weight": jnp.ones(3)}, meta={"epoch": 2})
    ...     latest(folder)
    40
    """
    if step < 0 or keep < 1:
        raise ValueError(f"a checkpoint has a step >= 0 and at least 1 is kept, got step {step} and keep {keep}")
    noted = _plain_meta(meta)
    root, leaves, arrays = _root(folder), _flat(state), _stored(state)
    place = root / f"step_{step:08d}"
    name = f"arrays_{_agreed(_free_number(place))}"
    kept_as = {leaf: _folder_name(number, leaf) for number, leaf in enumerate(arrays)}
    _write_arrays(place / name, {kept_as[leaf]: x for leaf, x in arrays.items() if x.size})
    records = {
        leaf: {"shape": list(x.shape), "dtype": str(x.dtype), "folder": kept_as[leaf], "sha256": _digest(arrays[leaf])}
        for leaf, x in leaves.items()
    }
    if jax.process_index() == 0:
        files = {file: _file_digest(place / name / file) for file in _files(place / name)}
        about = {"format": 1, "step": step, "arrays": name, "leaves": records, "files": files, "meta": noted}
        _write_manifest(place, about)
        _tidy(root, step, keep)
    _agreed(0)


def restore(folder: Folder, abstract_state: Any, *, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint back, bit for bit, onto any number of devices.

    Args:
        folder: where ``save`` wrote.
        abstract_state: a pytree of shapes and dtypes, as ``jax.eval_shape`` gives of the state at the start (or such a
            state itself). Leaves that have a sharding are restored to it, others to the first device.
        step: which; None: the latest.

    Returns:
        The state, and the ``meta`` that was saved with it (tuples have become lists).

    Raises:
        CheckpointError: no such checkpoint; a leaf that is missing, unknown, of another shape or dtype, or whose bytes
            are not those that were saved. It names the leaf, and an earlier step that is whole if there is one.

    >>> import tempfile
    >>> state = {"weight": jnp.ones(3)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder, 40, state, meta={"epoch": 2})
    ...     after, meta = restore(folder, jax.eval_shape(lambda: state))
    >>> after["weight"].tolist(), meta
    ([1.0, 1.0, 1.0], {'epoch': 2})
    """
    root, manifest = _manifest(folder, step)
    try:
        return _read(root, manifest, abstract_state), manifest["meta"]
    except CheckpointError as error:
        found = manifest["step"]
        earlier = _whole_before(root, found, abstract_state)
        advice = "no earlier step fits or is whole" if earlier is None else f"step {earlier} is whole: restore that one"
        raise CheckpointError(f"step {found} in {folder} can't be restored: {error}; {advice}") from error


def read_meta(folder: Folder, *, step: int | None = None) -> dict[str, Any]:
    """What was noted beside a checkpoint, without its arrays: enough to build the state that it is of.

    Args:
        folder: where ``save`` wrote.
        step: which; None: the latest.

    Returns:
        The ``meta`` that was saved.

    Raises:
        CheckpointError: no such checkpoint.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder, 40, {"weight": jnp.ones(3)}, meta={"method": "byol"})
    ...     read_meta(folder)
    {'method': 'byol'}
    """
    return _manifest(folder, step)[1]["meta"]


def latest(folder: Folder) -> int | None:
    """The last step of which there is a whole checkpoint.

    Args:
        folder: where ``save`` wrote; it need not exist.

    Returns:
        The step, or None if there is none.

    >>> latest("no/such/folder") is None
    True
    """
    return max(saved_steps(folder), default=None)


def saved_steps(folder: Folder) -> list[int]:
    """The steps of which there are whole checkpoints.

    Args:
        folder: where ``save`` wrote; it need not exist.

    Returns:
        The steps in rising order. Their arrays are not read: ``restore`` does that, and checks them.

    >>> saved_steps("no/such/folder")
    []
    """
    return sorted(step for step, place in _places(_root(folder)) if _read_manifest(place) is not None)


def _root(folder: Folder) -> epath.Path:
    path = epath.Path(folder)
    return path if "://" in os.fspath(folder) else epath.Path(os.path.abspath(path))


def _places(root: epath.Path) -> list[tuple[int, epath.Path]]:
    """Each step that was begun, and its folder."""
    if not root.is_dir():
        return []
    names = [(_STEP.fullmatch(path.name), path) for path in root.iterdir()]
    return [(int(match[1]), path) for match, path in names if match]


def _free_number(place: epath.Path) -> int:
    """Of a new folder of arrays: one that is there may be the whole one, until the manifest names another."""
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    return max((int(number) for name in names for number in re.findall(r"^arrays_(\d+)", name)), default=-1) + 1


def _agreed(number: int) -> int:
    """The number of process 0, when all processes have come here."""
    return number if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _plain_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(meta)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"meta must be a dict of what JSON can hold (numbers, strings, lists, dicts): {error}"
        ) from None


def _flat(tree: Any) -> dict[str, Any]:
    """The leaves by name, such as ``params/encoder/conv/kernel``; None is no leaf."""
    pairs = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    leaves = dict(pairs)
    if len(leaves) < len(pairs):
        twice = next(name for name in leaves if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"two leaves of the state are named {twice!r}; rename a key so that each has its own name")
    return {name: leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for name, leaf in leaves.items()}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored(state: Any) -> dict[str, Array]:
    """The leaves as they are stored: of a random key its numbers."""
    return {name: jax.random.key_data(x) if _is_key(x) else jnp.asarray(x) for name, x in _flat(state).items()}


def _digest(array: Array) -> str:
    if not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _seal(manifest: Manifest) -> str:
    text = json.dumps({key: manifest[key] for key in manifest if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_manifest(place: epath.Path, manifest: Manifest) -> None:
    draft = place / f"{_MANIFEST}.tmp"
    draft.write_text(json.dumps({**manifest, "sha256": _seal(manifest)}, indent=1))
    draft.replace(place / _MANIFEST)


def _read_manifest(place: epath.Path) -> Manifest | None:
    """The manifest, or None if there is no whole one."""
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
        return manifest if manifest["sha256"] == _seal(manifest) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _tidy(root: epath.Path, step: int, keep: int) -> None:
    places = dict(_places(root))
    whole = sorted(number for number, place in places.items() if number <= step and _read_manifest(place))
    kept = set(whole[-keep:])
    for number, place in places.items():
        if number not in kept:
            # First of all what says that it is whole: this may be interrupted too.
            (place / _MANIFEST).unlink(missing_ok=True)
            place.rmtree()
    place = places[step]
    current = (_read_manifest(place) or {})["arrays"]
    for path in place.iterdir():
        if path.is_dir() and path.name != current:
            path.rmtree()


def _manifest(folder: Folder, step: int | None) -> tuple[epath.Path, Manifest]:
    root, steps = _root(folder), saved_steps(folder)
    if not steps:
        raise CheckpointError(f"{folder} has no whole checkpoint: start a run there without resuming")
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder} has no whole checkpoint of step {step}, but of {', '.join(map(str, steps))}")
    manifest = _read_manifest(root / f"step_{max(steps) if step is None else step:08d}")
    if manifest is None:
        raise CheckpointError(f"{folder} changed while it was read: try again when no run is writing there")
    return root, manifest


def _whole_before(root: epath.Path, step: int, abstract_state: Any) -> int | None:
    for number in reversed(saved_steps(root)):
        manifest = _read_manifest(root / f"step_{number:08d}")
        if number < step and manifest is not None:
            try:
                _read(root, manifest, abstract_state)
                return number
            except CheckpointError:
                continue
    return None


def _read(root: epath.Path, manifest: Manifest, abstract_state: Any) -> Any:
    wanted, leaves = _flat(abstract_state), manifest["leaves"]
    _compare(wanted, leaves)
    place = root / f"step_{manifest['step']:08d}" / manifest["arrays"]
    _check_files(place, manifest)
    targets = {name: _target(leaf) for name, leaf in wanted.items()}
    arrays = _read_arrays(place, targets, {name: leaves[name]["folder"] for name in targets})
    for name, array in arrays.items():
        if _digest(array) != leaves[name]["sha256"]:
            raise CheckpointError(f"what is stored of {name!r} is not what was saved: its digest differs")
    restored = [_wrapped(arrays[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(abstract_state), restored)


def _compare(wanted: dict[str, Any], leaves: dict[str, Any]) -> None:
    for name in wanted:
        if name not in leaves:
            raise CheckpointError(f"it has no {name!r}, which the state has; is it of another configuration?")
    for name, saved in leaves.items():
        if name not in wanted:
            raise CheckpointError(f"it has {name!r}, which the state has not; is it of another configuration?")
        for what, value in (("dtype", str(wanted[name].dtype)), ("shape", list(wanted[name].shape))):
            if saved[what] != value:
                raise CheckpointError(f"{name!r} was saved with {what} {saved[what]}, and the state has {value}")


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    """How a leaf is stored, and where it is to go."""
    shape = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _wrapped(array: Array, leaf: Any) -> Array:
    if not _is_key(leaf):
        return array
    kinds: list[Any] = []  # of an abstract key, only a trace tells it
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), leaf)
    return jax.random.wrap_key_data(array, impl=kinds[0])


def _folder_name(number: int, leaf: str) -> str:
    """Of a leaf's files: its number, since names may differ in what a file system does not tell apart."""
    return f"{number:04d}." + re.sub(r"[^A-Za-z0-9_-]+", ".", leaf)[:120]


def _handler() -> ocp.PyTreeCheckpointHandler:
    # A folder for each leaf, instead of Orbax's database of all: damage then has a name.
    return ocp.PyTreeCheckpointHandler(use_ocdbt=False)


def _write_arrays(place: epath.Path, arrays: dict[str, Array]) -> None:
    logger = logging.getLogger("absl")
    logger.addFilter(_is_news)
    try:
        with ocp.Checkpointer(_handler()) as writer:
            # Orbax refuses to write nothing.
            writer.save(place, ocp.args.PyTreeSave(arrays or {"none": jnp.zeros(1)}))
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax warns at each save that there is no database to merge, where none was asked for."""
    return "Skipping merge of OCDBT" not in str(record.msg)


def _read_arrays(
    place: epath.Path, targets: dict[str, jax.ShapeDtypeStruct], folders: dict[str, str]
) -> dict[str, Array]:
    # Of an array without elements nothing is stored.
    arrays = {
        name: jax.device_put(jnp.zeros(x.shape, x.dtype), x.sharding) for name, x in targets.items() if not x.size
    }
    wanted = {folders[name]: target for name, target in targets.items() if target.size}
    if wanted:
        with ocp.Checkpointer(_handler()) as reader:
            _compare_stored(targets, folders, reader.metadata(place).item_metadata.tree)
            how = {key: _restore_args(target) for key, target in wanted.items()}
            found = reader.restore(place, ocp.args.PyTreeRestore(item=wanted, restore_args=how))
        arrays |= {name: found[folders[name]] for name, target in targets.items() if target.size}
    return arrays


def _restore_args(target: jax.ShapeDtypeStruct) -> ocp.ArrayRestoreArgs:
    return ocp.ArrayRestoreArgs(sharding=target.sharding, global_shape=target.shape, dtype=target.dtype)


def _compare_stored(targets: dict[str, jax.ShapeDtypeStruct], folders: dict[str, str], stored: dict[str, Any]) -> None:
    """Orbax would cast to the dtype that it is asked for."""
    for name, target in targets.items():
        for what in ("dtype", "shape") if target.size else ():
            found, wanted = getattr(stored[folders[name]], what), getattr(target, what)
            if found != wanted:
                raise CheckpointError(f"{name!r} is stored with {what} {found}, and was saved with {wanted}")


def _files(place: epath.Path, below: str = "") -> list[str]:
    """Paths of all files, relative to the place, in a fixed order."""
    found: list[str] = []
    for path in sorted((place / below if below else place).iterdir()):
        name = f"{below}/{path.name}" if below else path.name
        found += _files(place, name) if path.is_dir() else [name]
    return found


def _file_digest(path: epath.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_files(place: epath.Path, manifest: Manifest) -> None:
    """Whether all files are those that were written: Orbax would read others, or end in a dozen tracebacks."""

    files = manifest["files"]

    def is_damaged(file: str) -> bool:
        try:
            return _file_digest(place / file) != files[file]
        except OSError:
            return True

    # Many at a time: on a bucket each takes a while.
    with ThreadPoolExecutor(16) as pool:
        damaged = [file for file, bad in zip(files, pool.map(is_damaged, files), strict=True) if bad]
    if damaged:
        owners = {record["folder"]: name for name, record in manifest["leaves"].items()}
        leaves = sorted({owners[file.partition("/")[0]] for file in damaged if file.partition("/")[0] in owners})
        of = f" of {', '.join(map(repr, leaves[:3]))}{' and others' * (len(leaves) > 3)}" if leaves else ""
        raise CheckpointError(f"the stored bytes{of} are damaged or missing, in {manifest['arrays']}/{damaged[0]}")
