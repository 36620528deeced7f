"""Batches sharded over a mesh give what one device gives: every statistic is that of the global batch."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import functools, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rdm_jax.methods import Context, evaluate, get

N, D = 32, 6
designs = [
    get("simsiam", hidden=(8,)),
    get("swav", count=10, queue=48, queue_start=0),
    get("dino", count=10),
    get("rdm_simsiam", side="target"),
    get("directpred"),
]
views = jax.random.normal(jax.random.key(0), (2, N, D)) * jnp.arange(1.0, D + 1) + 0.3
made = [method.init(jax.random.key(1), views) for method in designs]

def steps(views, made):
    run = lambda method, start: jax.lax.scan(functools.partial(step, method, views), start, jnp.arange(3))
    return list(map(run, designs, made))

def step(method, views, carry, epoch):
    params, states = carry
    target_params = method.target_params(params) if method.target_weights == "ema" else None

    def loss(params):
        out = evaluate(method, params, states, views, views, Context(epoch=epoch), target_params=target_params)
        return out.loss, out.states

    (value, states), slope = jax.value_and_grad(loss, has_aux=True)(params)
    return (jax.tree.map(lambda leaf, change: leaf - 0.1 * change, params, slope), states), value

assert len(jax.devices()) == 4
one = jax.jit(steps)(views, made)
mesh = Mesh(np.array(jax.devices()), ("batch",))
spread = jax.device_put(views, NamedSharding(mesh, PartitionSpec(None, "batch", None)))
many = jax.jit(steps)(spread, jax.device_put(made, NamedSharding(mesh, PartitionSpec())))
for method, alone, sharded in zip(designs, one, many):
    # Sums in another order differ by rounding, which three steps and a decomposition enlarge.
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5, err_msg=method.name)
    jax.tree.map(close, alone, sharded)
print("same")
"""


def test_a_sharded_batch_gives_what_one_device_gives():
    flags = f"--xla_force_host_platform_device_count=4 {os.environ.get('XLA_FLAGS', '')}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "same", result.stderr
