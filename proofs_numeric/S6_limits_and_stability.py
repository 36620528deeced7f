"""S6. Where the flow ends: flat on the support without view noise; with it, equal modes above a noise floor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common, _growth
from proofs_numeric._flat_state import FLAT
from rdm_jax import spectra, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    Stratum,
    at_least,
    balls,
    families,
    nonincreasing,
    on,
)
from rdm_jax.claims.search import generator
from rdm_jax.dynamics import FeatureDesign, FeatureParameters, Modes, descend, mode_field, power_gains
from rdm_jax.types import Array

STRATA = (Stratum((2, 3, 8), 8, 0.78), Stratum((32,), 32, 0.22, searched=False))
LOSSES = (("cosine", _growth.COSINE), ("squared", _growth.SQUARED))


class Powers(NamedTuple):
    """Eigenvalues (descending), |a|, what multiplies each gain, noise; side 1: g = s^|a| online, -1: h = s^-|a|."""

    spectrum: Array
    strength: Array
    factor: Array
    noise: Array
    side: Array


class RawPowers(NamedTuple):
    """Free parameters of a `Powers`; ``room``: of the noise below the smallest eigenvalue."""

    spectrum: families.Sequence
    log_strength: Array
    room: Array
    side: Array


def sample_powers(tape, d):
    side = 2 * tape.integer(0, 2) - 1
    return RawPowers(families.sample_spectrum(tape, d), tape.scalar(-3.0, 1.5), tape.scalar(-3.0, 3.0), side)


def build_powers(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    strength = jnp.exp(jnp.clip(raw.log_strength, -3.0, 1.5))
    factor = jnp.where(dropped["no power"], jnp.exp(jnp.clip(raw.spectrum.free, -3.0, 3.0)), 1.0)
    near = jnp.where(jnp.arange(len(factor)) == raw.spectrum.entry, 1.01, 1.0)
    factor = jnp.where(dropped["one gain 1% off the power"], near, factor)
    noise = spectrum[raw.spectrum.keep - 1] * jax.nn.sigmoid(raw.room)
    return Powers(spectrum, strength, factor, jnp.where(dropped["view noise"], noise, 0.0), raw.side)


def _ends(c):
    """The last mode, and the ratio x of the two extreme gains (smaller over larger)."""
    last = jnp.maximum(jnp.sum(c.spectrum > 0) - 1, 0)
    return last, (c.spectrum[last] / c.spectrum[0]) ** (c.strength / 2)


def _inverse_power(c):
    return jnp.where(c.spectrum > 0, c.spectrum, 1.0) ** (-c.side * c.strength / 2)


def margin_powers(c):
    alive, inverse, (last, x) = c.spectrum > 0, _inverse_power(c), _ends(c)
    gains, signal = c.factor / inverse, jnp.where(alive, c.spectrum - c.noise, 0.0)
    online, target = jnp.where(c.side > 0, gains, 1.0), jnp.where(c.side > 0, 1.0, gains)
    mean = jnp.sum(online * target * c.spectrum) / jnp.sum(online**2 * c.spectrum)
    margins = []
    for (loss, _), kappa in zip(LOSSES, (mean, 1.0), strict=True):
        factor = theory.common_factor(c.spectrum, online_gains=online, target_gains=target, loss=loss)
        rates = factor * theory.growth_rates(
            c.spectrum, online_gains=online, target_gains=target, signal=signal, loss=loss
        )
        change = -c.side * c.strength * rates * inverse
        pull = c.strength * factor * kappa * jnp.where(c.side > 0, -1 / inverse, inverse)
        scale = sum(jnp.abs(term) + jnp.abs(term[0]) for term in (change, pull))
        residual = jnp.abs(change - change[0] + pull - pull[0]) / scale
        margins.append(-jnp.max(jnp.where(alive, residual, 0.0)))
        if loss == "cosine":
            largest = jnp.where(c.side > 0, gains[0], gains[last])
            pace = 2 * (1 - x) * jnp.where(c.side > 0, x, 1.0) / jnp.sum(c.spectrum)
            margins.append((2 * (rates[last] - rates[0]) - pace) / (factor * largest))
    return jnp.stack(margins)


def ball_margin_powers(c):
    modes = balls.support(c.spectrum)
    x, ones = [c.spectrum[i] for i in modes], [arb(1)] * len(modes)
    inverse = [value ** (-c.side * c.strength / 2) for value in x]
    gains = [c.factor[i] / u for i, u in zip(modes, inverse, strict=True)]
    online, target = (gains, ones) if c.side > 0 else (ones, gains)
    powers = [balls.total([g * g * v for g, v in zip(side, x, strict=True)]) for side in (online, target)]
    mean = balls.total([g * h * v for g, h, v in zip(online, target, x, strict=True)]) / powers[0]
    margins = []
    for (_, loss), kappa in zip(LOSSES, (mean, arb(1)), strict=True):
        factor = 1 / (powers[0] * powers[1]).sqrt() if loss == _growth.COSINE else arb(1)
        rates = [factor * r for r in _growth.table_rates(x, online, target, [v - c.noise for v in x], loss)]
        change = [-c.side * c.strength * r * u for r, u in zip(rates, inverse, strict=True)]
        pull = [c.strength * factor * kappa * (-1 / u if c.side > 0 else u) for u in inverse]
        sizes = [abs(a) + abs(b) + abs(change[0]) + abs(pull[0]) for a, b in zip(change, pull, strict=True)]
        gaps = [(a - change[0] + b - pull[0]) / s for a, b, s in zip(change, pull, sizes, strict=True)]
        margins.append(balls.total([abs(gap) for gap in gaps]))
        if loss == _growth.COSINE:
            share = (x[-1] / x[0]) ** (c.strength / 2)
            largest, slower = (gains[0], share) if c.side > 0 else (gains[-1], 1)
            pace = 2 * (1 - share) * slower / balls.total(x)
            margins.append((2 * (rates[-1] - rates[0]) - pace) / (factor * largest))
    return margins


def distance_powers(c):
    """Half the margin at least: kappa g_1 - 1 online; on the target's side sqrt(h_d^2/E_q[h^2]) - 1 is half of this."""
    shares, (last, x) = c.spectrum / jnp.sum(c.spectrum), _ends(c)
    gains = 1 / _inverse_power(c)
    online = jnp.sum(shares * gains * (gains[0] - gains)) / jnp.sum(shares * gains**2)
    target = jnp.sum(shares * (gains[last] ** 2 - gains**2)) / gains[last] ** 2
    return jnp.stack([jnp.ones(()), (1 - x) * jnp.where(c.side > 0, x * online, target), jnp.ones(())])


def equality_powers(c):
    return [None, _common.constant([c.spectrum[i] for i in balls.support(c.spectrum)]), None]


NOISE_FREE = Claim(
    name="S6",
    statement=(
        "Without view noise, g = s^|a| or h = s^-|a|: differences of inverse gains shrink at the rate |a| f kappa g_i "
        "g_j (target: |a| f kappa), both losses; under the cosine the ratio of the extremes falls at a certain rate at "
        "least."
    ),
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("a power filter", "|a| > 0", lambda c: c.strength > 0),
        Hypothesis("a power filter alone", "g or h is the power itself", lambda c: (c.factor == 1) | ~on(c.spectrum)),
        Hypothesis("no view noise", "m = lambda", lambda c: c.noise == 0),
    ),
    conclusions=(
        Conclusion("inverse gains, cosine", 1e-12, kind="identity"),
        Conclusion("ratio of the extremes, cosine", 1e-12),
        Conclusion("inverse gains, squared", 1e-12, kind="identity"),
    ),
    sample=sample_powers,
    build=build_powers,
    margin=margin_powers,
    ball_margin=ball_margin_powers,
    distance=distance_powers,
    equality=equality_powers,
    ablations=(
        Ablation("no power", "gains in any order", drops=("a power filter alone",)),
        Ablation(
            "one gain 1% off the power",
            "one gain 1% above the power",
            drops=("a power filter alone",),
            instead=(
                Hypothesis(
                    "nearly a power",
                    "the power within 1.01%",
                    lambda c: at_least(10101, 10000 * c.factor) & at_least(10101 * c.factor, 10000),
                ),
            ),
        ),
        Ablation("view noise", "isotropic noise below the smallest eigenvalue", drops=("no view noise",)),
    ),
    domain=(DomainCondition("nonzero", lambda: theory.growth_rates([0.0, 0.0])),),
    strata=STRATA,
)

ONLINE = {loss: FeatureDesign(loss=loss, online=power_gains) for loss in ("cosine", "squared")}
NOISY = FeatureDesign(online=power_gains, noise="persistent")
EXPONENTS, RATIOS, MODES, STARTS = (1.0, 2.0, 4.0), (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0), 8, 64


def _rank_in_time(design, start):
    """erank (eig) every tenth of a unit of time of the flow."""
    args = FeatureParameters(online=jnp.asarray(1.0))

    def keep(t, state, args):
        return spectra.effective_rank(state.spectrum)

    flow = descend(mode_field(design), Modes(start), args, learning_rate=0.01, steps=4000, every=20, record=keep)
    return flow.times.tolist(), flow.record.tolist()


@jax.jit
def _ends_of(starts, exponents):
    """The spectrum after a long time, in steps of 0.04 units of the trace."""

    def end(start, exponent):
        args = FeatureParameters(noise=jnp.asarray(1.0), online=exponent)
        rate = 0.04 * jnp.sum(start)
        flow = descend(mode_field(NOISY), Modes(start), args, learning_rate=rate, steps=3000, every=3000)
        return flow.record.spectrum[-1]

    return jax.vmap(jax.vmap(end, (0, None)), (None, 0))(starts, exponents)


def survivors(seed):
    """For each exponent and mean SNR, the numbers of modes above the floor in the end, and how unequal these are."""
    parts = generator("S6", "figure", seed).exponential(size=(len(RATIOS), STARTS, MODES))
    parts = parts / parts.mean(axis=2, keepdims=True) * np.array(RATIOS).reshape(-1, 1, 1)
    ends = np.asarray(_ends_of(jnp.array(1 + parts.reshape(-1, MODES)), jnp.array(EXPONENTS)))
    ends = ends.reshape(len(EXPONENTS), len(RATIOS), STARTS, MODES)
    above = ends > 1
    smallest = np.min(np.where(above, ends, np.inf), axis=-1)
    return above.sum(axis=-1), float(np.max(1 - smallest / ends.max(axis=-1)))


def record(seed):
    start = jnp.array([0.16, 0.04, 0.01, 0.0025])
    counts, unequal = survivors(seed)
    curves = {loss: dict(zip(("time", "rank"), _rank_in_time(ONLINE[loss], start), strict=True)) for loss in ONLINE}
    return {
        "start": start.tolist(),
        "curves": curves,
        "exponents": EXPONENTS,
        "SNR": RATIOS,
        "mean number": counts.mean(axis=-1).tolist(),
        "share in which all survive": (counts == MODES).mean(axis=-1).tolist(),
        "largest inequality of the survivors": unequal,
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    for (loss, curve), style in zip(record["curves"].items(), ("-", "--"), strict=True):
        left.plot(curve["time"], curve["rank"], style, label={"cosine": "cosine", "squared": "squared error"}[loss])
    left.set(xlabel="time $t$", ylabel="effective rank (eig), without noise", xlim=(0, 40))
    left.legend()
    rows = zip(record["exponents"], record["mean number"], record["share in which all survive"], strict=True)
    for number, (exponent, counts, shares) in enumerate(rows):
        above = np.array(record["SNR"]) * exponent / 2
        colour, marker = f"C{number}", "os^"[number]
        right.plot(above, np.divide(counts, MODES), colour, marker=marker, label=f"$a$ = {exponent:g}")
        right.plot(above, shares, colour, linestyle=":", marker=marker, fillstyle="none")
    right.axvline(1, color="black", linewidth=0.8)
    right.set(
        xscale="log",
        xlabel=r"mean SNR at the start, in units of $2/a$",
        ylabel="share of modes (full), of starts (dotted)",
    )
    right.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    right.minorticks_off()
    right.legend(loc="upper left")


STATEMENT = Statement(
    name="S6",
    title="limits and stability",
    text=(
        "Power filters, g = s^a online (a > 0) or h = s^a on the target (a < 0), C_z free. Without view noise the "
        "differences of inverse gains obey (1/g_i - 1/g_j)' = -a f kappa g_i g_j (1/g_i - 1/g_j), and (1/h_i - 1/h_j)' "
        "= -|a| f kappa (1/h_i - 1/h_j), where f is the common factor (both f and kappa are 1 for the squared error). "
        "So no eigenvalues cross, and the spectrum tends to flat on its initial support, under both losses, even where "
        "T6 makes erank fall on the way. Under the cosine the ratio x of the smallest to the largest gain has x' >= "
        "(a/Lambda) x^2 (1 - x) online and x' >= (|a|/Lambda) x (1 - x) on the target's side, strictly unless flat. "
        "With persistent isotropic noise nu, let k modes be at one level lambda, the others at the floor nu (or none). "
        "Under the cosine small departures from equality that keep the trace decay iff slope (2 y - 1) > 1/SNR, slope "
        "= dlog g/dlog lambda (target: -dlog h/dlog lambda), SNR = (lambda - nu)/nu, y the share of the k modes in "
        "E|p|^2 (1 if no mode is at the floor, and on the target's side). So the flat state is stable (to first order) "
        "iff slope > 1/SNR: for powers iff SNR > 2/|a|, that is lambda > lambda* of T9. With many modes at the floor "
        "an online filter needs more. A mode at the floor has r = -kappa g^2 < 0 (target: -kappa) and never returns; "
        "held there, it lets the trace of the others grow. Without modes at the floor no state with two levels is "
        "stable: from random starts all ended in k equal modes, the rest at nu, and none kept all its modes below SNR "
        "= 2/a (figure). Under the squared error each mode goes its own way, in the end to the upper solution of "
        "lambda - nu = lambda^(1 + a/2), or to nu if it starts below the lower one."
    ),
    source=(
        "r_i/g_i = f (1 - kappa g_i), and r_i = f (h_i - kappa). For x: kappa g_1 >= 1 and f Lambda g_1 >= 1 (target: "
        "f Lambda h_d >= 1). The criterion is the derivative of r at the equal modes: kappa and f do not change if the "
        "trace does not, and kappa = y theta. One mode at the lower edge V of T9 and k at the upper, U: with rho = "
        "U/V, the departure of V grows iff sinh((1 + a/2) log rho) > (1 + a/2) sinh(log rho) if k = 1, which holds, "
        "and the more so if k > 1; of several modes at V, departures that keep their sum grow. The forms with 1/g and "
        "y are this project's."
    ),
    not_checked=(
        "That trajectories converge (it follows from the rates); basins beyond T9's; the instability of two levels (by "
        "the source, and in the tests); squared error with noise (in the tests); noise that the features can remove."
    ),
    claims=(NOISE_FREE, FLAT),
    figure=Figure(
        caption=(
            "Online filter g = s^a. Left: no noise, a = 1, four modes; under the squared error erank falls before it "
            "tends to the number of modes. Right: cosine, persistent noise, eight modes, 64 random starts for each "
            "point (exponential signals of the given mean): the share of the modes that stay above the noise floor, "
            "all of them equal in the end, and (dotted) of the starts that lose no mode."
        ),
        record=record,
        draw=draw,
    ),
)
