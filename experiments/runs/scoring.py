"""How well each prediction held over the runs of a design, beside what shuffled modes reach."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from runs.reading import WARM_UP, Design, Lines, Run, column, settled

from rdm_jax import agreement
from rdm_jax.spectra import effective_rank
from rdm_jax.training import (
    Rates,
    ema_schedule,
    entropy_speed,
    judge_rates,
    judge_signs,
    ladder,
    recipe,
    relative_rates,
)
from rdm_jax.training.judging import RESOLVED, SHUFFLES


class Score(NamedTuple):
    """A number over all seeds, what one shuffling of the modes in 20 does better than, and the seeds' spread."""

    measured: float
    chance: float | None = None
    spread: float | None = None
    predicted: float | None = None


def scores(design: Design, seed: int) -> dict[str, Score]:
    """All that is known of a design; a quantity that theory is silent about, or that was not recorded, is left out."""
    found = ranks(design, seed) | filters(design, seed)
    rate = rates(design)
    if len(rate.mask):
        found |= {name: Score(**score) for name, score in judge_rates(rate, seed).items()} | band(rate, seed)
    for name, gathered in (("sign, next steps", pairs), ("sign, next probe", intervals)):
        judged = judge_signs(*gathered(design), seed)
        by_seed = [hits(*gathered(design._replace(runs=[run]))) for run in design.runs]
        found[name] = Score(judged["hits"], judged["chance"], deviation(by_seed))
        found[f"{name}: frequent"] = Score(judged["frequent"])
        found[f"{name}: explained"] = Score(judged["explained"])
    return (
        {name: score for name, score in found.items() if np.isfinite(score.measured)} | lag(design) | accuracies(design)
    )


def hits(spectrum: np.ndarray, rate: np.ndarray, speed: np.ndarray) -> float:
    """How often the effective rank moved as predicted."""
    return agreement.sign_hits(entropy_speed(spectrum, rate), speed) if len(speed) else float("nan")


def ranks(design: Design, seed: int) -> dict[str, Score]:
    """The rank difference: at the end, its standard error, and how well its sign and size were predicted."""
    probes = [settled(run, run.probes) for run in design.runs]
    ends = [column(run.probes[-1:], "rank_difference")[0] for run in design.runs]
    predicted_ends = [column(run.probes[-1:], "predicted", "rank_difference")[0] for run in design.runs]
    errors = [column(run.probes[-1:], "errors", "rank_difference")[0] for run in design.runs]
    measured = [column(lines, "rank_difference") for lines in probes]
    found = {
        "rank difference": Score(
            float(np.mean(ends)), spread=deviation(ends), predicted=none(float(np.mean(predicted_ends)))
        ),
        "rank difference: standard error": Score(float(np.mean(errors))),
        "rank difference: positive": Score(float(np.mean(np.concatenate(measured) > 0))),
        "low-pass index": ended(design, "low_pass"),
        "effective rank": ended(design, "features", "rank"),
        "isotropy of the view noise": ended(design, "isotropy"),
        "variation of theta": Score(float(np.mean([theta_variation(lines) for lines in probes]))),
    }
    predicted = [column(lines, "predicted", "rank_difference") for lines in probes]
    if not all(np.isfinite(values).all() for values in predicted):
        return found
    ends_of = np.concatenate(predicted), np.concatenate(measured)
    shuffles = [shuffled_differences(lines, seed + i) for i, lines in enumerate(probes)]
    guesses = np.concatenate(shuffles, axis=1)
    by_chance: dict[str, Callable[..., float]] = {
        "rank difference: sign": agreement.sign_hits,
        "rank difference: relative error": agreement.relative_error,
    }
    for name, statistic in by_chance.items():
        by_seed = [statistic(*both) for both in zip(predicted, measured, strict=True)]
        reached = [statistic(guess, ends_of[1]) for guess in guesses]
        quantile = 0.95 if statistic is agreement.sign_hits else 0.05
        found[name] = Score(statistic(*ends_of), float(np.quantile(reached, quantile)), deviation(by_seed))
    return found


def theta_variation(lines: Lines) -> float:
    """Standard deviation of theta over its mean, under the online spectrum: 0 for a Wiener filter, on the average."""
    spectrum, gain, theta = (column(lines, *path) for path in (("features", "eigenvalues"), ("gains",), ("theta",)))
    known = np.isfinite(theta) & (spectrum > RESOLVED * spectrum[:, :1])
    weights, values = np.where(known, gain**2 * spectrum, 0), np.where(known, theta, 0)
    weights = weights / weights.sum(-1, keepdims=True)
    mean = np.sum(weights * values, -1, keepdims=True)
    return float(np.mean(np.sqrt(np.sum(weights * (values - mean) ** 2, -1)) / np.abs(mean[:, 0])))


def shuffled_differences(lines: Lines, seed: int) -> np.ndarray:
    """(shuffles, probes): rank differences that the predicted gains would make if they met other modes."""
    rng = np.random.default_rng(seed)
    online, target = column(lines, "predicted", "online_gains"), column(lines, "predicted", "target_gains")
    ours, theirs = column(lines, "features", "eigenvalues"), column(lines, "target_features", "eigenvalues")
    drawn = []
    for _ in range(SHUFFLES):
        gains = agreement.shuffled(online, ours > 0, rng), agreement.shuffled(target, theirs > 0, rng)
        target_rank, online_rank = effective_rank(gains[1] ** 2 * theirs), effective_rank(gains[0] ** 2 * ours)
        drawn.append(np.asarray(target_rank - online_rank, float))
    return np.array(drawn)


def filters(design: Design, seed: int) -> dict[str, Score]:
    """The order of the online filter's gains, measured and predicted, over the resolved modes."""
    by_run = [gains(run) for run in design.runs]
    measured, predicted, mask = (np.concatenate(parts) for parts in zip(*by_run, strict=True))
    if not np.isfinite(predicted).all():
        return {}
    by_seed = [agreement.rank_correlation(p, m, own) for m, p, own in by_run]
    null = agreement.chance(agreement.rank_correlation, predicted, measured, mask, seed=seed, shuffles=SHUFFLES)
    value = agreement.rank_correlation(predicted, measured, mask)
    return {"filter": Score(value, null, deviation(by_seed))}


def gains(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured and predicted gains after the warm-up, and which modes are resolved."""
    lines = settled(run, run.probes)
    spectrum = column(lines, "features", "eigenvalues")
    mask = spectrum > RESOLVED * spectrum[:, :1]
    return column(lines, "gains"), column(lines, "predicted", "online_gains"), mask


def rates(design: Design) -> Rates:
    """Growth rates of all seeds, over the few steps after each probe."""
    found: dict[str, list[np.ndarray]] = {}
    for run in design.runs:
        lines = settled(run, run.growths)
        if not lines:
            continue
        own = {name: column(lines, name) for name in ("spectrum", "predicted", "measured")}
        own |= {
            name: column(lines, name) if name in lines[0] else np.full_like(own["measured"], np.nan) for name in LADDER
        }
        own |= {"kept": column(lines, "kept") > 0, "seed": np.full(len(lines), run.config["seed"])}
        for name, values in own.items():
            found.setdefault(name, []).append(values)
    if not found:
        empty = np.zeros((0, 1))
        return Rates(*5 * [empty], empty, np.zeros(0))
    return relative_rates(**{name: np.concatenate(parts) for name, parts in found.items()})


LADDER = ("free", "flow")


def pairs(design: Design) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra, predicted rates and measured d log erank/dt over the few steps after each probe."""
    lines = [line for run in design.runs for line in settled(run, run.growths)]
    if not lines:
        return np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0)
    return column(lines, "spectrum"), column(lines, "predicted"), column(lines, "measured_entropy_rate")


def intervals(design: Design) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from each probe to the next."""
    parts = []
    for run in design.runs:
        lines = settled(run, run.probes)
        speed = np.diff(np.log(column(lines, "features", "rank"))) / np.diff(column(lines, "step"))
        parts.append((column(lines[:-1], "features", "eigenvalues"), column(lines[:-1], "rates"), speed))
    spectrum, rate, speed = (np.concatenate(part) for part in zip(*parts, strict=True))
    return spectrum, rate, speed


def band(rate: Rates, seed: int) -> dict[str, Score]:
    """How often a mode that is predicted to grow faster than the whole spectrum does (T9's band, for any filter)."""

    def right(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray) -> float:
        return agreement.sign_hits(predicted[mask], measured[mask])

    ends = rate.predicted, rate.measured, rate.mask
    chance = agreement.chance(right, *ends, seed=seed, shuffles=SHUFFLES)
    by_seed = [right(*(values[rate.seed == one] for values in ends)) for one in np.unique(rate.seed)]
    return {"growing modes": Score(right(*ends), chance, deviation(by_seed))}


def lag(design: Design) -> dict[str, Score]:
    """The rank of the moving average's features: the online one's at the average's mean age (S8), or as it is now."""
    weights = recipe(design.runs[0].config["method"]).ema
    if weights is None:
        return {}
    measured, aged, now = [], [], []
    for run in design.runs:
        steps, ranks = column(run.probes, "step"), column(run.probes, "features", "rank")
        ages = mean_ages(*weights, int(steps[-1]))
        counted = steps >= WARM_UP * steps[-1]
        measured.append(column(run.probes, "target_features", "rank")[counted])
        aged.append(np.exp(np.interp(steps - ages[steps.astype(int)], steps, np.log(ranks)))[counted])
        now.append(ranks[counted])
    errors = {"lag": aged, "lag: without it": now}
    return {
        name: Score(
            agreement.relative_error(np.concatenate(guess), np.concatenate(measured)),
            spread=deviation([agreement.relative_error(*both) for both in zip(guess, measured, strict=True)]),
        )
        for name, guess in errors.items()
    }


def mean_ages(first: float, last: float, total: int) -> np.ndarray:
    """How many steps old the weights of a moving average are on the average, after each step up to the last."""
    keep = np.asarray(jax.vmap(ema_schedule(first, last, total))(jnp.arange(total)), float)
    ages = np.zeros(total + 1)
    for step in range(total):
        ages[step + 1] = keep[step] * (ages[step] + 1)
    return ages


def accuracies(design: Design) -> dict[str, Score]:
    """kNN of the trained and the untrained network and the linear probe, of the runs that have come that far."""
    done = [run.results["scores"] for run in design.runs if run.results is not None]
    found = {}
    for name, path in {
        "kNN": ("trained", "knn"),
        "kNN, untrained": ("untrained", "knn"),
        "linear probe": ("trained", "linear"),
    }.items():
        values = [scores[path[0]][path[1]] for scores in done]
        if values and None not in values:
            found[name] = Score(float(np.mean(values)), spread=deviation(values))
    return found


def ended(design: Design, *path: str) -> Score:
    """A quantity at the end, over the seeds."""
    values = np.array([column(run.probes[-1:], *path)[0] for run in design.runs])
    return Score(float(np.mean(values)), spread=deviation(values))


def deviation(values: Sequence[float] | np.ndarray) -> float | None:
    """Standard deviation over the seeds; None of a single one."""
    return float(np.std(values)) if len(values) > 1 else None


def none(value: float) -> float | None:
    """None for what is not known."""
    return value if np.isfinite(value) else None


def climbed(design: Design) -> dict[str, float]:
    """Where the prediction of the growth rates is lost."""
    return ladder(rates(design))
