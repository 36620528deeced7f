"""T15. Along a trajectory the online effective rank stays below the target's: an empirical law, with its exceptions."""

import numpy as np

from proofs_numeric import _sweep
from rdm_jax.claims import Figure, Law, Statement, wilson_interval

ORDER, TURN, SPREAD = 1e-6, 1e-3, 1e-2  # what counts as a violation, as a fall or a rise, as common


def _order(anisotropic):
    def measure(seed):
        runs = _sweep.kind(_sweep.sweep(seed), _sweep.WIDTH, anisotropic)
        return _sweep.rank_order(runs) + ORDER, runs.run

    return measure


def _turn(seed):
    outcome = _sweep.sweep(seed)
    runs = _sweep.survivors(_sweep.chosen(outcome, outcome.run.width == _sweep.WIDTH))
    return _sweep.turn(runs) - TURN, runs.run


def _plateau(anisotropic):
    def measure(seed):
        runs = _sweep.survivors(_sweep.kind(_sweep.sweep(seed), _sweep.WIDTH, anisotropic))
        return SPREAD - _sweep.plateau(runs), runs.run

    return measure


def _frequency(held):
    return [float(np.mean(held)), *wilson_interval(int(np.sum(held)), len(held))]


def record(seed):
    """Frequencies by width, at the start and at all times; and rank differences over time with all the exceptions."""
    outcome = _sweep.sweep(seed)
    found = {"times": _sweep.times().tolist(), "widths": list(_sweep.RUNS)}
    for name, anisotropic in (("isotropic", False), ("anisotropic", True)):
        groups = [_sweep.kind(outcome, width, anisotropic) for width in _sweep.RUNS]
        always = [_frequency(_sweep.rank_order(runs) >= -ORDER) for runs in groups]
        start = [float(np.mean((runs.target - runs.online)[:, 0] >= -ORDER)) for runs in groups]
        widest = groups[-1]
        differences, held = widest.target - widest.online, _sweep.rank_order(widest) >= -ORDER
        alive = widest.trace > _sweep.ALIVE * widest.trace.max(axis=1, keepdims=True)
        curves = np.where(alive, np.round(differences, 5), np.nan)
        late = np.where(alive & (differences < -ORDER), _sweep.times()[None], 0.0).max(axis=1)
        found[name] = {
            "always": always,
            "start": start,
            "exceptions": int(np.sum(~held)),
            "of these at the start already": int(np.sum(differences[:, 0] < -ORDER)),
            "of these later than t = 5": int(np.sum(late > 5)),
            "exceptions shown": [_living(curve) for curve in curves[~held][:25]],
            "others shown": [_living(curve) for curve in curves[held][:25]],
        }
    return found


def _living(curve):
    """A curve up to where its features collapse, which ends it."""
    return curve[: int(np.isnan(np.append(curve, np.nan)).argmax())].tolist()


def draw(figure, record):
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1))
    axes[0].sharey(axes[1])
    for ax, name, colour in zip(axes, ("isotropic", "anisotropic"), ("C0", "C1"), strict=False):
        part = record[name]
        for kind, look in (("others shown", {"color": "0.8"}), ("exceptions shown", {"color": colour, "zorder": 3})):
            for curve in part[kind]:
                ax.plot(record["times"][: len(curve)], curve, linewidth=0.7, **look)
        ax.axhline(0, color="black", linewidth=0.8, zorder=4)
        ax.set(title=name, xlabel="time", xscale="symlog", xlim=(0, record["times"][-1]))
        rates = np.array(part["always"]).T
        axes[2].errorbar(
            record["widths"],
            rates[0],
            (rates[0] - rates[1], rates[2] - rates[0]),
            color=colour,
            marker="o",
            markersize=4,
            capsize=3,
            label=f"{name}, always",
        )
        axes[2].plot(record["widths"], part["start"], color=colour, linestyle=":", label=f"{name}, at the start")
    axes[0].set_ylabel(r"$\log$ erank(target) $-\,\log$ erank(online), width 6")
    axes[2].set(xlabel="width", title="how often", xticks=record["widths"], ylim=(0.4, 1.01))
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")


DATA = "six features, gradient descent from small random W and W_p, moving average"

STATEMENT = Statement(
    name="T15",
    title="rank order along trajectories",
    text=(
        "An empirical law of the linear branches of T13 with a learned predictor and a moving average, under gradient descent from "
        "small random W and W_p: erank(online) <= erank(target) at nearly all times; erank(target) first falls and then "
        "rises; and with isotropic data (X = I, X' = sigma^2 I) the surviving modes of W_p end on one plateau, with online and target "
        "outputs commuting. Of what is varied the width matters most: with two modes half of the runs are exceptions to the "
        "order, with six one in twenty, and one in nine if X and X' are anisotropic and do not commute. At the start the order "
        "rests on W_p W having a lower effective rank than W, as the product of random matrices has the more surely the wider "
        "they are. With isotropic data nearly all the exceptions "
        "are over by t = 5; with anisotropic data a third of them are not, and the common plateau is the exception."
    ),
    source=(
        "Observed. Behind it: W_p W has a lower effective rank than W at the start, because products of wide random matrices do; then "
        "alignment (T14), after which modes with nearly one c have a low-pass predictor (T13 (b)) and make the target's erank "
        "fall and rise (T13 (e))."
    ),
    not_checked=(
        "Other starts, learning rates (0.1 here) and times (3000 steps), and weight decays outside 0.07 to 0.5 of the critical one. "
        "What happens between recorded steps (every second of the first 100, then every 100th). An exception to the order is a "
        "log-rank difference below -1e-6 while the features live, that is have more than 1e-6 of their largest trace; a fall or a "
        "rise is one by more than 1e-3 of log erank; a plateau is common if gains agree within 1% (those below 1% of the largest "
        "left out) and the relative commutator is below 1%."
    ),
    laws=(
        Law("T15 rank order, isotropic", f"erank(online) <= erank(target) at all times; {DATA}.", _order(False)),
        Law("T15 rank order, anisotropic", f"The same for X and X' that do not commute; {DATA}.", _order(True)),
        Law("T15 fall and rise", f"erank(target) falls and rises again, if the features survive; {DATA}.", _turn),
        Law(
            "T15 plateau, isotropic", f"Surviving modes end at one plateau, outputs commuting; {DATA}.", _plateau(False)
        ),
        Law("T15 plateau, anisotropic", f"The same for X and X' that do not commute; {DATA}.", _plateau(True)),
    ),
    figure=Figure(
        caption=(
            "Left and middle: rank differences over time for six modes; in colour 25 exceptions to the rank order, grey 25 "
            "other runs; a curve ends where the features collapse. Right: how often the order holds at all times, with 95% "
            "intervals, and how often at the start alone."
        ),
        record=record,
        draw=draw,
    ),
)
