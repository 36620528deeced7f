"""T9. With isotropic view noise a power filter lifts a band of modes: which sign d erank/dt has depends on where they lie."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common, _noise
from rdm_jax import theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    at_least,
    balls,
    families,
    nonincreasing,
    on,
)
from rdm_jax.types import Array


def _scaled_rate(spectrum, gains, signal):
    """dH/dt by the library over E_q[g^2]: where g is relative to lambda_min, in the unit of theta(lambda_min)."""
    rates = theory.growth_rates(spectrum, online_gains=gains, signal=signal)
    return theory.entropy_rate(spectrum, rates) * jnp.sum(spectrum) / jnp.sum(gains**2 * spectrum)


def _ball_table(spectrum, noise, strength):
    """theta, kappa and dH/dt / E_q[g^2] from the table of growth rates, with g relative to lambda_min."""
    gains = [(x / spectrum[-1]) ** (strength / 2) for x in spectrum]
    signal = [x - n for x, n in zip(spectrum, noise, strict=True)]
    powers = [g * g * x for g, x in zip(gains, spectrum, strict=True)]
    power = balls.total(powers)
    kappa = balls.total([g * m for g, m in zip(gains, signal, strict=True)]) / power
    rates = [g * (m / x - kappa * g) for g, m, x in zip(gains, signal, spectrum, strict=True)]
    theta = [m / (x * g) for g, m, x in zip(gains, signal, spectrum, strict=True)]
    return theta, kappa, _common.entropy_rate(spectrum, rates) * balls.total(spectrum) / power


def _theta(points, unit, noise, strength):
    """theta by the library at the given eigenvalues, in the unit of (the eigenvalue) ``unit``."""
    return theory.wiener_threshold(points, online_gains=(points / unit) ** (strength / 2), signal=points - noise)


def margin_sure(c):
    gains, signal = _noise.relative_power(c, c.strength / 2), _noise.signal(c)
    theta = theory.wiener_threshold(c.spectrum, online_gains=gains, signal=signal)
    last = jnp.sum(c.spectrum > 0) - 1
    kappa = theory.noise_band(c.spectrum, c.noise, c.strength).kappa * c.spectrum[last] ** (c.strength / 2)
    end = jnp.where(c.side > 0, theta[last], theta[0])
    return jnp.stack([c.side * _scaled_rate(c.spectrum, gains, signal), end - kappa])


def ball_margin_sure(c):
    theta, kappa, rate = _ball_table(c.spectrum, [c.noise] * len(c.spectrum), c.strength)
    return [c.side * rate, theta[-1 if c.side > 0 else 0] - kappa]


def distance_sure(c):
    gains, signal = _noise.relative_power(c, c.strength / 2), _noise.signal(c)
    alive = c.spectrum > 0
    theta = signal / jnp.where(alive, gains * c.spectrum, 1.0)
    weights, logs = gains**2 * c.spectrum, jnp.log(jnp.where(alive, c.spectrum, 1.0))
    return jnp.stack([_common.joint_spread(theta, logs, weights), _common.spread(theta, weights)])


def equality_sure(c):
    return [_common.constant(c.spectrum)] * 2


class Band(NamedTuple):
    """Eigenvalues (descending), noise of each mode, a > 0 of g = s^a, one of the modes, and an eigenvalue to probe."""

    spectrum: Array
    noise: Array
    strength: Array
    mode: Array
    probe: Array


class RawBand(NamedTuple):
    """Free parameters of a `Band`: ``room``: root of log(lambda_min / nu); ``probe``: log of the probe's SNR."""

    spectrum: families.Sequence
    room: Array
    log_strength: Array
    mode: Array
    probe: Array


def sample_band(tape, d):
    spectrum = families.sample_spectrum(tape, d)._replace(keep=d)
    room = jnp.maximum(tape.scalar(-0.3, 2.0), 0.0)
    return RawBand(spectrum, room, tape.scalar(-3.0, 2.0), tape.integer(0, d), tape.scalar(-6.0, 10.0))


def build_band(raw, dropped):
    noise = jnp.exp(raw.spectrum.scale)
    spectrum = noise * jnp.exp(raw.room**2) * _noise.rising_from(raw.spectrum)
    part = jnp.where(dropped["anisotropic noise"], jax.nn.sigmoid(raw.spectrum.free), 1.0)
    probe = noise * (1 + jnp.exp(jnp.clip(raw.probe, -40.0, 40.0)))
    return Band(spectrum, jnp.where(spectrum > 0, part * noise, 0.0), _noise.strength(raw), raw.mode, probe)


def _positions(c):
    """The largest eigenvalue, one of them, and the smallest, with the noise there."""
    last = jnp.sum(c.spectrum > 0) - 1
    at = jnp.stack([jnp.zeros_like(last), c.mode, last])
    return c.spectrum[at], c.noise[at]


def margin_band(c):
    nu, half = c.noise[0], c.strength / 2
    band = theory.noise_band(c.spectrum, nu, c.strength)
    crest, probed = _theta(jnp.stack([band.peak, c.probe]), nu, nu, c.strength)
    level = band.kappa * nu**half
    inside = (band.lower_edge < c.probe) & (c.probe < band.upper_edge)
    edges = jnp.stack([band.lower_edge, band.upper_edge])
    open_ = jnp.max(jnp.abs(1 - nu / edges - band.kappa * edges**half))
    gains, signal = _noise.relative_power(c, half), _noise.signal(c)
    points, noise = _positions(c)
    first, mode, last = _theta(points, points[-1], noise, c.strength)
    kappa = jnp.sum(gains * signal) / jnp.sum(gains**2 * c.spectrum)
    rate = _scaled_rate(c.spectrum, gains, signal)
    return jnp.stack(
        [
            crest - probed,
            mode - jnp.minimum(first, last),
            crest - level,
            -open_,
            jnp.where(inside, 1.0, -1.0) * (probed - level),
            jnp.maximum(kappa - last, rate),
            jnp.maximum(kappa - first, -rate),
        ]
    )


def _hill(c, theta):
    """theta at the mode less theta at the first and at the last one, exactly 0 where it is the same mode."""

    def less(end):
        same = c.spectrum[c.mode] == c.spectrum[end] and c.noise[c.mode] == c.noise[end]
        return arb(0) if same else theta[c.mode] - theta[end]

    return less(0), less(-1)


def ball_margin_band(c):
    nu, half = c.noise[0], c.strength / 2
    peak = nu * (1 + 1 / half)
    theta, kappa, rate = _ball_table(c.spectrum, c.noise, c.strength)
    crest, probed = ((1 - nu / x) * (nu / x) ** half for x in (peak, c.probe))
    level = kappa * (nu / c.spectrum[-1]) ** half
    first, last = _hill(c, theta)
    return [
        crest - probed,
        first.max(last),
        crest - level,
        arb(0),  # the edges are defined as the solutions
        abs(probed - level),
        (kappa - theta[-1]).max(rate),
        (kappa - theta[0]).max(-rate),
    ]


def distance_band(c):
    nu, half = c.noise[0], c.strength / 2
    peak = nu * (1 + 1 / half)
    crest = (1 - nu / peak) * (nu / peak) ** half
    gains, alive = _noise.relative_power(c, half), c.spectrum > 0
    weights = gains**2 * c.spectrum
    logs = jnp.log(jnp.where(alive, c.spectrum, peak) / peak)

    def below(height):
        return crest * jnp.minimum(half * height**2, 1.0)

    last = jnp.sum(alive) - 1
    apart = jnp.minimum((logs[0] - logs[c.mode]) ** 2, (logs[c.mode] - logs[last]) ** 2)
    theta = _noise.signal(c) / jnp.where(alive, gains * c.spectrum, 1.0)
    both = _common.joint_spread(theta, logs, weights)
    near = theta[c.mode] * half * jnp.minimum(apart, 1.0)
    mean = jnp.sum(weights / jnp.sum(weights) * below(logs))
    one = jnp.ones(())
    return jnp.stack([below(jnp.log(c.probe / peak)), near, mean, one, one, both, both])


def equality_band(c):
    flat = _common.constant(c.spectrum)
    first, last = _hill(c, _ball_table(c.spectrum, c.noise, c.strength)[0])
    tied = (first == 0 and not last > 0) or (last == 0 and not first > 0)
    return [False, tied, False, None, None, flat, flat]


EXAMPLES = (([12.0, 3.0, 1.2], 1.0, 1.0), ([6.0, 3.0, 1.1], 1.0, 1.0))  # spectrum, nu, a: one rises, one falls


def certified_pattern(spectrum, noise, strength):
    """Signs of the growth rates and of dH/dt in ball arithmetic, for a spectrum in floats."""
    values = [arb(x) for x in spectrum]
    theta, kappa, rate = _ball_table(values, [arb(noise)] * len(values), arb(strength))
    signs = "".join("+" if t > kappa else "-" if t < kappa else "?" for t in theta)
    return {"spectrum": spectrum, "noise": noise, "a": strength, "signs": signs, "rate": rate.str(8, radius=False)}


def _outcome(smallest, largest, noise, strength):
    """Sign of dH/dt for 16 modes spaced evenly in log lambda; twice that unless modes shrink on both sides of the band."""
    modes = smallest * (largest / smallest) ** jnp.linspace(1.0, 0.0, 16)
    theta = _theta(modes, 1.0, noise, strength)
    gains = modes ** (strength / 2)
    kappa = theory.noise_band(modes, noise, strength).kappa
    rates = theory.growth_rates(modes, online_gains=gains, signal=modes - noise)
    both = (theta[0] < kappa) & (theta[-1] < kappa)
    sign = jnp.sign(theory.entropy_rate(modes, rates)) * jnp.where(both, 1, 2)
    return jnp.where(largest > smallest, sign, 0.0)


def record(seed):
    """theta and the band of one spectrum; outcomes for spectra between two eigenvalues; examples of either sign."""
    del seed
    noise, strength = 1.0, 1.0
    spectrum = np.array([20.0, 12.0, 7.0, 4.0, 2.0, 1.3, 1.1])
    grid, levels = np.geomspace(1.02, 40.0, 160), np.geomspace(1.02, 60.0, 120)
    row = jax.vmap(_outcome, in_axes=(0, None, None, None))

    @jax.jit
    def measured():
        theta, theta_modes = (_theta(points, 1.0, noise, strength) for points in (grid, spectrum))
        outcomes = jax.vmap(row, in_axes=(None, 0, None, None))(levels, levels, noise, strength)
        return theory.noise_band(spectrum, noise, strength), theta, theta_modes, outcomes

    band, theta, theta_modes, outcomes = measured()
    return {
        "noise": noise,
        "a": strength,
        "spectrum": spectrum.tolist(),
        "band": {name: float(value) for name, value in band._asdict().items()},
        "grid": grid.tolist(),
        "theta": theta.tolist(),
        "theta_modes": theta_modes.tolist(),
        "levels": levels.tolist(),
        "outcomes": np.asarray(outcomes, int).tolist(),
        "either sign": [certified_pattern(*example) for example in EXAMPLES],
    }


GROWS, SHRINKS = "#0072B2", "#D55E00"


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    band = record["band"]
    left.plot(record["grid"], record["theta"], color="black")
    left.axhline(band["kappa"], color="grey", linestyle="--")
    left.axvspan(band["lower_edge"], band["upper_edge"], color=GROWS, alpha=0.12, linewidth=0)
    for x, theta in zip(record["spectrum"], record["theta_modes"], strict=True):
        up = theta > band["kappa"]
        left.plot(x, theta, "o" if up else "v", color=GROWS if up else SHRINKS)
    left.annotate("$\\kappa$", (record["grid"][-1], band["kappa"]), xytext=(-6, 4), textcoords="offset points")
    left.annotate(
        "peak $\\lambda^*$",
        (band["peak"], max(record["theta"])),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
    )
    left.set(
        xlabel="eigenvalue $\\lambda$ (units of $\\nu$)", ylabel="$\\theta = (1 - \\nu/\\lambda)\\,\\lambda^{-a/2}$"
    )
    left.set_title("one spectrum: dots grow, triangles shrink")
    _draw_outcomes(right, record)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        axes.minorticks_off()


def _draw_outcomes(axes, record):
    levels, peak = record["levels"], record["band"]["peak"]
    axes.set_yscale("log")
    bounds, colours = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], [SHRINKS, "#F2B48C", "white", "#9CCBE8", GROWS]
    axes.contourf(levels, levels, record["outcomes"], levels=bounds, colors=colours)
    axes.axvline(peak, color="black", linestyle=":")
    axes.axhline(peak, color="black", linestyle=":")
    axes.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    axes.set(xlabel="smallest eigenvalue (units of $\\nu$)", ylabel="largest eigenvalue (units of $\\nu$)")
    axes.set_title("effective rank rises (blue) or falls (red)")


SURE = Claim(
    name="T9",
    statement="All modes on one side of lambda*: erank rises above it and falls below it, and the nearest end has theta >= kappa.",
    hypotheses=_noise.HYPOTHESES,
    conclusions=(Conclusion("dH/dt", 1e-13), Conclusion("theta at the end", 1e-13)),
    sample=_noise.sample,
    build=_noise.build,
    margin=margin_sure,
    ball_margin=ball_margin_sure,
    distance=distance_sure,
    equality=equality_sure,
    ablations=_noise.ABLATIONS,
    domain=(
        DomainCondition("exponent > 0", lambda: theory.noise_band([4.0, 2.0], 1.0, -1.0)),
        DomainCondition("noise > 0", lambda: theory.noise_band([4.0, 2.0], 0.0, 1.0)),
        DomainCondition("lambda >= nu", lambda: theory.noise_band([4.0, 2.0], 3.0, 1.0)),
    ),
)

BAND = Claim(
    name="T9 band",
    statement="theta has one hill, with its top at lambda*; modes grow between the two edges; erank follows the ends.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis(
            "signal", "lambda >= noise > 0", lambda c: at_least(c.spectrum, c.noise) & (c.noise > 0) | ~on(c.spectrum)
        ),
        Hypothesis(
            "some signal",
            "lambda_1 >= 1.00001 nu, so that the upper edge is not too large for a float",
            lambda c: 100000 * c.spectrum[0] >= 100001 * c.noise[0],
        ),
        Hypothesis("isotropic noise", "the same nu in all modes", lambda c: (c.noise == c.noise[0]) | ~on(c.spectrum)),
        Hypothesis("low-pass power", "a > 0", lambda c: c.strength > 0),
        Hypothesis("probe", "an eigenvalue >= nu", lambda c: at_least(c.probe, c.noise[0])),
    ),
    conclusions=(
        Conclusion("peak", 1e-14),
        Conclusion("one hill", 1e-13),
        Conclusion("kappa below the peak", 1e-13),
        Conclusion("edges", 1e-12, kind="identity"),
        Conclusion("growth inside, decay outside", 1e-13),
        Conclusion("rises if theta(lambda_min) >= kappa", 1e-13),
        Conclusion("falls if theta(lambda_max) >= kappa", 1e-13),
    ),
    sample=sample_band,
    build=build_band,
    margin=margin_band,
    ball_margin=ball_margin_band,
    distance=distance_band,
    equality=equality_band,
    ablations=(Ablation("anisotropic noise", "noise up to nu in each mode", drops=("isotropic noise",)),),
)

STATEMENT = Statement(
    name="T9",
    title="noise band",
    text=(
        "Mean-field cosine, online filter g = s^a, a > 0, isotropic view noise nu: theta = (1 - nu/lambda) lambda^(-a/2) "
        "rises up to lambda* = nu (1 + 2/a) and falls beyond. A mode grows iff theta(lambda) > kappa = E_{q_p}[theta], that "
        "is strictly between the two solutions of lambda - nu = kappa lambda^(1 + a/2), which enclose lambda*. So on a "
        "spectrum that is not at the noise floor: if theta(lambda_min) >= kappa no mode is below the band and erank rises, "
        "surely so if lambda_min >= lambda*; if theta(lambda_max) >= kappa none is above it and erank falls, surely so if "
        "lambda_max <= lambda*; both strictly unless theta is constant on the support (a flat spectrum, or two eigenvalues "
        "that are the two edges). Otherwise the rates have the signs - + - along the spectrum, and erank may rise or fall."
    ),
    source=(
        "S1 with theta = (1 - nu/lambda)/g; d log theta/d log lambda = nu/(lambda - nu) - a/2 changes sign once, at lambda*. "
        "L2 for the signs. The condition for strictness is this project's."
    ),
    not_checked=(
        "Spectra on which theta is constant although lambda is not, for example lambda = (3, 3/2), nu = 1, a = 2: random "
        "instances never hit them (a test does). The edges' equation is checked in floats only, where they exist: the "
        "existence follows from the other conclusions."
    ),
    claims=(SURE, BAND),
    figure=Figure(
        caption=(
            "Online filter g = s with isotropic noise nu = 1. Left: theta, its mean kappa and the band in which modes grow. "
            "Right: the same filter on 16 modes spaced evenly in log lambda. Dark: no mode on one side of the band, so that "
            "the sign is decided, surely right of and below lambda* (dotted). Light: modes shrink on both sides of it."
        ),
        record=record,
        draw=draw,
    ),
)
