"""Entropies, growth rates and the like, as their definitions say."""

import numpy as np


def entropy(spectrum):
    """-sum q log q, the logarithm of the effective rank."""
    q = spectrum[spectrum > 0] / spectrum.sum()
    return -np.sum(q * np.log(q))


def covariance(weights, x, y):
    """Cov_q(x, y) for q the normalised weights."""
    q = weights / weights.sum()
    return np.sum(q * (x - np.sum(q * x)) * (y - np.sum(q * y)))


def entropy_rate(spectrum, rates, sv=False):
    """dH/dt where lambda' = 2 r lambda: -2 Cov_q(r, log lambda), or -Cov_q(r, log s) for the singular values (L2)."""
    if sv:
        return -covariance(np.sqrt(spectrum), rates, np.log(spectrum) / 2)
    return -2 * covariance(spectrum, rates, np.log(spectrum))


def cosine_rates(spectrum, signal, online=1.0, target=1.0):
    """g (h m/lambda - kappa g), kappa = sum(g h m)/sum(g^2 lambda)."""
    kappa = np.sum(online * target * signal) / np.sum(online**2 * spectrum)
    return online * (target * signal / spectrum - kappa * online)


def squared_rates(spectrum, signal, online=1.0, target=1.0):
    """g (h m/lambda - g)."""
    return online * (target * signal / spectrum - online)


def threshold_rate(spectrum, online, theta):
    """dH/dt = -2 E_q[g^2] Cov_{q_p}(theta, log lambda) (S1)."""
    weights = online**2 * spectrum
    return -2 * weights.sum() / spectrum.sum() * covariance(weights, theta, np.log(spectrum))


def all_rates(spectrum, signal, target):
    """dH/dt of a target filter: eig and sv, of each the cosine and the squared error."""
    both = cosine_rates(spectrum, signal, target=target), squared_rates(spectrum, signal, target=target)
    return np.array([entropy_rate(spectrum, rates, sv) for sv in (False, True) for rates in both])


def least(values):
    """The smallest value, 0 if there are none."""
    return np.min(values) if len(values) else 0.0
