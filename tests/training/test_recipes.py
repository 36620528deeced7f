import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.methods import METHODS, get
from rdm_jax.training import Params, make_encoder, make_optimizer, recipe, resnet_encoder

# Typed from the published configurations: optimiser, rate, decay, last rate, exclude, moving average,
# projector with the width of the features last, whether these are normalised, zero-init, the method's head.
PUBLISHED = {
    "simsiam": ("sgd", 0.5, 1e-5, 0, False, None, [2048, 2048, 2048], True, True, {"hidden": (512,)}),
    "byol": ("lars", 1.0, 1e-5, 0, True, (0.99, 1), [4096, 256], False, False, {"hidden": (4096,)}),
    "swav": ("lars", 0.6, 1e-6, 6e-4, False, None, [2048, 128], False, False, {"count": 3000, "queue": 3840}),
    "dino": ("lars", 0.3, 1e-6, 0, True, (0.9995, 1), [2048, 2048, 256], False, False, {"count": 4096}),
    "rdm_simsiam": ("sgd", 0.5, 1e-5, 0, False, None, [2048, 2048, 2048], True, True, {"side": "online"}),
    "rdm_byol": ("lars", 1.0, 1e-5, 0, True, (0.99, 1), [4096, 256], False, False, {"side": "online"}),
    # Not published with this network: SimSiam's, and what there is of DirectPred's.
    "symsimsiam": ("sgd", 0.5, 1e-5, 0, False, None, [2048, 2048, 2048], True, True, {}),
    "linear": ("sgd", 0.5, 1e-5, 0, False, None, [2048, 2048, 2048], True, True, {}),
    "directpred": ("sgd", 0.06, 4e-4, 0, False, (0.996, 0.996), [512, 128], False, False, {"momentum": 0.3}),
    "isoloss": ("sgd", 0.06, 4e-4, 0, False, (0.996, 0.996), [512, 128], False, False, {}),
}


@pytest.mark.parametrize("name", METHODS)
def test_numbers_are_the_published_ones(name):
    kind, rate, decay, last, exclude, ema, widths, final_norm, zero, head = PUBLISHED[name]
    found = recipe(name)
    assert (found.method, found.optimizer, found.learning_rate, found.weight_decay) == (name, kind, rate, decay)
    assert (found.min_rate, found.exclude, found.ema, found.zero_init) == (last, exclude, ema, zero)
    assert ([*found.projector, found.features], found.final_norm) == (widths, final_norm)
    assert (found.activation, found.projector_norm) == (("gelu", False) if name == "dino" else ("relu", True))
    assert (found.momentum, found.eta, found.clip, found.warmup_epochs, found.warmup_start) == (
        0.9,
        0.02,
        True,
        10,
        3e-5,
    )
    assert found.batch_size == (128 if name in ("directpred", "isoloss") else 256)
    assert found.constant == (("predictor",) if name == "simsiam" else ())
    assert get(name).options | head == get(name).options
    assert (found.ema is not None) == (get(name).target_weights == "ema")
    assert found.views[1].solarise == (0.2 if name in ("byol", "dino", "rdm_byol") else 0)
    assert found.views[0].brightness == (0.8 if name == "swav" else 0.4)


def first_updates(name, steps, *, batch_size=None, **changes):
    """How far parameters that are 2 move under gradients 3, step by step, without momentum."""
    own = dataclasses.replace(recipe(name), momentum=0.0, warmup_epochs=2, **changes)
    optimizer = make_optimizer(own, steps_per_epoch=5, epochs=6, batch_size=batch_size)
    head = {"predictor": jnp.full((2, 2), 2.0)} if own.constant else {}
    params = Params({"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}, head)
    memory, moves = optimizer.init(params), []
    for _ in range(steps):
        gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), params)
        update, memory = jax.jit(optimizer.update)(gradients, memory, params)
        moves.append([float(leaf.ravel()[0]) for leaf in jax.tree.leaves(update)])
    return np.array(moves)


def test_simsiam_warms_up_and_falls_but_its_predictor_does_not():
    moves = first_updates("simsiam", 21, batch_size=64)
    peak, slope = 0.5 * 64 / 256, 3 + 1e-5 * 2
    np.testing.assert_allclose(moves[[0, 5, 10, 20]] / -slope, [
        [3e-5, 3e-5, peak],
        [(3e-5 + peak) / 2] * 2 + [peak],
        [peak] * 3,
        [peak / 2] * 2 + [peak],
    ], rtol=1e-5)  # fmt: skip


def test_lars_adapts_what_is_not_excluded():
    bias, kernel = -first_updates("byol", 11)[10]
    np.testing.assert_allclose(bias, 3, rtol=1e-5)
    np.testing.assert_allclose(kernel, 0.02 * 4 / (6 + 4e-5) * (3 + 2e-5), rtol=1e-5)
    bias, kernel = -first_updates("swav", 11)[10]
    np.testing.assert_allclose(bias, 0.02 * 2**1.5 / (18**0.5) * 3, rtol=1e-4)
    # Where the rate is small, as at the first step, the trust is clipped: plain SGD.
    np.testing.assert_allclose(-first_updates("swav", 1)[0], 3e-5 * 3, rtol=1e-4)


def test_options_of_the_network_are_passed_on():
    names = set(inspect.signature(resnet_encoder).parameters)
    own = {"projector", "features", "projector_norm", "activation", "final_norm", "zero_init"}
    assert set(inspect.signature(make_encoder).parameters) - {"recipe"} == names - own
    small = dataclasses.replace(recipe("simsiam"), projector=(7, 6), features=5)
    encoder = make_encoder(small, depth=10, width=3, stem="imagenet")
    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
    head = params["projector"]
    assert head["projector0"]["kernel"].shape == (24, 7) and head["output"]["kernel"].shape == (6, 5)
    assert "output_norm" not in head and "output_norm" in stats["projector"]
    assert params["trunk"]["stem"]["kernel"].shape == (7, 7, 3, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipe("simsam"), "did you mean 'simsiam'"),
        (lambda: make_optimizer(recipe("byol"), steps_per_epoch=5, epochs=10), "train longer"),
        (lambda: make_optimizer(recipe("byol"), steps_per_epoch=0, epochs=20), "steps_per_epoch >= 1"),
        (lambda: dataclasses.replace(recipe("byol"), optimizer="sgd"), "exclude is LARS's"),
        (lambda: dataclasses.replace(recipe("byol"), optimizer="lrs"), "did you mean 'lars'"),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
