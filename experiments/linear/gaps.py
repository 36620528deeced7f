"""Where simulation and prediction part: discrete steps, finite samples, each sample's own norm; one at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from linear.designs import FAMILIES, WEIGHT_DECAY, branch_start, inputs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from rdm_jax import agreement, dynamics, spectra
from rdm_jax.dynamics import FeatureDesign, LinearDesign, Statistics
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

DESIGN = LinearDesign()
FAMILY = FAMILIES["linear"]
RECORDS = 40
FINE = 10  # steps a record that leave an error small beside that of the samples
DRAWS = 4  # for each seed, so that a bias stands out from the spread
NARROWEST, MANY = 8, 16384


def compute(options: Any, tell: Tell) -> Outcome:
    """Errors of the ranks of linear branches, and of the rates under the cosine of each sample."""
    times = jnp.linspace(0.0, FAMILY.horizon, RECORDS + 1)
    predicted = jax.tree.map(lambda leaf: np.asarray(leaf[0]), FAMILY.predict(options.sizes, times).record)
    factors = (3 ** np.arange(options.refinements)).tolist()
    tell("discrete steps", 0.0)
    rates = [FAMILY.horizon / (RECORDS * factor) for factor in factors]
    stepped = [float(np.sqrt(np.mean(errors(predicted, descended(factor, options)) ** 2))) for factor in factors]
    counts, bias, spread = [], [], []
    for number, factor in enumerate(factors):
        counts.append(options.samples // 2 * factor)
        tell(f"{counts[-1]} samples", 0.2 + 0.6 * number / len(factors))
        found = [np.mean(errors(predicted, seen)) for seen in drawn(counts[-1], options)]
        bias.append(float(abs(np.mean(found))))
        spread.append(float(np.std(found)))
    tell("each sample's cosine", 0.8)
    widths = [NARROWEST * 4**number for number in range(options.refinements)]
    modes, normed = zip(*(sample_errors(width, options.seed) for width in widths), strict=True)
    panels = [
        panel("discrete steps, no samples", "learning rate (time a step)", rates, {"ranks": (stepped, 1)}),
        panel(
            "finite samples, short steps",
            "samples",
            counts,
            {"mean": (bias, -1), "spread": (spread, -0.5)},
        ),
        panel("each sample's norm", "participation ratio", modes, {"growth rates": (normed, -1)}),
    ]
    findings = [
        Finding(
            f"{entry['title']}: log-log slope, {line['name']}", slope(entry["sizes"], line["errors"]), line["order"]
        )
        for entry in panels
        for line in entry["lines"]
    ]
    return Outcome({"panels": panels}, findings)


def panel(title: str, label: str, sizes: Sequence[float], lines: Mapping[str, tuple[Any, float]]) -> dict[str, Any]:
    """Errors by name against a size, each with the order that theory expects."""
    entries = [{"name": name, "errors": found, "order": order} for name, (found, order) in lines.items()]
    return {"title": title, "label": label, "sizes": sizes, "lines": entries}


def descended(factor: int, options: Any) -> Statistics:
    """Gradient descent of the expected loss: no samples, only steps."""
    signal, noise = (jnp.diag(values) for values in inputs(options.modes))
    identity = jnp.eye(options.modes)
    found = dynamics.descend(
        dynamics.branch_field(DESIGN),
        dynamics.aligned_branches(branch_start(DESIGN, options.modes), identity, identity),
        dynamics.LinearParameters(signal, noise, weight_decay=WEIGHT_DECAY),
        learning_rate=FAMILY.horizon / (RECORDS * factor),
        steps=RECORDS * factor,
        every=factor,
        record=dynamics.branch_statistics(DESIGN),
    )
    return jax.tree.map(np.asarray, found.record)


def drawn(count: int, options: Any) -> list[Statistics]:
    """Short steps on finite samples."""
    sizes = options.sizes._replace(samples=count, steps=RECORDS * FINE, every=FINE)
    keys = jax.random.split(jax.random.key(options.seed), DRAWS * options.seeds)
    found = dynamics.require_success(FAMILY.simulate(sizes, keys, FAMILY.horizon / sizes.steps))
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[0, i]), found.record.statistics) for i in range(len(keys))]


def errors(predicted: Statistics, simulated: Statistics) -> np.ndarray:
    """Relative, of both effective ranks at all records."""
    first, second = (np.stack([found.online_rank, found.target_rank]) for found in (predicted, simulated))
    return (second - first) / first


def sample_errors(width: int, seed: int) -> tuple[float, float]:
    """Participation ratio of the output under g(s) = s, and the error of the mean field's rates, at one instant."""
    exact, mean_field = (FeatureDesign(loss, online=dynamics.power_gains) for loss in ("sample cosine", "cosine"))
    spectrum = jnp.exp(-jnp.linspace(0.0, 3.0, width))
    state = dynamics.ViewFeatures(jax.random.normal(jax.random.key(seed), (MANY, width)) * jnp.sqrt(spectrum)[None])
    args = dynamics.FeatureParameters(online=1.0)
    predicted = jax.jit(dynamics.feature_statistics(mean_field))(0.0, state, args)
    moved = jax.jit(dynamics.feature_field(exact))(0.0, state, args).first
    values, vectors = spectra.eigensystem(spectra.second_moment(state.first))
    measured = jnp.sum((state.first @ vectors) * (moved @ vectors), axis=0) / (MANY * values)
    ratio = spectra.participation_ratio(predicted.online)
    return float(ratio), agreement.relative_error(predicted.rates, measured)


def slope(sizes: Sequence[float], found: Sequence[float]) -> float:
    """Of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(found), 1)[0])


def draw(figure: Figure, data: Mapping[str, Any]) -> None:
    """Errors on logarithmic axes, beside the slopes of theory."""
    axes = figure.subplots(1, 3, sharey=True)
    for ax, entry, place in zip(axes, data["panels"], ("upper left", "lower left", "lower left"), strict=True):
        for colour, line in zip(PALETTE, entry["lines"], strict=False):
            against(ax, entry["sizes"], line, colour)
        ax.set(xscale="log", yscale="log", title=entry["title"], xlabel=entry["label"])
        ax.set_xticks(entry["sizes"], [f"{size:.3g}" if size < 100 else f"{size:.0f}" for size in entry["sizes"]])
        ax.minorticks_off()
        ax.legend(fontsize=7.5, loc=place)
    axes[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0].set_ylabel("relative error")


def against(ax: Axes, sizes: Sequence[float], line: Mapping[str, Any], colour: str) -> None:
    """One error, and in grey its order through the last point."""
    expected = line["errors"][-1] * (np.array(sizes) / sizes[-1]) ** line["order"]
    ax.plot(sizes, expected, color="grey", linewidth=0.9, linestyle="--")
    ax.plot(sizes, line["errors"], "o-", color=colour, markersize=4, label=f"{line['name']} (order {line['order']:g})")


PART = Part(
    "gaps",
    "Where simulation and prediction part",
    "Relative errors of predictions. Left and middle: the effective ranks of both branches, over all times, of a "
    "linear encoder with a learned predictor: gradient descent of the expected loss, against the length of its steps; "
    "and short steps on random samples, against their number (mean of the errors, and their standard deviation over "
    "the draws). Right: the growth rates of free features, when each sample is normalised by its own norm and the "
    "prediction is the mean field's. Dashed: the orders that theory expects.",
    compute,
    draw,
    (6.8, 3.0),
)
