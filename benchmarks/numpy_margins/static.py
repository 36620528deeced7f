"""Margins of L1, S4 and the static statements T1 to T4 and T10 to T12."""

import numpy as np

from numpy_margins.common import covariance, entropy, least

BELOW = 1  # T11's regime in which erank rises with the temperature


def top_shares(spectrum):
    """For each k, the share of the k largest values."""
    return np.cumsum(np.sort(spectrum)[::-1]) / spectrum.sum()


def l1(c):
    alive = c.spectrum > 0
    powered = c.spectrum[alive] ** c.exponent
    weighted = c.weights[alive] * powered
    shares = top_shares(weighted) - top_shares(powered)
    return least(shares[:-1]), least(-np.diff(weighted) / weighted[0])


def renyi_entropy(spectrum, order):
    q = spectrum[spectrum > 0] / spectrum.sum()
    if order == 1:
        return -np.sum(q * np.log(q))
    if np.isinf(order):
        return -np.log(q.max())
    if abs(order - 1) < 0.5:  # sum q^a - 1, which would cancel
        return np.log1p(np.sum(q * np.expm1((order - 1) * np.log(q)))) / (1 - order)
    top = q.max()
    return (order * np.log(top) + np.log(np.sum((q / top) ** order))) / (1 - order)


def t1(c):
    target, online = c.spectrum, c.gains**2 * c.spectrum
    diversities = (
        entropy,
        lambda x: entropy(np.sqrt(x)),
        lambda x: renyi_entropy(x, c.order),
        lambda x: np.log(x.sum() ** 2 / np.sum(x**2)),
        lambda x: np.log(x.sum() / x.max()),
        lambda x: np.count_nonzero(x > c.rtol * x.max()),
    )
    return [diversity(target) - diversity(online) for diversity in diversities]


def t2(c):
    online, target = c.singular, c.gains * c.singular
    return entropy(target**2) - entropy(online**2), entropy(target) - entropy(online)


def t2_powers(c):
    logs = np.log(c.singular[c.singular > 0])

    def shares(exponent):
        powers = np.exp(exponent * logs - np.max(exponent * logs))
        return powers / powers.sum()

    def power_entropy(exponent):
        return entropy(shares(exponent))

    a, b = c.exponent, c.order
    q, log_spectrum = shares(2 * b), 2 * logs
    change = q * (log_spectrum - np.sum(q * log_spectrum))
    derivative = -np.sum(change * np.log(np.where(q > 0, q, 1.0)))
    residual = derivative + b * covariance(q, log_spectrum, log_spectrum)
    return (
        power_entropy(2 * (1 + a)) - power_entropy(2.0),
        power_entropy(1 + a) - power_entropy(1.0),
        power_entropy(2 * c.fraction * b) - power_entropy(2 * b),
        -abs(residual) / (1 + abs(b) * (log_spectrum[-1] - log_spectrum[0]) ** 2),
    )


def t3_filter(c):
    spectrum = c.signal + c.noise
    alive = spectrum > 0
    spectrum = spectrum[alive]
    gains = c.signal[alive] / (spectrum + c.ridge)
    online = np.exp(entropy(gains**2 * spectrum) - entropy(spectrum))
    return 1 - online, least(-np.diff(gains))


def t3_optimum(c):
    views, predictor = c.views, c.predictor
    rows, means = views.reshape(8, -1), views.mean(axis=1)
    feature, signal = rows.T @ rows / 8, means.T @ means / 4
    alive = np.ix_(np.any(rows != 0, axis=0), np.any(rows != 0, axis=0))
    ridged = feature + c.ridge * np.eye(len(feature))

    def wiener(moment):  # of minimal norm: 0 from and to the coordinates that no view has
        found = np.zeros_like(moment)
        found[alive] = np.linalg.solve(moment[alive], signal[alive]).T
        return found

    best, aligned = wiener(ridged), wiener(feature)

    def loss(w):
        error = (views @ w.T)[:, :, None] - views[:, None]
        return np.sum(error**2) / 16 + c.ridge * np.sum(w**2)

    def cosine(w):
        output = views @ w.T
        inner = np.sum(output[:, :, None] * views[:, None]) / 16
        return inner / np.sqrt(np.sum(output**2) / 8 * np.sum(views**2) / 8)

    size = (np.sum(views**2) / 8 + c.ridge) * (1 + np.sum(predictor**2))
    excess, apart = loss(predictor) - loss(best), predictor - best
    residual = excess - np.trace(apart @ ridged @ apart.T)
    return (
        excess / size,
        -abs(residual) / size / (1 + np.sum(best**2)),
        cosine(aligned) - cosine(predictor),
    )


def rises(*singular):
    """New rank less old, target's less new: eig and sv of each."""
    old, new, target = (np.array([entropy(s**2), entropy(s)]) for s in singular)
    return [*(new - old), *(target - new)]


def t4(c):
    target = c.gains * c.singular
    return rises(c.singular, (1 - c.step) * c.singular + c.step * target, target)


def t4_samples(c):
    online, other = c.common + c.noise, c.common + c.target_noise
    vectors, values, _ = np.linalg.svd(other, full_matrices=False)
    target = (vectors * (c.share + c.weight / values)) @ vectors.T @ other
    moved = (1 - c.step) * online + c.step * target
    return rises(*(np.linalg.svd(samples, compute_uv=False) for samples in (online, moved, target)))


def s4(c):
    alive = c.spectrum > 0
    spectrum, logs = c.spectrum[alive], np.log(c.spectrum[alive])

    def terms(gains):
        w, online = gains**2, gains**2 * spectrum
        target, online = spectrum / spectrum.sum(), online / online.sum()
        kept = online > 0
        kl = np.sum(online[kept] * np.log(online[kept] / target[kept]))
        part = covariance(target, w, logs) / np.sum(target * w)
        return entropy(target) - entropy(online), kl, part, np.sum(np.abs(online - target))

    difference, kl, part, distance = terms(c.gains[alive])
    whole, first, second, _ = terms(c.any_gains[alive])
    return difference - distance**2 / 2, part, kl, -abs(whole - first - second) / (1 + first + abs(second))


def t10(c):
    def centred(fraction):
        left = c.spectrum.copy()
        left[0] = max(left[0] - fraction * (2 - fraction) * c.squared_mean, 0.0)
        return left

    less, more = centred(c.less), centred(c.more)
    return entropy(more) - entropy(less), entropy(np.sqrt(more)) - entropy(np.sqrt(less))


def t10_exact(c):
    low, high = (entropy(np.append(x, c.rest)) for x in (c.low, c.high))
    peak = c.rest.sum() / np.exp(entropy(c.rest))
    return c.side * (low - high), np.log(c.rest[0] / peak)


def model_entropy(spectrum, constant, along, mode):
    """Entropy of the linear model for a mean along one eigenvector; ``constant``: K tau^2 and the rest of |b|^2."""
    cross = np.sqrt(constant) * along
    block = np.array([[constant, cross], [cross, along**2 + spectrum[mode]]])
    values = np.concatenate([np.linalg.eigvalsh(block), np.delete(spectrum, mode)])
    return entropy(np.maximum(values, 0.0))


def t11(c):
    levels = c.low + c.orthogonal, c.high + c.orthogonal
    low, high = (model_entropy(c.spectrum, level, c.along, c.mode) for level in levels)
    return (high - low if c.regime == BELOW else low - high,)


def t12(c):
    target = entropy(np.append(c.target, c.spectrum))
    return (target - model_entropy(c.spectrum, c.constant, c.along, c.mode),)


def t12_double_centering(c):
    samples, classes = c.scores.shape
    rows = c.scores - c.scores.mean(axis=1, keepdims=True)
    double = rows - rows.mean(axis=0)
    online, target = (1 + rows / c.epsilon) / classes, (1 + double / c.epsilon) / classes
    mean = rows.mean(axis=0)
    covariances = (rows - mean).T @ (rows - mean) / samples
    wanted = covariances, covariances + np.outer(mean, mean)
    scale = np.sum(c.direction**2) * (np.sum(c.scores**2) / samples + c.epsilon**2)
    margins = []
    for outputs, moment in zip((target, online), wanted, strict=True):
        found = np.mean((((outputs - 1 / classes) * classes * c.epsilon) @ c.direction) ** 2)
        margins.append(-abs(found - c.direction @ moment @ c.direction) / scale)
    return margins


MARGINS = {
    "L1": l1,
    "T1": t1,
    "T2": t2,
    "T2 powers": t2_powers,
    "T3 filter": t3_filter,
    "T3 optimum": t3_optimum,
    "T4": t4,
    "T4 samples": t4_samples,
    "S4": s4,
    "T10": t10,
    "T10 exact": t10_exact,
    "T11": t11,
    "T12": t12,
    "T12 double centering": t12_double_centering,
}
