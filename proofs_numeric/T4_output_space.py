"""T4. In output space, pulling the online output towards its own filtered copy raises the effective rank."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common
from rdm_jax import spectra
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    Stratum,
    balls,
    families,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array

STEP = Hypothesis("step", "0 <= eta <= 1", lambda c: (c.step >= 0) & (c.step <= 1))
CONCLUSIONS = ("rise, eig", "rise, sv", "bound by the target, eig", "bound by the target, sv")


def sample_turn(tape):
    """An angle whose squared sine is in [0, 1]; one draw in ten each is 0 or 1 exactly."""
    kind, turn = tape.scalar(), tape.scalar(0.0, jnp.pi)
    return jnp.where(kind < 0.1, 0.0, jnp.where(kind < 0.2, jnp.pi / 2, turn))


class Gains(NamedTuple):
    """Singular values (descending), gains of the filter, the step eta."""

    singular: Array
    gains: Array
    step: Array


class RawGains(NamedTuple):
    """Free parameters of a `Gains`."""

    spectrum: families.Sequence
    scale: Array
    angles: Array
    turn: Array


def sample(tape, d):
    angles = families.sample_spectrum(tape, d), tape.scalar(-2.0, 2.0), _common.sample_angles(tape)
    return RawGains(*angles, sample_turn(tape))


def build(raw, dropped):
    low = jnp.where(dropped["low-pass"], -2.0, 0.0)
    high = jnp.where(dropped["not order preserving"], 3.0, jnp.where(dropped["low-pass"], 0.0, 1.0))
    gains = _common.order_preserving_gains(raw.spectrum, raw.scale, raw.angles, (low, high))
    step = jnp.sin(raw.turn) ** 2
    step = jnp.where(dropped["eta above 1"], 1 + 2 * step, step)
    return Gains(_common.singular_values(raw.spectrum), gains, jnp.where(dropped["eta 1.01"], 1.01, step))


def outputs(c):
    """Singular values of p, of (1 - eta) p + eta t, and of t."""
    moved = abs(c.singular * (1 - c.step + c.step * c.gains))
    return c.singular, moved, c.gains * c.singular


def rises(ranks):
    """The new rank less the old one, and the target's less the new one, for (eig, sv) rows."""
    return jnp.concatenate([ranks[:, 1] - ranks[:, 0], ranks[:, 2] - ranks[:, 1]])


def margin(c):
    singular = jnp.stack(outputs(c))
    return rises(jnp.log(spectra.effective_rank(jnp.stack([singular**2, singular]))))


def ball_rises(singular):
    entropies = [[balls.entropy([s**k for s in values]) for values in singular] for k in (2, 1)]
    return [h[1] - h[0] for h in entropies] + [h[2] - h[1] for h in entropies]


def ball_margin(c):
    alive = balls.support(c.singular)
    return ball_rises([[values[i] for i in alive] for values in outputs(c)])


def distance(c):
    """||q - q'||_1^2 as in T2: each output is the next one under a low-pass filter."""
    before, moved, target = outputs(c)
    pairs = [(a**k, b**k) for a, b in ((before, moved), (moved, target)) for k in (2, 1)]
    return jnp.stack([_common.squared_distance(a, b) for a, b in pairs])


def equality(c):
    constant = _common.constant([c.gains[i] for i in balls.support(c.singular)])
    return [constant or c.step == 0] * 2 + [constant or c.step == 1] * 2


class Views(NamedTuple):
    """Two-dimensional samples in columns: their common part, the noise of the online and of the target's view.

    The filter is h(s) = share + weight / s: high-pass and order preserving. ``step`` is eta.
    """

    common: Array
    noise: Array
    target_noise: Array
    share: Array
    weight: Array
    step: Array


class RawViews(NamedTuple):
    """Free parameters of a `Views`: unscaled samples and noises, logarithms of scales, angles of step and filter."""

    common: Array
    noise: Array
    other_noise: Array
    scales: Array
    turn: Array
    angle: Array


def sample_views(tape, d):
    inside = jnp.arange(tape.width) < d
    common, noise, other = (jnp.where(inside, logistic(tape.vectors(2)), 0.0) for _ in range(3))
    scales = jnp.stack([tape.scalar(-5.0, 0.0), tape.scalar(-5.0, 2.0), tape.scalar(-3.0, 3.0)])
    return RawViews(common, noise, other, scales, sample_turn(tape), sample_turn(tape))


def build_views(raw, dropped):
    flattened, loud, size = jnp.exp(raw.scales)
    common = raw.common.at[1].multiply(flattened)
    noise = loud * raw.noise
    other = jnp.where(dropped["the other view"], loud * raw.other_noise, noise)
    share, weight = jnp.cos(raw.angle) ** 2, jnp.sin(raw.angle) ** 2
    return Views(common, noise, other, size * share, size * weight, jnp.sin(raw.turn) ** 2)


def inverse_root(moment):
    """C^(-1/2) of a 2 x 2 matrix: (adj C + r I)/(r sqrt(tr C + 2 r)), r = sqrt(det C), by Cayley and Hamilton."""
    (a, b), (_, d) = moment
    root = (a * d - b * b) ** 0.5
    scale = 1 / (root * (a + d + 2 * root) ** 0.5)
    return [[(d + root) * scale, -b * scale], [-b * scale, (a + root) * scale]]


def moment(samples):
    """Sums of products over the samples, for floats and balls."""
    (a, b), (_, d) = ([(x * y).sum() for y in samples] for x in samples)
    return [[a, b], [b, d]]


def view_outputs(c):
    """p, (1 - eta) p + eta t, and t = h applied in the eigenbasis of the target's own view."""
    online, other = c.common + c.noise, c.common + c.target_noise
    root = inverse_root(moment(other))
    target = [c.share * x + c.weight * (m[0] * other[0] + m[1] * other[1]) for x, m in zip(other, root, strict=True)]
    moved = [(1 - c.step) * p + c.step * t for p, t in zip(online, target, strict=True)]
    return list(online), moved, target


def margin_views(c):
    moments = jnp.stack([jnp.asarray(moment(samples)) for samples in view_outputs(c)])
    eigenvalues = jax.vmap(spectra.eigenvalues)(moments)
    roots = jnp.sqrt(jnp.where(eigenvalues > 0, eigenvalues, 1.0)) * (eigenvalues > 0)
    return rises(jnp.log(spectra.effective_rank(jnp.stack([eigenvalues, roots]))))


def _root(square):
    """The root of a ball around a number that is not negative."""
    return square.sqrt() if square > 0 else arb(0).union(square.upper().sqrt())


def ball_singular_values(samples):
    (a, b), (_, d) = moment(samples)
    larger = (a + d + _root((a - d) ** 2 + 4 * b * b)) / 2
    return [larger.sqrt(), ((a * d - b * b) / larger).sqrt()]


def ball_margin_views(c):
    return ball_rises([ball_singular_values(samples) for samples in view_outputs(c)])


def distance_views(c):
    """((4 det/tr^2)' - 4 det/tr^2)^2/4 <= ||q - q'||_1^2, and at least a quarter of that for singular values."""
    flatness = []
    for samples in view_outputs(c):
        (a, b), (_, d) = moment(samples)
        flatness.append(4 * (a * d - b * b) / (a + d) ** 2)
    eig = (jnp.diff(jnp.stack(flatness)) / 2) ** 2
    return jnp.stack([eig[0], eig[0] / 4, eig[1], eig[1] / 4])


def equality_views(c):
    (a, b), (_, d) = moment(c.common + c.noise)
    constant = c.weight == 0 or (a == d and b == 0)
    return [constant or c.step == 0] * 2 + [constant or c.step == 1] * 2


def log_rank(features):
    """log erank (eig) of features, in NumPy."""
    shares = np.linalg.svd(features, compute_uv=False) ** 2
    shares = shares / shares.sum()
    return float(-(shares * np.log(shares)).sum())


def filtered(features):
    """The filter s^(-1/2), scaled so that the largest singular value stays."""
    left, s, right = np.linalg.svd(features, full_matrices=False)
    return (left * np.sqrt(s * s[0])) @ right


def trajectory(online, other, steps):
    """log erank of the first of two views along p <- (p + t)/2, t the filtered other view, both moving at once."""
    logs = [log_rank(online)]
    for _ in range(steps):
        online, other = (online + filtered(other)) / 2, (other + filtered(online)) / 2
        logs.append(log_rank(online))
    return logs


def record(seed):
    """One step and many with the target from the same view and from the other one, at several noise levels."""
    random = np.random.default_rng(seed)
    levels, draws, steps = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 2.0), 100, 8
    falls: dict[str, list[float]] = {"same view": [], "other view": []}
    curves = {}
    for level in levels:
        logs: dict[str, list[list[float]]] = {name: [] for name in falls}
        for _ in range(draws):
            common = random.standard_normal((128, 8)) * 2.0 ** -np.arange(8.0)
            first, second = (common + level * random.standard_normal(common.shape) for _ in range(2))
            length = steps if level == 1.0 else 1
            logs["same view"].append(trajectory(first, first, length))
            logs["other view"].append(trajectory(first, second, length))
        for name, runs in logs.items():
            falls[name].append(float(np.mean([run[1] < run[0] for run in runs])))
        if level == 1.0:
            curves = {name: np.mean(runs, axis=0).tolist() for name, runs in logs.items()}
    return {
        "convention": "eig",
        "sampler": (
            "128 normal samples of 8 dimensions, standard deviations 1, 1/2, ..., 1/128, plus independent isotropic "
            "normal noise in each view; filter s^(-1/2), largest singular value kept; eta = 1/2; 100 draws"
        ),
        "noise": list(levels),
        "share_falling": falls,
        "noise_of_curves": 1.0,
        "mean_log_effective_rank": curves,
    }


def draw(figure, record):
    curves, shares = figure.subplots(1, 2)
    for (name, values), style in zip(record["mean_log_effective_rank"].items(), ("o-", "s--"), strict=True):
        curves.plot(range(len(values)), values, style, ms=4, label=f"target from the {name}")
    curves.set_xlabel("step")
    curves.set_ylabel("mean log erank of p (eig, nats)")
    curves.legend(loc="lower right")
    for (name, values), style in zip(record["share_falling"].items(), ("o-", "s--"), strict=True):
        shares.semilogx(record["noise"], values, style, ms=4, label=f"target from the {name}")
    shares.set_xlabel("standard deviation of the view noise")
    shares.set_ylabel("share of draws in which erank falls in one step")
    shares.set_ylim(-0.05, 1.05)


SAME_VIEW = Hypothesis("same view", "the target is made of the online output", lambda c: c.noise == c.target_noise)

STATEMENT = Statement(
    name="T4",
    title="output space",
    text=(
        "Let p <- (1 - eta) p + eta t, eta in [0, 1], with t the same batch's p under a filter h that is high-pass "
        "and order preserving (T2). Then erank(p) does not fall and does not pass erank(t), for eigenvalues and for "
        "singular values. It rises strictly if eta > 0, and stays strictly below erank(t) if eta < 1, unless h is "
        "constant on the support."
    ),
    source=(
        "p = U S V^T and t = U h(S) S V^T share their vectors, so the new singular values are s (1 - eta + eta h): T2 "
        "for the filter 1 - eta + eta h, and for h / (1 - eta + eta h), which leads from there to t; both are "
        "high-pass and order preserving."
    ),
    not_checked=(
        "That p and t share their singular vectors is checked on samples of two dimensions, for filters a + b/s. The "
        "limit of repeated steps. How often the other view's target lowers erank is drawn for one sampler, not a "
        "theorem."
    ),
    claims=(
        Claim(
            name="T4",
            statement="s (1 - eta + eta h) is at least as diverse as s and at most as diverse as h s.",
            hypotheses=(
                Hypothesis(
                    "sorted spectrum", "singular values descending and >= 0", lambda c: nonincreasing(c.singular)
                ),
                Hypothesis("positive gains", "h > 0 on the support", lambda c: (c.gains > 0) | ~on(c.singular)),
                Hypothesis("function of s", "equal s, equal h", _common.equal_gains_at_ties),
                Hypothesis("high-pass", "h nonincreasing in s", lambda c: nondecreasing(c.gains, on(c.singular))),
                Hypothesis(
                    "order preserving",
                    "h(s) s nondecreasing in s",
                    lambda c: nonincreasing(c.gains * c.singular, on(c.singular)),
                ),
                STEP,
            ),
            conclusions=tuple(Conclusion(name, 2e-14) for name in CONCLUSIONS),
            sample=sample,
            build=build,
            margin=margin,
            ball_margin=ball_margin,
            distance=distance,
            equality=equality,
            ablations=(
                Ablation("not order preserving", "h high-pass, h(s) s in any order", drops=("order preserving",)),
                Ablation("low-pass", "h nondecreasing in s", drops=("high-pass",)),
                Ablation("eta above 1", "1 <= eta <= 3", drops=("step",)),
                Ablation(
                    "eta 1.01",
                    "eta = 1.01",
                    drops=("step",),
                    instead=(
                        Hypothesis(
                            "nearly a step", "0 <= eta <= 1.01", lambda c: (c.step >= 0) & (100 * c.step <= 101)
                        ),
                    ),
                ),
            ),
            domain=(
                DomainCondition("nonzero", lambda: spectra.effective_rank(jnp.zeros(2))),
                DomainCondition("finite", lambda: spectra.effective_rank(jnp.array([1.0, jnp.inf]))),
            ),
        ),
        Claim(
            name="T4 samples",
            statement="The same for two-dimensional samples p and t = h(p) made of them.",
            hypotheses=(
                SAME_VIEW,
                Hypothesis("filter", "h = a + b/s, a and b >= 0", lambda c: (c.share >= 0) & (c.weight >= 0)),
                STEP,
            ),
            conclusions=tuple(Conclusion(name, 1e-12) for name in CONCLUSIONS),
            sample=sample_views,
            build=build_views,
            margin=margin_views,
            ball_margin=ball_margin_views,
            distance=distance_views,
            equality=equality_views,
            ablations=(
                Ablation("the other view", "t made of another noisy view of the same data", drops=("same view",)),
            ),
            domain=(DomainCondition("two axes", lambda: spectra.feature_effective_rank(jnp.ones(3))),),
            strata=(Stratum((3, 5, 8), 8, 1.0),),
        ),
    ),
    figure=Figure(
        caption=(
            "Left: mean log erank (eig) of p along p <- (p + t)/2. With t made of the same view it rises; with t made "
            "of the other view of the same data it can fall. Right: how often one step lowers erank, against the view "
            "noise. 128 samples, 8 dimensions with standard deviations 1, 1/2, ..., 1/128, isotropic noise (left: 1), "
            "filter s^(-1/2), 100 draws."
        ),
        record=record,
        draw=draw,
    ),
)
