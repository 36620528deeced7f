"""Where linear branches collapse: a phase diagram in weight decay and view noise, and the basins of the starts."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from rdm_jax import dynamics
from rdm_jax.dynamics import LinearDesign
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

WIDTH = 4
END = 400.0
NOISE, DECAY = (0.0, 3.0), (0.01, 0.3)
STARTS, LEVELS = (0.02, 1.0), (0.01, 0.25)
FIXED_NOISE = 0.25
ALIVE = 1e-3  # of the size at the start
SHADES = ListedColormap(["#f2f2f2", "#c6dbea", "#94bfdb", "#5a9fca", "#2a7ab0"])


def compute(options: Any, tell: Tell) -> Outcome:
    """Both diagrams, and how many of their points come out as predicted."""
    tell("phase diagram", 0.0)
    noise, decay = (np.linspace(*span, options.grid) for span in (NOISE, DECAY))
    survived = phases(noise, decay, options.seed)
    edge = np.asarray(dynamics.critical_weight_decay(noise))
    tell("basins", 0.7)
    start, levels = (np.linspace(*span, options.grid) for span in (STARTS, LEVELS))
    kept = basins(start, levels)
    lower, _ = branches_of(levels)
    right = np.mean((survived > 0) == (decay[:, None] <= edge[None, :]))
    inside = np.mean(kept == (start[:, None] >= lower[None, :]))
    step = decay[1] - decay[0]
    measured = boundary(survived, decay)
    shift = np.abs(measured - edge)[(edge > decay[0]) & (edge < decay[-1])]
    findings = [
        Finding("phase diagram: share of points on the predicted side", float(right)),
        Finding("largest error of the critical weight decay, in grid steps", float(shift.max() / step)),
        Finding("basins: share of starts that end as predicted", float(inside)),
    ]
    data = {
        "noise": noise,
        "decay": decay,
        "survived": survived,
        "edge": edge,
        "start": start,
        "levels": levels,
        "kept": kept.astype(float),
        "theory": theory_curves(),
    }
    return Outcome(data, findings)


def phases(noise: np.ndarray, decay: np.ndarray, seed: int) -> np.ndarray:
    """Share of the modes that survive, (decay, noise): matrices from generic starts of the size tau / (1 + sigma^2)."""
    design = LinearDesign()
    field = dynamics.branch_field(design)
    rows, columns, turn = jax.random.split(jax.random.key(seed), 3)
    basis = jnp.linalg.qr(jax.random.normal(turn, (WIDTH, WIDTH)))[0]
    bent, tilted = (0.2 * jax.random.normal(key, (WIDTH, WIDTH)) for key in (rows, columns))

    def one(sigma: jax.Array, eta: jax.Array) -> jax.Array:
        size = 1 / (1 + sigma)
        state = dynamics.Branches(size * (jnp.eye(WIDTH) + bent), size * (basis + tilted))
        args = dynamics.LinearParameters(jnp.eye(WIDTH), sigma * jnp.eye(WIDTH), weight_decay=eta)
        return dynamics.solve(field, state, args, [0.0, END], record=correlation, rtol=1e-6)

    found = dynamics.require_success(jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(noise, decay))
    last, first = np.asarray(found.record[:, :, 1]), np.asarray(found.record[:, :, 0])
    modes = np.linalg.eigvalsh(last)
    return np.mean(modes > ALIVE * first.trace(axis1=-2, axis2=-1)[..., None] / WIDTH, axis=-1)


def correlation(t: Any, state: dynamics.Branches, args: dynamics.LinearParameters) -> jax.Array:
    """W W^T."""
    return state.encoder @ state.encoder.T


def basins(start: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """Whether a balanced mode that starts with the predictor p survives, (start, decay)."""
    field = dynamics.eigenmode_field(LinearDesign())

    def one(p: jax.Array, eta: jax.Array) -> dynamics.Solution:
        state = dynamics.Eigenmodes(p[None], p[None] ** 2)
        args = dynamics.EigenmodeParameters(noise=FIXED_NOISE, weight_decay=eta)
        return dynamics.solve(field, state, args, [0.0, END], rtol=1e-6)

    found = dynamics.require_success(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(start, decay))
    return np.asarray(found.record.predictor[:, :, 1, 0] > ALIVE)


def branches_of(decay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p- and p+; infinite and 0 above the critical weight decay."""
    found = dynamics.plateau(np.full_like(decay, FIXED_NOISE), decay)
    return np.asarray(found.edge), np.asarray(found.predictor)


def theory_curves() -> dict[str, np.ndarray]:
    """Both fixed points, up to the weight decay where they meet."""
    decay = np.linspace(LEVELS[0], float(dynamics.critical_weight_decay(FIXED_NOISE)), 200)
    lower, upper = branches_of(decay)
    return {"decay": decay, "lower": lower, "upper": upper}


def boundary(survived: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """For each noise the weight decay halfway between the last survivor and the first collapse."""
    count = np.sum(survived > 0, axis=0)
    step = decay[1] - decay[0]
    return decay[0] + (count - 0.5) * step


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """The phase diagram and the basins, with the analytic curves on them."""
    left, right = figure.subplots(1, 2)
    phase(figure, left, data)
    basin(right, data)


def phase(figure: Figure, ax: Axes, data: Mapping[str, Any]) -> None:
    """Weight decay against noise."""
    image = ax.pcolormesh(data["noise"], data["decay"], data["survived"], cmap=SHADES, vmin=-0.125, vmax=1.125)
    ax.plot(data["noise"], data["edge"], color=PALETTE[1], label="theory: tau² / 4(1 + sigma²)")
    ax.set(xlabel="view noise, sigma²", ylabel="weight decay, eta (1 / time)", title="full matrices, generic starts")
    ax.set_ylim(data["decay"][0], data["decay"][-1])
    ax.legend(loc="upper right")
    figure.colorbar(
        image, ax=ax, location="bottom", ticks=[0, 0.25, 0.5, 0.75, 1], label="share of the modes that survive"
    )


def basin(ax: Axes, data: Mapping[str, Any]) -> None:
    """Starts against weight decay at one noise."""
    theory = data["theory"]
    ax.pcolormesh(data["levels"], data["start"], data["kept"], cmap=SHADES, vmin=-0.125, vmax=1.125)
    ax.plot(theory["decay"], theory["upper"], color="white")
    ax.text(0.03, 0.82, "theory: p+, where modes end", color="white", fontsize=8)
    ax.plot(theory["decay"], theory["lower"], color=PALETTE[1])
    ax.text(0.02, 0.3, "theory: p-, edge of the basin", color="white", fontsize=8)
    ax.set(xlabel="weight decay, eta (1 / time)", ylabel="predictor at the start, p(0)")
    ax.set_title(f"one balanced mode, sigma² = {FIXED_NOISE}")


PART = Part(
    "collapse",
    "Where branches collapse",
    "Left: the share of modes alive at t = 400 in the full matrix equations, from starts that are neither aligned nor "
    "balanced; above the curve theory says that every mode collapses, ever more slowly towards it. Right: whether one "
    "balanced mode survives (blue), by where its predictor starts; theory's fixed points are drawn on it.",
    compute,
    draw,
    (6.8, 4.4),
)
