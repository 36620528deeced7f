"""A sweep of linear branches under gradient descent from generic small starts: what T15 is observed on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rdm_jax import dynamics, spectra
from rdm_jax.claims.search import generator
from rdm_jax.types import Array

DESIGN = dynamics.LinearDesign(target="average")
WIDTH = 6
RUNS = {2: 200, 3: 200, 4: 200, WIDTH: 800}  # of each width, for isotropic and for anisotropic data
LEARNING_RATE = 0.1
STRETCHES = (100, 2), (2900, 100)  # steps, and steps between two records: often at first, where ranks move fast
ALIVE = 1e-6  # of its largest trace: below it the features have collapsed


class Run(NamedTuple):
    """What a run was drawn with; ``share``: weight decay over the critical one, ``scale``: of W and W_p at the start."""

    width: Array
    anisotropic: Array
    scale: Array
    noise: Array
    predictor_rate: Array
    share: Array
    target_rate: Array


class Outcome(NamedTuple):
    """A run: log erank of online and target outputs, their relative commutator and the target's trace at all recorded
    times (NaN where the run failed), and the singular values of W_p in the end."""

    run: Run
    online: Array
    target: Array
    commutator: Array
    trace: Array
    gains: Array


def _draw(seed):
    """Runs of all widths, half with isotropic data, log-uniform in all of their numbers."""
    random = generator("T15", "sweep", seed)
    widths = np.tile(np.repeat(list(RUNS), list(RUNS.values())), 2)
    half = len(widths) // 2

    def between(low, high):
        return np.exp(random.uniform(np.log(low), np.log(high), 2 * half))

    return Run(
        width=widths,
        anisotropic=np.arange(2 * half) >= half,
        scale=between(0.05, 0.5),
        noise=between(0.05, 1.0),
        predictor_rate=between(0.4, 2.5),
        share=between(0.07, 0.5),
        target_rate=between(0.2, 5.0),
    )


def _moments(key, run):
    """X and X': I and sigma^2 I; or Wishart matrices of such means that do not commute, X with a fifth of I."""
    roots = jax.random.normal(key, (2, WIDTH, 2 * WIDTH)) / (2 * WIDTH) ** 0.5
    inside = jnp.diag((jnp.arange(WIDTH) < run.width).astype(float))
    first, second = (inside @ root @ root.T @ inside for root in roots)
    signal = jnp.where(run.anisotropic, 0.8 * first + 0.2 * inside, inside)
    return signal, run.noise * jnp.where(run.anisotropic, second, inside)


def _start(key, run):
    """`random_branches` of the run's width: the rows and columns beyond it are 0, and stay 0."""
    start = dynamics.random_branches(key, WIDTH, WIDTH, scale=1.0, design=DESIGN)
    inside = jnp.arange(WIDTH) < run.width
    factor = run.scale * (WIDTH / run.width) ** 0.5 * (inside[:, None] & inside[None, :])
    return jax.tree.map(lambda entries: entries * factor, start)


def _follow(key, run):
    first, second = jax.random.split(key)
    signal, noise = _moments(first, run)
    decay = run.share * dynamics.critical_weight_decay(run.noise)
    args = dynamics.LinearParameters(signal, noise, run.predictor_rate, decay, run.target_rate)
    state, pieces = jax.tree.map(lambda leaf: leaf[None], _start(second, run)), []
    for steps, every in STRETCHES:
        pieces.append(state)
        options = {"learning_rate": LEARNING_RATE, "steps": steps, "every": every}
        state = dynamics.descend(
            dynamics.branch_field(DESIGN), jax.tree.map(lambda leaf: leaf[-1], state), args, **options
        )
        state = jax.tree.map(lambda leaf: leaf[1:], state.record)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces, state), signal + noise


def times():
    """When records are made, learning rate times step."""
    ends = np.cumsum([0, *(steps for steps, _ in STRETCHES)])
    pieces = [end + np.arange(every, steps + 1, every) for end, (steps, every) in zip(ends, STRETCHES, strict=False)]
    return LEARNING_RATE * np.concatenate([[0], *pieces])


def _measured(state, moment):
    online, target = (weights @ moment @ weights.T for weights in (state.predictor @ state.encoder, state.target))
    ranks = [jnp.log(spectra.effective_rank(spectra.eigenvalues((m + m.T) / 2))) for m in (online, target)]
    apart = jnp.linalg.norm(dynamics.commutator(online, target))
    return (*ranks, apart / (jnp.linalg.norm(online) * jnp.linalg.norm(target)), jnp.trace(target))


@jax.jit
def _outcomes(key, runs):
    def one(key, run):
        states, moment = _follow(key, run)
        gains = spectra.singular_values(states.predictor[-1])
        return (*jax.vmap(_measured, (0, None))(states, moment), gains)

    # A hundred at a time stay in the cache.
    keys = jax.random.split(key, len(runs.width))
    return jax.lax.map(lambda run: one(*run), (keys, runs), batch_size=100)


@functools.lru_cache(maxsize=1)
def sweep(seed):
    """The outcomes of all runs, in NumPy."""
    runs = _draw(seed)
    return Outcome(runs, *map(np.asarray, _outcomes(jax.random.key(seed), runs)))


def chosen(outcome, which):
    """The runs of a sweep where ``which`` is true."""
    return jax.tree.map(lambda leaf: leaf[which], outcome)


def kind(outcome, width, anisotropic):
    """The runs of one width and one kind of data."""
    return chosen(outcome, (outcome.run.width == width) & (outcome.run.anisotropic == anisotropic))


def survivors(outcome):
    """Those whose features have not collapsed in the end."""
    return chosen(outcome, ~(outcome.trace[:, -1] <= ALIVE * outcome.trace.max(axis=1)))


def rank_order(outcome):
    """The smallest log-rank difference while the features live; NaN where a run failed."""
    alive = outcome.trace > ALIVE * outcome.trace.max(axis=1, keepdims=True)
    difference = outcome.target - outcome.online
    failed = np.isnan(outcome.trace).any(axis=1)
    return np.where(failed, np.nan, np.where(alive, difference, np.inf).min(axis=1))


def turn(outcome):
    """How far log erank of the target falls from its start, or rises again to its end: the smaller of both."""
    lowest = outcome.target.min(axis=1)
    return np.minimum(outcome.target[:, 0], outcome.target[:, -1]) - lowest


def plateau(outcome):
    """The largest departure in the end from one plateau: of the surviving gains from each other, and the commutator."""
    relative = outcome.gains / outcome.gains[:, :1]
    spread = np.where(relative > 0.01, 1 - relative, 0.0).max(axis=1)
    return np.maximum(spread, outcome.commutator[:, -1])
