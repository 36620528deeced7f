"""S2. A predictor with a ridge, or one that lags behind, lifts the effective rank whatever the view noise is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from proofs_numeric import _common
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
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array

_LONGEST = 400.0  # alpha t lambda_1 at most: beyond, exp(-alpha t lambda) is too small for any precision that is tried


class Instance(NamedTuple):
    """Eigenvalues (descending), the signal m, the signal the predictor learned, the ridge rho, and 1 / (alpha t)."""

    spectrum: Array
    signal: Array
    learned: Array
    ridge: Array
    lag: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``some`` marks the modes with a signal."""

    spectrum: families.Sequence
    log_signal: Array
    some: Array
    log_error: Array
    log_ridge: Array
    logit_time: Array
    with_ridge: Array
    converged: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    ratio = tape.scalar(0.0, 2.0) * logistic(tape.vector())  # m / lambda: any sequence
    uniforms, index = tape.vectors(2), jnp.arange(tape.width)
    kind = tape.scalar()
    return Raw(
        spectrum,
        ratio - families.accumulate(spectrum.roots**2),
        (uniforms[0] < 0.9) | (index == 0),
        0.3 * logistic(uniforms[1]),
        tape.scalar(-20.0, 3.0),
        tape.scalar(-12.0, 3.0),
        kind > 0.25,
        (kind < 0.5) & (kind > 0.05),
    )


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    signal = jnp.where(raw.some & (spectrum > 0), jnp.exp(raw.log_signal), 0.0)
    error = jnp.where(dropped["learned from other data"], raw.log_error, 0.0)
    near = jnp.where(jnp.arange(len(signal)) == raw.spectrum.entry, jnp.log(1 / 1.01), 0.0)
    error = jnp.where(dropped["learned one mode 1% short"], near, error)
    ridge = jnp.where(raw.with_ridge, jnp.exp(raw.log_ridge), 0.0)
    smallest = jnp.min(jnp.where(spectrum > 0, spectrum, jnp.inf))
    ridge = jnp.where(dropped["negative ridge"], -0.9 * smallest * jnp.exp(-(raw.log_ridge**2)), ridge)
    time = _LONGEST / (1 + jnp.exp(-raw.logit_time))
    lag = jnp.where(raw.converged, 0.0, spectrum[0] / time)
    return Instance(spectrum, signal, signal * jnp.exp(error), ridge, lag)


def learned_gains(c):
    """The predictor's gains; a negative ridge, which the library refuses, is a shift of the spectrum."""
    progress = jnp.where(c.lag > 0, 1 / jnp.where(c.lag > 0, c.lag, 1.0), jnp.inf)
    shifted = jnp.where(c.spectrum > 0, c.spectrum + jnp.minimum(c.ridge, 0.0), 0.0)
    return theory.lagging_predictor_gains(shifted, c.learned, jnp.maximum(c.ridge, 0.0), progress)


def margin(c):
    gains = learned_gains(c)
    rates = theory.growth_rates(c.spectrum, online_gains=gains, signal=c.signal)
    scale = jnp.sum(gains * c.signal) / jnp.sum(c.spectrum)
    by_threshold = theory.entropy_rate_wiener(c.spectrum, online_gains=gains, signal=c.signal)
    return jnp.stack([theory.entropy_rate(c.spectrum, rates), by_threshold]) / scale


def ball_margin(c):
    modes = balls.support(c.spectrum)
    spectrum, signal = [c.spectrum[i] for i in modes], [c.signal[i] for i in modes]
    gains = [c.learned[i] / (c.spectrum[i] + c.ridge) for i in modes]
    if c.lag != 0:
        gains = [-g * (-(x + c.ridge) / c.lag).expm1() for g, x in zip(gains, spectrum, strict=True)]
    pull = balls.total([g * m for g, m in zip(gains, signal, strict=True)])
    kappa = pull / balls.total([g * g * x for g, x in zip(gains, spectrum, strict=True)])
    rates = [g * (m / x - kappa * g) for g, m, x in zip(gains, signal, spectrum, strict=True)]
    rate = _common.entropy_rate(spectrum, rates) * balls.total(spectrum) / pull
    return [rate, rate]


def distance(c):
    """dH/dt is -2 Cov(theta, log lambda), and both are ordered: see `_common.joint_spread`."""
    gains, has = learned_gains(c), c.signal > 0
    weights = jnp.where(has, gains**2 * c.spectrum, 0.0)
    threshold = theory.wiener_threshold(c.spectrum, online_gains=gains, signal=c.signal)
    logs = jnp.log(jnp.where(has, c.spectrum, 1.0))
    mean = jnp.sum(weights * threshold) / jnp.sum(weights)
    return jnp.full(2, _common.joint_spread(threshold / mean, logs, weights))


def equality(c):
    converged = c.lag == 0 and c.ridge == 0
    same = _common.constant([x for x, m in zip(c.spectrum, c.signal, strict=True) if m != 0])
    return [converged or same] * 2


def record(seed):
    """One noisy spectrum whose Wiener filter is not low-pass: dH/dt by ridge and training time, and the gains."""
    spectrum, signal = jnp.array([8.0, 4.0, 2.0, 1.0, 0.5]), jnp.array([2.0, 3.0, 0.4, 0.9, 0.1])
    ridges, times = np.geomspace(1e-3, 1e2, 41), (np.inf, 1.0, 0.1, 0.01)

    def rate(ridge, time):
        gains = theory.lagging_predictor_gains(spectrum, signal, ridge, time)
        rate = theory.entropy_rate_wiener(spectrum, online_gains=gains, signal=signal)
        return rate * jnp.sum(spectrum) / jnp.sum(gains * signal)

    rates = jax.jit(jax.vmap(jax.vmap(rate, (0, None)), (None, 0)))(ridges, jnp.array(times))
    labels = ["converged", *(f"$\\alpha t$ = {time:g}" for time in times[1:])]
    curves = [{"label": label, "rate": row} for label, row in zip(labels, rates.tolist(), strict=True)]
    return {"spectrum": spectrum.tolist(), "signal": signal.tolist(), "ridges": ridges.tolist(), "curves": curves}


def draw(figure, record):
    left, right = figure.subplots(1, 2)
    for curve in record["curves"]:
        left.loglog(record["ridges"], curve["rate"], label=curve["label"])
    left.set_xlabel(r"ridge $\rho$  (unit of $\lambda$)")
    left.set_ylabel(r"$dH/dt$ over $E_q[g\,m/\lambda]$  (nats)")
    left.legend()
    spectrum, signal = np.array(record["spectrum"]), np.array(record["signal"])
    modes = np.arange(1, len(spectrum) + 1)
    for ridge, marker in ((0.0, "o-"), (2.0, "s--")):
        right.plot(modes, signal / (spectrum + ridge), marker, label=rf"$\rho$ = {ridge:g}")
    right.set_xticks(modes, [f"{x:g}" for x in spectrum])
    right.set_xlabel(r"eigenvalue $\lambda_i$ of the mode")
    right.set_ylabel(r"gain $m_i / (\lambda_i + \rho)$ of the converged predictor")
    right.legend()


STATEMENT = Statement(
    name="S2",
    title="ridge or lagging predictor",
    text=(
        "Mean-field cosine, online predictor learned by ridge regression (rho >= 0) or by gradient flow for a time t > 0 from "
        "zero (rate alpha, features held fixed): g_i = m_i/(lambda_i + rho) (1 - exp(-alpha t (lambda_i + rho))). Then "
        "dH/dt >= 0 for eigenvalues, whatever the signal m >= 0: the predictor need not be low-pass. Equality iff rho = 0 and "
        "t = inf (the exact Wiener filter), or lambda takes one value where m > 0. C_m need not commute with C_z: the predictor "
        "is C_m phi(C_z), and all that enters the growth rates is m_i = |C_m v_i| in C_z's eigenbasis v_i. It is the predictor's "
        "shrinkage, not its optimality, that lifts the rank: a predictor sharper than Wiener (rho < 0) lowers it."
    ),
    source=(
        "S1 with theta = (1 + rho/lambda)/(1 - exp(-alpha t (lambda + rho))): both factors are nonincreasing in lambda. Not "
        "commuting: W = C_m phi(C_z) gives v_i^T W^T C_m v_i = phi_i |C_m v_i|^2 and v_i^T W^T W C_z v_i = phi_i^2 lambda_i "
        "|C_m v_i|^2, the expressions of the commuting case."
    ),
    not_checked=(
        "Features that move while the predictor learns (it then also remembers older features: S9); predictors that start away "
        "from zero. That only |C_m v_i| matters is checked against autodiff on samples in the tests, not here."
    ),
    claims=(
        Claim(
            name="S2",
            statement=(
                "With the gains m/(lambda + rho) (1 - exp(-alpha t (lambda + rho))) of a ridge or lagging predictor, "
                "dH/dt >= 0 for every nonnegative signal m, with equality iff rho = 0 and t = inf or lambda is flat where m > 0."
            ),
            hypotheses=(
                Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
                Hypothesis(
                    "nonnegative signal",
                    "m >= 0, and 0 off the support",
                    lambda c: (c.signal >= 0) & (on(c.spectrum) | (c.signal == 0)),
                ),
                Hypothesis(
                    "own signal",
                    "the predictor has learned m itself",
                    lambda c: at_least(c.learned, c.signal) & at_least(c.signal, c.learned),
                ),
                Hypothesis("nonnegative ridge", "rho >= 0", lambda c: c.ridge >= 0),
                Hypothesis("trained forwards", "alpha t > 0", lambda c: c.lag >= 0),
            ),
            conclusions=(Conclusion("dH/dt >= 0, from rates", 1e-13), Conclusion("dH/dt >= 0, from theta", 1e-13)),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("negative ridge", "a predictor sharper than Wiener: rho < 0", drops=("nonnegative ridge",)),
                Ablation("learned from other data", "gains of another signal", drops=("own signal",)),
                Ablation(
                    "learned one mode 1% short",
                    "one gain 1% below what its signal asks for",
                    drops=("own signal",),
                    instead=(
                        Hypothesis(
                            "nearly own signal",
                            "the predictor has learned m within 1%",
                            lambda c: (
                                at_least(10101 * c.learned, 10000 * c.signal)
                                & at_least(10101 * c.signal, 10000 * c.learned)
                            ),
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition(
                    "rho >= 0",
                    lambda: theory.lagging_predictor_gains(jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]), -0.5),
                ),
                DomainCondition(
                    "m >= 0", lambda: theory.lagging_predictor_gains(jnp.array([2.0, 1.0]), jnp.array([1.0, -1.0]))
                ),
                DomainCondition(
                    "alpha t > 0",
                    lambda: theory.entropy_rate_wiener(
                        jnp.array([2.0, 1.0]),
                        online_gains=theory.lagging_predictor_gains(
                            jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]), 0.0, 0.0
                        ),
                    ),
                ),
            ),
        ),
    ),
    figure=Figure(
        "Left: growth of the entropy of one noisy spectrum under a predictor with ridge rho, trained for alpha t; never "
        "negative, 0 only for rho = 0 and t = inf. Right: its predictor is not low-pass.",
        record,
        draw,
    ),
)
