"""T3. The optimal linear predictor is a Wiener filter, so it is low-pass and makes a positive rank difference."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _alignment, _common, _growth, _optimum
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
    on,
)
from rdm_jax.claims.predicates import is_exact
from rdm_jax.types import Array


class Instance(NamedTuple):
    """Signal m, noise v (isotropic: the same in every mode) and ridge rho; lambda = m + v."""

    signal: Array
    noise: Array
    ridge: Array


class Raw(NamedTuple):
    """Free parameters: (1 + x)(v + rho) descends like ``spectrum`` and x = m/(v + rho) like ``ratio``."""

    spectrum: families.Sequence
    ratio: families.Sequence
    log_floor: Array
    share: Array
    isotropic: Array
    clean: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    ratio, kind = families.sample_filter(tape, spectrum, d), tape.scalar()
    share = jnp.where(tape.scalar() < 0.3, 0.0, tape.scalar(0.0, jnp.pi))
    return Raw(spectrum, ratio, tape.scalar(-3.0, 3.0), share, kind < 0.55, kind < 0.05)


def build(raw, dropped):
    top, alive = families.descending(raw.spectrum), families.kept(raw.spectrum)
    ratio = jnp.where(dropped["noise of any shape"], families.unordered(raw.ratio), families.descending(raw.ratio))
    ratio = jnp.where(dropped["one mode 1% noisier"], families.out_of_order(ratio, raw.ratio), ratio)
    shaped = dropped["noise of any shape"] | dropped["one mode 1% noisier"] | ~raw.isotropic
    floor = jnp.where(alive, jnp.where(shaped, top / (1 + ratio), jnp.exp(raw.log_floor)), 0.0)
    ridge = jnp.sin(raw.share) ** 2 * jnp.min(jnp.where(alive, floor, jnp.inf))
    negative = -(1 + 0.9 * jnp.min(jnp.where(alive, ratio, jnp.inf))) * jnp.exp(raw.log_floor)
    modes = Instance(ratio * floor, jnp.where(alive, floor - ridge, 0.0), ridge)
    clean = Instance(top, jnp.zeros_like(top), jnp.zeros_like(ridge))
    modes = jax.tree.map(lambda a, b: jnp.where(raw.clean, a, b), clean, modes)
    below = Instance(ratio * jnp.exp(raw.log_floor) * alive, jnp.exp(raw.log_floor) * alive, negative)
    return jax.tree.map(lambda a, b: jnp.where(dropped["negative ridge"], a, b), below, modes)


def wiener(c):
    """lambda, and the gains m / (lambda + rho); a negative ridge, which the library refuses, is a shift of lambda."""
    spectrum = c.signal + c.noise
    shifted = jnp.where(spectrum > 0, spectrum + jnp.minimum(c.ridge, 0.0), 0.0)
    return spectrum, theory.lagging_predictor_gains(shifted, c.signal, jnp.maximum(c.ridge, 0.0))


def _least_step(values, spectrum):
    """The smallest of the values that belong to two modes of the support, 0 if there are none."""
    pairs = spectrum[1:] > 0
    return jnp.where(pairs[0], jnp.min(jnp.where(pairs, values, jnp.inf)), 0.0)


def margin(c):
    spectrum, gains = wiener(c)
    difference = theory.predicted_rank_difference(spectrum, gains) / spectra.effective_rank(spectrum)
    return jnp.stack([difference, _least_step(gains[:-1] - gains[1:], spectrum)])


def ball_margin(c):
    spectrum = [m + v for m, v in zip(c.signal, c.noise, strict=True)]
    alive = balls.support(spectrum)
    spectrum, gains = [spectrum[i] for i in alive], [c.signal[i] / (spectrum[i] + c.ridge) for i in alive]
    online = balls.entropy([g * g * x for g, x in zip(gains, spectrum, strict=True)])
    steps = [a - b for a, b in itertools.pairwise(gains)]
    return [-(online - balls.entropy(spectrum)).expm1(), _common.least(steps)]


def distance(c):
    """||q_p - q_t||_1^2 (S4), and the smallest difference of gains, written without cancellation."""
    spectrum, gains = wiener(c)
    online = gains**2 * spectrum
    gap = jnp.sum(jnp.abs(online / jnp.sum(online) - spectrum / jnp.sum(spectrum)))
    total = spectrum + c.ridge
    cross = _crossed(c) / jnp.where(spectrum[1:] > 0, total[:-1] * total[1:], 1.0)
    return jnp.stack([gap**2, _least_step(cross, spectrum)])


def equality(c):
    alive = balls.support(c.signal + c.noise)
    modes = [(c.signal[i], c.noise[i] + c.ridge) for i in alive]

    def same(a, b):
        return (a[0] == b[0] and a[1] == b[1]) or a[0] * b[1] == b[0] * a[1]

    neighbours = [same(a, b) for a, b in itertools.pairwise(modes)]
    return [all(neighbours), len(alive) == 1 or any(neighbours)]


def _crossed(c):
    """m_i (v_j + rho) - m_j (v_i + rho) for neighbours i < j: >= 0 where m / (v + rho) is ordered like lambda."""
    floor = c.noise + c.ridge
    return c.signal[:-1] * floor[1:] - c.signal[1:] * floor[:-1]


def _surely_ordered(c, values, sizes):
    """values >= 0 for all neighbours on the support; floats must clear their rounding, or both modes be the same."""
    spectrum = c.signal + c.noise
    if is_exact(spectrum):
        return (values >= 0) | ~on(spectrum[1:])
    same = (c.signal[:-1] == c.signal[1:]) & (c.noise[:-1] == c.noise[1:])
    return (values >= 1e-13 * sizes) | same | ~on(spectrum[1:])


def _sorted_spectrum(c):
    spectrum = c.signal + c.noise
    return _surely_ordered(c, spectrum[:-1] - spectrum[1:], spectrum[:-1])


def _ordered_ratio(c):
    return _surely_ordered(c, _crossed(c), c.signal[:-1] * (c.noise + c.ridge)[1:])


def _nearly_ordered_ratio(c):
    size = c.signal[:-1] * (c.noise + c.ridge)[1:]
    return _surely_ordered(c, _crossed(c) + size / 99, size)


FILTER = Claim(
    name="T3 filter",
    statement=(
        "Commuting moments: if m/(v + rho) is ordered like lambda, as it is for isotropic noise, the gains m/(lambda + rho) "
        "are low-pass, and erank(target) - erank(online) >= 0, with equality iff m/(v + rho) is constant on lambda's support."
    ),
    hypotheses=(
        Hypothesis("moments", "m >= 0, v >= 0", lambda c: (c.signal >= 0) & (c.noise >= 0)),
        Hypothesis("nonnegative ridge", "rho >= 0", lambda c: c.ridge >= 0),
        Hypothesis("sorted spectrum", "lambda = m + v descending", _sorted_spectrum),
        Hypothesis("noise ordered", "m/(v + rho) ordered like lambda (always if v is isotropic)", _ordered_ratio),
    ),
    conclusions=(Conclusion("rank difference", 1e-13), Conclusion("low-pass", 1e-15)),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("noise of any shape", "anisotropic noise in any order", drops=("noise ordered",)),
        Ablation(
            "negative ridge",
            "rho < -v, which makes the filter sharper than the noise asks for",
            drops=("nonnegative ridge", "noise ordered"),
        ),
        Ablation(
            "one mode 1% noisier",
            "m/(v + rho) of one mode 1% above its predecessor's",
            drops=("noise ordered",),
            instead=(Hypothesis("noise nearly ordered", "m/(v + rho) ordered within 1%", _nearly_ordered_ratio),),
        ),
    ),
    domain=(
        DomainCondition(
            "some signal", lambda: theory.predicted_rank_difference([2.0, 1.0], theory.wiener_gains([2.0, 1.0], 3.0))
        ),
        DomainCondition("noise >= 0", lambda: theory.wiener_gains([2.0, 1.0], -1.0)),
    ),
)


def _flat_where_signal():
    """lambda = (2, 1), nu = 1: lambda is flat where m > 0, and yet the rank difference is strict. In balls."""
    c = Instance(*(balls.vector([arb(x) for x in mode]) for mode in ((1, 0), (1, 1))), arb(0))
    relative = ball_margin(c)[0]
    difference = relative * balls.effective_rank([arb(2), arb(1)])
    return {"signal": [1, 0], "noise": 1, "ridge": 0, "rank_difference": _growth.certain_digits(difference)}


def record(seed):
    """Wiener gains over lambda, and what nearly isotropic noise does to the alignment of predictor and features."""
    spectrum, sizes = np.geomspace(1.0, 100.0, 60), np.geomspace(1e-3, 0.3, 9)
    gains = {f"{ridge:g}": theory.wiener_gains(spectrum, 1.0, ridge).tolist() for ridge in (0.0, 1.0, 10.0)}
    measures = {
        "commutator": _alignment.commutator_errors,
        "angle, gaps": _alignment.angle_errors,
        "angle, gaps of order eps": _alignment.clustered_angles,
        "1 - cos, m > 0": _alignment.cosine_errors,
        "1 - cos, m = 0": _alignment.silent_errors,
    }
    key = jax.random.key(seed)
    errors = jax.jit(
        lambda: {name: jnp.exp(jnp.mean(jnp.log(f(key, tuple(sizes))), 0)) for name, f in measures.items()}
    )()
    return {
        "spectrum": spectrum.tolist(),
        "gains": gains,
        "eps": sizes.tolist(),
        "errors": {name: error.tolist() for name, error in errors.items()},
        "flat_where_signal": _flat_where_signal(),
    }


def draw(figure, record):
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for ridge, gains in record["gains"].items():
        left.semilogx(record["spectrum"], gains, label=rf"$\rho$ = {ridge}")
    left.set_xlabel(r"eigenvalue $\lambda$, noise $\nu$ = 1")
    left.set_ylabel(r"Wiener gain $(\lambda - \nu)/(\lambda + \rho)$")
    left.legend()
    for (name, error), marker in zip(record["errors"].items(), "osD^v", strict=True):
        right.loglog(record["eps"], error, marker + "-", ms=4, label=name)
    right.set_ylim(top=1e2)
    right.set_xlabel(r"anisotropy of the noise, $\epsilon$")
    right.set_ylabel("misalignment")
    right.legend(loc="upper left", ncols=2, fontsize="small")


STATEMENT = Statement(
    name="T3",
    title="optimal linear predictor",
    text=(
        "argmin_W E|W z - z+|^2 + rho |W|_F^2 = C_m (C_z + rho I)^-1 =: W*, rho >= 0 (of minimal norm if singular): any other W "
        "costs tr[(W - W*)(C_z + rho I)(W - W*)^T] more. C_m C_z^-1 is also the maximum of the mean-field cosine, up to scale. "
        "Commuting moments: the gains m_i/(lambda_i + rho) are low-pass iff m_i/(v_i + rho) is ordered like lambda_i, and then "
        "erank(target) >= erank(online), with equality iff m_i/(v_i + rho) is constant on the support of lambda. Isotropic "
        "noise (v = nu) is always ordered so: g = (lambda - nu)/(lambda + rho), strictly low-pass iff nu + rho > 0, with a "
        "strict rank difference iff also lambda is not flat on its support. Modes without signal belong to that support: m = "
        "(1, 0), nu = 1 gives rank 1.89 against 1, though lambda is flat where m > 0. Not commuting, C_v = nu I + eps E: the "
        "commutator of C_p and C_z is O(eps); the angle between their eigenvectors is O(eps) with gaps in the spectrum and "
        "O(1) with gaps of order eps; 1 - cos(C_p v, v) is O(eps^2) for eigenvectors v of C_z with m > 0, gaps or not, and does "
        "not fall with eps where m = 0. From n samples, the errors of the predictor and of its rank difference are O(n^-1/2)."
    ),
    source=(
        "Normal equations; Cauchy-Schwarz in the inner product tr(A C_z B^T); g = x/(1 + x) with x = m/(v + rho), then T1; "
        "first-order perturbation theory: C_p = f(C_z) + O(eps) with f(lambda) = ((lambda - nu)/(lambda + rho))^2 lambda, so "
        "C_p v = f(lambda) v + O(eps), which says nothing where f = 0."
    ),
    not_checked=(
        "Predictors with a bias or a nonlinearity; singular C_z other than with coordinates that are 0 (the tests have one "
        "more); finite samples other than of bounded independent noise."
    ),
    claims=(_optimum.OPTIMUM, FILTER),
    orders=_alignment.ORDERS,
    figure=Figure(
        "Left: Wiener gains under isotropic noise. Right: misalignment of the predictor's output with the features when the "
        "noise is isotropic up to eps (geometric means of 64 draws); 1 - cos has slope 2 where m > 0, commutator and angle have slope 1 (given gaps), and the others do not fall.",
        record,
        draw,
    ),
)
