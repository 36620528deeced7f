"""The methods' parts in NumPy float64, written from their definitions; rows are samples."""

import numpy as np


def f64(*arrays):
    converted = [np.asarray(array, np.float64) for array in arrays]
    return converted if len(converted) > 1 else converted[0]


def unit(rows):
    return np.array([row / np.sqrt(sum(x * x for x in row)) for row in f64(rows)])


def cosines(p, t):
    return np.array([sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)) for a, b in zip(*f64(p, t), strict=True)])


def softmax(logits, temperature=1.0):
    shifted = np.exp((f64(logits) - np.max(logits, axis=1, keepdims=True)) / temperature)
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy(scores, assignments, temperature):
    return -np.mean(np.sum(f64(assignments) * np.log(softmax(scores, temperature)), axis=1))


def sinkhorn(scores, epsilon, iterations):
    """SwAV's: clusters to 1/K each, then samples to 1/n each; in the end times n."""
    plan = np.exp(f64(scores) / epsilon)
    n, k = plan.shape
    plan /= plan.sum()
    for _ in range(iterations):
        plan = plan / plan.sum(axis=0, keepdims=True) / k
        plan = plan / plan.sum(axis=1, keepdims=True) / n
    return plan * n


def filtered(features, gain):
    left, values, right = np.linalg.svd(f64(features), full_matrices=False)
    return left @ np.diag(gain(values) * values) @ right


def predictor_matrix(moment, function):
    values, vectors = np.linalg.eigh(moment)
    return vectors @ np.diag(function(values)) @ vectors.T


def direct_pred(values, epsilon=0.01, floor=1e-4):
    return np.maximum(np.sqrt(np.maximum(values, 0) / values.max()) + epsilon, floor)


def perceptron(features, params, depth, activation=lambda x: np.maximum(x, 0)):
    """Linear, batch norm over the batch, activation, ...; and the (mean, variance) of every batch norm."""
    statistics = []
    for layer in range(depth):
        features = features @ f64(params[f"linear{layer}"]["kernel"])
        mean, variance = features.mean(axis=0), features.var(axis=0)
        statistics.append((mean, variance))
        scale, bias = f64(params[f"norm{layer}"]["scale"], params[f"norm{layer}"]["bias"])
        features = activation((features - mean) / np.sqrt(variance + 1e-5) * scale + bias)
    last = params[f"linear{depth}"]
    return features @ f64(last["kernel"]) + f64(last["bias"]), statistics
