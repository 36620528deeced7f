"""T13. Linear branches mode by mode: what they conserve, where they end, and why the learned predictor is low-pass."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from proofs_numeric import _common, _descent
from proofs_numeric._aligned import ALIGNED
from proofs_numeric._conservation import CONSERVATION
from proofs_numeric._fixed_points import FIXED_POINTS
from proofs_numeric._flow import flow
from rdm_jax import dynamics, spectra, theory
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
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Predictor modes p (descending), the conserved c = s - p^2/alpha_p of each, and tau of each.

    ``direction``: -1 where all p <= tau/(2 (1 + sigma^2)) =: h, 1 where all p >= h, 0 where d erank/dt is not claimed.
    """

    predictor: Array
    conserved: Array
    ratio: Array
    noise: Array
    rate: Array
    direction: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``level``: p_1 over h; ``shift``: of c, as a part of what is legal."""

    predictor: families.Sequence
    level: Array
    shift: Array
    spread: Array
    ratio: Array
    noise: Array
    rate: Array
    direction: Array
    inside: Array


def sample(tape, d):
    predictor = families.sample_spectrum(tape, d)
    logs = tape.scalar(-2.0, 2.0), tape.scalar(-4.0, 2.0), tape.scalar(-3.0, 3.0)
    shift = jnp.where(tape.scalar() < 0.3, 0.0, tape.scalar(-3.0, 3.0))
    inside = jnp.arange(tape.width) < d
    return Raw(predictor, tape.scalar(-3.0, 3.0), shift, tape.vector(), *logs, tape.integer(-1, 2), inside)


def build(raw, dropped):
    modes, alive = families.descending(raw.predictor), families.kept(raw.predictor)
    ratio, noise, rate = (jnp.exp(log) for log in (raw.ratio, raw.noise, raw.rate))
    straddling = dropped["predictors on both sides"]
    direction = jnp.where(straddling & (raw.direction == 0), 1, raw.direction)
    # where a side is claimed, a millionth of the way to it is left out: rounding could cross it
    largest = jnp.where(direction < 0, 1 / (1 + 1e-6 + jnp.exp(raw.level)), jnp.exp(raw.level))
    last = jnp.min(jnp.where(alive, modes, jnp.inf))
    above = modes / last * (1 + 1e-6 + raw.level**2)
    either = modes / modes[0] * jnp.where(straddling, jnp.exp(raw.level), largest)
    half = ratio / (2 * (1 + noise))
    predictor = jnp.where(alive, half * jnp.where((direction > 0) & ~straddling, above, either), 0.0)
    smallest = half**2 * jnp.min(jnp.where(alive, predictor / half, jnp.inf)) ** 2 / rate
    conserved = smallest * jnp.where(raw.shift < 0, -0.99 * jnp.tanh(raw.shift) ** 2, raw.shift**2)
    own = predictor[0] ** 2 / rate * jnp.exp(4 * raw.spread)
    conserved = jnp.where(dropped["unequal conserved quantities"], own, conserved)
    # modes of p = 0 have s = c > 0, or are no modes
    present = alive | (raw.inside & (raw.shift > 0) & (direction <= 0))
    lag = jnp.where(dropped["a target ratio of each mode"], jnp.exp(raw.spread), 1.0)
    return Instance(predictor, jnp.where(present, conserved, 0.0), ratio * lag, noise, rate, direction)


def encoder(c):
    """s = p^2/alpha_p + c."""
    return c.predictor * c.predictor / c.rate + c.conserved


def speed(c):
    """The unit of the growth rates: p_1 (tau + (1 + sigma^2) p_1)."""
    return c.predictor[0] * (c.ratio[0] + (1 + c.noise) * c.predictor[0])


def margin(c):
    modes = dynamics.Eigenmodes(c.predictor, encoder(c))
    parameters = dynamics.EigenmodeParameters(predictor_rate=c.rate, noise=c.noise, target_ratio=c.ratio)
    slope = dynamics.eigenmode_field(dynamics.LinearDesign())(0.0, modes, parameters)
    alive = modes.encoder > 0
    rates = jnp.where(alive, slope.encoder / (2 * jnp.where(alive, modes.encoder, 1.0)), 0.0)
    ranks = [spectra.effective_rank(gains**2 * modes.encoder) for gains in (c.ratio, c.predictor)]
    changes = [theory.entropy_rate(modes.encoder, rates, convention=name) for name in ("eig", "sv")]
    return jnp.stack([jnp.log(ranks[0] / ranks[1]), *(c.direction * change / speed(c) for change in changes)])


def ball_margin(c):
    s = encoder(c)
    alive = balls.support(s)
    s, p, ratio = ([values[i] for i in alive] for values in (s, c.predictor, c.ratio))
    online, target = ([g * g * x for g, x in zip(gains, s, strict=True)] for gains in (p, ratio))
    rates = [a * (t - (1 + c.noise) * a) for a, t in zip(p, ratio, strict=True)]
    changes = [_common.entropy_rate(s, rates, exponent) for exponent in (1, balls.HALF)]
    return [balls.entropy(target) - balls.entropy(online), *(c.direction * change / speed(c) for change in changes)]


def distance(c):
    """|q_p - q_t|_1^2 (S4); for the rates E|r - Er| E|log s - E log s| of ordered variables, at most 4 |Cov|."""
    s = encoder(c)
    logs = jnp.log(jnp.where(s > 0, s, 1.0))
    rates = c.predictor * (c.ratio - (1 + c.noise) * c.predictor) / speed(c) * jnp.abs(c.direction)
    eig, sv = (_common.joint_spread(rates, logs, weights) for weights in (s, jnp.sqrt(s)))
    return jnp.stack([_common.squared_distance(c.predictor**2 * s, s), eig, sv / 4])


def equality(c):
    still = _common.constant([c.predictor[i] for i in balls.support(encoder(c))])
    return [still, still or c.direction == 0, still or c.direction == 0]


def _on_its_side(c):
    edge = 2 * (1 + c.noise) * c.predictor
    below, above = at_least(c.ratio, edge), at_least(edge, c.ratio)
    return (below | (c.direction >= 0)) & (above | (c.direction <= 0)) | ~on(encoder(c))


LOW_PASS = Claim(
    name="T13 low-pass",
    statement=(
        "Modes p >= 0 with one conserved c are ordered like s, so erank(target) >= erank(online); d erank/dt <= 0 while all "
        "p <= tau/(2 (1 + sigma^2)), >= 0 while all p are at least that (eig and sv)."
    ),
    hypotheses=(
        Hypothesis(
            "predictor", "p >= 0, descending, not all 0", lambda c: nonincreasing(c.predictor) & (c.predictor[0] > 0)
        ),
        Hypothesis("encoder", "s >= 0", lambda c: (encoder(c) >= 0) & (c.predictor >= 0)),
        Hypothesis(
            "parameters", "tau, alpha_p > 0, sigma^2 >= 0", lambda c: (c.ratio > 0) & (c.rate > 0) & (c.noise >= 0)
        ),
        Hypothesis(
            "one c",
            "s - p^2/alpha_p the same in all modes",
            lambda c: (c.conserved == c.conserved[0]) | ~on(encoder(c)),
        ),
        Hypothesis("one tau", "the target is tau W", lambda c: c.ratio == c.ratio[0]),
        Hypothesis("one side", "all p <= tau/(2 (1 + sigma^2)) (direction -1) or >= (1)", _on_its_side),
    ),
    conclusions=(
        Conclusion("rank difference", 1e-13),
        Conclusion("d erank/dt, eig", 1e-13),
        Conclusion("d erank/dt, sv", 1e-13),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("unequal conserved quantities", "a c of each mode", drops=("one c",)),
        Ablation(
            "a target ratio of each mode", "a tau of each mode, as a moving average has", drops=("one tau", "one side")
        ),
        Ablation("predictors on both sides", "some p below tau/(2 (1 + sigma^2)), some above", drops=("one side",)),
    ),
    domain=(DomainCondition("alpha_p > 0", lambda: dynamics.balanced_eigenmodes(jnp.ones(2), 0.0)),),
    rows=4,
    strata=(Stratum((2, 3, 8), 8, 0.8), Stratum((32,), 32, 0.2, searched=False)),
)


COUNTS, STARTS = (2, 4, 8), 150  # modes, and random starts of each number of them


def trajectories(seed):
    """Times, and s and p along the flow: one start with a common c, then STARTS with unequal ones for each of COUNTS.

    All have eight modes, of which those beyond their number are 0 and stay 0.
    """
    drawn = jax.random.uniform(jax.random.fold_in(jax.random.key(13), seed), (2, len(COUNTS) * STARTS, 8))
    present = jnp.arange(8)[None] < jnp.repeat(jnp.array(COUNTS), STARTS)[:, None]
    predictor, encoder = (0.3 * drawn[0]) * present, (0.3 * drawn[1]) * present
    common = jnp.geomspace(0.02, 0.4, 8)
    predictor, encoder = (jnp.concatenate([a[None], b]) for a, b in ((common, predictor), (common**2 + 0.05, encoder)))
    times = jnp.append(0.0, jnp.geomspace(0.2, 100.0, 40))

    def run(p, s):
        args = dynamics.EigenmodeParameters(noise=0.3, weight_decay=0.02)
        field = dynamics.eigenmode_field(dynamics.LinearDesign())
        return flow(field, dynamics.Eigenmodes(p, s), args, times, 60)

    found = jax.jit(jax.vmap(run))(predictor, encoder)
    return np.asarray(times), np.asarray(found.encoder), np.asarray(found.predictor)


def record(seed):
    times, encoder, predictor = trajectories(seed)
    ranks = [spectra.effective_rank(jnp.asarray(spectrum)) for spectrum in (encoder, predictor**2 * encoder)]
    difference = np.asarray(jnp.log(ranks[0] / ranks[1]))
    shown, unequal = [0, 12, 22, 30, 40], difference[1:].reshape(len(COUNTS), STARTS, -1)
    negative = np.any(unequal < -1e-9, axis=2)
    curves = [*unequal[0][negative[0]][:6], *unequal[0][~negative[0]][:6]]
    return {
        "times": times.tolist(),
        "shown": times[shown].tolist(),
        "encoder": np.round(encoder[0][shown], 8).tolist(),
        "predictor": np.round(predictor[0][shown], 8).tolist(),
        "common": np.round(difference[0], 6).tolist(),
        "unequal": np.round(curves, 6).tolist(),
        "negative at some time": dict(zip(map(str, COUNTS), np.mean(negative, axis=1).tolist(), strict=True)),
        "negative in the end": float(np.mean(unequal[:, :, -1] < -1e-9)),
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    for time, s, p, marker in zip(record["shown"], record["encoder"], record["predictor"], "osD^v", strict=True):
        left.plot(s, p, marker + "-", markersize=4, linewidth=0.9, label=f"t = {time:.3g}")
    left.set(xlabel=r"encoder mode $s_j$", ylabel=r"predictor mode $p_j$ (its gain)")
    left.legend(fontsize="small")
    for curve in record["unequal"]:
        fell = min(curve) < -1e-9
        right.plot(record["times"], curve, color="C1" if fell else "0.75", linewidth=0.9, zorder=3 if fell else 1)
    right.plot(record["times"], record["common"], color="C0", linewidth=2, label="one $c$ (the modes on the left)")
    right.plot([], [], color="C1", label="two modes, unequal $c$, negative at times")
    right.plot([], [], color="0.75", label="two modes, unequal $c$, never negative")
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="time", ylabel=r"$\log$ erank(target) $-\,\log$ erank(online)", xscale="symlog")
    right.set(xlim=(0, 100), ylim=(-0.1, 1.3))
    right.legend(fontsize="small", loc="upper right")


STATEMENT = Statement(
    name="T13",
    title="eigenmodes of linear branches",
    text=(
        "W_p' = alpha_p E W^T - eta W_p, W' = W_p^T E - eta W, W_a' = beta (W - W_a), E = W_a X - W_p W (X + X'). (a) C = W W^T - "
        "W_p^T W_p/alpha_p obeys C' = -2 eta C for any X, X', W_a and W_p; for a symmetrised W_p only if it commutes with W W^T "
        "(T14). (d) If X = V diag(x) V^T, X' = V diag(xi) V^T, W = U diag(sqrt s) V^T, W_p = U diag(p) U^T and W_a = U diag(tau "
        "sqrt s) V^T, this shape is kept: p' = alpha_p s e - eta p, s' = 2 p s e - 2 eta s, e = tau x - (x + xi) p, and tau' = "
        "beta (1 - tau) - tau s'/(2 s) under the moving average. Gradient descent leaves the flow by O(learning rate). From "
        "here on x = 1, xi = sigma^2, one tau > 0, which may depend on time. (b) Modes p_j >= 0 stay so, and if s_j - "
        "p_j^2/alpha_p is one number c for all j at the start, it is at all times: p = sqrt(alpha_p (s - c)) grows with s, so "
        "the learned predictor is low-pass throughout and erank(target) >= erank(online), with equality iff all s_j > 0 are "
        "equal. With unequal c the rank difference can be negative, until c exp(-2 eta t) is small beside the s_j. If each "
        "mode has a tau of its own, as under a moving average, the target's lag is added (S8). (c) eta > 0: every fixed point has c = "
        "0 (balanced: s = p^2/alpha_p). Those with p != 0 are p+- = (tau +- sqrt(tau^2 - 4 eta (1 + sigma^2)))/(2 (1 + sigma^2)) "
        "and exist iff eta <= tau^2/(4 (1 + sigma^2)), the critical weight decay. Balanced modes obey p' = (1 + sigma^2) p "
        "(p - p-) (p+ - p), so below it p+ is stable (eigenvalues -2 eta and -p+ sqrt(...)), p- a saddle and the edge of their "
        "basin, and 0 stable too. For all modes, balanced or not, s'/(2 s) <= critical - eta: above it all collapse, at least "
        "at that rate. (e) If the p_j >= 0 are ordered like the s_j, as they are with one c, erank falls while all p_j <= "
        "tau/(2 (1 + sigma^2)) and rises while all are at least that (eig and sv); stationary iff the p_j are equal. For two "
        "modes the sign is that of p_1 + p_2 - tau/(1 + sigma^2). It is T6's 1/2."
    ),
    source=(
        "Tian, Chen and Ganguli 2021. (a) W_p' W_p^T-terms: W W^T' and W_p^T W_p'/alpha_p both contain W_p^T E W^T, which cancels. "
        "(b) p' = alpha_p s tau >= 0 where p = 0; p^2 = alpha_p (s - c); then T1. (c) p tau - (1 + sigma^2) p^2 = tau^2/(4 (1 + "
        "sigma^2)) - (1 + sigma^2) (p - tau/(2 (1 + sigma^2)))^2. (e) The growth rate p (tau - (1 + sigma^2) p) - eta is monotone "
        "in p on either side of tau/(2 (1 + sigma^2)); then L2."
    ),
    not_checked=(
        "Time-dependent tau other than through its value at an instant. That (a) to (e) hold along trajectories follows from "
        "what is checked, derivatives at any state, and is shown in the figure. How often unequal c make the rank difference "
        "negative depends on the number of modes and the sampler: the figure's file counts it for one."
    ),
    claims=(CONSERVATION, ALIGNED, LOW_PASS, FIXED_POINTS),
    orders=_descent.ORDERS,
    figure=Figure(
        caption=(
            "Left: eight modes with a common c = 0.05 at the start, at five times; the predictor's gain grows with the mode throughout. Right: "
            "their rank difference, and that of pairs of modes with unequal c (s and p uniform in [0, 0.3] at the start), which "
            "is negative for some time in many of them and not in the end."
        ),
        record=record,
        draw=draw,
    ),
)
