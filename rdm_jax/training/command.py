"""The command line of a training run: its folder, its display, what ends it, and the evaluation after it."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rdm_jax import commandline, reporting
from rdm_jax._xla import quick_flags
from rdm_jax.training import config
from rdm_jax.training.config import TrainOptions
from rdm_jax.training.dataset import Dataset
from rdm_jax.training.learner import Learner, Learning, device_mesh, init_learning
from rdm_jax.training.places import in_store, place, write_text
from rdm_jax.training.run import Diverged, Interrupted, Plan, train_run
from rdm_jax.training.saved import CONFIG
from rdm_jax.training.scores import Scores, score
from rdm_jax.training.watch import read_metrics

RESULTS = "results.json"
_PACKAGES = ("rdm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_FREE = (  # may change on --resume
    "out",
    "resume",
    "data_dir",
    "print_config",
    "probe_every",
    "save_every",
    "linear",
    "linear_crops",
    "fallback",
    "distributed",
    "coordinator",
    "processes",
    "process",
)


def main(presets: Mapping[str, TrainOptions], arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate, and leave the results.

    Args:
        presets: options by name, the first being the default.
        arguments: the words of the command line; None: those of the process.

    Returns:
        The exit code. 0: done; 1: the loss diverged, or memory ran out; 2: bad usage or input; 128 + n: stopped by
        signal n, with the state saved.
    """
    options = commandline.read(presets, "python experiments/resnet_cifar.py", arguments)
    if options.print_config:
        print(reporting.dumps(config.plain(options)), end="")
        return 0
    if options.preset == "smoke":  # before jax starts its backend; compiling is most of what a smoke run does
        os.environ["XLA_FLAGS"] = f"{quick_flags()} {os.environ.get('XLA_FLAGS', '')}"
    try:
        _join_processes(options)
        dataset = config.read_data(options)
        learner, plan = config.build(options, dataset, jax.device_count())
        folder = _folder(options, dataset)
    except (commandline.UsageError, ValueError) as error:
        commandline.complain(error)
        return commandline.BAD_USAGE
    console = Console(width=None if sys.stdout.isatty() else 100, quiet=jax.process_index() > 0)
    try:
        with _shown(console, learner, plan) as show:
            state = train_run(learner, dataset, plan, folder, mesh=device_mesh(), meta=config.plain(options), show=show)
            with commandline.signals():
                scores = _scored(options, learner, plan, dataset, state, show)
    except commandline.Stopped as stopped:
        commandline.complain(f"{stopped} while evaluating; the trained network is saved: go on with --resume")
        return stopped.code
    except Interrupted as error:
        commandline.complain(error)
        return error.code
    except Diverged as error:
        commandline.complain(error)
        return commandline.FAILED
    except ValueError as error:  # a damaged checkpoint or image file, which the message names
        commandline.complain(error)
        return commandline.BAD_USAGE
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        commandline.complain(
            "the device's memory does not suffice: take a smaller --batch-size, --microbatches 2 or more (parts of a "
            "batch one after the other), or --dtype bfloat16"
        )
        return commandline.FAILED
    _close(options, folder, scores, console)
    return 0


def _join_processes(options: TrainOptions) -> None:
    """With several hosts: jax finds the others by itself on a TPU pod, and by --coordinator elsewhere."""
    if options.distributed:
        jax.distributed.initialize(options.coordinator, options.processes, options.process)


def _folder(options: TrainOptions, dataset: Dataset) -> Path:
    """A new folder with the configuration in it, or the one of the run to go on with."""
    chosen = config.plain(options) | {"dataset": dataset.name}
    if options.resume:
        assert options.out is not None
        path = place(options.out) / CONFIG
        if not path.exists():
            raise commandline.UsageError(f"{options.out} holds no run ({CONFIG} is missing): leave out --resume")
        before = json.loads(path.read_text())
        changed = [name for name in chosen if name not in _FREE and chosen[name] != before.get(name)]
        if changed:
            told = "; ".join(f"{name} was {before.get(name)}, now {chosen[name]}" for name in changed)
            raise commandline.UsageError(f"{options.out} was begun with other options ({told}): change them back")
        return options.out
    if jax.process_index() > 0:
        if options.out is None:
            raise commandline.UsageError("with several processes --out must name the folder")
        return options.out
    folder = _new(options)
    write_text(place(folder) / CONFIG, reporting.dumps(chosen))
    return folder


def _new(options: TrainOptions) -> Path:
    """An empty folder; in a store there are none to be made."""
    if options.out is None or not in_store(place(options.out)):
        return commandline.prepare(options.out, f"resnet_cifar-{options.method}")
    if (place(options.out) / CONFIG).exists():
        raise commandline.UsageError(f"{place(options.out)} holds a run: name a new folder with --out, or --resume it")
    return options.out


def _scored(
    options: TrainOptions, learner: Learner, plan: Plan, dataset: Dataset, state: Learning, show: "_Display"
) -> dict[str, Scores]:
    """Of the untrained network, and of the trained one."""
    untrained = jax.jit(lambda: init_learning(learner, (plan.size, plan.size, 3)))()
    show.note("evaluating")
    return {
        "untrained": score(learner, plan, dataset, untrained, linear=False),
        "trained": score(learner, plan, dataset, state, linear=options.linear, crops=options.linear_crops),
    }


def _close(options: TrainOptions, folder: Path, scores: Mapping[str, Any], console: Console) -> None:
    """Write the results and say where they are."""
    if jax.process_index() > 0:
        return
    root = place(folder)
    probes = read_metrics(root, "probe")
    last = probes[-1]
    results = {
        "config": json.loads((root / CONFIG).read_text()),
        "run": reporting.provenance(_PACKAGES),
        "scores": reporting.plain(scores),
        "end": {
            "online_rank": last["online"]["rank"],
            "target_rank": last["target"]["rank"],
            "feature_rank": last["features"]["rank"],
            "rank_difference": last["rank_difference"],
            "predicted_rank_difference": last["predicted"]["rank_difference"],
        },
        "alarms": [entry["text"] for entry in read_metrics(root, "alarm")],
    }
    write_text(root / RESULTS, reporting.dumps(results))
    end, trained = results["end"], scores["trained"]
    console.print(
        f"kNN {trained.knn:.1%} (untrained {scores['untrained'].knn:.1%})"
        + (f", linear probe {trained.linear:.1%}" if trained.linear is not None else "")
        + f"; effective rank online {end['online_rank']:.2f}, target {end['target_rank']:.2f}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Results: {root / RESULTS}", markup=False, highlight=False, soft_wrap=True)


class _Display:
    """A line that moves on a terminal; elsewhere, a line of text for each probe and note."""

    def __init__(self, console: Console, progress: Progress, line: TaskID) -> None:
        self.console, self.progress, self.line = console, progress, line

    def step(self, done: int, total: int, entry: Mapping[str, Any]) -> None:
        if entry["kind"] == "probe":
            ranks = (
                f"effective rank online {_number(entry['online']['rank'])}, target {_number(entry['target']['rank'])}"
            )
            self.note(f"step {done}: {ranks} (predicted {_number(_predicted(entry))})")
            return
        text = f"loss {_number(entry['loss'])}, {entry['images_per_second']:.0f} images/s"
        self.progress.update(self.line, total=total, completed=done, description=text)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _predicted(entry: Mapping[str, Any]) -> float | None:
    """The online rank that is predicted: the target's less the predicted difference."""
    difference = entry["predicted"]["rank_difference"]
    return None if difference is None else entry["target"]["rank"] - difference


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


@contextlib.contextmanager
def _shown(console: Console, learner: Learner, plan: Plan) -> Iterator[_Display]:
    columns = (
        TextColumn("{task.percentage:>3.0f}%"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task(learner.method.name, total=plan.epochs * learner.steps_per_epoch)
        yield _Display(console, progress, line)
