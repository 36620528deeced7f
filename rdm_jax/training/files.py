"""``python -m rdm_jax probe``: the probe of anybody's saved features, read in blocks of rows.

The first pass over the files accumulates moments, from which the record is read; the second gives the standard errors
of its effective ranks. What it prints is words and numbers; ``--out`` keeps them, with two figures.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from rdm_jax import commandline, plotting, reporting
from rdm_jax.methods import Context, Method, get
from rdm_jax.spectra import MomentAccumulator
from rdm_jax.spectra.decompose import eigensystem
from rdm_jax.spectra.rank import influence_form
from rdm_jax.training._arrays import Rows, open_rows
from rdm_jax.training._told import FIGURES, shortened, told
from rdm_jax.training.measure import Moments, measure, merge, views_of
from rdm_jax.training.probe import Errors, LossKind, Record, line_of, read
from rdm_jax.types import Array, Moment

BLOCK = 2048  # rows
_PACKAGES = ("rdm_jax", "jax", "jaxlib", "numpy")

Files = Mapping[str, Sequence[Rows]]


@dataclasses.dataclass(frozen=True)
class ProbeOptions:
    """Effective ranks of two branches, from saved outputs, and what theory predicts beside them.

    A file is FILE.npy, FILE.npz with one array, or FILE.npz:KEY; it holds one view, (n, d), of any real numbers. All
    files have the same samples in the same order. Second views show how much is view noise.
    """

    online: str
    """Outputs p of the online branch (after the predictor or filter)."""
    target: str
    """Outputs t of the target branch."""
    online_second: str | None = None
    """p of the second view."""
    target_second: str | None = None
    """t of the second view."""
    features: str | None = None
    """z, what the online branch starts from (default: the target's outputs)."""
    features_second: str | None = None
    """z of the second view."""
    stages: tuple[str, ...] = ()
    """Other features to rank, NAME=FILE, of any width; a name given twice has two views."""
    method: str | None = None
    """Whose rank difference theory is to predict (default: that of a learned linear predictor)."""
    epoch: float = 0.0
    """Of training at which the outputs were taken, for methods with a schedule."""
    out: Path | None = None
    """A new or empty folder for probe.json, spectra.png and filter.png."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Args:
        arguments: the words after ``probe``; None: those of the process.

    Returns:
        The exit code. 0: done; 2: bad usage or input; 128 + n: stopped by signal n.
    """
    options = tyro.cli(ProbeOptions, args=arguments, prog="python -m rdm_jax probe")
    try:
        with commandline.signals():
            _run(options)
    except (commandline.UsageError, ValueError) as error:
        commandline.complain(error)
        return commandline.BAD_USAGE
    except commandline.Stopped as stopped:
        commandline.complain(stopped)
        return stopped.code
    return 0


def probe_files(
    branches: Files, stages: Files, method: Method | None = None, *, epoch: float = 0.0, block: int = BLOCK
) -> Record:
    """``probe`` of files: the same numbers as of the arrays in memory.

    Args:
        branches: one or two views of ``online``, ``target`` and, if it is not the target's output, ``features``.
        stages: one or two views of each, by name.
        method: whose responses are to be predicted; None: those of a learned linear predictor, under the cosine.
        epoch: of training, for methods with a schedule.
        block: rows that are read at a time.

    Returns:
        The record.

    Raises:
        ValueError: files that don't belong together or can't be read, by name.
    """
    _require_alike(branches, stages)
    kind = LossKind("cosine") if method is None else None
    if method is None and len(branches["online"]) == 2:  # with one view what it learns is unknown
        method = get("linear")
    moments = _moments(branches, stages, method, block)
    _require_in_range(moments, branches, stages)
    context = Context(epoch=epoch, samples=branches["online"][0].shape[0])
    record = read(moments, method=method, kind=kind, context=context)
    return record._replace(errors=_errors(branches, moments, record, method, block))


def _run(options: ProbeOptions) -> None:
    if options.out is not None:
        commandline.require_vacant(options.out)
    method = None if options.method is None else get(options.method)
    branches, stages = _branches(options), _stages(options.stages)
    line = line_of(probe_files(branches, stages, method, epoch=options.epoch))
    files = {name: " and ".join(view.label for view in views) for name, views in branches.items()}
    views = branches["online"]
    whose = None if options.method is None else f"{options.method} at epoch {options.epoch:g}"
    print(told(line, files, views[0].shape, len(views), whose))
    if options.out is not None:
        _save(options.out, {"config": _config(options), "run": reporting.provenance(_PACKAGES), "record": line})
        print(f"Results: {shortened(str(options.out), 70)}")


def _config(options: ProbeOptions) -> dict[str, Any]:
    return reporting.plain(dataclasses.asdict(options))


def _save(out: Path, results: Mapping[str, Any]) -> None:
    """The folder with all its files, or nothing: it is filled under another name first."""
    images = {name: plotting.render(draw, results) for name, draw in FIGURES.items()}
    out = out.resolve()
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        for name, image in images.items():
            reporting.write(unfinished / name, image)
        reporting.write(unfinished / "probe.json", reporting.dumps(results))
        os.replace(unfinished, out)
    except OSError as error:
        raise commandline.UsageError(
            f"{out} can't be made ({error.strerror}): name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _branches(options: ProbeOptions) -> Files:
    """The views of each branch, opened."""
    both = options.online_second is not None
    pairs = {"target": (options.target, options.target_second), "features": (options.features, options.features_second)}
    for name, (first, second) in pairs.items():
        if first is None and second is not None:
            raise commandline.UsageError(f"--{name}-second has no --{name}: give both views or none")
        if first is not None and (second is not None) != both:
            missing, there = (name, "online") if both else ("online", name)
            raise commandline.UsageError(f"--{there}-second is given without --{missing}-second: give both")
    named = {"online": (options.online, options.online_second), **pairs}
    found = {name: [open_rows(one) for one in views if one is not None] for name, views in named.items()}
    return {name: views for name, views in found.items() if views}


def _stages(words: Sequence[str]) -> Files:
    stages: dict[str, list[Rows]] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not (name and equals and file):
            raise commandline.UsageError(f"--stages must be NAME=FILE, got {word!r}")
        stages.setdefault(name, []).append(open_rows(file))
        if len(stages[name]) > 2:
            raise commandline.UsageError(f"--stages names {name} more than twice: give one file for each view")
    return stages


def _every(branches: Files, stages: Files) -> list[Rows]:
    return [view for files in (branches, stages) for views in files.values() for view in views]


def _require_alike(branches: Files, stages: Files) -> None:
    first = branches["online"][0]
    for file in _every(branches, stages):
        if file.shape[0] != first.shape[0]:
            raise ValueError(
                f"{file.label} has {file.shape[0]} rows, and {first.label} {first.shape[0]}: "
                "all files must hold the same samples in the same order"
            )
    for file in _every(branches, {}):
        if file.shape[1] != first.shape[1]:
            raise ValueError(
                f"{file.label} has {file.shape[1]} columns, and {first.label} {first.shape[1]}: both branches must "
                "have the same features; give layers of other widths as --stages NAME=FILE"
            )
    for name, views in stages.items():
        if len({view.shape for view in views}) > 1:
            raise ValueError(f"{views[1].label} and {views[0].label}, the views of {name}, differ in their columns")


def _blocks(files: Files, block: int) -> Iterator[dict[str, np.ndarray]]:
    """The same rows of all files, each (views, rows, .)."""
    views = [view for name in files for view in files[name]]
    for read_rows in zip(*(view.blocks(block) for view in views), strict=True):
        rows = iter(read_rows)
        yield {name: np.stack([next(rows) for _ in files[name]]) for name in files}


def _moments(branches: Files, stages: Files, method: Method | None, block: int) -> Moments:
    found = None
    for rows in _blocks({**branches, **{f"stage {name}": views for name, views in stages.items()}}, block):
        outputs = {name: rows.pop(name) for name in branches}
        layers = {name.removeprefix("stage "): layer for name, layer in rows.items()}
        if found is None:
            empty = jax.eval_shape(partial(_measured, method=method), outputs, layers)
            found = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)
        found = jax.block_until_ready(_added(found, outputs, layers, method))  # lest blocks pile up
    assert found is not None
    return _whole(found)


@partial(jax.jit, static_argnames="method", donate_argnames="before")
def _added(before: Moments, outputs: dict[str, Array], layers: dict[str, Array], method: Method | None) -> Moments:
    return merge(before, _measured(outputs, layers, method))


def _measured(outputs: dict[str, Array], layers: dict[str, Array], method: Method | None) -> Any:
    """The moments, with None for those that are unknown, not read, or another one's: under jit they cost nothing."""
    online, target = outputs["online"], outputs["target"]
    features = outputs.get("features", target)
    found: Any = measure(online, target, features=features, stages=layers, method=method)
    left_out = ["response", "target_features", *(["noise", "pull"] if len(target) == 1 else [])]
    left_out += [] if "features" in outputs else ["features"]
    return found._replace(**dict.fromkeys(left_out))


def _whole(found: Any) -> Moments:
    """With what was left out: the target's moments for those of the features, and NaN."""
    features = found.target if found.features is None else found.features
    nothing = jnp.full_like(features.scatter, jnp.nan)
    noise = MomentAccumulator(features.limbs, nothing[0], nothing) if found.noise is None else found.noise
    pull = nothing if found.pull is None else found.pull
    return found._replace(features=features, target_features=features, noise=noise, pull=pull, response=nothing)


def _require_in_range(moments: Moments, branches: Files, stages: Files) -> None:
    pairs = [(views, getattr(moments, name)) for name, views in branches.items()]
    for views, side in [*pairs, *((views, moments.stages[name]) for name, views in stages.items())]:
        size = float(jnp.trace(side.moment()))
        if not 0 < size < float("inf"):
            what = "large" if size else "small"
            raise ValueError(f"{views[0].label}: entries so {what} that float32 can't square them: rescale all files")


def _errors(branches: Files, moments: Moments, record: Record, method: Method | None, block: int) -> Errors:
    """Standard errors over the rows, by the influence of each on the effective ranks."""
    own = influence_form(record.features.eigenvalues, record.vectors)
    forms = {"online": influence_form(*eigensystem(moments.online.moment()))}
    if "features" in branches:
        forms |= {"target": influence_form(*eigensystem(moments.target.moment())), "features": own}
    else:
        forms["target"] = own
    parts = [jax.device_get(_influences(rows, forms, method)) for rows in _blocks(branches, block)]
    psi = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in forms}
    ranked = psi["online"], psi["target"], psi.get("features", psi["target"]), psi["target"] - psi["online"]
    return Errors(*(jnp.asarray(np.sqrt(np.mean(one**2) / len(one)), jnp.float32) for one in ranked))


@partial(jax.jit, static_argnames="method")
def _influences(outputs: dict[str, Array], forms: dict[str, Moment], method: Method | None) -> dict[str, Array]:
    """psi = z^T S z of each sample, over its views."""

    def influence(name: str) -> Array:
        rows = views_of(outputs[name], name, method)
        image = jnp.matmul(rows, forms[name], precision="highest")
        return jnp.mean(jnp.sum(image * rows, axis=-1), axis=0)

    return {name: influence(name) for name in forms}
