"""One training step of SimSiam with a ResNet-18, weights carried over, against torch in float32 and in float64.

Torch in float64 is the truth, and ours may be further from it than torch in float32 by a small factor. With ReLU a few
of the millions of units lie so near 0 that rounding decides on which side of the kink they are, and gradients of
float32 differ from the truth by nearly 1e-2, in torch as well. So the step is compared with a smooth activation too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rdm_jax.methods import get, predictors
from rdm_jax.training import init_state, make_step, networks, resnet_encoder, sgd

RATE, DECAY, MOMENTUM = 0.1, 1e-2, 0.9
VIEWS = np.random.default_rng(0).normal(0, 1, (2, 16, 32, 32, 3)).astype(np.float32)
FACTOR = 4  # on torch's own rounding, which is random: both sum in orders of their own
# Ours and torch's.
ACTIVATIONS = {
    "relu": (jax.nn.relu, F.relu),
    "smooth": (lambda x: jnp.logaddexp(2 * x, 0) / 2, lambda x: F.softplus(x, beta=2)),
}
LIMITS = {"relu": {"gradient": 3e-2}, "smooth": {"gradient": 1e-4}}  # of torch's own rounding; else 1e-3
chosen = ["relu"]


def paths(tree):
    """The leaves as NumPy arrays by path, such as "trunk/stem/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path): np.asarray(x) for path, x in leaves}


def norm(x, name, params, stats):
    """Batch norm; the running statistics of torch's momentum, 1 - 0.9, change in place."""
    mean, var = (stats.get(f"{name}/{kind}") for kind in ("mean", "var"))
    scale, bias = (params.get(f"{name}/{kind}") for kind in ("scale", "bias"))
    return F.batch_norm(x, mean, var, scale, bias, training=True, momentum=0.1, eps=1e-5)


def activation(x):
    return ACTIVATIONS[chosen[0]][1](x)


def convolve(x, name, params, stride, padding):
    return F.conv2d(x, params[f"{name}/kernel"].permute(3, 2, 0, 1), stride=stride, padding=padding)


def trunk(x, params, stats):
    """The four stages, each pooled."""
    x = convolve(x.permute(0, 3, 1, 2), "encoder/trunk/stem", params, 1, 1)
    x, pooled = activation(norm(x, "encoder/trunk/stem_norm", params, stats)), []
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"encoder/trunk/stage{stage}_block{block}", 2 if stage > 1 and block == 0 else 1
            y = activation(norm(convolve(x, f"{name}/conv0", params, stride, 1), f"{name}/norm0", params, stats))
            y = norm(convolve(y, f"{name}/conv1", params, 1, 1), f"{name}/norm1", params, stats)
            if stride == 2:
                x = norm(convolve(x, f"{name}/shortcut", params, 2, 0), f"{name}/shortcut_norm", params, stats)
            x = activation(x + y)
        pooled.append(x.mean((2, 3)))
    return pooled


def encode(x, params, stats):
    stages = trunk(x, params, stats)
    x, name = stages[-1], "encoder/projector"
    for i in range(2):
        x = activation(norm(x @ params[f"{name}/projector{i}/kernel"], f"{name}/projector{i}_norm", params, stats))
    return norm(x @ params[f"{name}/output/kernel"], f"{name}/output_norm", params, stats), stages


def predict(z, params):
    name = "method/predictor"
    hidden = activation(norm(z @ params[f"{name}/linear0/kernel"], f"{name}/norm0", params, {}))
    return hidden @ params[f"{name}/linear1/kernel"] + params[f"{name}/linear1/bias"]


def torch_step(params, stats, dtype):
    """What the step leaves, by name, as float64 NumPy arrays."""
    params = {name: torch.tensor(leaf, dtype=dtype, requires_grad=True) for name, leaf in params.items()}
    stats = {f"encoder/{name}": torch.tensor(leaf, dtype=dtype) for name, leaf in stats.items()}
    optimizer = torch.optim.SGD(params.values(), RATE, MOMENTUM, weight_decay=DECAY)
    encoded = [encode(torch.tensor(view, dtype=dtype), params, stats) for view in VIEWS]
    (z1, stages1), (z2, stages2) = encoded
    p1, p2 = (predict(z, params) for z in (z1, z2))
    cosines = F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()
    loss = -cosines / 2
    loss.backward()
    optimizer.step()
    outputs = {"features": torch.stack([z1, z2]), "loss": loss}
    outputs |= {f"stage{k + 1}": torch.stack(pair) for k, pair in enumerate(zip(stages1, stages2, strict=True))}
    groups = {
        "output": outputs,
        "gradient": {name: optimizer.state[leaf]["momentum_buffer"] for name, leaf in params.items()},
        "parameter": params,
        "statistic": stats,
    }
    return {kind: {name: x.detach().double().numpy() for name, x in group.items()} for kind, group in groups.items()}


@pytest.fixture(scope="module", params=ACTIVATIONS)
def steps(request):
    """The same step by us and by torch."""
    chosen[0] = request.param
    with pytest.MonkeyPatch.context() as patch:
        for place in (networks, predictors):
            patch.setitem(place._ACTIVATIONS, "relu", ACTIVATIONS[request.param][0])
        patch.setattr(jax.nn, "relu", ACTIVATIONS[request.param][0])
        return step_of_both()


def step_of_both():
    encoder, method = resnet_encoder(18), get("simsiam")
    optimizer = sgd(RATE, weight_decay=DECAY, momentum=MOMENTUM)
    state = init_state(encoder, method, optimizer, jax.random.key(1), VIEWS)
    # Biases start at 0, where a relative deviation says little.
    draws = np.random.default_rng(2)
    params = jax.tree.map(lambda x: x + draws.normal(0, 0.1, x.shape).astype("f4") * (x.ndim == 1), state.params)
    state = state._replace(params=params)
    step = make_step(encoder, method, optimizer, watch=lambda done: (done.online.features, done.online.stages))
    after, (loss, (features, stages)) = jax.jit(step)(state, VIEWS)
    outputs = {"features": features, "loss": loss} | {k: v for k, v in stages.items() if k.startswith("stage")}
    ours = {
        "output": paths(outputs),
        "gradient": paths(after.optimizer.momentum),  # of the first step: g + wd p
        "parameter": paths(after.params),
        "statistic": {f"encoder/{name}": leaf for name, leaf in paths(after.stats).items()},
    }
    start = paths(state.params), paths(state.stats)
    return ours, torch_step(*start, torch.float32), torch_step(*start, torch.float64)


def deviations(found, truth):
    """|found - truth| / |truth| of each array."""
    assert found.keys() == truth.keys()
    return {name: np.linalg.norm(found[name] - x) / np.linalg.norm(x) for name, x in truth.items()}


@pytest.mark.parametrize("kind", ["output", "gradient", "parameter", "statistic"])
def test_a_step_of_resnet_18_is_that_of_torch(steps, kind):
    ours, single, truth = (group[kind] for group in steps)
    mine, theirs, between = deviations(ours, truth), deviations(single, truth), deviations(ours, single)
    worst = {what: max(found, key=found.get) for what, found in {"ours": mine, "torch": theirs}.items()}
    print(
        f"\n{chosen[0]}, {kind}, {len(truth)} arrays: ours to float64 {mine[worst['ours']]:.1e} ({worst['ours']}), "
        f"torch to float64 {theirs[worst['torch']]:.1e} ({worst['torch']}), ours to torch {max(between.values()):.1e}"
    )
    assert theirs[worst["torch"]] < LIMITS[chosen[0]].get(kind, 1e-3)
    assert mine[worst["ours"]] < FACTOR * theirs[worst["torch"]]
