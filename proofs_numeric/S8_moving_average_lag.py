"""S8. What the lag of a moving average does to the rank difference by itself."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common
from proofs_numeric._flow import flow
from rdm_jax import dynamics, spectra, theory
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
    balls,
    families,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.predicates import is_exact
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Modes s of W W^T now (descending), and one plus their growth rates over beta: since time ``since`` / beta ago, and
    always before.

    ``direction``: 1 where those do not increase with s (so that erank rises), -1 where they do not decrease.
    """

    spectrum: Array
    now: Array
    before: Array
    since: Array
    direction: Array


class Raw(NamedTuple):
    """Free parameters of an instance."""

    spectrum: families.Sequence
    now: families.Sequence
    before: families.Sequence
    since: Array
    mild: Array
    direction: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    now, before = (families.sample_filter(tape, spectrum, d)._replace(keep=d) for _ in range(2))
    direction = jnp.where(tape.scalar() < 0.6, 1, -1)
    return Raw(spectrum, now, before, tape.scalar(-3.0, 3.0), tape.scalar(-3.0, 3.0), direction)


def build(raw, dropped):
    """Ascending rates where erank rises; where it falls, rates whose log-gaps are a share of those of sqrt(s)."""
    spectrum = families.descending(raw.spectrum)
    share = jnp.where(dropped["order exchanged"], 2.0, 0.5) * jax.nn.sigmoid(raw.mild)
    gaps = jnp.where(jnp.arange(len(spectrum)) > 0, raw.spectrum.roots**2, 0.0)
    mild = jnp.exp(-share * families.accumulate(gaps))
    now, before = (
        jnp.where(raw.direction > 0, families.ascending(sequence), jnp.exp(sequence.scale) * mild)
        for sequence in (raw.now, raw.before)
    )
    reverse = jnp.exp(2 * raw.before.scale) / families.ascending(raw.before)
    before = jnp.where(dropped["it fell before"] & (raw.direction > 0), reverse, before)
    shuffled = dropped["rates in any order"]
    now, before = (jnp.where(shuffled, families.unordered(raw.now), rates) for rates in (now, before))
    return Instance(spectrum, now, before, jnp.exp(raw.since), jnp.where(shuffled, 1, raw.direction))


def lag(now, before, since):
    """tau = W_a/W of each mode: the average over the past of its size, in units of that now."""
    faded = jnp.exp(-now * since)
    return (1 - faded) / now + faded / before


def margin(c):
    tau, change = jax.jvp(lambda since: lag(c.now, c.before, since), (c.since,), (jnp.ones_like(c.since),))
    # modes that grow at the given rates: p = tau/2 and x = 4 now/tau^2 make s'/(2 s) + 1 = x tau p - x p^2 = now
    modes = dynamics.Eigenmodes(tau / 2, c.spectrum, tau)
    numbers = dynamics.EigenmodeParameters(signal=4 * c.now / tau**2, weight_decay=1.0, target_rate=1.0)
    slope = dynamics.eigenmode_field(dynamics.LinearDesign(target="average"))(0.0, modes, numbers)
    ranks = [spectra.effective_rank(spectrum) for spectrum in (c.spectrum, tau**2 * c.spectrum)]
    wrong = jnp.abs(slope.ratio - change) / (1 + (1 + c.now) * tau)
    return jnp.stack([c.direction * jnp.log(ranks[0] / ranks[1]), -jnp.max(wrong)])


def _ball_lag(c):
    faded = balls.vector([(-a * c.since).exp() for a in c.now])
    return (1 - faded) / c.now + faded / c.before, faded * (1 - c.now / c.before)


def ball_margin(c):
    tau, change = _ball_lag(c)
    wrong = (1 - c.now * tau - change) / (1 + (1 + c.now) * tau)
    return [
        c.direction * (balls.entropy(c.spectrum) - balls.entropy(tau * tau * c.spectrum)),
        _common.least(-abs(wrong)),
    ]


def distance(c):
    """A quarter of |q_a - q|_1^2 (S4), as for any filter that is ordered like the spectrum."""
    lagging = lag(c.now, c.before, c.since) ** 2 * c.spectrum
    return jnp.stack([_common.squared_distance(lagging, c.spectrum), jnp.ones(())])


def equality(c):
    alive = balls.support(c.spectrum)
    return [all(_common.constant([rates[i] for i in alive]) for rates in (c.now, c.before)), None]


def _in_direction(rates):
    def holds(c):
        values, alive = rates(c), on(c.spectrum)
        up, down = nondecreasing(values, alive), nonincreasing(values, alive)
        return (up | (c.direction < 0)) & (down | (c.direction > 0))

    return holds


def _order_kept(c):
    """Whether the averages tau sqrt(s) descend too, where erank falls; decided by balls where the numbers are exact."""
    if is_exact(c.spectrum):
        tau, _ = _ball_lag(Instance(*(_balls(part) for part in c[:3]), arb(c.since), c.direction))
        return (
            np.asarray(np.diff(tau * tau * _balls(c.spectrum)) <= 0, dtype=bool)
            | (c.direction > 0)
            | ~on(c.spectrum)[1:]
        )
    sizes = lag(c.now, c.before, c.since) ** 2 * c.spectrum
    return nonincreasing(sizes, on(c.spectrum)) | (c.direction > 0)


def _balls(values):
    return balls.vector([arb(value) for value in values])


def _rising(c):
    """dH/dt > 0 now; decided by balls where the numbers are exact."""
    if is_exact(c.spectrum):
        return bool(_common.entropy_rate(_balls(c.spectrum), _balls(c.now)) > 0)
    return theory.entropy_rate(c.spectrum, c.now) > 0


LAG = Claim(
    name="S8",
    statement=(
        "Modes that have grown at rates in the order opposite to their sizes, so that erank rose all along, have "
        "erank(W_a x) <= erank(W x), for every beta; the reverse if they grew in the order of their sizes and the averages keep it."
    ),
    hypotheses=(
        Hypothesis("sorted spectrum", "s descending and >= 0", lambda c: nonincreasing(c.spectrum)),
        Hypothesis("faster than decay", "r > -beta", lambda c: (c.now > 0) & (c.before > 0) & (c.since > 0)),
        Hypothesis(
            "rates ordered", "r nonincreasing in s (direction 1) or nondecreasing (-1)", _in_direction(lambda c: c.now)
        ),
        Hypothesis("past rates ordered", "those before as well", _in_direction(lambda c: c.before)),
        Hypothesis("order kept", "tau sqrt(s) ordered like s (direction -1)", _order_kept),
    ),
    conclusions=(Conclusion("rank difference", 1e-13), Conclusion("equation of tau", 1e-14, kind="identity")),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("it fell before", "the rates before in the other order", drops=("past rates ordered",)),
        Ablation(
            "rates in any order",
            "constant rates in any order, with erank rising now",
            drops=("rates ordered", "past rates ordered"),
            instead=(Hypothesis("erank rises", "dH/dt > 0", _rising),),
        ),
        Ablation("order exchanged", "where erank falls, averages in another order than s", drops=("order kept",)),
    ),
    domain=(DomainCondition("beta > 0", lambda: dynamics.lag_rank_difference(0.5, 0.0)),),
    rows=9,
    strata=(Stratum((2, 3, 8), 8, 0.8), Stratum((32,), 32, 0.2, searched=False)),
)


TARGET_RATES = (16.0, 32.0, 64.0, 128.0)
DESIGN = dynamics.LinearDesign(target="average")


def _ranks(branches, args):
    """log erank of W x and W_a x, and the rate of that of W x along the flow."""
    moment = args.signal + args.noise

    def rank(weights):
        return spectra.effective_rank(spectra.eigenvalues(weights @ moment @ weights.T))

    slope = dynamics.branch_field(DESIGN)(0.0, branches, args)
    own, rate = jax.jvp(rank, (branches.encoder,), (slope.encoder,))
    return own, rank(branches.target), rate


def _start(key, features, scale):
    first, second, third = jax.random.split(key, 3)
    signal, noise = (jax.random.normal(k, (features, features)) / 2 for k in (second, third))
    start = dynamics.random_branches(first, features, features, scale=scale, design=DESIGN)
    return start, dynamics.LinearParameters(signal @ signal.T, noise @ noise.T, weight_decay=0.05)


def lag_errors(key, sizes):
    """|erank(W_a x) - erank(W x) + (1/beta) d erank/dt| at t = 2, root mean squares over 8 starts: (8, sizes)."""

    def error(key, beta):
        start, args = _start(key, 3, 1.0)
        args = args._replace(target_rate=beta)
        last = jax.tree.map(lambda leaf: leaf[-1], flow(dynamics.branch_field(DESIGN), start, args, [0.0, 2.0], 800))
        own, lagging, rate = _ranks(last, args)
        return (lagging - own - dynamics.lag_rank_difference(rate, beta)) ** 2

    squares = jax.vmap(jax.vmap(error, (None, 0)), (0, None))(jax.random.split(key, 64), jnp.array(sizes))
    return jnp.sqrt(jnp.mean(squares.reshape(8, 8, -1), axis=1))


ORDERS = (
    Order(
        "S8 expansion",
        "erank(W_a x) - erank(W x) + (1/beta) d erank/dt is O(beta^-2), for matrices that need not be aligned",
        -2.0,
        TARGET_RATES,
        lag_errors,
    ),
)


def record(seed):
    """Ranks along one trajectory from a small start, for two speeds of the average."""
    start, args = _start(jax.random.fold_in(jax.random.key(8), seed), 4, 0.2)
    times, rates = jnp.linspace(0.0, 60.0, 121), jnp.array([0.5, 4.0])

    def ranks(beta):
        states = flow(dynamics.branch_field(DESIGN), start, args._replace(target_rate=beta), times, 20)
        return jax.vmap(lambda state: jnp.stack(_ranks(state, args)))(states)

    found = np.asarray(jax.jit(jax.vmap(ranks))(rates))
    return {"times": times.tolist(), "beta": rates.tolist(), "ranks": np.round(found, 6).tolist()}


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    for beta, rows, colour in zip(record["beta"], record["ranks"], ("C1", "C0"), strict=True):
        own, lagging, rate = np.array(rows).T
        left.plot(record["times"], own, color=colour, label=rf"$W x$, $\beta$ = {beta:g}")
        left.plot(record["times"], lagging, color=colour, linestyle="--", label=rf"$W_a x$, $\beta$ = {beta:g}")
        right.plot(record["times"], beta * (lagging - own), color=colour, label=rf"measured, $\beta$ = {beta:g}")
        right.plot(
            record["times"],
            -rate,
            color=colour,
            linestyle=":",
            label=r"$-d\,\mathrm{erank}/dt$, " + rf"$\beta$ = {beta:g}",
        )
    left.set(xlabel="time", ylabel="effective rank (eig)")
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="time", ylabel=r"rank difference of the lag $\times\,\beta$")
    left.legend(fontsize="small")
    right.legend(fontsize="small")


STATEMENT = Statement(
    name="S8",
    title="lag of a moving average",
    text=(
        "W_a' = beta (W - W_a), for any path of W. W_a = W - W'/beta + O(beta^-2) after a transient of 1/beta, so erank(W_a x) = erank(W x) - "
        "(1/beta) d erank/dt + O(beta^-2), eigenspaces aligned or not: by itself the lag lowers the target's effective rank "
        "while that of W x rises, to first order; its sign turns later than the rate's does, by a time of order 1/beta. Aligned modes "
        "have W_a = tau W with tau' = beta (1 - tau) - tau s'/(2 s), tau the average of a mode's past size over that now. "
        "Exactly, for every beta: if at all past times the growth rates did not increase with s (so that erank rose all along, "
        "L2), tau is ordered like s and erank(W_a x) <= erank(W x), with equality iff the rates were always the same in all "
        "modes; if they did not decrease with s, and tau^2 s is still ordered like s, >=. That erank rises now is not enough "
        "for either: the past counts, and with three modes or more so does the order of the rates."
    ),
    source=(
        "Partial integration of W_a(t) = int beta exp(-beta u) W(t - u) du. tau is the mean of exp(-int r) over the past: where "
        "r_i <= r_j always, tau_i >= tau_j; then T1, or T2 with its condition on the order."
    ),
    not_checked=(
        "The exact part for rates that change more than once: they are constant before and after one time. The transient "
        "from a start with W_a = W or any other. The rank difference of a whole method, which has the predictor's part as well."
    ),
    claims=(LAG,),
    orders=ORDERS,
    figure=Figure(
        caption=(
            "One trajectory from a small start for a slow and a fast average. Left: effective ranks of the features and of the "
            "lagging ones (dashed). Right: the lag's rank difference, times beta (solid), and minus the rate of erank(W x) (dotted): "
            "the faster the average, the closer they are; the sign turns later than the rate's."
        ),
        record=record,
        draw=draw,
    ),
)
