"""L2. How growth rates move the effective rank: an identity, a sign rule, and the exact criterion."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

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
    families,
    nonincreasing,
    on,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array

SORTED = Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.singular))


def largest(values):
    """The largest absolute value of balls."""
    return max(abs(values), key=lambda value: float(value.mid()))


def on_support(c):
    """The instance's arrays, cut to the modes that are not 0."""
    alive = balls.support(c.singular)
    return c._replace(**{name: getattr(c, name)[alive] for name in c._fields if np.ndim(getattr(c, name))})


class Crossing(NamedTuple):
    """Singular values (descending); the shape e of r - r_bar; the mean; conventions; +1 (rising) or -1 (falling).

    ``sv`` says what the entropy normalises, ``mean_sv`` under which q the mean of the rates is taken (1: singular
    values, 0: eigenvalues). The rates are mean + direction x / max|x|, where x has the signs of e and sum(q x) = 0.
    """

    singular: Array
    shape: Array
    mean: Array
    sv: Array
    mean_sv: Array
    direction: Array


class RawCrossing(NamedTuple):
    """Free parameters of a `Crossing`: log |e|, where e is not 0, its signs in any order, the mode of the crossing."""

    spectrum: families.Sequence
    logs: Array
    used: Array
    coins: Array
    change: Array
    mean: Array
    sv: Array
    direction: Array


def sample_crossing(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    logs, used, coins = tape.vectors(3)
    return RawCrossing(
        spectrum=spectrum,
        logs=tape.scalar(0.0, 3.0) * logistic(logs),
        used=used > tape.scalar(-2.0, 1.0),
        coins=coins < 0.5,
        change=tape.integer(1, jnp.maximum(spectrum.keep, 2)),
        mean=tape.scalar(-2.0, 2.0),
        sv=tape.integer(0, 2),
        direction=2 * tape.integer(0, 2) - 1,
    )


def parts(shape):
    """Positive and negative part of e, by operations that floats and exact numbers share."""
    return (shape + abs(shape)) / 2, (abs(shape) - shape) / 2


def build_crossing(raw, dropped):
    singular = _common.singular_values(raw.spectrum)
    size = jnp.where(raw.used & (singular > 0), jnp.exp(raw.logs), 0.0)
    positive = jnp.where(dropped["any number of crossings"], raw.coins, jnp.arange(len(size)) >= raw.change)
    shape, entry = jnp.where(positive, size, -size), raw.spectrum.entry
    above, below = (0.01 * jnp.max(part) for part in parts(shape))
    wrong = shape.at[entry].set(jnp.where(shape[entry] < 0, above, -below))
    shape = jnp.where(dropped["one rate 1% past the mean"], wrong, shape)
    mean_sv = jnp.where(dropped["the other convention's mean"], 1 - raw.sv, raw.sv)
    return Crossing(singular, shape, raw.mean, raw.sv, mean_sv, raw.direction)


def excess(c):
    """x: the positive part of e times the weight of the negative one, and the reverse."""
    mass = _common.normalised_mass(c.singular, c.mean_sv)
    up, down = parts(c.shape)
    return up * sum_(mass * down) - down * sum_(mass * up)


def sum_(values):
    """The sum of an array of floats or of balls."""
    return values.sum()


def crossing_rates(c):
    x = jnp.where(c.singular > 0, excess(c), 0.0)
    unit = jnp.max(jnp.abs(x))
    return c.mean + c.direction * x / jnp.where(unit > 0, unit, 1.0)


def margin_crossing(c):
    mass, speed, rates = _common.normalised_mass(c.singular, c.sv), 2 - c.sv, crossing_rates(c)
    share = mass / jnp.sum(mass)
    away = rates - jnp.sum(share * rates)
    away = away - jnp.sum(share * away)
    gaps = (c.singular[1:] < c.singular[:-1]) & (c.singular[1:] > 0)
    shares = -speed * c.direction * jnp.cumsum(share * away)[:-1]
    least = jnp.where(jnp.any(gaps), jnp.min(jnp.where(gaps, shares, jnp.inf)), 0.0)
    eig, sv = (theory.entropy_rate(c.singular**2, rates, convention=name) for name in ("eig", "sv"))
    return jnp.stack([c.direction * jnp.where(c.sv == 1, sv, eig), least])


def ball_margin_crossing(c):
    c = on_support(c)
    x = excess(c)
    unit = largest(x)
    rates = c.mean + c.direction * x / unit if unit > 0 else c.mean + 0 * x
    mass, speed = _common.normalised_mass(c.singular, c.sv), 2 - c.sv
    moved, total = speed * rates * mass, mass.sum()
    shares = np.cumsum(moved * total - mass * moved.sum()) / total**2
    gaps = [-c.direction * v for v, a, b in zip(shares[:-1], c.singular[:-1], c.singular[1:], strict=True) if a > b]
    # s' = r s and lambda' = 2 r lambda; `_common.entropy_rate` takes the latter.
    return [c.direction * _common.entropy_rate(mass, rates * speed / 2), _common.least(gaps)]


def distance_crossing(c):
    """-Cov_q(x, m)/(max m max|x|), m the normalised mass: log differences are at least m's over max m.

    A share that ends before the crossing loses at least what its first mode loses, one that ends after it what the
    last mode gains.
    """
    mass = _common.normalised_mass(c.singular, c.sv)
    moved = mass / jnp.sum(mass) * (crossing_rates(c) - c.mean) * c.direction
    ordered = -jnp.sum(moved * mass) / mass[0]
    last = moved[jnp.sum(c.singular > 0) - 1]
    return jnp.stack([ordered, jnp.minimum(jnp.abs(moved[0]), jnp.abs(last))])


def equality_crossing(c):
    c = on_support(c)
    x = list(c.shape) if any(e > 0 for e in c.shape) and any(e < 0 for e in c.shape) else [0] * len(c.shape)
    one_value = _common.constant([s for s, e in zip(c.singular, x, strict=True) if e != 0])
    gaps = [k for k in range(1, len(x)) if c.singular[k] < c.singular[k - 1]]
    no_change = not gaps or any(_zero(x[:k]) or _zero(x[k:]) for k in gaps)
    return [one_value, no_change]


def _zero(values):
    return all(value == 0 for value in values)


def crosses_once(c, tolerance=0):
    """No rate above the mean before one below it; deviations up to ``tolerance``/10000 of the largest do not count."""
    up, down = parts(c.shape)
    above = on(10000 * up - tolerance * up.max()) & on(c.singular)
    below = on(10000 * down - tolerance * down.max()) & on(c.singular)
    return ~(below & (above.cumsum() > 0))


class Ordered(NamedTuple):
    """Singular values (descending), the first rate, increments of the rates' running means, rates in no order.

    ``step`` is the mode where the converse lets the running mean fall.
    """

    singular: Array
    mean: Array
    increments: Array
    rates: Array
    step: Array


class RawOrdered(NamedTuple):
    """Free parameters of an `Ordered`: square roots of the increments, and signs for when they are in any order."""

    spectrum: families.Sequence
    mean: Array
    roots: Array
    coins: Array
    rates: Array


def sample_ordered(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    roots, used, coins, rates = tape.vectors(4)
    roots = jnp.exp(tape.scalar(0.0, 2.0) * logistic(roots))
    return RawOrdered(
        spectrum=spectrum,
        mean=tape.scalar(-2.0, 2.0),
        roots=jnp.where(used > tape.scalar(-1.0, 1.0), roots, 0.0),
        coins=coins < 0.5,
        rates=tape.scalar(0.0, 3.0) * logistic(rates),
    )


def build_ordered(raw, dropped):
    shuffled = jnp.where(families.kept(raw.spectrum), families.unordered(raw.spectrum), 0.0)
    singular = jnp.where(dropped["spectrum in any order"], shuffled, _common.singular_values(raw.spectrum))
    increments = jnp.where((jnp.arange(len(singular)) > 0) & (singular > 0), raw.roots**2, 0.0)
    entry = raw.spectrum.entry
    low = increments.at[entry].set(-0.01 * jnp.max(increments))
    signed = jnp.where(raw.coins, increments, -increments)
    increments = jnp.where(dropped["running means in any order"], signed, increments)
    increments = jnp.where(dropped["one running mean 1% too low"], low, increments)
    return Ordered(singular, raw.mean, increments, jnp.where(singular > 0, raw.rates, 0.0), entry)


def running(c):
    """Running means of the rates from the top, and the rates, both less the first rate."""
    means = c.increments.cumsum()
    return means, means + np.arange(len(c.increments)) * c.increments


def residuals(c):
    """dH/dt, eig and sv: the derivative of the library's effective rank along the flow against its covariance."""
    eigenvalues = c.singular**2
    predicted = [theory.entropy_rate(eigenvalues, c.rates, convention=name) for name in ("eig", "sv")]
    masses = jnp.stack([eigenvalues, c.singular])
    ranks, changes = jax.jvp(
        spectra.effective_rank, (masses,), (jnp.stack([2 * c.rates * eigenvalues, c.rates * c.singular]),)
    )
    return jnp.abs(changes / ranks - jnp.stack(predicted)) / jnp.max(jnp.abs(c.rates))


def margin_ordered(c):
    means, rates = running(c)
    unit = jnp.max(jnp.abs(rates))
    unit = jnp.where(unit > 0, unit, 1.0)
    index = jnp.arange(len(rates))
    step = jnp.where(index < c.step, 1.0, jnp.where(index == c.step, 0.5, 0.0))
    turned = jnp.where(index == c.step, means[c.step - 1] - (c.step + 1) * c.increments[c.step], rates)
    rows = jnp.stack([c.singular**2, step]), jnp.stack([c.mean + rates / unit, turned / unit])
    rate, rise = theory.entropy_rate(*rows)
    # A false identity is false almost everywhere: random instances settle it, and a search needs no gradient.
    return jnp.stack([rate, -rise, *(-residuals(jax.lax.stop_gradient(c)))])


def ball_margin_ordered(c):
    step, c = c.step, on_support(c)
    means, rates = running(c)
    unit = largest(rates)
    unit = unit if unit > 0 else arb(1)
    fall, eigenvalues = arb(0), c.singular**2
    if step < len(rates):
        turned = [*rates[:step], means[step - 1] - (step + 1) * c.increments[step]]
        fall = -_common.entropy_rate([arb(1)] * step + [balls.HALF], [r / unit for r in turned])
    logs = [s.log() for s in c.singular]
    eig = _common.entropy_rate(eigenvalues, c.rates) + 2 * balls.covariance(eigenvalues, c.rates, [2 * x for x in logs])
    sv = _common.entropy_rate(c.singular, c.rates / 2) + balls.covariance(c.singular, c.rates, logs)
    scale = largest(c.rates)
    return [_common.entropy_rate(eigenvalues, c.mean + rates / unit), fall, eig / scale, sv / scale]


def distance_ordered(c):
    """sum_k Q_k (sum_{j >= k} v_j (M_j - M_k)) (m_k - m_{k+1})/m_1, v_j = j (q_j - q_{j+1}), Q_k the k-th share.

    Abel summation of -Cov_q(r, log m) with log differences bounded by m's, and without one of two nonnegative terms.
    """
    mass = c.singular**2
    means, rates = running(c)
    unit = jnp.max(jnp.abs(rates))
    means, share = means / jnp.where(unit > 0, unit, 1.0), mass / jnp.sum(mass)
    falls = share - jnp.append(share[1:], 0.0)
    weights = falls * jnp.arange(1, len(share) + 1)
    beyond = jnp.cumsum((weights * means)[::-1])[::-1] - means * jnp.cumsum(weights[::-1])[::-1]
    inside = jnp.arange(len(share)) < jnp.sum(mass > 0) - 1
    total = jnp.sum(jnp.where(inside, jnp.cumsum(share) * beyond * falls, 0.0)) / share[0]
    increment = c.increments[c.step] / jnp.where(unit > 0, unit, 1.0)
    return jnp.stack([total, increment, *jnp.ones(2)])


def equality_ordered(c):
    step, c = c.step, on_support(c)
    top = sum(s == c.singular[0] for s in c.singular)
    return [_zero(c.increments[top:]), _zero(c.increments[step : step + 1]), None, None]


def nearly_rising(c):
    """Each running mean at least its predecessor, less 1.01% of the largest increment."""
    return (10000 * c.increments + 101 * c.increments.max() >= 0) | ~on(c.singular)


CLASSES = ("once, + to -", "once, - to +", "twice", "three times or more")


def tied_crossing():
    """Two equal modes on both sides of the mean, lambda = (1, 1) and r = (1, -1), after a time 1/100, in balls."""
    after = [(arb(2 * r) / 100).exp() for r in (1, -1)]
    fall = {"stable rank": balls.total(after) / after[0] - 2, "entropy": balls.entropy(after) - arb(2).log()}
    return {name: {"change": ball.str(6, radius=False), "falls": bool(ball < 0)} for name, ball in fall.items()}


def record(seed):
    """-corr_q(r, log lambda), which has the sign of dH/dt, for random rates by how often r - r_bar changes sign."""
    random = np.random.default_rng(seed)
    logs = 2 * np.sort(random.standard_normal((40_000, 8)))
    q = np.exp(logs - logs[:, -1:])
    q = q / q.sum(axis=1, keepdims=True)
    r, logs = (x - (q * x).sum(axis=1, keepdims=True) for x in (random.standard_normal(q.shape), logs))
    rising = -(q * r * logs).sum(axis=1) / np.sqrt((q * r**2).sum(axis=1) * (q * logs**2).sum(axis=1))
    changes = (np.diff(np.sign(r), axis=1) != 0).sum(axis=1)
    kind = np.where(changes > 1, np.minimum(changes, 3), np.where(r[:, 0] > 0, 0, 1))
    edges = np.linspace(-1, 1, 41)
    counts = [np.histogram(rising[kind == k], edges)[0] for k in range(len(CLASSES))]
    return {
        "convention": "eig",
        "sampler": "8 modes; log lambda and r independent and normal, standard deviations 2 and 1; 40000 draws",
        "tied_crossing": tied_crossing(),
        "edges": edges.tolist(),
        "draws": {name: int(count.sum()) for name, count in zip(CLASSES, counts, strict=True)},
        "falling": {name: int((rising[kind == k] < 0).sum()) for k, name in enumerate(CLASSES)},
        "density": {n: (c / c.sum() / (edges[1] - edges[0])).tolist() for n, c in zip(CLASSES, counts, strict=True)},
    }


def draw(figure, record):
    rows = figure.subplots(len(record["density"]), 1, sharex=True)
    for axes, (name, density) in zip(rows, record["density"].items(), strict=True):
        falling, draws = record["falling"][name], record["draws"][name]
        axes.stairs(density, record["edges"], fill=True, alpha=0.8)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_title(f"{name}: erank falls in {falling} of {draws} draws", loc="left", fontsize=8, pad=2)
        axes.set_yticks([])
    rows[-1].set_xlabel(r"$-\mathrm{corr}_q(r, \log\lambda)$: the sign of d erank/dt (eig)")
    figure.supylabel("density", fontsize="medium")


STATEMENT = Statement(
    name="L2",
    title="single crossing",
    text=(
        "Let lambda_i' = 2 r_i lambda_i, that is s_i' = r_i s_i for the singular values. With q = lambda / "
        "sum(lambda), r_bar = sum(q r): q_i' = 2 (r_i - r_bar) q_i and dH/dt = -2 Cov_q(r, log lambda). If r - r_bar "
        "changes sign at most once, from + to - as lambda grows (modes with equal lambda in any order), then d "
        "erank/dt >= 0, with equality iff all modes with r_i != r_bar share one lambda; and no share of the k largest "
        "modes with lambda_k > lambda_{k+1} grows, so every differentiable Schur-concave diversity rises. From - to "
        "+: the reverse. For a diversity with a kink, equal modes on both sides of r_bar must be excluded: lambda = "
        "(1, 1), r = (1, -1) has dH/dt = 0, and its stable rank falls. For a fixed r the exact criterion for d "
        "erank/dt >= 0 at *all* spectra in this order is that the running means of r from the top are nondecreasing; "
        "there, equality iff the mean of r over each group of equal eigenvalues is the same. If the running mean "
        "falls at mode k + 1, the spectrum (1, ..., 1, 1/2, 0, ...) with k ones has dH/dt < 0. For singular values "
        "all of this holds with q = s / sum(s), its own mean r_bar and dH/dt = -Cov_q(r, log s); a crossing at the "
        "other convention's mean does not suffice."
    ),
    source=(
        "sum q (r - r_bar) = 0, so log lambda may be measured from the crossing, where each term has one sign. "
        "Criterion: q nonincreasing is a mixture of uniform distributions on the top j modes, with weights j (q_j - "
        "q_{j+1}), and E_q[r] mixes the running means; Abel summation. The criterion and its proof are this project's."
    ),
    not_checked=(
        "Infinitely many modes. Diversities with a kink; that the top shares decide all differentiable Schur-concave "
        "functions (a theorem: Marshall, Olkin and Arnold 2011, 3.A.4). The spectra that break the criterion have "
        "zeros; by continuity so do nearby ones without."
    ),
    claims=(
        Claim(
            name="L2",
            statement=(
                "If r - r_bar crosses 0 once, from + to - as lambda grows, d erank/dt >= 0 and no top share that ends "
                "at a gap grows; reversed if the crossing is."
            ),
            hypotheses=(
                SORTED,
                Hypothesis("single crossing", "r - r_bar: + below, - above one lambda", crosses_once),
                Hypothesis("own mean", "r_bar under the q of the convention", lambda c: c.sv == c.mean_sv),
            ),
            conclusions=(
                Conclusion("d erank/dt", 3e-14),
                Conclusion("top shares", 3e-14),
            ),
            sample=sample_crossing,
            build=build_crossing,
            margin=margin_crossing,
            ball_margin=ball_margin_crossing,
            distance=distance_crossing,
            equality=equality_crossing,
            ablations=(
                Ablation("any number of crossings", "signs of r - r_bar in any order", drops=("single crossing",)),
                Ablation(
                    "the other convention's mean", "r_bar under the q of the other convention", drops=("own mean",)
                ),
                Ablation(
                    "one rate 1% past the mean",
                    "one rate on the wrong side of r_bar, by 1% of the largest deviation on that side",
                    drops=("single crossing",),
                    instead=(
                        Hypothesis(
                            "nearly single crossing", "deviations below 1.02% may cross", lambda c: crosses_once(c, 102)
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition(
                    "finite rates", lambda: theory.entropy_rate(jnp.array([2.0, 1.0]), jnp.array([0.0, jnp.nan]))
                ),
                DomainCondition("nonzero", lambda: theory.entropy_rate(jnp.zeros(2), jnp.ones(2))),
            ),
        ),
        Claim(
            name="L2 all spectra",
            statement=(
                "d erank/dt = -2 erank Cov_q(r, log lambda) for all r; it is >= 0 at every sorted spectrum if the "
                "running means of r never fall, and negative at a spectrum with one step if one does."
            ),
            hypotheses=(
                SORTED,
                Hypothesis(
                    "running means", "running means of r nondecreasing", lambda c: (c.increments >= 0) | ~on(c.singular)
                ),
            ),
            conclusions=(
                Conclusion("d erank/dt", 3e-14),
                Conclusion("converse: -dH/dt at the step", 3e-14),
                Conclusion("identity, eig", 3e-14, kind="identity"),
                Conclusion("identity, sv", 3e-14, kind="identity"),
            ),
            sample=sample_ordered,
            build=build_ordered,
            margin=margin_ordered,
            ball_margin=ball_margin_ordered,
            distance=distance_ordered,
            equality=equality_ordered,
            ablations=(
                Ablation("running means in any order", "running means in any order", drops=("running means",)),
                Ablation("spectrum in any order", "eigenvalues in any order", drops=("sorted spectrum",)),
                Ablation(
                    "one running mean 1% too low",
                    "one running mean below its predecessor by 1% of the largest increment",
                    drops=("running means",),
                    instead=(
                        Hypothesis("nearly nondecreasing", "running means nondecreasing within 1.01%", nearly_rising),
                    ),
                ),
            ),
        ),
    ),
    figure=Figure(
        caption=(
            "Random rates r on random spectra (8 modes; log lambda and r normal), by how often r - r_bar changes sign "
            "as lambda grows. One change from + to -: erank (eig) always rises; from - to +: it always falls; more "
            "changes: either."
        ),
        record=record,
        draw=draw,
    ),
)
