"""S3. The exact per-sample cosine: low-pass online and high-pass target filters flatten the spectrum of any distribution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from proofs_numeric import _common, _growth
from rdm_jax import theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    Figure,
    Hypothesis,
    Order,
    Statement,
    balls,
    families,
    nearly_nondecreasing,
    nearly_nonincreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.tape import logistic
from rdm_jax.types import Array

SAMPLES = 2


class Instance(NamedTuple):
    """Samples z (n, d) in the eigenbasis of C_z, the second view of each, gains g > 0 and h > 0, a rotation.

    A sample stands for all 2^d choices of its coordinates' signs, so that C_z is diagonal. ``tilt`` is the tangent of half
    the angle by which both filters' eigenvectors are turned in the plane of the first two modes; then the signs of these
    two matter, and the second sample is the first one's mirror image, so that they stay uncorrelated.
    """

    samples: Array
    second: Array
    online: Array
    target: Array
    tilt: Array


class Raw(NamedTuple):
    """Free parameters of an instance; ``mask`` says which modes a sample has at all."""

    spectrum: families.Sequence
    online: families.Sequence
    target: families.Sequence
    samples: Array
    noise: Array
    tilt: Array
    mask: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)
    online, target = (families.sample_filter(tape, spectrum, d) for _ in range(2))
    samples, coins = logistic(tape.vectors(SAMPLES)), tape.vectors(SAMPLES)
    rows, modes = jnp.arange(SAMPLES)[:, None], jnp.arange(tape.width)[None]
    parts = jnp.minimum(SAMPLES, spectrum.keep)
    apart = modes % parts == rows % parts  # no mode belongs to two samples: nothing moves
    sparse = (rows == 0) | (coins < 0.5) | (modes == rows % spectrum.keep)
    kind = tape.scalar()
    mask = jnp.where(kind < 0.25, sparse, jnp.where(kind < 0.5, apart, True))
    noise = jnp.stack([spectrum.free, logistic(coins[0])])
    return Raw(spectrum, online, target, samples, noise, tape.scalar(-1.0, 1.0), mask)


def _with_spectrum(samples, spectrum):
    """The samples, each mode scaled to the given eigenvalue."""
    energy = jnp.mean(samples**2, axis=0)
    alive = (energy > 0) & (spectrum > 0)
    return samples * jnp.where(alive, jnp.sqrt(spectrum / jnp.where(alive, energy, 1.0)), 0.0)[None]


def build(raw, dropped):
    spectrum = families.descending(raw.spectrum)
    shuffled, nearly = dropped["any order"], dropped["one gain 1% out of order"]
    online, target = families.descending(raw.online._replace(keep=len(spectrum))), families.ascending(raw.target)
    online = jnp.where(shuffled, families.unordered(raw.online), online)
    target = jnp.where(shuffled, families.unordered(raw.target), target)
    online = jnp.where(nearly, families.out_of_order(online, raw.online), online)
    target = jnp.where(nearly, families.out_of_order(target, raw.target, up=False), target)
    samples = jnp.where(raw.mask, raw.samples, 0.0)
    mirrored = jnp.stack([samples[0], samples[0].at[0].multiply(-1)])
    samples = _with_spectrum(jnp.where(dropped["turned filters"], mirrored, samples), spectrum)
    noise = jnp.where(dropped["view noise"], raw.noise, 0.0) * jnp.sqrt(spectrum)[None]
    return Instance(samples, samples + noise, online, target, jnp.where(dropped["turned filters"], raw.tilt, 0.0))


def _turned(gains, features, tilt):
    """R diag(gains) R^T z for the rotation R by 2 arctan(tilt) in the plane of the first two modes."""
    cosine, sine = (1 - tilt**2) / (1 + tilt**2), 2 * tilt / (1 + tilt**2)

    def turn(features, sine):
        first, second = features[:, 0], features[:, 1]
        turned = jnp.stack([cosine * first - sine * second, sine * first + cosine * second], axis=1)
        return jnp.concatenate([turned, features[:, 2:]], axis=1)

    return turn(gains[None] * turn(features, -sine), sine)


def _rates(c, loss):
    """Half the diagonal of dC/dt under gradient flow of a per-sample loss's mean, by automatic differentiation."""
    flow = -jax.grad(lambda z: jnp.sum(loss(z, c.second)))(c.samples)
    return jnp.mean(c.samples * flow, axis=0)


def _negative_cosine(p, t):
    return -jnp.sum(p * t, axis=1) / jnp.sqrt(jnp.sum(p**2, axis=1) * jnp.sum(t**2, axis=1))


def margin(c):
    spectrum = jnp.mean(c.samples**2, axis=0)
    online = _rates(c, lambda z, second: _negative_cosine(_turned(c.online, z, c.tilt), second))
    target = _rates(c, lambda z, second: _negative_cosine(z, _turned(c.target, second, c.tilt)))
    sums = [_growth.least_before_last(-jnp.cumsum(rates), spectrum) for rates in (online, target)]
    return jnp.stack([*sums, -jnp.abs(jnp.sum(online)), -jnp.abs(jnp.sum(target))])


def _ball_turned(gains, features, tilt):
    if tilt == 0:
        return gains * features
    scale = 1 + tilt * tilt
    cosine, sine = (1 - tilt * tilt) / scale, 2 * tilt / scale
    x, y, g, h = *features[:2], *gains[:2]
    cross = (g - h) * cosine * sine
    turned = [(g * cosine**2 + h * sine**2) * x + cross * y, cross * x + (g * sine**2 + h * cosine**2) * y]
    return np.append(turned, gains[2:] * features[2:])


def _ball_rates(c, gains, online):
    """Mean of z_i z_i', z' = G (t^ - (p^.t^) p^)/|p| with unit vectors p^, t^: the gradient of one sample's cosine."""
    rates = 0
    for z, u in zip(c.samples, c.second, strict=True):
        p, t = (_ball_turned(gains, z, c.tilt), u) if online else (z, _ball_turned(gains, u, c.tilt))
        square, length = balls.total(p * p), balls.total(t * t).sqrt()
        pull = (t - p * (balls.total(p * t) / square)) / (length * square.sqrt())
        rates = rates + z * (_ball_turned(gains, pull, c.tilt) if online else pull)
    return rates / SAMPLES


def ball_margin(c):
    modes = len(balls.support([balls.total(column) for column in (c.samples**2).T]))
    rates = [_ball_rates(c, gains, online) for gains, online in ((c.online, True), (c.target, False))]
    sums = [np.cumsum(-values)[: modes - 1] for values in rates]
    return [_common.least(values) for values in sums] + [balls.total(values) for values in rates]


def distance(c):
    """Lower bounds of the first two margins: 4 |Cov(x, y)| >= E|x - Ex| E|y - Ey| for each sample, y = 1 beyond mode k."""
    squares, online, target = c.samples**2, c.online[None], c.target[None]
    spectrum = jnp.mean(squares, axis=0)
    ratio = jnp.sqrt(jnp.sum(online**2 * squares, axis=1) / jnp.sum(squares, axis=1))
    size = jnp.sqrt(jnp.sum(squares, axis=1) / jnp.sum(target**2 * squares, axis=1))

    def bound(values, weights, factor):
        shares = weights / jnp.sum(weights, axis=1, keepdims=True)
        spread = jnp.sum(shares * jnp.abs(values - jnp.sum(shares * values, axis=1, keepdims=True)), axis=1)
        below = jnp.cumsum(shares, axis=1)
        bounds = jnp.mean((factor * spread)[:, None] * below * (1 - below), axis=0) / 2
        return _growth.least_before_last(bounds, spectrum)

    bounds = bound(1 / online, online**2 * squares, ratio), bound(target, squares, size)
    return jnp.stack([*bounds, jnp.ones(()), jnp.ones(())])


def _still(c, gains):
    """Whether one of the sums is stationary: each sample has one gain, or no modes on one of its sides."""
    kept = [balls.support(z) for z in c.samples]
    modes = 1 + max(max(own) for own in kept)
    mixed = [own for own in kept if not _common.constant([gains[i] for i in own])]
    return modes == 1 or any(all(own[0] >= k or own[-1] < k for own in mixed) for k in range(1, modes))


def equality(c):
    if c.tilt != 0 or np.any(c.samples != c.second):
        return [None] * 4
    return [_still(c, c.online), _still(c, c.target), None, None]


def _spectrum(c):
    return (c.samples * c.samples).sum(axis=0)


EXACT = Claim(
    name="S3",
    statement="Each sample's own cosine: no top-k eigenvalue sum grows under G low-pass or H high-pass; the trace is constant.",
    hypotheses=(
        Hypothesis("sorted spectrum", "C_z descending in the modes", lambda c: nonincreasing(_spectrum(c))),
        Hypothesis("positive gains", "g > 0 and h > 0", lambda c: (c.online > 0) & (c.target > 0)),
        Hypothesis(
            "low-pass and high-pass",
            "g nondecreasing and h nonincreasing in lambda",
            lambda c: nonincreasing(c.online, on(_spectrum(c))) & nondecreasing(c.target, on(_spectrum(c))),
        ),
        Hypothesis("no view noise", "both views of a sample agree", lambda c: c.second == c.samples),
        Hypothesis("commuting", "the filters commute with C_z", lambda c: c.tilt == 0),
        Hypothesis(
            "eigenbasis",
            "C_z is diagonal: the first two modes are uncorrelated where their signs matter",
            lambda c: ((c.samples[:, 0] * c.samples[:, 1]).sum() == 0) | (c.tilt == 0),
        ),
    ),
    conclusions=(
        Conclusion("top sums, online filter", 1e-14),
        Conclusion("top sums, target filter", 1e-14),
        Conclusion("trace, online filter", 1e-14, kind="identity"),
        Conclusion("trace, target filter", 1e-14, kind="identity"),
    ),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=equality,
    ablations=(
        Ablation("any order", "gains in any order", drops=("low-pass and high-pass",)),
        Ablation(
            "one gain 1% out of order",
            "one gain 1% past its predecessor",
            drops=("low-pass and high-pass",),
            instead=(
                Hypothesis(
                    "nearly ordered gains",
                    "low-pass and high-pass within 1%",
                    lambda c: (
                        nearly_nonincreasing(c.online, on(_spectrum(c)))
                        & nearly_nondecreasing(c.target, on(_spectrum(c)))
                    ),
                ),
            ),
        ),
        Ablation("view noise", "the target sees another view", drops=("no view noise",)),
        Ablation("turned filters", "filters turned against C_z in one plane", drops=("commuting",)),
    ),
    rows=9 + 2 * SAMPLES,
)


COPIES = (
    1,
    2,
    1,
)  # modes of each of three groups, times the size; equal modes, so that only the groups' energies matter


def _chi_square(degrees, nodes=16):
    """Gauss quadrature for chi^2/degrees (Golub and Welsch 1969, Laguerre weights): points and weights."""
    k, alpha = np.arange(nodes), degrees / 2 - 1
    side = np.sqrt(k[1:] * (k[1:] + alpha))
    points, vectors = np.linalg.eigh(np.diag(2 * k + 1 + alpha) + np.diag(side, 1) + np.diag(side, -1))
    return 2 * points / degrees, vectors[0] ** 2


def _energies(degrees):
    """Independent energies of the three groups over their means, and the weight of each combination."""
    points, weights = zip(*(_chi_square(n) for n in degrees), strict=True)
    combine = [np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, 3) for values in (points, weights)]
    return jnp.asarray(combine[0]), jnp.asarray(combine[1].prod(axis=1))


def _group_rates(means, gains, energies, weights):
    """lambda r of each group, summed over its modes: the mean of x g (1 - kappa g)/(|p||z|) over the samples."""
    x, gains = means[None] * energies, gains[None]
    p, z, pull = (jnp.sum(factor * x, axis=-1, keepdims=True) for factor in (gains**2, 1.0, gains))
    return jnp.sum(weights[:, None] * x * gains * (1 - pull / p * gains) / jnp.sqrt(p * z), axis=0)


def deviations(key, sizes, *, together=False):
    """How far the exact rates of Gaussian features are from the mean field's, relative to the largest of these.

    ``together``: the modes of a group share one Gaussian factor, however many they are.
    """
    draws = jax.random.exponential(key, (2, 64, 3))
    spectra = jnp.exp(-jnp.cumsum(draws[0], axis=-1))
    filters = jnp.exp(-jnp.cumsum(draws[1], axis=-1) / 3)

    def deviation(size, spectrum, gains):
        copies = np.array(COPIES) * int(size)
        rates = theory.growth_rates(spectrum * copies, online_gains=gains)
        mean_field = theory.common_factor(spectrum * copies, online_gains=gains) * rates * spectrum * copies
        exact = _group_rates(spectrum * copies, gains, *_energies(np.ones(3) if together else copies))
        return jnp.max(jnp.abs(exact - mean_field)) / jnp.max(jnp.abs(mean_field))

    return jnp.stack([jax.vmap(lambda x, g, n=n: deviation(n, x, g))(spectra, filters) for n in sizes], axis=-1)


MEAN_FIELD = Order(
    name="S3 mean field",
    statement="For independent Gaussian modes the exact rates approach the mean field's like 1/PR(g^2 lambda).",
    slope=-1.0,
    sizes=(16.0, 32.0, 64.0, 128.0),
    measure=deviations,
)


def record(seed):
    key, sizes = jax.random.key(seed), (4.0, 16.0, 64.0)
    measure = jax.jit(deviations, static_argnames=("sizes", "together"))
    apart, together = (np.asarray(measure(key, sizes, together=case)) for case in (False, True))
    return {
        "modes": [int(size) * sum(COPIES) for size in sizes],
        "independent modes": np.exp(np.mean(np.log(apart), axis=0)).tolist(),
        "modes of a group fluctuate together": np.exp(np.mean(np.log(together), axis=0)).tolist(),
    }


def draw(figure, record):
    axes = figure.subplots()
    modes = np.array(record["modes"])
    for name, marker in (("independent modes", "o"), ("modes of a group fluctuate together", "s")):
        axes.loglog(modes, record[name], marker=marker, label=name)
    axes.loglog(modes, record["independent modes"][0] * modes[0] / modes, "k:", label="slope -1")
    axes.set_xticks(modes, modes)
    axes.minorticks_off()
    axes.set(xlabel="number of modes d, in proportion to PR", ylabel="relative deviation from the mean field's rates")
    axes.legend()


STATEMENT = Statement(
    name="S3",
    title="exact per-sample cosine",
    text=(
        "Cosine loss with each sample normalised by its own norm, no view noise, free features: p = G z, t = z (or p = "
        "z, t = H z), the filter held fixed. Let G be low-pass (H high-pass), commute with C_z and be a function of it "
        "(equal gains on equal eigenvalues). Then for any distribution and dimension no sum of the k largest "
        "eigenvalues of C_z grows and the trace is constant, so that erank and every Schur-concave diversity do not "
        "fall. A sum is stationary iff each sample has one gain throughout, or modes on one side of the cut only. With "
        "independent Gaussian modes the rates deviate from the mean field's (T5) by O(1/PR(g^2 lambda)). That needs "
        "modes that fluctuate independently: where groups of modes share one factor the deviation does not shrink, and "
        "samples with one mode each stand still while the mean field moves."
    ),
    source=(
        "In the eigenbasis x_i = z_i^2 of one sample obeys x_i' = 2 x_i g_i (1 - g_i kappa(z))/(|p||z|), kappa(z) = "
        "sum(g x)/sum(g^2 x): it sums to 0 and changes sign once, from - to + towards smaller gains. The mean over the "
        "samples is the diagonal of dC/dt, and the sums of its first k entries are the derivatives of the top-k sums "
        "(at ties too, as the sign pattern is that of the gains)."
    ),
    not_checked=(
        "Checked are the sums of the first k diagonal entries of dC/dt in the eigenbasis, for two samples, by "
        "automatic differentiation of the loss in floats and by the source's formula in balls. More samples are means "
        "of such, and signs of coordinates change nothing. Gains of 0 (the cosine needs p != 0), finite steps, and "
        "encoders whose features are not free."
    ),
    claims=(EXACT,),
    orders=(MEAN_FIELD,),
    figure=Figure(
        caption=(
            "The exact per-sample rates of Gaussian features against the mean field's, for a growing number of modes "
            "(geometric mean over 64 random spectra and low-pass filters; Gauss quadrature, no sampling error)."
        ),
        record=record,
        draw=draw,
    ),
)
