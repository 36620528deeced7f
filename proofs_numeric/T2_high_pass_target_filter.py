"""T2. A high-pass, order-preserving filter on the target branch gives a positive rank difference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, fmpq

from proofs_numeric import _common
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
    certify_instance,
    families,
    nearly_nondecreasing,
    nearly_nonincreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.types import Array

SORTED = Hypothesis("sorted spectrum", "singular values descending and >= 0", lambda c: nonincreasing(c.singular))


class Filtered(NamedTuple):
    """Singular values of the online output (descending) and the gains of the target filter."""

    singular: Array
    gains: Array


class RawFiltered(NamedTuple):
    """Free parameters of a `Filtered`."""

    spectrum: families.Sequence
    scale: Array
    angles: Array


def sample(tape, d):
    return RawFiltered(families.sample_spectrum(tape, d), tape.scalar(-3.0, 3.0), _common.sample_angles(tape))


def _raise_from(gains, entry, value):
    """All gains from ``entry`` on, multiplied so that the first of them becomes ``value``."""
    return jnp.where(jnp.arange(len(gains)) >= entry, gains * value / gains[entry], gains)


def build(raw, dropped):
    singular, entry = _common.singular_values(raw.spectrum), raw.spectrum.entry
    low = jnp.where(dropped["low-pass"], -2.0, 0.0)
    high = jnp.where(dropped["not order preserving"], 3.0, jnp.where(dropped["low-pass"], 0.0, 1.0))
    gains = _common.order_preserving_gains(raw.spectrum, raw.scale, raw.angles, (low, high))
    before = gains[entry - 1]
    over = before * singular[entry - 1] / jnp.where(singular[entry] > 0, singular[entry], 1.0)
    gains = jnp.where(dropped["one output 1% out of order"], _raise_from(gains, entry, 1.01 * over), gains)
    gains = jnp.where(dropped["one gain 1% out of order"], _raise_from(gains, entry, before / 1.01), gains)
    return Filtered(singular, gains)


def log_ranks(singular):
    """Logarithms of both effective ranks, eig and sv, of each row of singular values."""
    return jnp.log(spectra.effective_rank(jnp.stack([singular**2, singular])))


def margin(c):
    online, target = c.singular, c.gains * c.singular
    ranks = log_ranks(jnp.stack([online, target]))
    return ranks[:, 1] - ranks[:, 0]


def ball_margin(c):
    online = list(c.singular)
    target = [h * s for h, s in zip(c.gains, c.singular, strict=True)]
    eig = balls.entropy([s * s for s in target]) - balls.entropy([s * s for s in online])
    return [eig, balls.entropy(target) - balls.entropy(online)]


def distance(c):
    online, target = c.singular, c.gains * c.singular
    return jnp.stack([_common.squared_distance(online**2, target**2), _common.squared_distance(online, target)])


def equality(c):
    return [_common.constant([c.gains[i] for i in balls.support(c.singular)])] * 2


class Power(NamedTuple):
    """Singular values (descending), the exponent a of the filter s^a, an exponent b and a fraction of it."""

    singular: Array
    exponent: Array
    order: Array
    fraction: Array


class RawPower(NamedTuple):
    """Free parameters of a `Power`."""

    spectrum: families.Sequence
    angle: Array
    phase: Array
    turn: Array


def sample_power(tape, d):
    end = jnp.pi / 2 * tape.integer(0, 2)
    angle = jnp.where(tape.scalar() < 0.2, end, tape.scalar(0.0, jnp.pi))
    phase, turn = tape.scalar(0.0, 2 * jnp.pi), tape.scalar(0.0, jnp.pi)
    return RawPower(families.sample_spectrum(tape, d), angle, phase, turn)


def build_power(raw, dropped):
    singular = _common.singular_values(raw.spectrum)
    share = jnp.sin(raw.angle) ** 2
    exponent = -jnp.where(jnp.sum(singular > 0) > 2, 1.0, 2.0) * share
    exponent = jnp.where(dropped["exponent 0.01"], 0.01, exponent)
    exponent = jnp.where(dropped["below -1, three modes"], -1.0 - 0.3 * share, exponent)
    exponent = jnp.where(dropped["-2.02, two modes"], -2.02, exponent)
    return Power(singular, exponent, 4.0 * jnp.sin(raw.phase), jnp.sin(raw.turn) ** 2)


def powered(singular, exponent):
    """s^exponent on the support, over its largest value, 0 elsewhere."""
    alive = singular > 0
    top = jnp.where(exponent >= 0, singular[0], jnp.min(jnp.where(alive, singular, jnp.inf)))
    return jnp.where(alive, jnp.exp(exponent * jnp.log(jnp.where(alive, singular / top, 1.0))), 0.0)


def residual_power(c):
    """dH(lambda^b)/db of the library's effective rank against L2 with r = log s: -b Var_b(log lambda)."""
    s, b = c.singular, c.order

    def entropy(exponent):
        return jnp.log(spectra.effective_rank(powered(s, 2 * exponent)))

    logs = jnp.log(jnp.where(s > 0, s / s[0], 1.0))
    predicted = theory.entropy_rate(powered(s, 2 * b), logs)
    change = jax.jvp(entropy, (b,), (jnp.ones_like(b),))[1]
    return jnp.abs(change - predicted) / (1 + jnp.abs(b) * (2 * jnp.min(logs)) ** 2)


def margin_power(c):
    s, b = c.singular, c.order
    exponents = [2.0, 2 * (1 + c.exponent), 1.0, 1 + c.exponent, 2 * b, 2 * c.fraction * b]
    ranks = jnp.log(spectra.effective_rank(jnp.stack([powered(s, k) for k in exponents])))

    # A false identity is false almost everywhere: random instances settle it, and a search needs no gradient.
    return jnp.append(ranks[1::2] - ranks[::2], -residual_power(jax.lax.stop_gradient(c)))


def ball_margin_power(c):
    online = [s for s in c.singular if s != 0]
    logs = [(s / online[0]).log() for s in online]

    def entropy(exponent):
        return balls.entropy([(exponent * x).exp() for x in logs])

    target, b = 1 + c.exponent, 2 * c.order
    weights = [(b * x).exp() for x in logs]
    # q = lambda^b / sum: dq = q (log lambda - E_q[log lambda]) db, dH = -sum(dq log q).
    by_definition = -balls.covariance(weights, [2 * x for x in logs], [q.log() for q in balls.normalised(weights)])
    variance = balls.covariance(weights, [2 * x for x in logs], [2 * x for x in logs])
    residual = (by_definition + c.order * variance) / (1 + abs(c.order) * (2 * logs[-1]) ** 2)
    return [
        entropy(2 * target) - entropy(arb(2)),
        entropy(target) - entropy(arb(1)),
        entropy(c.fraction * b) - entropy(b),
        residual,
    ]


def distance_power(c):
    s, reach = c.singular, jnp.abs(1 + c.exponent)
    eig, sv = (_common.squared_distance(powered(s, k), powered(s, k * reach)) for k in (2, 1))
    return jnp.stack(
        [eig, sv, _common.squared_distance(powered(s, 2 * c.fraction * c.order), powered(s, 2 * c.order)), jnp.ones(())]
    )


def equality_power(c):
    alive = [s for s in c.singular if s != 0]
    flat = _common.constant(alive)
    same = flat or c.exponent == 0 or (len(alive) == 2 and c.exponent == -2)
    return [same, same, flat or c.order == 0 or c.fraction == 1, None]


def in_safe_range(c):
    return (c.exponent >= -1) | ((c.exponent >= -2) & (on(c.singular).sum() <= 2))


def certified_powers():
    """Exponents beyond the range, each with a spectrum that certainly breaks it: (1, 1, eps), or (1, 1/2) for d = 2.

    eps = 10^-n with n |1 + a| >= 1, so that the target's smallest value exceeds the others at least tenfold.
    """
    claim, one = STATEMENT.claims[1], fmpq(1)
    cases = [(fmpq(a, 100), 1 + 100 // abs(a + 100)) for a in (-101, -105, -110, -125, -150, -200, -300)]
    cases = [(a, [one, one, fmpq(1, 10**n)]) for a, n in cases]
    cases += [(fmpq(a, 100), [one, fmpq(1, 2)]) for a in (-201, 1)]
    rows = []
    for exponent, singular in cases:
        found = certify_instance(claim, Power(balls.vector(singular), exponent, one, one), which=[0, 1])
        rows.append(
            {
                "exponent": str(exponent),
                "singular": [str(s) for s in singular],
                "verdicts": [certificate.verdict for certificate in found],
                "log_rank_differences": [certificate.ball.str(6, radius=False) for certificate in found],
            }
        )
    return rows


def raises_rank(singular, exponent):
    """Whether s^a certainly raises the effective rank (eig) of one spectrum."""
    instance = Power(balls.vector(singular), exponent, fmpq(1), fmpq(1))
    return certify_instance(STATEMENT.claims[1], instance, which=[0])[0].verdict == "holds"


def threshold(singular):
    """An interval of width 2^-12 in which a* certainly lies, by bisection below -1; None if it is below -64."""
    low, high = fmpq(-64), fmpq(-1)
    if raises_rank(singular, low):
        return None
    while high - low > fmpq(1, 2**12):
        middle = (low + high) / 2
        low, high = (low, middle) if raises_rank(singular, middle) else (middle, high)
    return [float(low.p) / float(low.q), float(high.p) / float(high.q)]


def entropies(spectrum):
    """H of each row of eigenvalues, in NumPy."""
    shares = spectrum / spectrum.sum(axis=-1, keepdims=True)
    return -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=-1)


EXAMPLES = {"(1, .3, .1)": (10, 3, 1), "(1, .9, .05)": (20, 18, 1), "(1, .1, .1)": (10, 1, 1)}


def record(seed):
    """How often s^a lowers the effective rank (eig) of random spectra, and log erank against a for three of them."""
    random = np.random.default_rng(seed)
    exponents = np.round(np.arange(-3.0, 0.51, 0.125), 3)
    rates = {}
    for modes in (2, 3, 5, 10, 30, 100):
        logs = 2 * random.standard_normal((2000, modes))
        online = entropies(np.exp(logs))
        # Relative to the largest, so that the exponents 0 and -2 (d = 2) do not depend on rounding.
        falls = [entropies(np.exp((1 + a) * logs)) < online - 1e-12 for a in exponents]
        rates[str(modes)] = [float(np.mean(fall)) for fall in falls]
    grid = np.linspace(-3.0, 0.5, 141)
    curves = {n: [float(entropies(np.array(s, float) ** (2 + 2 * a))) for a in grid] for n, s in EXAMPLES.items()}
    return {
        "convention": "eig",
        "sampler": "log lambda independent and normal with standard deviation 2; 2000 spectra for each d",
        "exponents": exponents.tolist(),
        "violation_rates": rates,
        "grid": grid.tolist(),
        "log_effective_rank": curves,
        "threshold": {name: threshold([fmpq(value) for value in s]) for name, s in EXAMPLES.items()},
        "certified": certified_powers(),
    }


def draw(figure, record):
    rates, curves = figure.subplots(1, 2)
    markers = "osv^D*"
    for (modes, values), marker in zip(record["violation_rates"].items(), markers, strict=True):
        rates.plot(record["exponents"], values, marker=marker, ms=3, label=f"d = {modes}")
    rates.axvspan(-1, 0, color="0.9", zorder=0)
    rates.set_xlabel("exponent a of the target filter $s^a$")
    rates.set_ylabel("share of spectra whose erank (eig) falls")
    rates.legend(loc="center left", bbox_to_anchor=(0.44, 0.5))
    for (name, values), style in zip(record["log_effective_rank"].items(), ("-", "--", ":"), strict=True):
        (line,) = curves.plot(record["grid"], values, style, label=f"s = {name}")
        at_zero = float(np.interp(0.0, record["grid"], values))
        curves.axhline(at_zero, color=line.get_color(), ls=style, lw=0.6)
    curves.axvspan(-1, 0, color="0.9", zorder=0)
    curves.set_xlabel("exponent a")
    curves.set_ylabel("log erank of $s^{1+a}$ (eig, nats); thin: at a = 0")
    curves.set_ylim(top=1.5)
    curves.legend(loc="upper left")


STATEMENT = Statement(
    name="T2",
    title="high-pass target filter",
    text=(
        "Let the target have singular values h(s) s, with h nonincreasing in s (high-pass), h(s) s nondecreasing "
        "(order preserving) and h not 0 on the whole support (then h > 0 there; 0 stays 0). Then erank(target) >= "
        "erank(online), for eigenvalues and for singular values, with equality iff h is constant on the support. "
        "Power filters s^a: for spectra with three or more nonzero modes this holds for all of them iff a is in [-1, "
        "0], and the published exponents (-0.3, -0.5, -0.7, -1) lie exactly in that range; for two nonzero modes iff "
        "a is in [-2, 0]. Beyond -1, (1, 1, eps) is a counterexample for eps small enough. For one spectrum "
        "dH(lambda^b)/db = -b Var_b(log lambda), the variance under lambda^b normalised, so H is unimodal in b with "
        "its peak at 0, strictly unless lambda is flat. A filter s^a with a < 0 therefore raises the effective rank "
        "of a given spectrum (not flat) iff a is above one threshold a*(lambda) < -1. The threshold is -infinity iff "
        "erank(lambda) is at most the multiplicity of the smallest nonzero eigenvalue, as for (1, eps, eps): no "
        "negative power lowers the rank there."
    ),
    source=(
        "L1: the online spectrum is the target's times h^-2 (eigenvalues) or h^-1 (singular values), nondecreasing in "
        "the target's order. Powers: d log(lambda^b) = log lambda db in L2. H(1, 1, y) < log 2 for y >= 8. Zhuo et "
        "al. 2023 (the filters)."
    ),
    not_checked=(
        "Infinitely many modes. That there is one threshold a*(lambda) follows from unimodality, which is checked; its "
        "value is certified for the spectra of the figure only."
    ),
    claims=(
        Claim(
            name="T2",
            statement="With h high-pass and order preserving, the target spectrum h s is at least as diverse as s.",
            hypotheses=(
                SORTED,
                Hypothesis("positive gains", "h > 0 on the support", lambda c: (c.gains > 0) | ~on(c.singular)),
                Hypothesis("function of s", "equal s, equal h", _common.equal_gains_at_ties),
                Hypothesis("high-pass", "h nonincreasing in s", lambda c: nondecreasing(c.gains, on(c.singular))),
                Hypothesis(
                    "order preserving",
                    "h(s) s nondecreasing in s",
                    lambda c: nonincreasing(c.gains * c.singular, on(c.singular)),
                ),
            ),
            conclusions=(Conclusion("erank, eig", 2e-14), Conclusion("erank, sv", 2e-14)),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("not order preserving", "h high-pass, h(s) s in any order", drops=("order preserving",)),
                Ablation("low-pass", "h nondecreasing in s", drops=("high-pass",)),
                Ablation(
                    "one output 1% out of order",
                    "one h(s) s 1% above that of the next larger s",
                    drops=("order preserving",),
                    instead=(
                        Hypothesis(
                            "nearly order preserving",
                            "h(s) s nondecreasing within 1%",
                            lambda c: nearly_nonincreasing(c.gains * c.singular, on(c.singular)),
                        ),
                    ),
                ),
                Ablation(
                    "one gain 1% out of order",
                    "one gain 1% below that of the next larger s",
                    drops=("high-pass",),
                    instead=(
                        Hypothesis(
                            "nearly high-pass",
                            "high-pass within 1%",
                            lambda c: nearly_nondecreasing(c.gains, on(c.singular)),
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition("nonzero", lambda: spectra.effective_rank(jnp.zeros(2) * jnp.array([2.0, 1.0]))),
                DomainCondition("finite", lambda: spectra.effective_rank(jnp.array([1.0, 0.0]) ** -1.0)),
            ),
        ),
        Claim(
            name="T2 powers",
            statement=(
                "s^a raises both effective ranks for a in [-1, 0] (two nonzero modes: [-2, 0]); H(lambda^b) falls as "
                "b moves away from 0, at the rate -b Var_b(log lambda)."
            ),
            hypotheses=(
                SORTED,
                Hypothesis("a <= 0", "the exponent is not positive", lambda c: c.exponent <= 0),
                Hypothesis("safe range", "a >= -1, or a >= -2 and at most two nonzero modes", in_safe_range),
                Hypothesis("fraction", "0 <= f <= 1", lambda c: (c.fraction >= 0) & (c.fraction <= 1)),
            ),
            conclusions=(
                Conclusion("erank, eig", 2e-14),
                Conclusion("erank, sv", 2e-14),
                Conclusion("unimodal: H(f b) - H(b)", 2e-14),
                Conclusion("dH/db = -b Var_b", 2e-14, kind="identity"),
            ),
            sample=sample_power,
            build=build_power,
            margin=margin_power,
            ball_margin=ball_margin_power,
            distance=distance_power,
            equality=equality_power,
            ablations=(
                Ablation("exponent 0.01", "a = 0.01", drops=("a <= 0",)),
                Ablation(
                    "below -1, three modes",
                    "-1.3 <= a < -1 with three or more nonzero modes",
                    drops=("safe range",),
                    instead=(
                        Hypothesis(
                            "three modes",
                            "a >= -1.3, three or more nonzero modes",
                            lambda c: (10 * c.exponent >= -13) & (on(c.singular).sum() > 2),
                        ),
                    ),
                ),
                Ablation(
                    "-2.02, two modes",
                    "a = -2.02 with two nonzero modes",
                    drops=("safe range",),
                    instead=(Hypothesis("two modes", "two nonzero modes", lambda c: on(c.singular).sum() == 2),),
                ),
            ),
        ),
    ),
    figure=Figure(
        caption=(
            "Left: share of random spectra (log lambda independent, normal, standard deviation 2; eig) whose "
            "effective rank falls under the target filter s^a; grey: the safe range for d >= 3. Right: log erank of "
            "s^(1+a) for three spectra; a lowers the effective rank where the curve is below its thin line. The first "
            "two have a threshold below -1, (1, .1, .1) has none."
        ),
        record=record,
        draw=draw,
    ),
)
