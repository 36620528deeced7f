"""Where simulation and prediction part: discrete steps and finite samples, each by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from linear.designs import FAMILIES, WEIGHT_DECAY, branch_start, inputs
from matplotlib.figure import Figure

from rdm_jax import agreement, dynamics
from rdm_jax.dynamics import LinearDesign, Statistics
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

DESIGN = LinearDesign()
FAMILY = FAMILIES["linear"]
RECORDS = 40
FINE = 20  # steps a record that leave an error small beside that of the samples


def compute(options: Any, tell: Tell) -> Outcome:
    """Errors of both effective ranks of linear branches, against the learning rate and the number of samples."""
    times = jnp.linspace(0.0, FAMILY.horizon, RECORDS + 1)
    predicted = jax.tree.map(lambda leaf: np.asarray(leaf[0]), FAMILY.predict(options.sizes, times).record)
    factors = 3 ** np.arange(options.refinements)
    rates, discrete, counts, sampled = [], [], [], []
    for number, factor in enumerate(factors.tolist()):
        tell(f"{factor} steps a record", number / (2 * len(factors)))
        rates.append(FAMILY.horizon / (RECORDS * factor))
        discrete.append(error(predicted, stepped(factor, options)))
    for number, factor in enumerate(factors.tolist()):
        counts.append(options.samples // 2 * factor)
        tell(f"{counts[-1]} samples", 0.5 + number / (2 * len(factors)))
        sampled.append([error(predicted, seen) for seen in drawn(counts[-1], options)])
    middle = [float(np.mean(errors)) for errors in sampled]
    findings = [
        Finding("error against the learning rate: log-log slope", slope(rates, discrete), predicted=1.0),
        Finding("error against the number of samples: log-log slope", slope(counts, middle), predicted=-0.5),
    ]
    data = {"rates": rates, "discrete": discrete, "counts": counts, "sampled": sampled, "middle": middle}
    return Outcome(data, findings)


def stepped(factor: int, options: Any) -> Statistics:
    """Gradient descent of the expected loss: no samples, only steps."""
    signal, noise = (jnp.diag(values) for values in inputs(options.modes))
    args = dynamics.LinearParameters(signal, noise, weight_decay=WEIGHT_DECAY)
    identity = jnp.eye(options.modes)
    found = dynamics.descend(
        dynamics.branch_field(DESIGN),
        dynamics.aligned_branches(branch_start(DESIGN, options.modes), identity, identity),
        args,
        learning_rate=FAMILY.horizon / (RECORDS * factor),
        steps=RECORDS * factor,
        every=factor,
        record=dynamics.branch_statistics(DESIGN),
    )
    return jax.tree.map(np.asarray, found.record)


def drawn(count: int, options: Any) -> list[Statistics]:
    """Small steps on finite samples, one draw a seed."""
    sizes = options.sizes._replace(samples=count, steps=RECORDS * FINE, every=FINE)
    keys = jax.random.split(jax.random.key(options.seed), options.seeds)
    found = dynamics.require_success(FAMILY.simulate(sizes, keys, FAMILY.horizon / sizes.steps))
    return [
        jax.tree.map(lambda leaf, i=i: np.asarray(leaf[0, i]), found.record.statistics) for i in range(options.seeds)
    ]


def error(predicted: Statistics, simulated: Statistics) -> float:
    """Relative error of both effective ranks at all records."""
    pairs = (np.stack([found.online_rank, found.target_rank]) for found in (predicted, simulated))
    return agreement.relative_error(*pairs)


def slope(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """Of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """Both errors on logarithmic axes, beside the slopes of theory."""
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, sizes, errors, order in (
        (left, data["rates"], data["discrete"], 1),
        (right, data["counts"], data["middle"], -0.5),
    ):
        line = errors[-1] * (np.array(sizes) / sizes[-1]) ** order
        ax.plot(sizes, line, color="grey", linewidth=0.9, label=f"slope {order}")
        ax.plot(
            sizes, errors, "o-", color=PALETTE[0], markersize=4, label="measured" if order == 1 else "mean of the seeds"
        )
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(sizes, [f"{size:.3g}" for size in sizes])
        ax.minorticks_off()
    right.plot(data["counts"], data["sampled"], ".", color=PALETTE[5], markersize=4)
    left.set(
        xlabel="learning rate (time a step)", ylabel="relative error of the ranks", title="discrete steps, no samples"
    )
    right.set(xlabel="samples", title="finite samples, small steps")
    for ax in (left, right):
        ax.legend(fontsize=8)


PART = Part(
    "gaps",
    "Where simulation and prediction part",
    "Error of the predicted effective ranks (both branches, all times) for a linear encoder with a learned predictor. "
    "Left: gradient descent of the expected loss, against the length of its steps. Right: short steps on samples "
    "drawn at random, against their number. Grey: the orders that theory expects.",
    compute,
    draw,
    (6.8, 3.2),
)
