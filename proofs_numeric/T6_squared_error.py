"""T6. A low-pass filter on the online branch under the squared error: one half decides whether the rank rises."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb, ctx, fmpq

from proofs_numeric import _common, _growth
from rdm_jax import theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Order,
    Statement,
    Stratum,
    at_least,
    balls,
    families,
    nearly_nonincreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.search import generator
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues lambda (descending), gains g, the signal m = share lambda - noise.

    ``side``: 1 where g is claimed to be at least share/2 (erank rises), -1 where at most (it falls).
    """

    spectrum: Array
    gains: Array
    share: Array
    noise: Array
    side: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    gains: families.Sequence
    share: Array
    noise: Array
    side: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    gains = families.sample_filter(tape, spectrum, d)
    share = jnp.maximum(tape.scalar(-2.0, 2.0), 0.0)
    return Raw(spectrum, gains, share, tape.scalar(-3.0, 3.0), 2 * tape.integer(0, 2) - 1)


def _gains(raw, spectrum, dropped, half):
    """(1 + excess) share/2 above, (1 - deficit) share/2 below, where 1 - deficit is a low-pass function from 1 down."""
    order = jnp.where(dropped["any order"], 0, -1)
    top = jnp.where(raw.side > 0, 2 * raw.gains.scale - 2, -(raw.gains.scale**2))
    free = _growth.function_of(raw.gains._replace(scale=top), spectrum, order)
    slack = jnp.where(dropped["half missed by 1%"], 0.01, 0.0) * raw.side
    below = jnp.minimum(free, 1.0)  # only gains in any order reach beyond 1
    kept = jnp.where(raw.side > 0, 1 + free, below) - slack
    return half * jnp.where(dropped["gains on both sides of half"], 2 * free, kept)


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    share = jnp.exp(-(raw.share**2))
    gains = _gains(raw, spectrum, dropped, share / 2)
    nearly = families.out_of_order(gains, raw.gains)
    gains = jnp.where(dropped["one gain 1% out of order"], nearly, gains)
    smallest = jnp.min(jnp.where(spectrum > 0, spectrum, jnp.inf))
    noise = jnp.where(dropped["view noise"], share * smallest * jax.nn.sigmoid(raw.noise), 0.0)
    return Instance(spectrum, gains, share, noise, raw.side)


def _scale(spectrum, gains, signal):
    """E_q[g (m/lambda + g)] in the unit of r: the size of its two terms."""
    return jnp.sum(gains * (signal + gains * spectrum)) / jnp.sum(spectrum)


def _signal(c):
    return jnp.where(c.spectrum > 0, c.share * c.spectrum - c.noise, 0.0)


def margin(c):
    signal = _signal(c)
    rates = theory.growth_rates(c.spectrum, online_gains=c.gains, signal=signal, loss="squared")
    shares = c.spectrum / jnp.sum(c.spectrum)
    sums = -c.side * jnp.cumsum(shares * (rates - jnp.sum(shares * rates)))
    eig, sv = (c.side * theory.entropy_rate(c.spectrum, rates, convention=name) for name in ("eig", "sv"))
    diversities = _growth.least_before_last(sums, c.spectrum)
    return jnp.stack([eig, sv, diversities]) / _scale(c.spectrum, c.gains, signal)


def ball_margin(c):
    x, g = ([values[i] for i in balls.support(c.spectrum)] for values in (c.spectrum, c.gains))
    m = [c.share * a - c.noise for a in x]
    rates = _growth.table_rates(x, g, [1] * len(x), m, _growth.SQUARED)
    scale = balls.mean(x, [b * (n / a + b) for a, b, n in zip(x, g, m, strict=True)])
    shares, mean = [a / balls.total(x) for a in x], balls.mean(x, rates)
    sums = np.cumsum([q * (r - mean) for q, r in zip(shares, rates, strict=True)])[:-1]
    rises = [_common.entropy_rate(x, rates, exponent) for exponent in (1, balls.HALF)]
    return [c.side * rise / scale for rise in rises] + [_common.least([-c.side * value / scale for value in sums])]


def distance(c):
    """Lower bounds of the margins, so that their ratios are at least 1: see S1, with -r for theta."""
    alive, shares = c.spectrum > 0, c.spectrum / jnp.sum(c.spectrum)
    rates = jnp.where(alive, c.gains * (c.share - c.gains), 0.0)
    logs = jnp.log(jnp.where(alive, c.spectrum, 1.0))
    last = alive & ~jnp.append(alive[1:], False)
    ends = shares[0] * jnp.sum(jnp.where(last, shares * jnp.abs(rates - rates[0]), 0.0))
    eig, sv = (_common.joint_spread(rates, logs, weights) for weights in (c.spectrum, jnp.sqrt(c.spectrum)))
    return jnp.stack([eig, sv / 4, ends]) / 2 / _scale(c.spectrum, c.gains, _signal(c))


def equality(c):
    return [_common.constant([c.gains[i] for i in balls.support(c.spectrum)])] * 3


def _on_its_side(slack):
    """Each gain is at least (side 1) or at most (side -1) share/2, missed by ``slack`` ten-thousandths at most."""

    def holds(c):
        above = at_least(20_000 * c.gains, (10_000 - slack) * c.share)
        below = at_least((10_000 + slack) * c.share, 20_000 * c.gains)
        return (above | (c.side < 0)) & (below | (c.side > 0)) | ~on(c.spectrum)

    return holds


SORTED = Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum))
NONNEGATIVE = Hypothesis("nonnegative gains", "g >= 0 on the support", lambda c: (c.gains >= 0) | ~on(c.spectrum))
LOW_PASS = Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.gains, on(c.spectrum)))
NEARLY_LOW_PASS = Hypothesis(
    "nearly low-pass", "low-pass within 1%", lambda c: nearly_nonincreasing(c.gains, on(c.spectrum))
)
NOISELESS = Hypothesis(
    "no view noise", "m = share lambda, with one share > 0", lambda c: (c.noise == 0) & (c.share > 0)
)
NEARLY_ON_ONE_SIDE = Hypothesis("nearly on one side of half", "within 1% of share/2", _on_its_side(101))

HALF = Claim(
    name="T6",
    statement="Squared error, g low-pass, m = share lambda: erank rises if g >= share/2, and falls if g <= share/2.",
    hypotheses=(
        SORTED,
        NONNEGATIVE,
        LOW_PASS,
        Hypothesis(
            "function of lambda",
            "equal eigenvalues have equal gains",
            lambda c: _growth.equal_at_ties(c.gains, c.spectrum),
        ),
        Hypothesis("one side of half", "g >= share/2 (side 1) or g <= share/2 (side -1)", _on_its_side(0)),
        NOISELESS,
    ),
    conclusions=(
        Conclusion("d erank/dt, eig", 1e-13),
        Conclusion("d erank/dt, sv", 1e-13),
        Conclusion("every Schur-concave diversity", 1e-14),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("gains on both sides of half", "any low-pass gains", drops=("one side of half",)),
        Ablation(
            "half missed by 1%",
            "gains from 0.495 share upwards, or up to 0.505 share",
            drops=("one side of half",),
            instead=(NEARLY_ON_ONE_SIDE,),
        ),
        Ablation("any order", "gains in any order", drops=("low-pass", "function of lambda")),
        Ablation(
            "one gain 1% out of order",
            "one gain 1% above its predecessor",
            drops=("low-pass", "one side of half"),
            instead=(NEARLY_LOW_PASS, NEARLY_ON_ONE_SIDE),
        ),
        Ablation("view noise", "isotropic view noise", drops=("no view noise",)),
    ),
    domain=(
        DomainCondition("finite gains", lambda: theory.growth_rates([1.0], online_gains=[jnp.inf], loss="squared")),
    ),
)


def pair_build(raw, dropped):
    spectrum = families.descending(raw.spectrum._replace(keep=jnp.asarray(2)))
    share = jnp.exp(-(raw.share**2))
    gains = _growth.function_of(raw.gains, spectrum, jnp.where(dropped["high-pass"], 1, -1))
    gains = jnp.where(dropped["one gain 1% out of order"], families.out_of_order(gains, raw.gains), gains)
    noise = jnp.where(dropped["view noise"], share * spectrum[1] * jax.nn.sigmoid(raw.noise), 0.0)
    return Instance(spectrum, gains, share, noise, raw.side)


def _closed_form(c):
    """2 q_1 q_2 (g_1 - g_2) (g_1 + g_2 - share) log(lambda_1/lambda_2), and g_1 + g_2 - share."""
    shares, excess = c.spectrum / jnp.sum(c.spectrum), jnp.sum(c.gains) - c.share
    logs = jnp.log(c.spectrum)
    return 2 * shares[0] * shares[1] * (c.gains[0] - c.gains[1]) * excess * (logs[0] - logs[1]), excess


def pair_margin(c):
    signal = _signal(c)
    rates = theory.growth_rates(c.spectrum, online_gains=c.gains, signal=signal, loss="squared")
    rise, (formula, excess) = theory.entropy_rate(c.spectrum, rates), _closed_form(c)
    scale = _scale(c.spectrum, c.gains, signal)
    return jnp.stack([rise * excess / (scale * (jnp.sum(c.gains) + c.share)), -jnp.abs(rise - formula) / scale])


def pair_ball_margin(c):
    (x, y), (g, h) = c.spectrum, c.gains
    m = [c.share * x - c.noise, c.share * y - c.noise]
    rates = _growth.table_rates([x, y], [g, h], [1, 1], m, _growth.SQUARED)
    rise, excess = _common.entropy_rate([x, y], rates), g + h - c.share
    formula = 2 * x * y / (x + y) ** 2 * (g - h) * excess * (x / y).log()
    scale = (g * m[0] + g * g * x + h * m[1] + h * h * y) / (x + y)
    return [rise * excess / (scale * (g + h + c.share)), (rise - formula) / scale]


def pair_equality(c):
    (x, y), (g, h) = c.spectrum, c.gains
    return [x == y or g == h or g + h == c.share, None]


def pair_distance(c):
    formula, excess = _closed_form(c)
    scale = _scale(c.spectrum, c.gains, _signal(c)) * (jnp.sum(c.gains) + c.share)
    return jnp.stack([jnp.abs(formula * excess) / scale, jnp.ones(())])


PAIR = Claim(
    name="T6 two modes",
    statement="With two modes the sign of d erank/dt is that of g_1 + g_2 - share.",
    hypotheses=(SORTED, NONNEGATIVE, LOW_PASS, NOISELESS),
    conclusions=(Conclusion("sign", 1e-13), Conclusion("closed form", 1e-13, kind="identity")),
    sample=sample,
    build=pair_build,
    margin=pair_margin,
    ball_margin=pair_ball_margin,
    distance=pair_distance,
    equality=pair_equality,
    ablations=(
        Ablation("high-pass", "g nonincreasing in lambda", drops=("low-pass",)),
        Ablation("view noise", "isotropic view noise", drops=("no view noise",)),
        Ablation(
            "one gain 1% out of order",
            "the second gain 1% above the first",
            drops=("low-pass",),
            instead=(NEARLY_LOW_PASS,),
        ),
    ),
    strata=(Stratum((2,), 2, 1.0),),
)


def below_half(key, sizes):
    """-dH/dt for five modes with low-pass gains at and a distance below half, by the library."""
    draws = jax.random.exponential(key, (2, 64, 5))
    spectrum, deficit = jnp.exp(-jnp.cumsum(draws[0], axis=-1)), jnp.cumsum(draws[1], axis=-1)
    deficit = deficit / deficit[:, -1:]

    def fall(size):
        rates = theory.growth_rates(spectrum, online_gains=0.5 - size * deficit, loss="squared")
        return -theory.entropy_rate(spectrum, rates)

    return jnp.stack([fall(size) for size in sizes], axis=-1)


SHARPNESS = Order(
    name="T6 sharpness",
    statement="With gains up to delta below share/2, erank falls at a rate of order delta^2, however small delta is.",
    slope=2.0,
    sizes=(0.1, 0.03, 0.01, 0.003),
    measure=below_half,
)

DELTAS = tuple(fmpq(1, 10**k) for k in range(1, 7))


def certified_example():
    """lambda = (2, 1), g = (1/2, 1/2 - delta): dH/dt = -(4/9) log 2 delta^2, exactly; checked for each delta."""
    with ctx.workprec(192):
        constant = arb(4) / 9 * arb(2).log()
        for delta in DELTAS:
            gains = [fmpq(1, 2), fmpq(1, 2) - delta]
            rates = _growth.table_rates([fmpq(2), fmpq(1)], gains, [1, 1], [fmpq(2), fmpq(1)], _growth.SQUARED)
            rate = _common.entropy_rate([arb(2), arb(1)], [arb(r) for r in rates])
            if not (rate < 0 and (rate + constant * delta * delta).contains(0)):
                raise ArithmeticError(f"dH/dt should be -(4/9) log 2 delta^2 for delta = {delta}, not {rate}")
        return {"dH/dt / delta^2": _growth.certain_digits(-constant), "deltas": [str(delta) for delta in DELTAS]}


SPECTRA = {
    "log-normal, sigma 1": lambda rng, shape: np.exp(rng.normal(size=shape)),
    "log-normal, sigma 2": lambda rng, shape: np.exp(2 * rng.normal(size=shape)),
    "uniform": lambda rng, shape: rng.random(shape),
    "1/i": lambda rng, shape: np.broadcast_to(1 / np.arange(1.0, shape[1] + 1), shape),
}
SIZES, DRAWS = (2, 3, 5, 10, 30), 10_000


@jax.jit
def _rise(spectrum, gains):
    rates = theory.growth_rates(spectrum, online_gains=gains, loss="squared")
    return theory.entropy_rate(spectrum, rates)


def _falling(rng, law, modes):
    """The share of falling instances: eigenvalues of a law, gains uniform in [0, 1], both sorted."""
    spectrum, gains = (-np.sort(-draw, axis=1) for draw in (law(rng, (DRAWS, modes)), rng.random((DRAWS, modes))))
    empty = np.zeros((DRAWS, SIZES[-1] - modes))  # zero modes change nothing, and one shape compiles once
    return float(np.mean(np.asarray(_rise(np.hstack([spectrum, empty]), np.hstack([gains, empty]))) < 0))


def record(seed):
    rng = generator("T6", "figure", seed)
    axis = np.linspace(0, 1, 41)
    pairs = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    return {
        "certified": certified_example(),
        "gains": axis.tolist(),
        "dH/dt": np.round(_rise(np.array([2.0, 1.0]), pairs), 6).tolist(),
        "modes": list(SIZES),
        "draws": DRAWS,
        "falling": {name: [_falling(rng, law, modes) for modes in SIZES] for name, law in SPECTRA.items()},
    }


def draw(figure, record):
    plane, rates = figure.subplots(1, 2)
    axis, values = np.array(record["gains"]), np.array(record["dH/dt"])
    low_pass = np.where(axis[:, None] >= axis, values, np.nan)
    reach = np.nanmax(np.abs(low_pass))
    image = plane.pcolormesh(axis, axis, low_pass.T, cmap="PuOr_r", vmin=-reach, vmax=reach, rasterized=True)
    figure.colorbar(image, ax=plane, label="$dH/dt$", location="bottom")
    plane.plot([0.5, 1], [0.5, 0], "k--", label="$g_1 + g_2 = 1$")
    plane.plot([0.5, 0.5, 1], [0, 0.5, 0.5], "k:", label="one half")
    plane.set(xlabel=r"$g_1$ (at $\lambda_1 = 2$)", ylabel=r"$g_2$ (at $\lambda_2 = 1$)", aspect="equal")
    plane.legend(loc="upper left")
    for (name, shares), marker in zip(record["falling"].items(), "osD^", strict=True):
        errors = np.sqrt(np.multiply(shares, 1 - np.array(shares)) / record["draws"])
        rates.errorbar(record["modes"], shares, errors, marker=marker, markersize=4, label=name)
    rates.set(xlabel="number of modes d", ylabel="share of draws in which erank falls", ylim=(0, None))
    rates.legend(title=r"$\lambda$ drawn (sorted)")


STATEMENT = Statement(
    name="T6",
    title="squared error",
    text=(
        "Squared error, online filter g >= 0 held fixed, no view noise: m = share lambda (share 1 if the views agree, "
        "else the signal's part). Let g be a nondecreasing function of lambda. If g >= share/2 on the support then d "
        "erank/dt >= 0; if g <= share/2 then d erank/dt <= 0; both for eigenvalues and for singular values, for every "
        "Schur-concave diversity of the eigenvalues, and strictly unless g is constant on the support. With two modes "
        "the sign is that of g_1 + g_2 - share: dH/dt = 2 q_1 q_2 (g_1 - g_2)(g_1 + g_2 - share) "
        "log(lambda_1/lambda_2). The constant 1/2 is sharp: lambda = (2, 1), g = (1/2, 1/2 - delta) has dH/dt = -(4/9) "
        "log 2 delta^2 = -0.308065 delta^2, exactly and for every delta > 0 (certified). So no smaller bound on each "
        "gain suffices; it does not say that a gain below 1/2 makes erank fall: (0.9, 0.2) rises. Filters on both "
        "sides of 1/2 can do either. Of random ones (gains uniform in [0, 1], both sorted, share 1) half fall for d = "
        "2; beyond that the share depends on the law of the eigenvalues (figure). The cosine needs no such condition "
        "(T5)."
    ),
    source=(
        "r = g (share - g) falls with g above share/2 and rises below it, so r is monotone in lambda, and L2 applies "
        "in both conventions."
    ),
    not_checked="Filters on both sides of share/2, but for the ablation and frequencies; gradients through the filter.",
    claims=(HALF, PAIR),
    orders=(SHARPNESS,),
    figure=Figure(
        caption=(
            "Squared error without view noise. Left: the entropy's rate for two modes and low-pass gains; it changes "
            "sign at g_1 + g_2 = 1, and both gains above one half (upper right) suffice for a rise. Right: how often "
            "erank falls for random low-pass gains (sorted uniform), by the number of modes and the law of the "
            "eigenvalues; bars are one standard error."
        ),
        record=record,
        draw=draw,
    ),
)
