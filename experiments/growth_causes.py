"""Why the modes of a trained network do not grow as predicted: the same weights, other steps.

    python experiments/growth_causes.py runs/simsiam-0 --out runs/causes

From a checkpoint the same few steps are taken many times, each time on other batches, and the growth of each mode is
held against that of the gradient flow, of free features, and of the theory's prediction. Averaging over the batches
takes the noise of the gradient away, starting without momentum takes the past away, and a tenth of the learning rate
takes the size of the steps away. What then is left of the disagreement is the network's, or the theory's.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from runs.reading import title

from rdm_jax.agreement import chance, rank_correlation
from rdm_jax.commandline import Options
from rdm_jax.experiment import Experiment, Finding, Outcome, Part, Tell, main
from rdm_jax.plotting import PALETTE
from rdm_jax.training import (
    Learner,
    Learning,
    batch_order,
    follow,
    make_update,
    probe_state,
    probe_views,
    state_rates,
)
from rdm_jax.training.config import plain
from rdm_jax.training.dataset import Split
from rdm_jax.training.judging import RESOLVED
from rdm_jax.training.saved import Saved, open_run

RATES = ("predicted", "free", "flow")


class Setting(NamedTuple):
    """How the steps are taken."""

    name: str
    momentum: bool = True
    scale: float = 1.0


SETTINGS = (
    Setting("as trained"),
    Setting("no momentum from before", momentum=False),
    Setting("a tenth of the rate, no momentum from before", momentum=False, scale=0.1),
)


@dataclasses.dataclass(frozen=True)
class CausesOptions(Options):
    """Why modes do not grow as predicted: the same weights, other steps."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of training runs (of resnet_cifar.py)."""
    step: int | None = None
    """Of the checkpoint (default: the last)."""
    data_dir: Path | None = None
    """Where the data set is now, if it has moved."""
    repeats: int = 16
    """How often the steps are taken, each time on other batches."""
    steps: int = 5
    """How many steps."""
    rate_at: float = 0.5
    """Share of the training after which the learning rate was what it is here; at its end it is 0."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        super().__post_init__()
        self.require_at_least(repeats=2, steps=1)
        if not 0 <= self.rate_at < 1:
            raise ValueError(f"--rate-at must be at least 0 and below 1, got {self.rate_at}")


def parts(options: CausesOptions) -> Sequence[Part]:
    """One for each run."""
    if not options.runs:
        raise ValueError("name the folders of one training run or more, such as runs/byol")
    opened = [open_run(folder, step=options.step, data_dir=options.data_dir) for folder in options.runs]
    for folder, run in zip(options.runs, opened, strict=True):
        if not isinstance(run.dataset.train, Split):
            raise ValueError(f"{folder} streams its images from disk; this experiment needs them in memory")
    names = [f"{title(plain(run.options))}, seed {run.options.seed}, step {run.step}" for run in opened]
    return [
        Part(f"{i + 1:02d}", name, CAPTION, partial(compute, run), draw, (6.8, 3.2))
        for i, (name, run) in enumerate(zip(names, opened, strict=True))
    ]


def compute(run: Saved, options: CausesOptions, tell: Tell) -> Outcome:
    """Rank correlations of growth with each of the rates, in every setting, of single repeats and of their mean."""
    views = jax.device_put(probe_views(run.learner, run.dataset, run.plan)[0])
    probed, moving = (jax.jit(partial(look, ask, run.learner)) for ask in (probe_state, state_rates))
    before = probed(run.state, views)
    rates = moving(run.state, views) | {"predicted": before.rates}
    spectrum = np.asarray(before.features.eigenvalues)
    entries, findings = [], []
    for number, setting in enumerate(SETTINGS):
        tell(setting.name, number / len(SETTINGS))
        growths, kept = [], []
        for after in repeats(run, setting, options):
            followed = follow(before, probed(after, views))
            growths.append(np.asarray(followed.growth))
            kept.append(np.asarray(followed.kept))
        mask = np.all(kept, axis=0) & (spectrum > RESOLVED * spectrum[0])
        entry = judge(rates, np.array(growths), mask, options.seed) | {"name": setting.name, "modes": int(mask.sum())}
        entries.append(entry)
        for rate in RATES:
            findings += [
                Finding(f"{setting.name}: {rate}, single repeats", entry[rate]["single"]),
                Finding("  mean over the repeats", entry[rate]["mean"], chance=entry[rate]["chance"]),
            ]
    counts = ", ".join(f"{entry['name']}: {entry['modes']}" for entry in entries)
    return Outcome({"settings": entries}, findings, [f"Modes that were found again in every repeat: {counts}."])


def look(ask: Callable[..., Any], learner: Learner, state: Learning, views: jax.Array) -> Any:
    """What is asked of a run's state and views."""
    return ask(learner.encoder, learner.method, state.train, views, steps_per_epoch=learner.steps_per_epoch)


def repeats(run: Saved, setting: Setting, options: CausesOptions) -> Any:
    """The state after the steps, for each order of the batches."""
    split = run.dataset.train
    assert isinstance(split, Split)
    optimizer = optax.chain(run.learner.optimizer, optax.scale(setting.scale))
    update = jax.jit(make_update(run.learner._replace(optimizer=optimizer)))
    step = int(options.rate_at * run.plan.epochs * run.learner.steps_per_epoch)
    memory = jax.tree.map(partial(prepared, setting, step), run.state.train.optimizer)
    start = run.state._replace(train=run.state.train._replace(optimizer=(memory, optax.ScaleState())))
    for repeat in range(options.repeats):
        order = batch_order(split.samples, run.plan.batch, seed=options.seed, epoch=repeat)
        state = start
        for numbers in order[: options.steps]:
            state, _ = update(state, split.images[numbers], split.labels[numbers], numbers)
        yield state._replace(train=state.train._replace(optimizer=memory))


def prepared(setting: Setting, step: int, leaf: jax.Array) -> jax.Array:
    """Momentum is made of floats, schedules of the learning rate count in integers."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf if setting.momentum else jnp.zeros_like(leaf)
    return jnp.full_like(leaf, step)


def judge(rates: Mapping[str, Any], growths: np.ndarray, mask: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Rank correlation of each rate with the growth: the mean over single repeats, and that of the mean growth."""
    found = {}
    for name in RATES:
        rate = np.asarray(rates[name])
        single = [rank_correlation(rate, growth, mask) for growth in growths]
        ends = rate, growths.mean(0), mask
        found[name] = {
            "single": float(np.mean(single)),
            "mean": rank_correlation(*ends),
            "chance": chance(rank_correlation, *ends, seed=seed),
        }
    return found


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """A panel for each setting."""
    axes = figure.subplots(1, len(data["settings"]), sharey=True)
    for ax, entry in zip(axes, data["settings"], strict=True):
        for place, rate in enumerate(RATES):
            ax.bar(
                place - 0.2, entry[rate]["single"] or 0, 0.35, color=PALETTE[5], label="single repeats" * (not place)
            )
            ax.bar(place + 0.2, entry[rate]["mean"] or 0, 0.35, color=PALETTE[0], label="their mean" * (not place))
            ax.plot(place + 0.2, entry[rate]["chance"], "_", color="black", markersize=12)
        ax.axhline(0, color="grey", linewidth=0.6)
        ax.set_xticks(range(len(RATES)), RATES)
        ax.set_title(entry["name"].replace(", ", ",\n"), fontsize=8.5)
    axes[0].set(ylabel="rank correlation with the growth", ylim=(-1.04, 1.04))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)


CAPTION = (
    "Rank correlation between the growth of the modes over a few steps and three rates: theory's prediction, the "
    "loss's gradient in free features, and the gradient flow through the network. Light: the mean over single repeats, "
    "each on other batches; dark: of the growth's mean over the repeats, with what one shuffling of the modes in 20 "
    "exceeds as a dash."
)

EXPERIMENT = Experiment(
    name="growth_causes",
    title="Why modes do not grow as predicted",
    about="From the same weights the same steps are taken on many batches, with and without the momentum of before, "
    "and at a tenth of the rate; what still disagrees is not the optimiser's doing.",
    parts=parts,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT, {"paper": CausesOptions()}))
