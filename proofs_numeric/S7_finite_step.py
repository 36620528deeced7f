"""S7. T5 for a finite step: three conditions under which one step of the flow raises every Schur-concave rank."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import fmpq

from proofs_numeric import _common, _growth
from rdm_jax import spectra, theory
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
    certify_instance,
    families,
    nearly_nonincreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.predicates import is_exact
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Eigenvalues (descending), gains of the online filter, and the step eta."""

    spectrum: Array
    gains: Array
    step: Array


class Raw(NamedTuple):
    """Free parameters of an instance: ``part`` of the largest step that the conditions allow, and a step of its own."""

    spectrum: families.Sequence
    gains: families.Sequence
    part: Array
    step: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    gains = families.sample_filter(tape, spectrum, d)
    gains = gains._replace(keep=spectrum.keep)
    return Raw(spectrum, gains, tape.scalar(-4.0, 4.0), tape.scalar(-3.0, 3.0))


def largest_steps(spectrum, gains):
    """The largest step for each condition: no overshoot, order kept, last mode grows enough."""
    rates = theory.growth_rates(spectrum, online_gains=gains)
    alive, last = spectrum > 0, jnp.maximum(jnp.sum(spectrum > 0) - 1, 0)
    scales, far = jnp.sqrt(spectrum), 1e6

    def step(room, pull):
        return jnp.where(pull > 0, room / jnp.where(pull > 0, pull, 1.0), far)

    overshoot = jnp.min(jnp.where(alive, step(1.0, -rates), far))
    gaps, pulls = scales[:-1] - scales[1:], scales[1:] * rates[1:] - scales[:-1] * rates[:-1]
    order = jnp.min(jnp.where(alive[1:], step(gaps, pulls), far))
    growth = step(2 * rates[last], jnp.sum(spectrum * rates**2) / jnp.sum(spectrum) - rates[last] ** 2)
    return overshoot, order, growth


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    gains = _growth.function_of(raw.gains, spectrum, -1)
    gains = jnp.where(dropped["gains in any order"], families.unordered(raw.gains), gains)
    gains = jnp.where(dropped["one gain 1% out of order"], families.out_of_order(gains, raw.gains), gains)
    overshoot, order, growth = largest_steps(spectrum, gains)
    order = jnp.where(dropped["order lost"], overshoot, order)
    growth = jnp.where(dropped["last mode left behind"], overshoot, growth)
    step = jax.nn.sigmoid(raw.part) * jnp.minimum(jnp.minimum(overshoot, order), jnp.maximum(growth, 0.0))
    return Instance(spectrum, gains, jnp.where(dropped["overshoot"], jnp.exp(raw.step), step))


def after(c):
    return c.spectrum * (1 + c.step * theory.growth_rates(c.spectrum, online_gains=c.gains)) ** 2


def margin(c):
    later = after(c)
    before, shares = c.spectrum / jnp.sum(c.spectrum), later / jnp.sum(later)
    return jnp.stack(
        [
            _growth.least_before_last(jnp.cumsum(before - shares), c.spectrum),
            jnp.log(spectra.effective_rank(later) / spectra.effective_rank(c.spectrum)),
            jnp.log(spectra.participation_ratio(later) / spectra.participation_ratio(c.spectrum)),
        ]
    )


def exact_rates(c):
    """r_i = g_i (1 - kappa g_i) on the support, from the table."""
    alive = balls.support(c.spectrum)
    x, g = ([values[i] for i in alive] for values in (c.spectrum, c.gains))
    kappa = sum(a * b for a, b in zip(x, g, strict=True)) / sum(a * b * b for a, b in zip(x, g, strict=True))
    return x, [b * (1 - kappa * b) for b in g]


def ball_margin(c):
    x, rates = exact_rates(c)
    later = [a * (1 + c.step * r) ** 2 for a, r in zip(x, rates, strict=True)]
    sums = np.cumsum(balls.normalised(x) - balls.normalised(later))[:-1]

    def participation(values):
        return (balls.total(values) ** 2 / balls.total([v * v for v in values])).log()

    return [
        _common.least(sums),
        balls.entropy(later) - balls.entropy(x),
        participation(later) - participation(x),
    ]


def distance(c):
    """The ends of the partial sums, between which they rise and fall; and the squared L1 distance of the spectra (S4)."""
    later = after(c)
    change = c.spectrum / jnp.sum(c.spectrum) - later / jnp.sum(later)
    last = jnp.maximum(jnp.sum(c.spectrum > 0) - 1, 0)
    moved = jnp.sum(jnp.abs(change)) ** 2
    return jnp.stack([jnp.minimum(jnp.abs(change[0]), jnp.abs(change[last])), moved, moved])


def equality(c):
    gains = [c.gains[i] for i in balls.support(c.spectrum) if c.gains[i] != 0]
    return [bool(c.step == 0) or _common.constant(gains)] * 3


def _each(condition):
    """A hypothesis on spectrum, rates and step, for floats (through the library) and for exact numbers."""

    def holds(c):
        if is_exact(c.spectrum):
            x, rates = (np.array(values, dtype=object) for values in exact_rates(c))
            return condition(x, rates, c.step)
        return condition(c.spectrum, theory.growth_rates(c.spectrum, online_gains=c.gains), c.step)

    return holds


def _grows_enough(x, rates, step):
    """eta (v - r_d^2) <= 2 r_d, which is r_d >= (sqrt(1 + eta^2 v) - 1)/eta without the root; true at eta = 0."""
    last = rates[-1] if is_exact(x) else rates[jnp.maximum(jnp.sum(x > 0) - 1, 0)]
    mean_square = (x * rates**2).sum() / x.sum()
    return at_least(2 * last * step, step * step * (mean_square - last * last))


def _order_kept(x, rates, step):
    later = x * (1 + step * rates) ** 2
    return nonincreasing(later, on(x))


CLAIM = Claim(
    name="S7",
    statement="A step lambda (1 + eta r)^2 under the three conditions leaves a spectrum that the old one majorizes.",
    hypotheses=(
        Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("nonnegative gains", "g >= 0 on the support", lambda c: (c.gains >= 0) | ~on(c.spectrum)),
        Hypothesis("low-pass", "g nondecreasing in lambda", lambda c: nonincreasing(c.gains, on(c.spectrum))),
        Hypothesis("forward step", "eta >= 0", lambda c: c.step >= 0),
        Hypothesis("no overshoot", "1 + eta r >= 0", _each(lambda x, r, step: at_least(1 + step * r, 0 * r))),
        Hypothesis("order kept", "lambda (1 + eta r)^2 is descending", _each(_order_kept)),
        Hypothesis("last mode grows enough", "r_d >= (sqrt(1 + eta^2 v) - 1)/eta", _each(_grows_enough)),
    ),
    conclusions=(
        Conclusion("majorization", 1e-13),
        Conclusion("erank", 1e-13),
        Conclusion("participation ratio", 1e-13),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("overshoot", "a step past 1 + eta r = 0", drops=("no overshoot",)),
        Ablation("order lost", "a step that swaps eigenvalues", drops=("order kept",)),
        Ablation("last mode left behind", "the smallest mode grows too little", drops=("last mode grows enough",)),
        Ablation("gains in any order", "gains in any order", drops=("low-pass",)),
        Ablation(
            "one gain 1% out of order",
            "one gain 1% above its predecessor",
            drops=("low-pass",),
            instead=(
                Hypothesis(
                    "nearly low-pass", "low-pass within 1%", lambda c: nearly_nonincreasing(c.gains, on(c.spectrum))
                ),
            ),
        ),
    ),
    domain=(DomainCondition("some gain", lambda: theory.growth_rates([2.0, 1.0], online_gains=[0.0, 0.0])),),
)


QUOTED = Instance(
    spectrum=np.array([fmpq(1), fmpq(4, 5)] + [fmpq(1, 1000)] * 1000, dtype=object),
    gains=np.array([fmpq(1), fmpq(1, 10)] + [fmpq(0)] * 1000, dtype=object),
    step=fmpq(697, 1000),
)


@jax.jit
def _curve(spectrum, gains):
    """The largest steps, and log erank's change at 120 steps up to a little more than the smallest positive one."""
    limits = jnp.stack(largest_steps(spectrum, gains))
    steps = jnp.linspace(0.0, 1.15, 120) * jnp.min(jnp.where(limits > 0, limits, jnp.inf))
    return limits, steps, jax.vmap(lambda step: margin(Instance(spectrum, gains, step))[1])(steps)


def record(seed):
    """How log erank changes with the step, where the last mode grows enough and where it is left behind."""
    del seed  # nothing here is random
    cases = {
        "all three conditions can be met": ((1.0, 0.5, 0.3), (1.0, 0.8, 0.5)),
        "1000 small modes left behind": ((1.0, 0.8) + (1e-3,) * 1000, (1.0, 0.1) + (0.0,) * 1000),
    }
    curves = {}
    for name, (values, gains) in cases.items():
        limits, steps, changes = map(np.asarray, _curve(np.array(values), np.array(gains)))
        named = dict(zip(("no overshoot", "order kept", "last mode grows enough"), limits.tolist(), strict=True))
        curves[name] = {"step": steps.tolist(), "change": changes.tolist(), "limits": named}
    certificate = certify_instance(CLAIM, QUOTED, which=[1])[0]
    satisfied = {h.name: bool(np.all(h.holds(QUOTED))) for h in CLAIM.hypotheses}
    quoted = {"change of log erank": certificate.ball.str(6, radius=False), "verdict": certificate.verdict}
    return {"curves": curves, "quoted": {**quoted, "hypotheses": satisfied}}


def draw(figure, record):
    """One panel for each example; vertical lines are the largest steps that the conditions allow."""
    panels = figure.subplots(1, 2)
    for axes, (name, curve) in zip(panels, record["curves"].items(), strict=True):
        axes.axhline(0.0, color="0.6", linewidth=0.8)
        axes.plot(curve["step"], curve["change"], color="C0")
        reach = curve["step"][-1]
        for number, (condition, limit) in enumerate(curve["limits"].items()):
            if limit <= reach:
                axes.axvline(limit, color=f"C{number + 1}", linestyle=("-", "--", ":")[number], label=condition)
        axes.set(title=name, xlabel="step $\\eta$", ylabel="change of log erank")
        axes.legend(title="largest step for", loc="best")


STATEMENT = Statement(
    name="S7",
    title="finite step of T5",
    text=(
        "In T5's setting (cosine loss, low-pass online filter, no view noise) a finite step lambda -> lambda (1 + eta r)^2, "
        "eta >= 0, raises every Schur-concave rank if (1) 1 + eta r >= 0, (2) the order of the eigenvalues is kept, and "
        "(3) the smallest mode grows enough: r_d >= (sqrt(1 + eta^2 v) - 1)/eta, v = E_q[r^2]. Strictly, unless eta = 0 or g "
        "takes only one nonzero value on the support. None of the three can be dropped; condition (3) fails whenever g = 0 on a mode, and then "
        "lambda = (1, .8, 1e-3 x 1000), g = (1, .1, 0), eta = .697 lowers erank."
    ),
    source=(
        "q_i changes by the sign of (1 + eta r_i)^2 - (1 + eta^2 v), since E_q[r] = 0. r = g (1 - kappa g) is concave in g, so "
        "under (1) and (3) this sign changes once along the spectrum, from - to +: every partial sum from the top falls, "
        "and under (2) that is majorization."
    ),
    not_checked="Steps of a stochastic or adaptive optimiser; view noise (S1 has the instantaneous rate).",
    claims=(CLAIM,),
    figure=Figure(
        caption=(
            "Change of the log effective rank (eigenvalues) after one step. Left: it rises up to the largest step that the three "
            "conditions allow. Right: the filter is 0 on a thousand small modes, so condition (3) fails for every step, and "
            "erank falls before the order is lost."
        ),
        record=record,
        draw=draw,
    ),
)
