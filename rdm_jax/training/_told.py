"""What a probe of files found: in words and numbers that fit 80 columns, for JSON, and in two figures."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rdm_jax.training.diagnosis import diagnose, filter_kind

_WIDTH, _LABEL = 80, 18
_NOISE_UNKNOWN = (
    "unknown from one view, and so is what hangs on it: theta, the sign of d erank/dt and what a learned predictor "
    "would do. Give --online-second and --target-second."
)
_FEW = "Fewer samples than four times the features: ranks are biased low, so hold them against the null level."

Line = Mapping[str, Any]


def told(line: Line, files: Mapping[str, str], shape: tuple[int, int], views: int, method: str | None) -> str:
    """The report.

    Args:
        line: of ``line_of``.
        files: names of what was read, by branch.
        shape: (n, d).
        views: how many.
        method: whose rank difference is predicted, in words; None: that of a learned linear predictor.

    Returns:
        Lines of at most 80 columns.
    """
    told = [*_said_of_input(files, shape, views), ("", ""), *_said_of_ranks(line, "features" in files), ("", "")]
    told += [*_said_of_filter(line, views, method), *(_said_of_noise(line) if views == 2 else [])]
    told += [("view noise", _NOISE_UNKNOWN)] if views == 1 else []
    parts = ["\n".join(_filled(label, text) for label, text in told)]
    parts += [textwrap.fill(_FEW, _WIDTH)] if shape[0] < 4 * shape[1] else []
    return "\n\n".join([*parts, textwrap.fill(str(diagnose(line)), _WIDTH, break_on_hyphens=False)])


def shortened(text: str, width: int) -> str:
    """The end of a name that is too long to be shown."""
    return text if len(text) <= width else f"...{text[3 - width :]}"


def _filled(label: str, text: str) -> str:
    lines = textwrap.wrap(text, _WIDTH - _LABEL, break_on_hyphens=False) or [""]
    first = f"{label:<{_LABEL}}" if len(label) < _LABEL else shortened(label, _LABEL - 1) + " "
    return "\n".join(
        before + line for before, line in zip([first, *[" " * _LABEL] * len(lines)], lines, strict=False)
    ).rstrip()


def _said_of_input(files: Mapping[str, str], shape: tuple[int, int], views: int) -> list[tuple[str, str]]:
    shown = [(name, shortened(file, _WIDTH - _LABEL)) for name, file in files.items()]
    shown += [] if "features" in files else [("features", "the target's outputs")]
    return [*shown, ("samples", f"{shape[0]} of {shape[1]} features, {'two views' if views == 2 else 'one view'}")]


def _said_of_ranks(line: Line, own_features: bool) -> list[tuple[str, str]]:
    rows = [("effective rank", _columns("± standard error", "without mean", "of isotropic noise"))]
    for name in ("online", "target", *(["features"] if own_features else [])):
        rows.append((f"  {name}", _rank(line[name], line["errors"][name])))
    rows += [(f"  {name}", _rank(stage, None)) for name, stage in line["stages"].items()]
    difference, error = line["rank_difference"], line["errors"]["rank_difference"]
    clear = error is not None and difference is not None and abs(difference) > 2 * error
    which = "the target's is higher" if clear and difference > 0 else "the online branch's is higher"
    meaning = which if clear else "within two standard errors of 0"
    return [*rows, ("  difference", f"{_number(difference, '+')}{_error(error)}: {meaning}")]


def _rank(stage: Line, error: float | None) -> str:
    measured = f"{_number(stage['rank'])}{_error(error)}"
    return _columns(measured, _number(stage["centered_rank"]), _number(stage["null"]))


def _columns(*cells: str) -> str:
    return "".join(f"{cell:<20}" for cell in cells)


def _said_of_filter(line: Line, views: int, method: str | None) -> list[tuple[str, str]]:
    kind = filter_kind(line)
    meaning = {"unknown": "the target's eigenvalues are all alike", "all-pass": "neither low-pass nor high-pass"}
    index = _number(line["low_pass"], "+")
    rows = [("measured filter", f"low-pass index {index} of -1 to 1: {meaning.get(kind, kind)}")]
    whose = "a learned linear predictor (Wiener filter, T3)" if method is None else method
    predicted = line["predicted"]["rank_difference"]
    if predicted is not None:
        rows.append(("predicted", f"rank difference {_number(predicted, '+')} for {whose}"))
    elif views == 2 or method is not None:
        rows.append(("predicted", f"nothing: theory is silent on {whose} here"))
    return rows


def _said_of_noise(line: Line) -> list[tuple[str, str]]:
    share = 1 - sum(line["signal"]) / sum(line["features"]["eigenvalues"])
    rows = [("view noise", f"{share:.1%} of the features' second moment; isotropy {_number(line['isotropy'])} of 1")]
    slope = _slope(line)
    if slope is not None:
        than = "more" if slope < 0 else "less"
        rows.append(("theta", f"correlation {slope:+.2f} with log lambda: {than} low-pass than the Wiener filter (S1)"))
    speed = line["entropy_rate"]
    if speed is not None:
        way = "rises" if speed > 0 else "falls"
        rows.append(("d erank/dt", f"dH/dt = {speed:+.3g}: the features' rank {way}, if they were free to move"))
    return rows


def _slope(line: Line) -> float | None:
    """Correlation of theta with log lambda under the online spectrum, whose sign is minus that of dH/dt (S1)."""
    known = line["features"]["eigenvalues"], line["theta"], line["gains"]
    spectrum, theta, gains = (np.array(values, float) for values in known)
    on = (spectrum > 0) & (gains > 0) & np.isfinite(theta)
    if on.sum() < 2:
        return None
    weights = gains[on] ** 2 * spectrum[on]
    both = np.cov(np.stack([theta[on], np.log(spectrum[on])]), aweights=weights)
    size = np.sqrt(both[0, 0] * both[1, 1])
    return float(both[0, 1] / size) if size > 0 else None


def _number(value: float | None, sign: str = "") -> str:
    return "undefined" if value is None else f"{value:{sign}.4g}"


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.2g}"


def _draw_spectra(figure: Figure, data: Line) -> None:
    axes = figure.subplots()
    record = data["record"]
    for name in ("online", "target", *(["features"] if data["config"]["features"] else [])):
        values = np.array(record[name]["eigenvalues"])
        shares = values[values > 0] / values.sum()
        axes.loglog(
            np.arange(1, len(shares) + 1), shares, label=f"{name}, effective rank {_number(record[name]['rank'])}"
        )
    axes.set(xlabel="mode", ylabel="share of the second moment")
    axes.legend()


def _draw_filter(figure: Figure, data: Line) -> None:
    axes = figure.subplots()
    record = data["record"]
    spectrum, gains, predicted = (
        np.array(values, float)
        for values in (record["features"]["eigenvalues"], record["gains"], record["predicted"]["online_gains"])
    )
    on = spectrum > 0
    axes.loglog(spectrum[on], gains[on], ".", label="measured")
    if np.isfinite(predicted).any():
        axes.loglog(spectrum[on], predicted[on] * _scale(gains[on], predicted[on]), label="predicted, up to scale")
    axes.set(xlabel="eigenvalue of the features", ylabel="gain from z to p")
    axes.legend()


def _scale(gains: np.ndarray, predicted: np.ndarray) -> float:
    return float(gains @ predicted / (predicted @ predicted)) if predicted.any() else 1.0


FIGURES = {"spectra.png": _draw_spectra, "filter.png": _draw_filter}
