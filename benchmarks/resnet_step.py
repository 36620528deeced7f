"""A training step of ResNet-18 (3 x 3 stem, 32 x 32 images) on the CPU: forward, backward and SGD, against torch.

Ours: ``resnet_encoder`` without a projector's hidden layers, jitted. Theirs: the same network written in torch, in
memory laid out as channels_last or as contiguous, whichever is faster. Loss: the mean square of the features; SGD with
momentum 0.9 and weight decay 1e-5. Float32 throughout, on all cores.

Each side runs in a process of its own and they take turns, because a library's idle threads go on spinning for a while,
each on a core that the next would need. A ratio is our time over theirs: below 1 we are faster.
"""

import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from evidence import evidence

from rdm_jax.training import resnet_encoder

TORCH = importlib.util.find_spec("torch") is not None
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
GOAL = 2.0
RATE, MOMENTUM, DECAY = 0.03, 0.9, 1e-5
FEATURES = 128
Task = Callable[[], float]


def ours(depth: int, width: int, images: np.ndarray) -> Task:
    """One step after the other by jax; returns the loss."""
    encoder = resnet_encoder(depth, width=width, projector=(), features=FEATURES, final_norm=False)
    optimizer = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, MOMENTUM))
    batch = jnp.asarray(images)

    def step(params, stats, memory):
        def loss(params):
            encoded = encoder.apply(params, stats, batch, True)
            return jnp.mean(jnp.square(encoded.features)), encoded.stats

        (value, after), slope = jax.value_and_grad(loss, has_aux=True)(params)
        updates, memory = optimizer.update(slope, memory, params)
        return optax.apply_updates(params, updates), after, memory, value

    params, stats = jax.jit(encoder.init)(jax.random.key(0), batch)
    state = [params, stats, optimizer.init(params)]
    compiled = jax.jit(step, donate_argnums=(0, 1, 2))

    def one():
        *state[:], value = compiled(*state)
        jax.block_until_ready(state)
        return float(value)

    return one


def by_torch(layout: str) -> Callable[[int, int, np.ndarray], Task]:
    """The same by torch in a layout of memory."""

    def make(depth: int, width: int, images: np.ndarray) -> Task:
        import torch  # here, as our side need not wait for it
        from torch import nn

        torch.set_num_threads(THREADS)
        torch.manual_seed(0)

        class Block(nn.Module):
            def __init__(self, before, after, stride):
                super().__init__()
                self.conv0 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
                self.conv1 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
                self.norm0, self.norm1 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
                self.shortcut = nn.Identity()
                if stride != 1 or before != after:
                    convolution = nn.Conv2d(before, after, 1, stride, bias=False)
                    self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))

            def forward(self, x):
                y = self.norm1(self.conv1(torch.relu_(self.norm0(self.conv0(x)))))
                return torch.relu_(y + self.shortcut(x))

        layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
        for stage in range(4):
            for block in range({10: 1, 18: 2}[depth]):
                layers.append(Block(before, width * 2**stage, 2 if stage and not block else 1))
                before = width * 2**stage
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, FEATURES))
        network = network.to(memory_format=getattr(torch, layout))
        batch = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=getattr(torch, layout))
        optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)

        def one():
            optimizer.zero_grad(set_to_none=True)
            loss = network(batch).square().mean()
            loss.backward()
            optimizer.step()
            return loss.item()

        return one

    return make


LAYOUTS = {"torch channels_last": "channels_last", "torch contiguous": "contiguous_format"} if TORCH else {}
SIDES = {"ours": ours, **{side: by_torch(layout) for side, layout in LAYOUTS.items()}}
current: dict[str, Task] = {}  # what this process repeats


def prepare(side: str, depth: int, width: int, batch: int, size: int, seed: int) -> float:
    """Make a side's task the current one and run it once; returns the first loss."""
    images = np.random.default_rng(seed).standard_normal((batch, size, size, 3), np.float32)
    current["task"] = SIDES[side](depth, width, images)
    return current["task"]()


def timed(repeats: int) -> float:
    """Seconds of one step: the fastest of several, since interruptions only ever slow it down."""
    time.sleep(0.25)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        loss = current["task"]()
        times.append(time.perf_counter() - start)
        if not np.isfinite(loss):
            raise RuntimeError(f"the loss became {loss}")
    return min(times)


def main(quick: bool = False, out: pathlib.Path | None = None, rounds: int = 5, seed: int = 0) -> None:
    """Print times and the ratio to torch's faster layout; the goal is at most 2.0.

    Args:
        quick: A narrow ResNet-10, 8 small images, one round.
        out: Folder to write resnet_step.json to.
        rounds: Turns of each side.
        seed: Of the images.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    if not TORCH:
        print("torch is missing, and so is the comparison: pip install -e '.[bench]'")
    depth, width, batch, size = (10, 4, 8, 16) if quick else (18, 64, 64, 32)
    spawn = multiprocessing.get_context("spawn")
    processes = {side: ProcessPoolExecutor(1, spawn) for side in SIDES}
    torch = version("torch") if TORCH else None
    about = evidence(threads=THREADS, torch=torch, rounds=1 if quick else rounds, seed=seed)
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    for side, process in processes.items():
        process.submit(prepare, side, depth, width, batch, size, seed).result()
    repeats = 1 if quick else 3
    turns = [
        {side: process.submit(timed, repeats).result() for side, process in processes.items()}
        for _ in range(about["rounds"])
    ]
    seconds = {side: [turn[side] for turn in turns] for side in SIDES}
    result = {"what": f"ResNet-{depth} of width {width}", "batch": batch, "size": size, "seconds": seconds}
    for side, times in seconds.items():
        print(f"{side:20} {1e3 * statistics.median(times):9.1f} ms a step of {batch} images of {size} x {size}")
    if TORCH:
        best = min(LAYOUTS, key=lambda side: statistics.median(seconds[side]))
        ratios = [mine / theirs for mine, theirs in zip(seconds["ours"], seconds[best], strict=True)]
        result |= {"peer": best, "ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
        goal = "" if quick else f"; the goal is at most {GOAL}"
        print(f"ours / {best}: {result['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}){goal}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "resnet_step.json").write_text(json.dumps({**about, "results": [result]}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
