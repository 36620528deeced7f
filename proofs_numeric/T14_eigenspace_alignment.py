"""T14. A symmetrised predictor aligns its eigenspaces with those of the features."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import acb_mat, arb, arb_mat

from proofs_numeric import _linear
from proofs_numeric._flow import flow
from rdm_jax import dynamics, spectra
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
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array


class Instance(NamedTuple):
    """W_p = H + T, H symmetric; W; A of X = I + A A^T; what W_a has beside tau W; sigma^2, alpha_p, tau; a vector v; kappa.

    The weight decay is ``excess`` times the threshold tau^2/(6 (1 + sigma^2)). ``learned``: 1 where W_p' takes all of E W^T.
    """

    predictor: Array
    skew: Array
    encoder: Array
    target: Array
    signal_root: Array
    vector: Array
    noise: Array
    rate: Array
    ratio: Array
    excess: Array
    learned: Array


class Raw(NamedTuple):
    """Free parameters of an instance: four matrices and a vector, and the numbers."""

    matrices: Array
    vector: Array
    noise: Array
    rate: Array
    ratio: Array
    excess: Array


def sample(tape, d):
    del d  # three features and inputs
    scales = jnp.exp(jnp.stack([tape.scalar(-3.0, 1.0) for _ in range(4)]))
    matrices = logistic(tape.vectors(12)).reshape(4, 3, 3) * scales[:, None, None]
    numbers = tape.scalar(-4.0, 2.0), tape.scalar(-3.0, 3.0), tape.scalar(-1.0, 1.0)
    return Raw(matrices, logistic(tape.vector()), *numbers, tape.scalar(-2.0, 2.0))


def build(raw, dropped):
    head, encoder, target, root = raw.matrices
    nothing = jnp.zeros((3, 3))
    return Instance(
        predictor=jnp.triu(head) + jnp.triu(head, 1).T,
        skew=jnp.where(dropped["predictor not symmetric"], jnp.triu(head, 1) - jnp.triu(head, 1).T, nothing),
        encoder=encoder,
        target=jnp.where(dropped["another target"], target, nothing),
        signal_root=jnp.where(dropped["anisotropic data"], root, nothing),
        vector=raw.vector,
        noise=jnp.exp(raw.noise),
        rate=jnp.exp(raw.rate),
        ratio=jnp.exp(raw.ratio),
        excess=jnp.where(dropped["below the threshold"], 1 / (1 + raw.excess**2), 1 + raw.excess**2),
        learned=dropped["learned predictor"].astype(int),
    )


def threshold(c):
    """tau^2 / (6 (1 + sigma^2)), in floats or balls."""
    return c.ratio * c.ratio / (6 * (1 + c.noise))


def _slopes(c, decay):
    """W_p' and W' by the library's fields."""
    identity = jnp.eye(3)
    state = dynamics.Branches(c.predictor + c.skew, c.encoder, c.ratio * c.encoder + c.target)
    parameters = dynamics.LinearParameters(
        identity + c.signal_root @ c.signal_root.T, c.noise * identity, c.rate, decay
    )
    halved, whole = (
        dynamics.branch_field(dynamics.LinearDesign(predictor=kind, target="average"))(0.0, state, parameters)
        for kind in ("symmetric", "learned")
    )
    return jnp.where(c.learned == 1, whole.predictor, halved.predictor), halved.encoder


def margin(c):
    edge = dynamics.alignment_threshold(c.noise, target_ratio=c.ratio)
    critical = dynamics.critical_weight_decay(c.noise, target_ratio=c.ratio)
    decay = edge * c.excess
    state, slope = (c.predictor + c.skew, c.encoder), _slopes(c, decay)
    lag, change = jax.jvp(lambda head, weights: dynamics.commutator(weights @ weights.T, head), state, slope)
    kept, loss = jax.jvp(
        lambda head, weights: jnp.trace(dynamics.conserved_matrix(head, weights, c.rate)), state, slope
    )
    bound = dynamics.alignment_bound(
        c.predictor, c.encoder, noise=c.noise, weight_decay=decay, predictor_rate=c.rate, target_ratio=c.ratio
    ).matrix
    size = jnp.linalg.norm(bound)
    two_smallest = jnp.sum(spectra.eigenvalues(bound + size * jnp.eye(3))[1:] - size)
    fall, square = -jnp.sum(lag * change), jnp.sum(lag**2)
    terms = sizes(c, *(jnp.linalg.norm(entries) for entries in (*state, *slope, bound)))
    vector = c.vector / jnp.linalg.norm(c.vector)
    return jnp.stack(
        [
            -jnp.sum(jnp.abs(change + bound @ lag + lag @ bound)) / terms[0],
            (fall - two_smallest * square) / terms[1],
            fall / terms[1],
            (vector @ bound @ vector - 1.5 * (decay - edge)) / size,
            (critical - decay - jnp.sum(c.encoder * slope[1]) / jnp.sum(c.encoder**2)) / size,
            -jnp.abs(loss + 2 * decay * kept) / terms[2],
        ]
    )


def sizes(c, head, weights, turning, moving, bound):
    """Of the terms of L', of |L|^2 K and of the trace of C', from the norms of W_p, W, W_p', W' and K."""
    whole = weights * weights * head
    change = 2 * weights * moving * head + weights * weights * turning + whole * bound
    trace = weights * moving + head * turning / c.rate + c.excess * threshold(c) * (weights**2 + head**2 / c.rate)
    return change, whole * whole * bound, trace


def _two_smallest(matrix):
    """The sum of the two smallest eigenvalues of a symmetric matrix of balls; NaN while they can't be isolated."""
    try:
        levels = [value.real for value in acb_mat(matrix).eig(multiple=True)]
    except ValueError:
        return arb.nan()
    return balls.total(levels) - max(levels, key=lambda value: float(value.mid()))


def ball_margin(c):
    edge, moment = threshold(c), 1 + c.noise
    decay, critical = edge * c.excess, c.ratio * c.ratio / (4 * moment)
    even, skew, encoder, target, root = map(_linear.matrix, (c.predictor, c.skew, c.encoder, c.target, c.signal_root))
    one, head = _linear.diagonal([arb(1)] * 3), even + skew
    now = _linear.flow(
        head,
        encoder,
        encoder * c.ratio + target,
        root * root.transpose() + one,
        one * c.noise,
        c.rate,
        decay,
        not c.learned,
    )
    features = encoder * encoder.transpose()
    growth = now.encoder * encoder.transpose()
    growth = growth + growth.transpose()
    lag = features * head - head * features
    change = growth * head - head * growth + features * now.predictor - now.predictor * features
    bound = (even * even + features * (c.rate / 2)) * moment - even * c.ratio + one * (decay * 3 / 2)
    size = _linear.size(bound)
    fall, square = -_linear.inner(lag, change), _linear.inner(lag, lag)
    terms = sizes(c, *map(_linear.size, (head, encoder, now.predictor, now.encoder)), size)
    vector = arb_mat([[x] for x in c.vector])
    form = _linear.inner(vector, bound * vector) / _linear.inner(vector, vector)
    kept = features.trace() - _linear.inner(head, head) / c.rate
    loss = growth.trace() - 2 * _linear.inner(head, now.predictor) / c.rate
    return [
        -_linear.entries(change + bound * lag + lag * bound) / terms[0],
        (fall - _two_smallest(bound) * square) / terms[1],
        fall / terms[1],
        (form - (decay - edge) * 3 / 2) / size,
        (critical - decay - _linear.inner(encoder, now.encoder) / features.trace()) / size,
        -abs(loss + 2 * decay * kept) / terms[2],
    ]


def distance(c):
    """Lower bounds of the inequalities' margins, so that their ratios are at least 1, with K as `bound`.

    The axis l of L has |L|^2 (kappa_3 - l^T K l) for the second margin, and kappa_3 - l^T K l >= Var_l(K)/(kappa_3 - kappa_1);
    the third is at least what K's own bound gives; the last two are |(W_p - h) v|^2 + (alpha_p/2) |W^T v|^2, and
    |(W_p - h) W|^2, h = tau/(2 (1 + sigma^2)).
    """
    half, moment = c.ratio / (2 * (1 + c.noise)), 1 + c.noise
    features, shifted = c.encoder @ c.encoder.T, c.predictor - half * jnp.eye(3)
    bound = moment * (c.predictor @ c.predictor + c.rate / 2 * features) - c.ratio * c.predictor
    bound = bound + 1.5 * c.excess * threshold(c) * jnp.eye(3)
    size = jnp.linalg.norm(bound)
    lag = features @ c.predictor - c.predictor @ features
    square = jnp.sum(lag**2)
    axis = jnp.stack([lag[1, 2], -lag[0, 2], lag[0, 1]]) / jnp.sqrt(square / 2)
    pulled = bound @ axis
    scale = (jnp.sum(c.encoder**2) * jnp.linalg.norm(c.predictor)) ** 2 * size
    variance = jnp.sum((pulled - axis * (axis @ pulled)) ** 2)
    vector = c.vector / jnp.linalg.norm(c.vector)
    excess = moment * (jnp.sum((shifted @ vector) ** 2) + c.rate / 2 * jnp.sum((c.encoder.T @ vector) ** 2)) / size
    energy = moment * jnp.sum((shifted @ c.encoder) ** 2) / jnp.sum(c.encoder**2) / size
    rates = variance / (2**0.5 * size), 3 * (c.excess - 1) * threshold(c)
    one = jnp.ones(())
    return jnp.stack([one, *(square * rate / scale for rate in rates), excess, energy, one])


ALIGNMENT = Claim(
    name="T14",
    statement=(
        "With a symmetrised W_p, L' = -(K L + L K); |L| falls at least at the rate of K's two smallest eigenvalues together, "
        "and from any start if eta > tau^2/(6 (1 + sigma^2)); |W|^2 at least at the rate 2 (eta - critical)."
    ),
    hypotheses=(
        Hypothesis("symmetrised", "W_p' takes the symmetric part of E W^T", lambda c: c.learned == 0),
        Hypothesis("symmetric predictor", "W_p = W_p^T", lambda c: (c.skew == 0) & (c.predictor == c.predictor.T)),
        Hypothesis("isotropic data", "X = I, X' = sigma^2 I", lambda c: c.signal_root == 0),
        Hypothesis("target", "W_a = tau W", lambda c: c.target == 0),
        Hypothesis("weight decay", "eta >= tau^2/(6 (1 + sigma^2)), for the fall", lambda c: at_least(c.excess, 1)),
    ),
    conclusions=(
        Conclusion("L' = -(K L + L K)", 1e-14, kind="identity"),
        Conclusion("rate of K's two smallest eigenvalues", 1e-14),
        Conclusion("|L| falls", 1e-14),
        Conclusion("K >= (3/2) (eta - threshold)", 1e-14),
        Conclusion("|W|^2 falls", 1e-14),
        Conclusion("trace of C", 1e-14, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    ablations=(
        Ablation("learned predictor", "all of E W^T: W_p does not stay symmetric", drops=("symmetrised",)),
        Ablation("predictor not symmetric", "any W_p", drops=("symmetric predictor",)),
        Ablation("anisotropic data", "any X", drops=("isotropic data",)),
        Ablation("another target", "any W_a", drops=("target",)),
        Ablation("below the threshold", "eta below it, for the fall", drops=("weight decay",)),
    ),
    domain=(
        DomainCondition(
            "W_p symmetric", lambda: dynamics.alignment_bound([[1.0, 2.0], [0.0, 1.0]], jnp.eye(2), noise=0.1)
        ),
        DomainCondition("noise >= 0", lambda: dynamics.alignment_threshold(-0.1)),
    ),
    rows=13,
    strata=(Stratum((3,), 3, 1.0),),
)


def record(seed):
    """|L| along trajectories from one small start, at several weight decays, and the bound that K's eigenvalues make."""
    design, noise, times = dynamics.LinearDesign(predictor="symmetric"), 0.3, jnp.linspace(0.0, 40.0, 161)
    start = dynamics.random_branches(jax.random.fold_in(jax.random.key(14), seed), 4, 4, scale=0.3, design=design)
    shares = jnp.array([0.2, 0.5, 1.1])

    def measures(state, decay):
        lag = dynamics.commutator(state.encoder @ state.encoder.T, state.predictor)
        bound = dynamics.alignment_bound(state.predictor, state.encoder, noise=noise, weight_decay=decay).matrix
        size = jnp.linalg.norm(bound)
        two = jnp.sum(spectra.eigenvalues(bound + size * jnp.eye(4))[-2:] - size)
        return jnp.stack([jnp.linalg.norm(lag), two])

    def run(decay):
        args = dynamics.LinearParameters(jnp.eye(4), noise * jnp.eye(4), weight_decay=decay)
        states = flow(dynamics.branch_field(design), start, args, times, 10)
        return jax.vmap(measures, (0, None))(states, decay)

    found = np.asarray(jax.jit(jax.vmap(run))(shares * dynamics.alignment_threshold(noise)))
    length, rate = found[..., 0], found[..., 1]
    steps = np.diff(np.asarray(times)) * (rate[:, 1:] + rate[:, :-1]) / 2
    bound = np.exp(-np.cumsum(np.pad(steps, ((0, 0), (1, 0))), axis=1))
    return {
        "times": times.tolist(),
        "eta over threshold": shares.tolist(),
        "commutator": (length / length[:, :1]).tolist(),
        "bound": bound.tolist(),
        "two smallest eigenvalues": rate.tolist(),
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    rows = zip(*(record[name] for name in list(record)[1:]), strict=True)
    for (share, length, bound, rate), colour in zip(rows, ("C1", "C2", "C0"), strict=True):
        label = rf"$\eta$ = {share:g} $\tau^2/(6 (1 + \sigma^2))$"
        left.semilogy(record["times"], length, color=colour, label=label)
        left.semilogy(record["times"], bound, color=colour, linestyle=":")
        right.plot(record["times"], rate, color=colour)
    right.axhline(0, color="black", linewidth=0.8)
    left.set(xlabel="time", ylabel=r"$|[W W^T, W_p]|_F$ over that at the start", ylim=(1e-8, 30))
    right.set(xlabel="time", ylabel=r"two smallest eigenvalues of $K$, added")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small")


STATEMENT = Statement(
    name="T14",
    title="eigenspace alignment",
    text=(
        "X = I, X' = sigma^2 I, W_a = tau W for any tau(t), and a symmetric W_p that takes only the symmetric part of E W^T, "
        "so that it stays symmetric. L = [F, W_p], F = W W^T, obeys L' = -(K L + L K), K = (1 + sigma^2) (W_p^2 + (alpha_p/2) F) "
        "- tau W_p + (3/2) eta I. L is antisymmetric, so its singular values come in pairs, and |L|_F falls at least at the "
        "rate kappa_1 + kappa_2 of K's two smallest eigenvalues (2 lambda_min(K) is a weaker bound; in two dimensions "
        "L' = -tr(K) L). K >= (3/2) (eta - tau^2/(6 (1 + sigma^2))) I always, so above that weight decay, which is two "
        "thirds of the critical one of T13, |L|_F falls from any start; below it K can be indefinite, and |L|_F can grow. "
        "At aligned fixed points K is tau p/2 at a mode p+ or p- and (3/2) eta at a collapsed one: positive, so alignment "
        "is locally stable there. Whatever K is, |W|_F^2 falls at least at the rate 2 (eta - tau^2/(4 (1 + sigma^2))), so "
        "above the critical weight decay everything collapses, aligned or not. W_p symmetrised, C = F - W_p^2/alpha_p "
        "obeys C' = -2 eta C + [W_p, A], A the antisymmetric part of E W^T: not T13 (a) unless L = 0, but its trace does. "
        "For a learned W_p that is not symmetrised none of this need hold: L' is another."
    ),
    source=(
        "Tian, Chen and Ganguli 2021 (DirectPred), sharpened. [W_p F + F W_p, W_p] = W_p L + L W_p, [W_p^2 F + F W_p^2, W_p] = "
        "W_p^2 L + L W_p^2 and [F, W_p F + F W_p] = L F + F L give L'. |L|^2' = -4 tr(K L L^T), and L L^T = -L^2 has "
        "eigenvalues in equal pairs. (1 + sigma^2) x^2 - tau x >= -tau^2/(4 (1 + sigma^2)). tr([W_p, A] F) = (1 + sigma^2) |L|^2/2 "
        "up to its sign, so [W_p, A] = 0 only if L = 0."
    ),
    not_checked=(
        "Alignment of |L|_F relative to |F|_F |W_p|_F, which both may shrink. Dimensions other than 3. Trajectories other than "
        "those of the figure: the bound is one on derivatives. The constant K of fixed points is checked in T13's claim about them."
    ),
    claims=(ALIGNMENT,),
    figure=Figure(
        caption=(
            "From one small start: the commutator of features and predictor (left, solid; dotted: the bound that K's two smallest "
            "eigenvalues make of its start), and those eigenvalues (right). Above the threshold it falls all the way; "
            "below it K can be indefinite for a while (here at 0.2), and then it may grow (not from this start)."
        ),
        record=record,
        draw=draw,
    ),
)
