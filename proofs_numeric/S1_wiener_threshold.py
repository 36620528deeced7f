"""S1. The Wiener threshold decides whether the effective rank rises."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, ctx, fmpq

from proofs_numeric import _common, _growth, _table
from rdm_jax import spectra, theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    balls,
    families,
    nearly_nondecreasing,
    nearly_nonincreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.search import generator
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues lambda (descending), gains g and h, and theta, which gives the signal m = theta lambda g/h.

    ``slope``: the rates' leading factor, g itself where the filter is held fixed. ``direction``: 1 where theta is
    nonincreasing in lambda, -1 where it is nondecreasing, 0 where it is neither (the identities alone are claimed).
    """

    spectrum: Array
    online: Array
    target: Array
    theta: Array
    slope: Array
    direction: Array
    loss: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    online: families.Sequence
    theta: families.Sequence
    target: Array
    noise: Array
    order: Array
    direction: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    online = families.sample_filter(tape, spectrum, d)
    theta = families.sample_filter(tape, spectrum, d)
    target = jnp.where(tape.scalar() < 0.5, 0.0, 1.0) * logistic(tape.vector())
    online, theta = (filter_._replace(keep=spectrum.keep) for filter_ in (online, theta))
    return Raw(spectrum, online, theta, target, tape.scalar(-3.0, 3.0), tape.integer(-1, 2), tape.integer(-1, 2))


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    noisy, shuffled = dropped["positive rank difference instead"], dropped["theta in any order"]
    direction = jnp.where(noisy, 1, raw.direction)
    online = _growth.function_of(raw.online, spectrum, jnp.where(noisy, -1, raw.order))
    online = jnp.where(spectrum > 0, online, 1.0)
    target = jnp.where(noisy, 1.0, jnp.exp(raw.target))
    theta = _growth.function_of(raw.theta, spectrum, jnp.where(shuffled, 0, direction))
    nearly = jnp.where(direction < 0, *(families.out_of_order(theta, raw.theta, up=side) for side in (True, False)))
    theta = jnp.where(dropped["one theta 1% out of order"], nearly, theta)
    theta = jnp.where(noisy, _wiener_over_actual(spectrum, online, raw.noise), theta)
    slope = online * jnp.where(dropped["through the filter"], 1 + raw.online.free**2, 1.0)
    return Instance(spectrum, online, target, theta, slope, direction, dropped["squared error"].astype(int))


def _wiener_over_actual(spectrum, online, noise):
    """theta of isotropic view noise, by parts of the smallest eigenvalue, without a target filter."""
    alive = spectrum > 0
    smallest = jnp.min(jnp.where(alive, spectrum, jnp.inf))
    kept = 1 - smallest * jax.nn.sigmoid(noise) / jnp.where(alive, spectrum, 1.0)
    return kept / jnp.where(alive, online, 1.0)


def margin(c):
    signal = c.theta * c.spectrum * c.online / c.target
    gains = {"online_gains": c.online, "target_gains": c.target, "signal": signal}
    rates = theory.growth_rates(c.spectrum, **gains) * c.slope / c.online
    rates = jnp.where(c.loss == _growth.SQUARED, c.slope * c.online * (c.theta - 1), rates)
    theta, weights = theory.wiener_threshold(c.spectrum, **gains), c.online**2 * c.spectrum
    kappa = jnp.sum(weights * theta) / jnp.sum(weights)
    power = kappa * jnp.sum(weights)  # sum(g h m) = E[p.t]
    rate, scale = theory.entropy_rate(c.spectrum, rates), power / jnp.sum(c.spectrum)
    sums = -c.direction * jnp.cumsum(c.spectrum * rates) / power
    wrong = jnp.abs(rates - c.online**2 * (theta - kappa))
    return jnp.stack(
        [
            c.direction * rate / scale,
            _growth.least_before_last(sums, c.spectrum),
            -jnp.abs(rate - theory.entropy_rate_wiener(c.spectrum, **gains)) / scale,
            -jnp.sum(c.spectrum * wrong) / power,
        ]
    )


def ball_margin(c):
    alive = balls.support(c.spectrum)
    x, g, h, theta, slope = ([v[i] for i in alive] for v in (c.spectrum, c.online, c.target, c.theta, c.slope))
    m = [t * a * b / e for t, a, b, e in zip(theta, x, g, h, strict=True)]
    rates = _growth.table_rates(x, g, h, m, c.loss)
    rates = [r * s / b for r, s, b in zip(rates, slope, g, strict=True)]
    weights = [b * b * a for a, b in zip(x, g, strict=True)]
    kappa, mass = balls.mean(weights, theta), balls.total(x)
    power = kappa * balls.total(weights)
    rate = _common.entropy_rate(x, rates)
    wiener = -2 * balls.mean(x, [b * b for b in g]) * balls.covariance(weights, theta, [a.log() for a in x])
    sums = np.cumsum([a * r for a, r in zip(x, rates, strict=True)])[:-1]
    wrong = balls.total([a * abs(r - b * b * (t - kappa)) for a, b, t, r in zip(x, g, theta, rates, strict=True)])
    return [
        c.direction * rate * mass / power,
        _common.least([-c.direction * value / power for value in sums]),
        (rate - wiener) * mass / power,
        wrong / power,
    ]


def distance(c):
    """Lower bounds of the first two margins, so that their ratios are at least 1.

    Ordered variables have 4 |Cov| >= E|x - Ex| E|y - Ey|; and each sum of the k largest is at least half of what the
    first and the last mode make of it, q_p,1 q_p,d |theta_1 - theta_d|.
    """
    alive, weights = c.spectrum > 0, c.online**2 * c.spectrum
    shares = weights / jnp.sum(weights)
    kappa, claimed = jnp.sum(shares * c.theta), jnp.abs(c.direction)
    logs = jnp.log(jnp.where(alive, c.spectrum, 1.0))
    last = alive & ~jnp.append(alive[1:], False)
    ends = shares[0] * jnp.sum(jnp.where(last, shares * jnp.abs(c.theta - c.theta[0]), 0.0))
    ordered = claimed / kappa / 2 * jnp.stack([_common.joint_spread(c.theta, logs, weights), ends])
    return jnp.append(ordered, jnp.ones(2))


def equality(c):
    theta = [c.theta[i] for i in balls.support(c.spectrum)]
    still = c.direction == 0 or _common.constant(theta)
    return [still, still, None, None]


def _in_direction(rising, falling):
    """A hypothesis on theta: ``rising`` along the descending spectrum where the direction is 1, ``falling`` at -1."""

    def holds(c):
        up, down = rising(c.theta, on(c.spectrum)), falling(c.theta, on(c.spectrum))
        return (up | (c.direction <= 0)) & (down | (c.direction >= 0))

    return holds


def _nearly_isotropic(c):
    noise = c.spectrum * (1 - c.theta * c.online)
    return nearly_nonincreasing(noise, on(c.spectrum)) & nearly_nondecreasing(noise, on(c.spectrum))


HYPOTHESES = (
    Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
    Hypothesis(
        "positive gains", "g > 0 and h > 0 on the support", lambda c: (c.online > 0) & (c.target > 0) | ~on(c.spectrum)
    ),
    Hypothesis(
        "monotone theta",
        "theta nonincreasing (direction 1) or nondecreasing (-1) in lambda; any theta >= 0 where none is claimed (0)",
        _in_direction(nondecreasing, nonincreasing),
    ),
    Hypothesis(
        "theta a function of lambda",
        "equal eigenvalues have equal theta",
        lambda c: _growth.equal_at_ties(c.theta, c.spectrum) | (c.direction == 0),
    ),
    Hypothesis("stop-gradient", "the filter is held fixed", lambda c: (c.slope == c.online) | ~on(c.spectrum)),
    Hypothesis("cosine", "mean-field cosine loss", lambda c: c.loss == _growth.COSINE),
)

NEARLY_MONOTONE = Hypothesis(
    "nearly monotone theta", "monotone within 1%", _in_direction(nearly_nondecreasing, nearly_nonincreasing)
)

POSITIVE_RANK_DIFFERENCE = (
    Hypothesis("direction", "a rise is claimed", lambda c: c.direction == 1),
    Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.online, on(c.spectrum))),
    Hypothesis("no target filter", "h = 1", lambda c: c.target == 1),
    Hypothesis("view noise", "m < lambda", lambda c: (c.theta * c.online < 1) | ~on(c.spectrum)),
    Hypothesis("isotropic noise", "lambda - m is the same in all modes, within 1%", _nearly_isotropic),
    Hypothesis(
        "positive rank difference",
        "erank(lambda) > erank(g^2 lambda)",
        lambda c: _growth.positive_rank_difference(c.spectrum, c.online, c.target),
    ),
)

WIENER = Claim(
    name="S1",
    statement=(
        "dH/dt = -2 E_q[g^2] Cov_{q_p}(theta, log lambda): theta nonincreasing in lambda raises erank, nondecreasing "
        "lowers it."
    ),
    hypotheses=HYPOTHESES,
    conclusions=(
        Conclusion("sign of d erank/dt", 1e-13),
        Conclusion("sign for every Schur-concave diversity", 1e-14),
        Conclusion("entropy rate from theta", 1e-13, kind="identity"),
        Conclusion("growth rates from theta", 1e-14, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation(
            "positive rank difference instead",
            "a low-pass filter with a positive rank difference, but view noise: theta = (1 - nu/lambda)/g in any order",
            drops=("monotone theta", "theta a function of lambda"),
            instead=POSITIVE_RANK_DIFFERENCE,
        ),
        Ablation("theta in any order", "theta in any order", drops=("monotone theta", "theta a function of lambda")),
        Ablation(
            "one theta 1% out of order",
            "one theta 1% past its predecessor",
            drops=("monotone theta",),
            instead=(NEARLY_MONOTONE,),
        ),
        Ablation("squared error", "squared error instead of the cosine", drops=("cosine",)),
        Ablation("through the filter", "gradient through the filter: another leading factor", drops=("stop-gradient",)),
    ),
    domain=(
        DomainCondition("some gain", lambda: theory.growth_rates([2.0, 1.0], online_gains=[0.0, 0.0])),
        DomainCondition("finite signal", lambda: theory.wiener_threshold([2.0, 1.0], signal=[1.0, jnp.inf])),
    ),
    rows=10,
)


# m = (4, 2, 1, 0.3), nu = 1, g(s) = s: exact, so that the certified numbers are those of the example itself
EXAMPLE_SIGNAL = (fmpq(4), fmpq(2), fmpq(1), fmpq(3, 10))
EXAMPLE_SPECTRUM = tuple(m + 1 for m in EXAMPLE_SIGNAL)


def certified_example():
    """The example of the consequence for C2, in ball arithmetic."""
    with ctx.workprec(192):
        spectrum, signal = ([arb(value) for value in values] for values in (EXAMPLE_SPECTRUM, EXAMPLE_SIGNAL))
        ones, gains = [arb(1)] * 4, [x.sqrt() for x in spectrum]
        rates = _growth.table_rates(spectrum, gains, ones, signal, _growth.COSINE)
        wiener = [m / x for m, x in zip(EXAMPLE_SIGNAL, EXAMPLE_SPECTRUM, strict=True)]
        still = _growth.table_rates(EXAMPLE_SPECTRUM, wiener, [fmpq(1)] * 4, EXAMPLE_SIGNAL, _growth.COSINE)
        if any(still):
            raise ArithmeticError(f"the exact Wiener predictor should leave every mode still, not {still}")
        own = balls.entropy(spectrum)
        power = balls.total([g * m for g, m in zip(gains, signal, strict=True)]) / balls.total(spectrum)
        rate = _common.entropy_rate(spectrum, rates)
        difference = own - balls.entropy([x * x for x in spectrum])
        after = balls.entropy([g * g * x for g, x in zip(wiener, spectrum, strict=True)])
        return {
            "g(s) = s": {"log-rank difference": difference, "scaled dH/dt": rate / power, "dH/dt": rate},
            "Wiener": {"log-rank difference": own - after, "rank difference": own.exp() - after.exp()},
        }


SHAPES = {"nonincreasing": 1, "nondecreasing": -1, "neither": 0}


def _plane(rng, count, modes=8):
    """Random instances with isotropic noise 1, half of them drawn by their filter, half by their theta."""
    signal = np.sort(np.exp(rng.uniform(np.log(0.03), np.log(30), (count, modes))), axis=1)[:, ::-1]
    spectrum = signal + 1
    walk = np.cumsum(rng.exponential(size=(count, modes)) * np.exp(rng.uniform(-5, 0, (count, 1))), axis=1)
    monotone = np.exp(walk * rng.choice([-1, 1], (count, 1)))
    by_filter = np.arange(count)[:, None] % 2 == 0
    return spectrum, signal, np.where(by_filter, monotone, signal / (spectrum * monotone))


def _shape(theta):
    """1 where theta is nonincreasing in lambda, -1 where nondecreasing, 0 where neither (lambda descends)."""
    steps = np.diff(theta, axis=1)
    return np.where(np.all(steps >= 0, axis=1), 1, np.where(np.all(steps <= 0, axis=1), -1, 0))


@jax.jit
def _measures(spectrum, signal, gains):
    """The log-rank difference, dH/dt in units of E[p.t]/E|z|^2, and theta, by the library."""
    options = {"online_gains": gains, "signal": signal}
    difference = jnp.log(spectra.effective_rank(spectrum) / spectra.effective_rank(gains**2 * spectrum))
    rise = theory.entropy_rate_wiener(spectrum, **options) * jnp.sum(spectrum, axis=-1)
    return difference, rise / jnp.sum(gains * signal, axis=-1), theory.wiener_threshold(spectrum, **options)


def record(seed):
    spectrum, signal, gains = _plane(generator("S1", "figure", seed), 20_000)
    difference, rise, theta = (np.asarray(values) for values in _measures(spectrum, signal, gains))
    low_pass = (_shape(gains) == -1) & (difference > 0)
    plane, kinds = np.round([difference, rise], 5)[:, :600], _shape(theta)[:600]
    return {
        "sampler": (
            "8 modes, isotropic noise 1, signal-to-noise log-uniform in [0.03, 30]; half with a random monotone g, "
            "half with a random monotone theta"
        ),
        "certified": _growth.certain_digits(certified_example()),
        "low-pass instances": int(low_pass.sum()),
        "of these falling": float(np.mean(rise[low_pass] < 0)),
        "points": {name: plane[:, kinds == kind].tolist() for name, kind in SHAPES.items()},
    }


def draw(figure, record):
    axes = figure.subplots()
    axes.set_yscale("symlog", linthresh=0.1)
    for (name, (x, y)), marker, colour in zip(record["points"].items(), "o^s", ("C0", "C1", "0.6"), strict=True):
        label = rf"$\theta$ {name} in $\lambda$"
        axes.scatter(x, y, s=10, alpha=0.7, marker=marker, color=colour, linewidths=0, label=label)
    example, wiener = ([float(digits) for digits in values.values()] for values in record["certified"].values())
    axes.plot(*example[:2], "k*", markersize=11, label=r"$m = (4, 2, 1, 0.3)$, $\nu = 1$, $g(s) = s$")
    axes.plot(wiener[0], 0, "kD", markersize=6, label="the same with the exact Wiener predictor")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    (_, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    axes.fill_between([0, right], low, 0, color="C1", alpha=0.08, linewidth=0)
    share = f"{record['of these falling']:.0%} of the low-pass filters drawn here"
    axes.text(0.98 * right, 0.8 * low, f"positive rank difference, yet erank falls:\n{share}", ha="right", va="bottom")
    axes.set(xlim=(None, right), ylim=(low, high))
    axes.set_xlabel(r"rank difference $\log$ erank(target) $- \log$ erank(online)")
    axes.set_ylabel(r"$dH/dt$ in units of $E[p \cdot t]/E|z|^2$")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")


STATEMENT = Statement(
    name="S1",
    title="Wiener threshold",
    text=(
        "Mean-field cosine loss, free features, any gains g > 0 online and h > 0 on the target held fixed, any signal "
        "m. With theta = h m / (lambda g), and q_p the normalised spectrum g^2 lambda of the online output, the growth "
        "rates are r = g^2 (theta - kappa), kappa = E_{q_p}[theta], and dH/dt = -2 E_q[g^2] Cov_{q_p}(theta, log "
        "lambda) (eig, common factor excluded). So erank rises exactly while theta is negatively correlated with log "
        "lambda under the online spectrum; surely where theta is a nonincreasing function of lambda (the filter is "
        "more low-pass than the Wiener filter h m / lambda), and then every Schur-concave diversity rises; it falls "
        "where theta is nondecreasing. For a monotone theta, dH/dt = 0 iff theta is constant on the support: the "
        "filter is proportional to the Wiener filter, and every mode stands still. Consequence for C2: with view noise "
        "a positive rank difference does not by itself make erank rise. For m = (4, 2, 1, 0.3), nu = 1, g(s) = s the "
        "log-rank difference is +0.274834 and dH/dt = -0.0416067; the exact Wiener predictor has the rank difference "
        "1.02155 there, and every r is 0 (certified). The ablation 'positive rank difference instead' finds such "
        "instances with two modes. Without view noise theta = h/g, and 'more low-pass than Wiener' is 'low-pass' (T5, "
        "T7)."
    ),
    source=(
        "The table of growth rates gives r = g^2 (theta - kappa); L2 with E_q[g^2 x] = E_q[g^2] E_{q_p}[x]; a "
        "covariance of oppositely ordered variables is <= 0 (Chebyshev). It contains T5, T7, T8, T9 and corrects C2 of "
        "Zhuo et al. 2023. The table is the gradient of the loss: lambda_i r_i = -dL/d log s_i, the scale of mode i of "
        "the online features."
    ),
    not_checked=(
        "Singular values: their erank can fall where theta is nonincreasing (T5's ablation). Gains of 0 (T5). The "
        "cosine with each sample's own norm (S3), and encoders whose features are not free. The growth rates are "
        "checked on three pairs of views in two or three dimensions; the diagonal of dC/dt in the filters' basis is "
        "compared, which in C_z's eigenbasis is the eigenvalues' derivative."
    ),
    claims=(WIENER, _table.GROWTH_RATES),
    figure=Figure(
        caption=(
            "Rank difference against the rate of the entropy for random instances with isotropic view noise. The sign "
            "of the rate is that of theta's slope, not that of the rank difference: in the shaded quadrant the rank "
            "difference is positive and the effective rank falls."
        ),
        record=record,
        draw=draw,
    ),
)
