import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.training import input_moments, latent_model, two_views

SIGNAL, NOISE = [3.0, 1.0, 0.25, 0.0], [0.1, 0.0, 0.5, 0.4]
SAMPLES = 40_000


@pytest.mark.parametrize("steepness", [0.0, 0.8])
def test_moments_are_those_of_samples(key, steepness):
    """Every entry within five standard errors, which the samples' own spread gives."""
    model = latent_model(jax.random.key(2), SIGNAL, NOISE, width=5, steepness=steepness)
    first, second = np.asarray(two_views(model, key, 3, SAMPLES), np.float64)
    moments = input_moments(model)
    for pair, expected in (((first, second), moments.signal), ((first, first), moments.signal + moments.noise)):
        products = np.einsum("ni,nj->nij", *pair)
        error = products.std(0) / SAMPLES**0.5
        assert np.all(np.abs(products.mean(0) - expected) < 5 * error + 1e-6)
    assert np.all(np.abs(first.mean(0)) < 5 * first.std(0) / SAMPLES**0.5)


def test_linear_mixing_keeps_the_variances_and_their_directions():
    moments = input_moments(latent_model(jax.random.key(0), SIGNAL, NOISE, width=6))
    np.testing.assert_allclose(np.linalg.eigvalsh(moments.signal)[2:], sorted(SIGNAL), atol=1e-6)
    np.testing.assert_allclose(np.linalg.eigvalsh(moments.noise)[2:], sorted(NOISE), atol=1e-6)
    np.testing.assert_allclose(moments.signal @ moments.noise, moments.noise @ moments.signal, atol=1e-6)


def test_isotropic_noise_commutes_and_a_bent_mixing_shrinks():
    flat, bent = (input_moments(latent_model(jax.random.key(0), SIGNAL, 0.5, steepness=k)) for k in (0.0, 0.8))
    np.testing.assert_allclose(flat.noise, 0.5 * np.eye(4), atol=1e-6)
    assert jnp.trace(bent.signal + bent.noise) < jnp.trace(flat.signal + flat.noise)
    tiny = input_moments(latent_model(jax.random.key(0), SIGNAL, 0.5, steepness=1e-2))
    np.testing.assert_allclose(tiny.signal, flat.signal, atol=2e-3)


def test_a_batch_is_a_function_of_key_and_index():
    model = latent_model(jax.random.key(0), SIGNAL, NOISE)
    drawn = [(0, 1), (0, 1), (0, 2), (1, 1)]
    batches = [np.asarray(two_views(model, jax.random.key(seed), index, 3)) for seed, index in drawn]
    assert (batches[0] == batches[1]).all()
    assert not np.isclose(batches[0], batches[2]).any() and not np.isclose(batches[0], batches[3]).any()
    assert not np.isclose(batches[0][0], batches[0][1]).any()


def test_a_clean_factor_is_the_same_in_both_views():
    model = latent_model(jax.random.key(0), SIGNAL, NOISE)
    views = np.asarray(two_views(model, jax.random.key(0), 0, 50)) @ np.asarray(model.mixing @ model.rotation)
    differs = np.abs(views[0] - views[1]).max(0)
    assert differs[1] < 1e-5 and (differs[[0, 2, 3]] > 0.1).all()


def test_seeds_can_be_vmapped():
    keys = jax.random.split(jax.random.key(0), 2)
    views = jax.vmap(lambda key: two_views(latent_model(key, SIGNAL, 0.1, steepness=0.5), key, 0, 5))(keys)
    alone = two_views(latent_model(keys[1], SIGNAL, 0.1, steepness=0.5), keys[1], 0, 5)
    np.testing.assert_allclose(views[1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([SIGNAL, [-1.0, 0, 0, 0]], {}, "noise must be variances"),
        ([SIGNAL, [1.0, 2.0]], {}, r"got \(4,\) and \(2,\)"),
        ([[0.0, 0.0], 1.0], {}, "nothing that the views share"),
        ([SIGNAL, 0.1], {"width": 3}, "give width >= 4"),
        ([SIGNAL, 0.1], {"steepness": -1.0}, "steepness must be at least 0"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        latent_model(jax.random.key(0), *arguments, **options)
