"""Margins of L2, the dynamic statements T5 to T9, and S1, S2, S3, S5 and S7."""

from math import exp, expm1, log, log1p

import numpy as np

from numpy_margins.common import (
    all_rates,
    cosine_rates,
    covariance,
    entropy,
    entropy_rate,
    least,
    squared_rates,
    threshold_rate,
)


def l2(c):
    alive = c.singular > 0
    s, shape = c.singular[alive], c.shape[alive]
    mass = s if c.mean_sv else s**2
    up, down = np.maximum(shape, 0.0), np.maximum(-shape, 0.0)
    x = up * np.sum(mass * down) - down * np.sum(mass * up)
    rates = c.mean + c.direction * x / (np.max(np.abs(x)) or 1.0)
    q, speed = (s / s.sum(), 1) if c.sv else (s**2 / np.sum(s**2), 2)
    shares = np.cumsum(speed * (rates - np.sum(q * rates)) * q)[:-1]
    rise = entropy_rate(s**2, rates, sv=c.sv == 1)
    return c.direction * rise, least(-c.direction * shares[s[1:] < s[:-1]])


def l2_all_spectra(c):
    alive = c.singular > 0
    spectrum, k = c.singular[alive] ** 2, int(c.step)
    means = np.cumsum(c.increments)
    rates = means + np.arange(len(means)) * c.increments
    unit = np.max(np.abs(rates)) or 1.0
    fallen = means[k - 1] - c.increments[k]
    turned = np.append(rates[:k], (k + 1) * fallen - k * means[k - 1])
    step = np.append(np.ones(k), 0.5)

    def residual(sv):
        q = np.sqrt(spectrum) if sv else spectrum
        q, own = q / q.sum(), c.rates[alive]
        change = (1 if sv else 2) * (own - np.sum(q * own)) * q
        return abs(-np.sum(change * np.log(q)) - entropy_rate(spectrum, own, sv)) / np.max(np.abs(c.rates))

    rise = entropy_rate(spectrum, c.mean + rates[alive] / unit)
    return rise, -entropy_rate(step, turned / unit), -residual(False), -residual(True)


def s1(c):
    alive = c.spectrum > 0
    spectrum, g, h, theta, slope = (x[alive] for x in (c.spectrum, c.online, c.target, c.theta, c.slope))
    signal = theta * spectrum * g / h
    power, weights = np.sum(g * h * signal), g**2 * spectrum
    kappa = power / weights.sum()
    rates = slope * (h * signal / spectrum - (g if c.loss else kappa * g))
    rise, scale = entropy_rate(spectrum, rates), power / spectrum.sum()
    return (
        c.direction * rise / scale,
        least(-c.direction * np.cumsum(spectrum * rates)[:-1] / power),
        -abs(rise - threshold_rate(spectrum, g, theta)) / scale,
        -np.sum(spectrum * np.abs(rates - g**2 * (theta - kappa))) / power,
    )


def s1_growth_rates(c):
    alive = np.any(c.views != 0, axis=(0, 1))
    z, other = c.views[:, :, alive], c.views[::-1, :, alive]
    g, h = c.online[alive], c.target[alive]
    p, t = g * z, h * other

    def mean(values):
        return values.sum() / values[..., 0].size

    lengths, inner = np.sqrt(mean(p**2) * mean(t**2)), mean(p * t)
    spectrum, signal = (z * z).mean(axis=(0, 1)), (z * other).mean(axis=(0, 1))
    squared, cosine = g * (t - p), g * (t - inner / mean(p**2) * p) / lengths  # minus the gradients, per sample
    wrong = (z * squared).mean(axis=(0, 1)) - spectrum * squared_rates(spectrum, signal, g, h)
    wrong_cosine = (z * cosine).mean(axis=(0, 1)) - spectrum * cosine_rates(spectrum, signal, g, h) / lengths
    return -np.abs(wrong).sum() / (mean(p**2) + mean(t**2)), -np.abs(wrong_cosine).sum()


def s2(c):
    alive = c.spectrum > 0
    spectrum, signal, learned = c.spectrum[alive], c.signal[alive], c.learned[alive]
    stiffness = spectrum + c.ridge
    gains = learned / stiffness * (-np.expm1(-stiffness / c.lag) if c.lag > 0 else 1.0)
    theta = np.where(gains > 0, signal / (spectrum * np.where(gains > 0, gains, 1.0)), 0.0)
    scale = np.sum(gains * signal) / spectrum.sum()
    from_rates = entropy_rate(spectrum, cosine_rates(spectrum, signal, gains))
    return from_rates / scale, threshold_rate(spectrum, gains, theta) / scale


def s3(c):
    def half_change(online, target):
        """The mean of z z' for z' = G (t/|p||t| - (p.t) p/|p|^3 |t|), the gradient of each sample's cosine."""
        rates = np.zeros_like(online)
        for z, second in zip(c.samples, c.second, strict=True):
            p, t = online * z, target * second
            lengths = np.sqrt(np.sum(p**2) * np.sum(t**2))
            rates += z * online * (t - np.sum(p * t) / np.sum(p**2) * p) / lengths
        return rates / len(c.samples)

    modes = np.count_nonzero(np.any(c.samples != 0, axis=0))
    ones = np.ones_like(c.online)
    both = half_change(c.online, ones), half_change(ones, c.target)
    sums = [least(-np.cumsum(rates)[: modes - 1]) for rates in both]
    return [*sums, *(-abs(rates.sum()) for rates in both)]


def s5(c):
    logs, theta = -np.cumsum(c.gaps)[c.live], (c.base + np.cumsum(c.slopes * c.gaps))[c.live]
    spectrum, gains = np.exp(logs), c.gains[c.live]
    squares = np.sum(gains**2 * spectrum) / spectrum.sum()
    target = entropy_rate(spectrum, cosine_rates(spectrum, spectrum, target=theta))
    online = entropy_rate(spectrum, cosine_rates(spectrum, theta * spectrum * gains, gains))
    variance = covariance(spectrum, logs, logs)
    online_variance = squares * covariance(gains**2 * spectrum, logs, logs)
    scale = c.base + (abs(c.lower) + abs(c.upper)) * c.gaps.sum()
    return (
        (target - 2 * c.lower * variance) / scale,
        (2 * c.upper * variance - target) / scale,
        (online - 2 * c.lower * online_variance) / (scale * squares),
        (2 * c.upper * online_variance - online) / (scale * squares),
    )


def s7(c):
    alive = c.spectrum > 0
    spectrum, gains = c.spectrum[alive], c.gains[alive]
    # g (1 - kappa g) would cancel where gains are nearly equal, and long steps would show it.
    pairs = np.sum(gains * spectrum * (gains - gains[:, None]), axis=1)
    after = spectrum * (1 + c.step * gains * pairs / np.sum(gains**2 * spectrum)) ** 2
    fallen = np.cumsum(spectrum / spectrum.sum() - after / after.sum())
    participation = [np.log(x.sum() ** 2 / np.sum(x**2)) for x in (after, spectrum)]
    return least(fallen[:-1]), entropy(after) - entropy(spectrum), participation[0] - participation[1]


def t5(c):
    alive = c.spectrum > 0
    spectrum, gains = c.spectrum[alive], c.gains[alive]
    signal = c.share * spectrum
    rates, power = cosine_rates(spectrum, signal, gains), np.sum(gains * signal)
    sums = -np.cumsum(spectrum * rates) / power
    last = np.count_nonzero(gains) - 1
    return entropy_rate(spectrum, rates) * spectrum.sum() / power, least(sums[:last])


def t6(c):
    alive = c.spectrum > 0
    spectrum, gains = c.spectrum[alive], c.gains[alive]
    q, rates = spectrum / spectrum.sum(), gains * (c.share - gains)
    scale = c.side / np.sum(q * gains * (c.share + gains))
    sums = -np.cumsum(q * (rates - np.sum(q * rates)))
    rises = entropy_rate(spectrum, rates), entropy_rate(spectrum, rates, sv=True)
    return scale * rises[0], scale * rises[1], least((scale * sums)[:-1])


def t6_two_modes(c):
    q, (g1, g2), (log1, log2) = c.spectrum / c.spectrum.sum(), c.gains, np.log(c.spectrum)
    rise = entropy_rate(c.spectrum, c.gains * (c.share - c.gains))
    formula = 2 * q[0] * q[1] * (g1 - g2) * (g1 + g2 - c.share) * (log1 - log2)
    scale = np.sum(q * c.gains * (c.share + c.gains))
    return rise * (g1 + g2 - c.share) / (scale * (g1 + g2 + c.share)), -abs(rise - formula) / scale


def t7(c):
    alive = c.spectrum > 0
    gains = c.gains[alive]
    rates = all_rates(c.spectrum[alive], c.signal[alive], gains)
    cosine, squared = gains.max() or 1.0, max(gains.max(), 1.0)
    return rates / np.array([cosine, squared, cosine, squared])


def t7_noise(c):
    spectrum = c.spectrum[c.spectrum > 0]
    return c.side * all_rates(spectrum, spectrum - c.noise, (spectrum / spectrum[-1]) ** (-c.strength / 2))


def t8(c):
    alive = c.spectrum > 0
    spectrum = c.spectrum[alive]
    signal = c.ratios[alive] * spectrum
    change = 2 * np.sum(spectrum * squared_rates(spectrum, signal))
    expected = -2 * np.sum(spectrum - signal)
    return [*(c.side * all_rates(spectrum, signal, 1.0)), -abs(change - expected) / spectrum.sum()]


def t8_noise(c):
    spectrum, noise = c.spectrum[c.spectrum > 0], c.noise[0]
    total, mean = spectrum.sum(), spectrum.mean()
    later = mean + (spectrum - mean) * c.growth
    change = 2 * noise / (total * mean) * (later - mean)
    flow = 2 * cosine_rates(later, later - noise) * later / later.sum()
    return -np.max(np.abs(change - flow)), entropy(spectrum) - entropy(later)


def t8_collapse(c):
    rows, count = c.features - c.features.mean(axis=0), len(c.features)
    rows = rows / np.sqrt(np.sum(rows**2, axis=1, keepdims=True))
    variance = np.sum((rows - rows.mean(axis=0)) ** 2) / count
    views = c.features.reshape(count // 2, 2, -1)
    gradient = (views[:, :, None] - views[:, None]).sum(axis=2) / (2 * count)
    change = -2 * np.sum(views * gradient)
    noise = np.sum((views - views.mean(axis=1, keepdims=True)) ** 2) / count
    return variance - 4 * (count - 1) / count**2, -abs(change + 2 * noise) / (np.sum(views**2) / count)


def noisy_filter(spectrum, noise, half):
    """theta, kappa, and dH/dt over E_q[g^2], for g = (lambda/lambda_min)^(a/2) and m = lambda - nu."""
    gains, signal = (spectrum / spectrum[-1]) ** half, spectrum - noise
    weight = np.sum(gains**2 * spectrum)
    rise = entropy_rate(spectrum, cosine_rates(spectrum, signal, gains)) * spectrum.sum() / weight
    return signal / (spectrum * gains), np.sum(gains * signal) / weight, rise


def t9(c):
    theta, kappa, rise = noisy_filter(c.spectrum[c.spectrum > 0], c.noise, c.strength / 2)
    return c.side * rise, (theta[-1] if c.side > 0 else theta[0]) - kappa


def bisect(function, low, high):
    """Where a function that is positive at ``high`` and not at ``low`` changes sign, to the last digit."""
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (low, middle) if function(middle) > 0 else (middle, high)


def t9_band(c):
    spectrum, nu, half = c.spectrum[c.spectrum > 0], float(c.noise[0]), float(c.strength) / 2
    ratio = spectrum / nu
    level = float(np.sum(ratio**half * (ratio - 1)) / np.sum(ratio ** (1 + 2 * half)))

    def theta(height):  # at lambda = nu exp(height), in the unit of nu^(-a/2)
        return -expm1(-height) * exp(-half * height)

    def open_(height):
        return -expm1(-height) - level * exp(half * height)

    top, probe = log1p(1 / half), log(c.probe / nu)
    lower, upper = (bisect(open_, end, top) for end in (0.0, -log(level) / half))
    inside = lower < probe < upper
    own, kappa, rise = noisy_filter(spectrum, nu, half)
    return (
        theta(top) - theta(probe),
        own[c.mode] - min(own[0], own[-1]),
        theta(top) - level,
        -max(abs(open_(lower)), abs(open_(upper))),
        (1 if inside else -1) * (theta(probe) - level),
        max(kappa - own[-1], rise),
        max(kappa - own[0], -rise),
    )


MARGINS = {
    "L2": l2,
    "L2 all spectra": l2_all_spectra,
    "S1": s1,
    "S1 growth rates": s1_growth_rates,
    "S2": s2,
    "S3": s3,
    "S5": s5,
    "S7": s7,
    "T5": t5,
    "T6": t6,
    "T6 two modes": t6_two_modes,
    "T7": t7,
    "T7 isotropic noise": t7_noise,
    "T8": t8,
    "T8 isotropic noise": t8_noise,
    "T8 complete collapse": t8_collapse,
    "T9": t9,
    "T9 band": t9_band,
}
