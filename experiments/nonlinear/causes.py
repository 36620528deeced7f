"""Where prediction and measurement part: one thing is changed at a time until they meet, or do not."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nonlinear import growth, threshold
from nonlinear.designs import NETWORK, SETTING, Network, Run, Setting, again, run
from nonlinear.panels import rows

from rdm_jax.agreement import chance, rank_correlation
from rdm_jax.experiment import Finding, Outcome, Part, Tell
from rdm_jax.plotting import PALETTE

FILTER, LEARNED, CLOSED_FORM = "RDM-SimSiam online", "SimSiam", "IsoLoss"
SOFTER = (1.0, 3.0, 10.0, 30.0)
ANISOTROPY = (-0.5, 0.0, 0.5, 1.0)
MEMORIES = (0.998, 0.99, 0.9, 0.0)  # of the moving average from which a predictor in closed form is computed
NETWORKS = {
    "matrix, white inputs": (Network((), (), False), Setting(white=1.0, steepness=0.0)),
    "matrix": (Network((), (), False), Setting(steepness=0.0)),
    "perceptron without batch norm": (Network(batch_norm=False), SETTING),
    "perceptron of width 16": (Network((16, 16), (16,)), SETTING),
    "perceptron (as elsewhere)": (NETWORK, SETTING),
    "perceptron of width 512": (Network((512, 512), (256,)), SETTING),
}
# Of designs whose rates or signs are not the predicted ones: (what is changed, setting, options of the method).
USUAL = ("as elsewhere", SETTING, ())
CHANGES = {
    "BYOL": (
        USUAL,
        ("rate / 4", Setting(rate=0.005), ()),
        ("target without memory", Setting(ema=0.0), ()),
    ),
    "SwAV": (
        USUAL,
        ("temperatures x 10", SETTING, (("temperature", 1.0), ("epsilon", 0.5))),
        ("without queue", SETTING, (("queue", 0), ("queue_start", 50))),
    ),
    "DINO": (
        USUAL,
        ("temperatures x 10", SETTING, (("temperature", 1.0), ("teacher_temperature", 0.7))),
        ("rate / 4", Setting(rate=0.005), ()),
    ),
}
OPTIMISERS = {
    "rate x 4": Setting(rate=0.08),
    "as elsewhere": SETTING,
    "rate / 4": Setting(rate=0.005),
    "no momentum, rate x 4": Setting(rate=0.08, momentum=0.0),
    "weight decay x 30": Setting(decay=3e-3),
}


def compute_ranks(options: Any, tell: Tell) -> Outcome:
    """Rank differences: assignments at higher temperatures, and learned predictors under other view noise."""
    softer = [entry for name in ("SwAV", "DINO") for entry in temperatures(name, options, tell)]
    noises = []
    for number, exponent in enumerate(ANISOTROPY):
        tell(f"view noise ~ content^{exponent:g}", 0.5 + 0.5 * number / len(ANISOTROPY))
        done = run(LEARNED, options.sizes, setting=Setting(exponent=exponent))
        noises.append({"exponent": exponent} | ends(done.record, -1))
    findings = [
        *(_difference(f"{entry['name']}, temperatures x {entry['factor']:g}", entry) for entry in softer),
        *(_difference(f"{LEARNED}, view noise ~ content^{entry['exponent']:g}", entry) for entry in noises),
    ]
    return Outcome({"softer": softer, "noises": noises}, findings)


def temperatures(name: str, options: Any, tell: Tell) -> Iterable[dict[str, Any]]:
    """The last probe of a run with all temperatures multiplied: towards the linear regime."""
    tell(name, 0.0 if name == "SwAV" else 0.25)
    done = run(name, options.sizes)
    for factor in SOFTER:
        own = {"temperature": 0.1 * factor}
        own |= {"epsilon": 0.05 * factor} if name == "SwAV" else {"teacher_temperature": 0.07 * factor}
        yield {"name": name, "factor": factor} | ends(again(done, options.sizes, **own))


def ends(record: Any, at: int | None = None) -> dict[str, Any]:
    """Measured and predicted rank difference over the target's rank, seed by seed."""
    sides = (record.rank_difference, record.predicted.rank_difference, record.target.rank)
    measured, predicted, rank = (side if at is None else side[:, at] for side in sides)
    return {"measured": measured / rank, "predicted": predicted / rank}


def _difference(quantity: str, entry: Mapping[str, Any]) -> Finding:
    measured, predicted = entry["measured"], entry["predicted"]
    return Finding(
        f"rank difference over rank: {quantity}",
        float(np.mean(measured)),
        predicted=float(np.mean(predicted)),
        spread=float(np.std(measured)),
    )


def compute_growth(options: Any, tell: Tell) -> Outcome:
    """The ladder of growth rates for other networks and other optimisers."""
    networks = []
    for number, (title, (network, setting)) in enumerate(NETWORKS.items()):
        tell(title, 0.6 * number / len(NETWORKS))
        networks.append({"title": title} | ladder(run(FILTER, options.sizes, network, setting), options.seed))
    optimisers = []
    for number, (title, setting) in enumerate(OPTIMISERS.items()):
        for name in (FILTER, LEARNED):
            tell(f"{name}, {title}", 0.6 + 0.4 * number / len(OPTIMISERS))
            done = run(name, options.sizes, setting=setting)
            optimisers.append({"title": title, "name": name} | ladder(done, options.seed))
    findings = [
        Finding(f"predicted -> flow: {FILTER}, {one['title']}", one["predicted -> flow"], chance=one["chance"])
        for one in networks
    ] + [Finding(f"flow -> measured: {one['name']}, {one['title']}", one["flow -> measured"]) for one in optimisers]
    return Outcome({"networks": networks, "optimisers": optimisers}, findings)


def compute_memory(options: Any, tell: Tell) -> Outcome:
    """A predictor in closed form, from moving averages that forget faster and faster."""
    found = []
    for number, memory in enumerate(MEMORIES):
        tell(f"{CLOSED_FORM}, moving average {memory:g}", number / len(MEMORIES))
        done = run(CLOSED_FORM, options.sizes, own=(("momentum", memory),))
        found.append({"memory": memory} | ladder(done, options.seed) | ends(done.record, -1))
    findings = [finding for one in found for finding in _of_memory(one)]
    return Outcome({"name": CLOSED_FORM, "memories": found}, findings)


def _of_memory(one: Mapping[str, Any]) -> list[Finding]:
    where = f"{CLOSED_FORM}, moving average {one['memory']:g}"
    return [
        Finding(f"right sign of d erank/dt: {where}", one["hits"]),
        Finding("  rank correlation, predicted and measured rates", one["predicted -> measured"]),
        _difference(where, one),
    ]


def compute_changes(options: Any, tell: Tell) -> Outcome:
    """Signs of d erank/dt and growth rates of some designs, with one thing changed."""
    cases = [(name, *change) for name, changes in CHANGES.items() for change in changes]
    found = []
    for number, (name, title, setting, own) in enumerate(cases):
        tell(f"{name}, {title}", number / len(cases))
        done = run(name, options.sizes, setting=setting, own=own)
        found.append({"name": name, "title": title} | ladder(done, options.seed))
    findings = [finding for one in found for finding in _of_change(one)]
    return Outcome({"cases": found}, findings)


def _of_change(one: Mapping[str, Any]) -> list[Finding]:
    correlated = "  rank correlation, predicted and measured rates"
    return [
        Finding(f"right sign of d erank/dt: {one['name']}, {one['title']}", one["hits"], chance=one["by chance"]),
        Finding(correlated, one["predicted -> measured"], chance=one["chance"]),
        Finding("  variance of d erank/dt explained", one["explained"]),
    ]


def ladder(done: Run, seed: int) -> dict[str, Any]:
    """Rank correlations of neighbouring rates, of the prediction with the flow, and the sign of d erank/dt."""
    rate = growth.rates(done)
    steps = growth.entry(done, seed)["ladder"]
    ends, signs = (rate.predicted, rate.flow, rate.mask), threshold.entry(done, seed)
    return {
        **steps,
        "predicted -> flow": rank_correlation(*ends),
        "predicted -> measured": rank_correlation(rate.predicted, rate.measured, rate.mask),
        "chance": chance(rank_correlation, *ends, seed=seed),
        "hits": signs["hits"],
        "by chance": signs["chance"],
        "explained": signs["explained"],
        "rank": done.record.features.rank[:, -1],
    }


def draw_ranks(figure: Figure, data: Mapping[str, Any]) -> None:
    """Measured points beside predicted lines."""
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(("SwAV", "DINO")):
        chosen = [one for one in data["softer"] if one["name"] == name]
        pair(left, [one["factor"] for one in chosen], chosen, PALETTE[number], name)
    left.set(xscale="log", xlabel="factor on all temperatures", ylabel="rank difference / target's rank")
    pair(right, [one["exponent"] for one in data["noises"]], data["noises"], PALETTE[2], LEARNED)
    right.set(xlabel="exponent: view noise ~ content$^{exponent}$", ylim=(None, None))
    for ax in (left, right):
        ax.axhline(0, color="grey", linewidth=0.6)
        ax.legend(fontsize=8)


def pair(ax: Axes, places: list[float], entries: list[Mapping[str, Any]], colour: str, name: str) -> None:
    """One design's predicted line and measured points with their range."""
    measured, predicted = (np.array([one[side] for one in entries], float) for side in ("measured", "predicted"))
    middle = measured.mean(1)
    ax.plot(places, predicted.mean(1), color=colour, linestyle=":", label=f"{name}, predicted")
    error = [middle - measured.min(1), measured.max(1) - middle]
    ax.errorbar(places, middle, error, color=colour, fmt="o", markersize=4, elinewidth=0.8, label=f"{name}, measured")


def draw_memory(figure: Figure, data: Mapping[str, Any]) -> None:
    """Hits and rank correlation, and the rank difference, over how long the moving average remembers."""
    left, right = figure.subplots(1, 2)
    found = data["memories"]
    places = np.arange(len(found))
    left.plot(places, [one["hits"] for one in found], "o-", color=PALETTE[0], label="right sign of d erank/dt")
    correlated = [one["predicted -> measured"] for one in found]
    left.plot(places, correlated, "s-", color=PALETTE[1], label="rank correlation of the rates")
    left.set(ylim=(-0.1, 1.05))
    pair(right, list(places), found, PALETTE[2], data["name"])
    right.set(ylabel="rank difference / target's rank", ylim=(0, None))
    for ax in (left, right):
        ax.set(xlabel="weight of the past in the moving average")
        ax.set_xticks(places, [f"{one['memory']:g}" for one in found])
        ax.legend(fontsize=8)


def draw_changes(figure: Figure, data: Mapping[str, Any]) -> None:
    """A row for each case: what is right, beside what shuffled modes reach."""
    found = data["cases"]
    axes = figure.subplots(1, 2, sharey=True)
    sides = (("hits", "by chance", "right sign of d erank/dt"), ("predicted -> measured", "chance", "rank correlation"))
    for ax, (side, null, label) in zip(axes, sides, strict=True):
        heights = rows(ax, [f"{one['name']}, {one['title']}" for one in found])
        ax.plot([one[null] for one in found], heights, "|", color="grey", markersize=9, label="shuffled modes (95%)")
        ax.plot([one[side] for one in found], heights, "o", color=PALETTE[0], markersize=4.5, label="prediction")
        ax.set(xlabel=label, xlim=(-0.1, 1.04))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)


def draw_growth(figure: Figure, data: Mapping[str, Any]) -> None:
    """Bars of rank correlation: for networks from theory to flow, for optimisers from flow to measured."""
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1])
    ax = top.subplots()
    groups(ax, data["networks"], (*growth.STEPS, "predicted -> flow"))
    ax = bottom.subplots()
    titles = [f"{one['title']}\n{one['name']}" for one in data["optimisers"]]
    groups(ax, data["optimisers"], growth.STEPS, titles)
    top.legend(*top.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)


def groups(ax: Axes, entries: list[Mapping[str, Any]], steps: Iterable[str], titles: list[str] | None = None) -> None:
    """A row for each entry, a mark for each pair of rates."""
    heights = rows(ax, titles or [one["title"] for one in entries], fontsize=7.5)
    for number, step in enumerate(steps):
        values = np.array([one[step] for one in entries], float)
        marker = "osD^"[number]
        ax.plot(values, heights, marker, color=PALETTE[number], markersize=5, label=step.replace("->", "to"))
    ax.set(xlim=(-0.3, 1.03), xlabel="rank correlation")
    ax.axvline(0, color="grey", linewidth=0.6)


RANKS = Part(
    "causes_ranks",
    "Why a rank difference is not the predicted one",
    "Left: the assignments of trained networks with all temperatures multiplied by a factor. Theory (T10 to T12) is "
    "that of small logits over the temperature, and holds where it says so. Right: SimSiam under view noise that grows "
    "with a factor's content like a power of it, of one mean. Theory (T3): the predictor is the Wiener filter "
    "m / lambda, constant where noise is proportional to content. Points: mean and range over the seeds.",
    compute_ranks,
    draw_ranks,
    (6.8, 3.4),
)
CHANGED = Part(
    "causes_changes",
    "Why signs and rates of BYOL, SwAV and DINO are not the predicted ones",
    "Share of instants with the right sign of d erank/dt, and rank correlation of predicted and measured growth rates, "
    "of three designs as they are and with one thing changed in training.",
    compute_changes,
    draw_changes,
    (6.8, 3.6),
)
MEMORY = Part(
    "causes_memory",
    "Why a predictor in closed form is not the predicted one",
    "IsoLoss computes its predictor from a moving average of the features' correlation; by default the past has weight "
    "0.998, a memory of 500 steps, nearly the length of these runs. Theory is that of a predictor which knows the "
    "correlation of the moment. Left: how well rates and the sign of d erank/dt are predicted. Right: the rank "
    "difference, mean and range over the seeds.",
    compute_memory,
    draw_memory,
    (6.8, 3.4),
)
GROWTH = Part(
    "causes_growth",
    "Why growth rates are not the predicted ones",
    "Rank correlation between neighbouring rates of the ladder (theory, free features, flow through the parameters, "
    "measured). Above: one fixed filter in other networks; a matrix on white inputs moves its features as if they were "
    "free. Below: a fixed filter and a learned predictor under other learning rates, momentum and weight decay.",
    compute_growth,
    draw_growth,
    (6.8, 7.2),
)
