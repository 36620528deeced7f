"""What a run's own probe costs: its share of the training between two probes, at the default interval.

A ResNet-18 (3 x 3 stem, 32 x 32 images) under SimSiam, with the widths of its recipe. Timed are one training step and
both probes of a pair, on part of the recipe's batch and of the default probe set; the forward pass is scaled to the
whole of them, and what a probe does beside it (eigenvalues, predictions) is not. The goal is 5%.
"""

import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from evidence import evidence

from rdm_jax.training import Record, encode_views, init_learning, load, make_update, probe_state
from rdm_jax.training.config import TrainOptions, build

GOAL = 0.05
IMAGES = 50_000


def seconds(task: Callable[[], Any], rounds: int) -> float:
    """The median over the rounds, after one that compiles."""
    jax.block_until_ready(task())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(task())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def of_modes(record: Record) -> tuple[Any, Any]:
    """What the second probe of a pair is asked for."""
    return record.features, record.vectors


def main(quick: bool = False, out: pathlib.Path | None = None, rounds: int = 3) -> None:
    """Print the seconds and the share.

    Args:
        quick: A narrow network.
        out: Folder to write probe_cost.json to.
        rounds: Of each timing.
    """
    small: dict[str, Any] = {"width": 8, "shrink": 16} if quick else {}
    options = TrainOptions(dataset="synthetic", limit=256, batch_size=64, **small)
    defaults = TrainOptions()
    whole_batch = defaults.make_recipe().batch_size
    data = load("synthetic", limit=256)
    learner, plan = build(options, data)
    state = jax.jit(lambda: init_learning(learner, (plan.size, plan.size, 3)))()
    images, labels = (jnp.asarray(part[: plan.batch]) for part in (data.train.images, data.train.labels))
    update = jax.jit(make_update(learner))
    views = jax.random.normal(jax.random.key(0), (2, 128, plan.size, plan.size, 3))
    encode = jax.jit(lambda s, v: encode_views(learner.encoder, s.params.encoder, s.stats, v, True).features)
    probe = jax.jit(lambda s, v: probe_state(learner.encoder, learner.method, s, v))
    modes = jax.jit(lambda s, v: of_modes(probe_state(learner.encoder, learner.method, s, v)))
    step = seconds(lambda: update(state, images, labels, np.arange(len(labels))), rounds)
    forward = seconds(lambda: encode(state.train, views), rounds)
    beside = [seconds(lambda task=task: task(state.train, views), rounds) - forward for task in (probe, modes)]
    between = defaults.probe_every * (IMAGES // whole_batch) * step * whole_batch / len(labels)
    cost = sum(max(extra, 0) for extra in beside) + 2 * forward * defaults.probe / views.shape[1]
    about = evidence(rounds=rounds)
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"one step of {len(labels)} images {step:.2f} s; forward pass of 2 x {views.shape[1]} views {forward:.2f} s")
    print(f"beside it: first probe of a pair {beside[0]:.2f} s, second {beside[1]:.2f} s")
    print(f"a pair every {defaults.probe_every} epochs: {cost / between:.2%} of the training; the goal is {GOAL:.0%}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        found = {"step": step, "forward": forward, "beside": beside, "share": cost / between}
        (out / "probe_cost.json").write_text(json.dumps({**about, **found}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
