"""Training runs as they lie on disk, those that differ in nothing but the seed together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rdm_jax.training import read_metrics
from rdm_jax.training.command import RESULTS
from rdm_jax.training.places import place
from rdm_jax.training.saved import CONFIG

WARM_UP = 0.1  # of the training: earlier probes are shown, but no score counts them
NAMES = {
    "simsiam": "SimSiam",
    "byol": "BYOL",
    "swav": "SwAV",
    "dino": "DINO",
    "symsimsiam": "SymSimSiam",
    "rdm_simsiam": "RDM-SimSiam",
    "rdm_byol": "RDM-BYOL",
    "directpred": "DirectPred",
    "isoloss": "IsoLoss",
    "linear": "linear predictor",
}
BUILT_IN = ("rdm_simsiam", "rdm_byol", "symsimsiam")  # a fixed filter, or none: its prediction is no evidence
TOLD = ("method", "side", "filter")  # options that a design's name tells of already
OWN = ("seed", "out", "data_dir", "preset", "resume", "print_config")  # may differ within a design

Lines = list[dict[str, Any]]


class Run(NamedTuple):
    """One folder: its options, its results (None while it has none), and the lines of its metrics."""

    folder: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None
    probes: Lines
    growths: Lines
    train: Lines


class Design(NamedTuple):
    """Runs of one method with the same options, in the order of their seeds."""

    name: str
    built_in: bool
    runs: Sequence[Run]


def read(folders: Sequence[Path]) -> list[Design]:
    """The designs of these runs, in the order in which they first appear.

    Raises:
        ValueError: a folder that holds no run, or a run without a probe; two runs with the same options and seed.
    """
    if not folders:
        raise ValueError("name the folders of one training run or more, such as runs/byol")
    groups: dict[str, list[Run]] = {}
    for folder in folders:
        run = read_run(folder)
        key = json.dumps({name: value for name, value in run.config.items() if name not in OWN}, sort_keys=True)
        same = groups.setdefault(key, [])
        if run.config["seed"] in [other.config["seed"] for other in same]:
            raise ValueError(f"{folder} has the options and the seed of another run: each seed counts once")
        same.append(run)
    names = titles([runs[0].config for runs in groups.values()])
    return [
        Design(name, runs[0].config["method"] in BUILT_IN, sorted(runs, key=lambda run: run.config["seed"]))
        for name, runs in zip(names, groups.values(), strict=True)
    ]


def read_run(folder: Path) -> Run:
    """One run."""
    root = place(folder)
    if not (root / CONFIG).exists():
        raise ValueError(f"{folder} holds no run: {CONFIG} is missing")
    try:
        config = json.loads((root / CONFIG).read_text())
        done = root / RESULTS
        results = json.loads(done.read_text()) if done.exists() else None
        lines = {kind: read_metrics(root, kind) for kind in ("probe", "growth", "train")}
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder} is damaged: a file is no JSON ({error})") from error
    if len(lines["probe"]) < 2:
        raise ValueError(f"{folder} has fewer than two probes: let it train on")
    return Run(folder, config, results, lines["probe"], lines["growth"], lines["train"])


def titles(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each design: method, side and filter, and whatever else tells it from another of that name."""
    names = [title(config) for config in configs]
    full = []
    for name, config in zip(names, configs, strict=True):
        others = [other for other_name, other in zip(names, configs, strict=True) if other_name == name]
        differing = [
            key
            for key, value in config.items()
            if key not in (*OWN, *TOLD) and any(other.get(key) != value for other in others)
        ]
        full.append(" ".join([name, *(f"{key}={config[key]}" for key in differing)]))
    return full


def title(config: Mapping[str, Any]) -> str:
    """Method, side and filter."""
    name = NAMES.get(config["method"], config["method"])
    if not config["method"].startswith("rdm"):
        return name
    return f"{name} {config['side']}" + (f" {config['filter']}" if config["filter"] else "")


def column(lines: Lines, *path: str) -> np.ndarray:
    """One quantity of all lines as an array, such as ("online", "rank"); NaN where it has no value."""
    values: list[Any] = []
    for line in lines:
        value: Any = line
        for name in path:
            value = value[name]
        values.append(value)
    return np.array(values, float)


def settled(run: Run, lines: Lines, *, until: int | None = None) -> Lines:
    """The lines after the warm-up."""
    last = run.probes[-1]["step"]
    return [line for line in lines[:until] if line.get("since", line["step"]) >= WARM_UP * last]


def epochs(run: Run, lines: Lines) -> np.ndarray:
    """When they were written, in epochs."""
    return column(lines, "step") * run.config["epochs"] / run.probes[-1]["step"]
