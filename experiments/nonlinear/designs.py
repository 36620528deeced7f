"""The methods at the size of the experiment, the data they all see, and their runs, which several parts look at.

All see the same kind of data: factors of decreasing variance under view noise, each seed with its own mixing, weights
and batches. What is vmapped or traced here (seeds, noise, learning rate, ...) costs no second compilation.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rdm_jax.experiment import Tell
from rdm_jax.methods import Method, get
from rdm_jax.training import (
    Encoder,
    LatentModel,
    Moments,
    Record,
    TrainState,
    init_state,
    latent_model,
    make_step,
    measure_state,
    mlp_encoder,
    read_state,
    state_rates,
    train,
    two_views,
)

DECAY_OF_FACTORS = 1.5  # each factor's variance over the next one's
EPOCHS = 30  # what a run counts as, for the schedules of SwAV and DINO
WARM_UP = 0.1  # share of a run that no score counts: random predictors turn faster there than probes can follow


class Design(NamedTuple):
    """A method of the table with its options; ``built_in``: its filter is fixed, and so is a rank difference."""

    method: str
    options: Mapping[str, Any]
    built_in: bool = False


class Sizes(NamedTuple):
    """Of all runs: factors and features d, inputs, rows of a batch and of the probe set, steps between probes."""

    modes: int
    inputs: int
    batch: int
    probe: int
    seeds: int
    steps: int
    every: int
    seed: int


class Network(NamedTuple):
    """The encoder; ``hidden`` none and ``projector`` none is a matrix."""

    hidden: tuple[int, ...] = (64, 64)
    projector: tuple[int, ...] = (64,)
    batch_norm: bool = True


class Setting(NamedTuple):
    """What a run can be varied in without compiling again."""

    noise: float = 0.1
    exponent: float = 0.0
    white: float = 0.0
    steepness: float = 0.3
    rate: float = 0.02
    momentum: float = 0.9
    decay: float = 1e-4
    ema: float = 0.99


NETWORK, SETTING = Network(), Setting()


class Simulation(NamedTuple):
    """A method, an encoder, and (setting, keys) -> moments, free and flow rates, losses and states, seed by seed."""

    method: Method
    encoder: Encoder
    run: Callable[[Setting, jax.Array], Any]


class Run(NamedTuple):
    """One design: states after it, records (seeds, T, ...), rates of free features and of the flow (seeds, T, d)."""

    name: str
    design: Design
    states: TrainState
    steps: np.ndarray
    record: Record
    free: np.ndarray
    flow: np.ndarray
    losses: np.ndarray


def table(modes: int) -> dict[str, Design]:
    """All methods of the table, scaled down to so many features."""
    few = {"count": 3 * modes, "frozen_epochs": 1}
    return {
        "SimSiam": Design("simsiam", {"hidden": (2 * modes,)}),
        "BYOL": Design("byol", {"hidden": (4 * modes,)}),
        "linear predictor": Design("linear", {"loss": "negative_cosine"}),
        "DirectPred": Design("directpred", {}),
        "IsoLoss": Design("isoloss", {}),
        "SwAV": Design("swav", few | {"queue": 1024, "queue_start": 3}),
        "DINO": Design("dino", few | {"teacher_temperature": (0.04, 0.07, 10)}),
        "RDM-SimSiam online": Design("rdm_simsiam", {}, built_in=True),
        "RDM-SimSiam target": Design("rdm_simsiam", {"side": "target"}, built_in=True),
        "RDM-BYOL online": Design("rdm_byol", {}, built_in=True),
        "RDM-BYOL target": Design("rdm_byol", {"side": "target"}, built_in=True),
        "SymSimSiam": Design("symsimsiam", {}, built_in=True),
    }


def runs(options: Any, tell: Tell) -> Iterator[Run]:
    """The designs that the options name; each is computed once."""
    for number, name in enumerate(options.designs):
        tell(name, number / len(options.designs))
        yield run(name, options.sizes)


@cache
def run(
    name: str,
    sizes: Sizes,
    network: Network = NETWORK,
    setting: Setting = SETTING,
    own: tuple[tuple[str, Any], ...] = (),
) -> Run:
    """Train and probe one design on all seeds; ``own``: options of the method that are not the design's."""
    made = simulation(name, sizes, network, own)
    moments, free, flow, losses, states = made.run(numbers(setting), keys(sizes))
    steps = jnp.arange(free.shape[1]) * sizes.every
    record = jax.vmap(jax.vmap(partial(reading, made.method, sizes)), in_axes=(0, None))(moments, steps)
    return Run(name, table(sizes.modes)[name], states, *jax.tree.map(np.asarray, (steps, record, free, flow, losses)))


@cache
def simulation(name: str, sizes: Sizes, network: Network, own: tuple[tuple[str, Any], ...] = ()) -> Simulation:
    """The method, its encoder, and its compiled run."""
    design = table(sizes.modes)[name]
    method = get(design.method, **{**design.options, **dict(own)})
    encoder = mlp_encoder(
        network.hidden, projector=network.projector, features=sizes.modes, batch_norm=network.batch_norm
    )

    def one(setting: Setting, key: jax.Array) -> Any:
        _, start, stream, _ = jax.random.split(key, 4)
        data, views = data_and_probe(setting, sizes, key)
        decay = optax.add_decayed_weights(setting.decay)
        optimizer = optax.chain(decay, optax.sgd(setting.rate, momentum=setting.momentum))
        step = make_step(encoder, method, optimizer, ema=lambda _: setting.ema, steps_per_epoch=epoch(sizes))
        state = init_state(encoder, method, optimizer, start, views[:, : sizes.batch])
        batches = lambda index: two_views(data, stream, index, sizes.batch)  # noqa: E731
        record = partial(recorded, encoder, method, sizes, views)
        state, losses, records = train(step, state, batches, record, steps=sizes.steps, every=sizes.every)
        return *records, losses, state

    return Simulation(method, encoder, jax.jit(jax.vmap(one, in_axes=(None, 0))))


def recorded(encoder: Encoder, method: Method, sizes: Sizes, views: jax.Array, state: TrainState) -> Any:
    """Moments, and the rates of free features and of the flow."""
    rates = state_rates(encoder, method, state, views, steps_per_epoch=epoch(sizes))
    return measure_state(encoder, method, state, views, steps_per_epoch=epoch(sizes)), rates["free"], rates["flow"]


def again(done: Run, sizes: Sizes, **options: Any) -> Record:
    """The last probe of a run, (seeds, ...), if its method had other options."""
    method = get(done.design.method, **{**done.design.options, **options})
    encoder = simulation(done.name, sizes, NETWORK).encoder

    @jax.jit
    @jax.vmap
    def measured(state: TrainState, key: jax.Array) -> Moments:
        views = data_and_probe(SETTING, sizes, key)[1]
        return measure_state(encoder, method, state, views, steps_per_epoch=epoch(sizes))

    # Not inside the compiled function: what reads moments is compiled once for all methods.
    moments = measured(done.states, keys(sizes))
    return jax.tree.map(np.asarray, jax.vmap(partial(reading, method, sizes))(moments, done.states.step))


def reading(method: Method, sizes: Sizes, moments: Moments, step: jax.Array) -> Record:
    """The record that belongs to moments."""
    return read_state(method, moments, step=step, samples=sizes.probe, steps_per_epoch=epoch(sizes))


def data_and_probe(setting: Setting, sizes: Sizes, key: jax.Array) -> tuple[LatentModel, jax.Array]:
    """A seed's data model and its probe set."""
    mixing, _, _, probing = jax.random.split(key, 4)
    data = latent_model(mixing, *variances(setting, sizes.modes), width=sizes.inputs, steepness=setting.steepness)
    return data, two_views(data, probing, 0, sizes.probe)


def numbers(setting: Setting) -> Setting:
    """As arrays of one type, so that any setting serves the same compiled run."""
    return Setting(*(jnp.asarray(value, jnp.float32) for value in setting))


def keys(sizes: Sizes) -> jax.Array:
    """One a seed."""
    return jax.random.split(jax.random.key(sizes.seed), sizes.seeds)


def variances(setting: Setting, modes: int) -> tuple[jax.Array, jax.Array]:
    """Of the contents, and of the view noise: noise_j ~ content_j^exponent with mean ``noise``; 0 is isotropic.

    ``white`` makes the noise what is left to the largest content, and so the inputs' second moment isotropic.
    """
    signal = DECAY_OF_FACTORS ** -jnp.arange(modes, dtype=jnp.float32)
    shape = signal**setting.exponent
    noise = setting.noise * shape / jnp.mean(shape)
    return signal, jnp.where(setting.white > 0, 1 + setting.noise - signal, noise)


def warm(steps: np.ndarray) -> int:
    """The first probe that scores count."""
    return int(np.searchsorted(steps, WARM_UP * steps[-1]))


def epoch(sizes: Sizes) -> int:
    """Steps an epoch."""
    return max(sizes.steps // EPOCHS, 1)
