import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.methods import Context, Method, get, identity, squared_error, stop_gradient
from rdm_jax.spectra import branches_with_filter, features_with_spectrum, null_effective_rank
from rdm_jax.training import LossKind, follow, loss_kind, measure, merge, probe, rank_errors, read

SPECTRUM, GAINS = np.array([5.0, 2.0, 0.5]), np.array([1.5, 0.5, 0.25])
CONTENT, NUISANCE = np.array([4.0, 1.5, 0.5]), np.array([0.5, 1.0, 0.25])


def erank(values):
    shares = np.asarray(values, np.float64) / np.sum(values)
    return np.exp(-np.sum(shares * np.log(shares)))


@pytest.fixture(scope="module")
def basis():
    return np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]


@pytest.fixture(scope="module")
def views(basis):
    """z = c + e and z+ = c - e of exactly uncorrelated c and e: C_m = C_c - C_e and C_z - C_m = 2 C_e."""
    both = np.asarray(features_with_spectrum(jax.random.key(0), 64, np.ones(6)))
    whitened = both @ np.linalg.inv(np.linalg.cholesky(both.T @ both / 64).T)
    content, nuisance = whitened[:, :3] * CONTENT**0.5, whitened[:, 3:] * NUISANCE**0.5
    return np.stack([content + nuisance, content - nuisance]) @ basis.T


@pytest.fixture(scope="module")
def low_pass(basis):
    return (basis * GAINS) @ basis.T


@pytest.fixture(scope="module")
def record(views, low_pass):
    return probe(views @ low_pass, views, method=get("linear"))


def test_filter_ranks_and_alignment_of_aligned_branches():
    online, target = branches_with_filter(jax.random.key(0), 64, SPECTRUM, GAINS)
    record = probe(online, target)
    np.testing.assert_allclose(record.target.eigenvalues, SPECTRUM, rtol=1e-5)
    np.testing.assert_allclose(record.filter, GAINS, rtol=1e-4)
    np.testing.assert_allclose(record.gains, GAINS, rtol=1e-4)
    np.testing.assert_allclose(record.alignment, 1, rtol=1e-4)
    np.testing.assert_allclose(record.rank_difference, erank(SPECTRUM) - erank(GAINS**2 * SPECTRUM), rtol=1e-4)
    np.testing.assert_allclose(record.low_pass, 1, rtol=1e-6)
    np.testing.assert_allclose(record.target.null, null_effective_rank(64, 3), rtol=1e-6)


def test_view_noise_is_separated_mode_by_mode(record):
    np.testing.assert_allclose(record.features.eigenvalues, CONTENT + NUISANCE, rtol=1e-4)
    np.testing.assert_allclose(record.signal, CONTENT - NUISANCE, rtol=1e-4)
    np.testing.assert_allclose(record.isotropy, erank(NUISANCE) / 3, rtol=1e-4)


def test_theta_rates_and_entropy_rate_by_hand(record, views, low_pass):
    spectrum, signal = CONTENT + NUISANCE, CONTENT - NUISANCE
    np.testing.assert_allclose(record.theta, signal / (spectrum * GAINS), rtol=1e-4)
    np.testing.assert_allclose(record.rates, GAINS * (signal / spectrum - GAINS), rtol=1e-3, atol=1e-5)
    kappa = np.sum(GAINS * signal) / np.sum(GAINS**2 * spectrum)
    size = np.sqrt(np.sum(GAINS**2 * spectrum) * np.sum(spectrum))
    rates = 3 * GAINS * (signal / spectrum - kappa * GAINS) / size
    found = probe(views @ low_pass, views, kind=LossKind("cosine", 3.0))
    np.testing.assert_allclose(found.rates, rates, rtol=1e-3, atol=1e-5)
    shares, logs = spectrum / spectrum.sum(), np.log(spectrum)
    fall = -2 * (np.sum(shares * rates * logs) - np.sum(shares * rates) * np.sum(shares * logs))
    np.testing.assert_allclose(found.entropy_rate, fall, rtol=1e-3)
    direct = probe(views @ low_pass, views, kind=LossKind("cosine", 3.0, direct=True))
    np.testing.assert_allclose(direct.rates, rates / GAINS, rtol=1e-3, atol=1e-5)


def test_predictions_of_a_learned_predictor_are_those_of_the_wiener_filter(record):
    spectrum, signal = CONTENT + NUISANCE, CONTENT - NUISANCE
    np.testing.assert_allclose(record.predicted.online_gains, signal / spectrum, rtol=1e-4)
    np.testing.assert_allclose(record.predicted.target_gains, 1, rtol=1e-6)
    expected = erank(spectrum) - erank(signal**2 / spectrum)
    np.testing.assert_allclose(record.predicted.rank_difference, expected, rtol=1e-4)


def test_a_target_of_its_own_enters_the_prediction_with_its_own_spectrum(views, basis):
    lagging = views @ (basis * np.array([1.0, 0.5, 2.0])) @ basis.T
    found = probe(views, lagging, features=views, target_features=lagging, method=get("linear", weights="ema"))
    spectrum, signal = CONTENT + NUISANCE, CONTENT - NUISANCE
    expected = erank(np.array([1, 0.25, 4]) * spectrum) - erank(signal**2 / spectrum)
    np.testing.assert_allclose(found.predicted.rank_difference, expected, rtol=1e-4)
    np.testing.assert_allclose(found.theta, np.array([1.0, 0.5, 2.0]) * signal / spectrum, rtol=1e-3)


def test_one_view_leaves_view_noise_unknown(views, low_pass):
    found = probe(views[0] @ low_pass, views[0])
    assert np.isnan(found.signal).all() and np.isnan(found.rates).all() and np.isnan(found.isotropy)
    assert np.isfinite(found.filter).all() and np.isfinite(found.rank_difference)


def test_batches_merge(views, low_pass):
    online = jnp.asarray(views @ low_pass) + 0.3
    whole = measure(online, views, features=views, stages={"layer": online})
    parts = [measure(online[:, rows], views[:, rows], features=views[:, rows], stages={"layer": online[:, rows]})
             for rows in (slice(0, 20), slice(20, 64))]  # fmt: skip
    merged = merge(*parts)
    for first, second in zip(jax.tree.leaves(read(whole)), jax.tree.leaves(read(merged)), strict=True):
        np.testing.assert_allclose(jnp.abs(first), jnp.abs(second), rtol=1e-3, atol=1e-5)
    assert merged.rows == 64


def test_stages_have_a_rank_with_and_without_their_mean(views, low_pass):
    far = views @ low_pass + np.array([30.0, 0.0, 0.0])
    stage = probe(views, views, stages={"layer": far}).stages["layer"]
    covariance = np.cov(far.reshape(-1, 3).astype(np.float64), rowvar=False)
    np.testing.assert_allclose(stage.centered_rank, erank(np.linalg.eigvalsh(covariance)), rtol=1e-4)
    assert stage.rank < 1.1


def test_functions_under_jit_are_the_arrays(views, low_pass):
    apply = lambda inputs: probe(lambda x: x @ low_pass, lambda x: x, inputs=inputs)  # noqa: E731
    found, expected = jax.jit(apply)(jnp.asarray(views)), probe(views @ low_pass, views)
    for first, second in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(jnp.abs(first), jnp.abs(second), rtol=1e-3, atol=1e-5)


def test_assignments_are_measured_without_their_constant_mode(views):
    method = get("dino", count=3)
    shifted = views + np.linspace(0, 5, 64)[None, :, None]
    found, expected = (probe(z, z, method=method, context=Context(epoch=0)).features for z in (shifted, views))
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-3, atol=1e-4)
    assert found.eigenvalues[2] == 0


def test_modes_are_followed_by_their_vectors_and_not_by_their_order(basis):
    before = probe(*2 * [features_with_spectrum(jax.random.key(3), 64, SPECTRUM) @ basis])
    turned, triangle = np.linalg.qr(np.eye(3) + 0.1 * np.array([[0, 1, 2], [-1, 0, 1], [-2, -1, 0.0]]))
    turned = turned * np.sign(np.diag(triangle))
    growth = np.array([-1.0, 0.5, 2.5])
    vectors = np.asarray(before.vectors)
    moved = (vectors * np.exp(growth / 2)) @ vectors.T @ turned
    rows = np.linalg.cholesky((vectors * SPECTRUM) @ vectors.T).T
    rows = np.concatenate([rows, -rows]) * 3**0.5
    found = follow(before, probe(*2 * [rows @ moved]))
    np.testing.assert_allclose(found.growth, growth, atol=1e-3)
    assert found.successor.tolist() == [2, 1, 0] and found.kept.all()


def test_a_mode_that_turned_away_is_not_kept():
    z = jnp.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    spread = jnp.array([[2.0, 2.0, -1.0], [2.0, -1.0, 2.0], [-1.0, 2.0, 2.0]]) / 3  # at most 4/9 of a mode's length
    assert not follow(probe(z, z), probe(*2 * [z @ spread])).kept.any()
    assert follow(probe(z, z), probe(*2 * [spread @ z])).kept.all()


def test_rank_errors_are_those_of_a_bootstrap_over_samples():
    """Branches of the same samples: the difference is surer than its parts; views of one sample are not independent."""
    rng, n = np.random.default_rng(5), 300
    content = rng.standard_t(8, size=(n, 4)) * [2.0, 1.2, 0.8, 0.4] + [0, 0.5, 0, 0]
    target = np.stack([content + 0.2 * rng.normal(size=content.shape) for _ in range(2)])
    online = target @ (np.diag([1.0, 0.9, 0.8, 0.7]) + 0.05 * rng.normal(size=(4, 4)))
    features = target * np.array([1, 2.0, 1, 1])
    found = rank_errors(online, target, features, measure(online, target, features=features))

    def rank(views, weights):
        return erank(np.linalg.eigvalsh(np.einsum("n,vni,vnj->ij", weights, views, views)))

    draws = []
    for _ in range(1000):
        weights = np.bincount(rng.integers(n, size=n), minlength=n)
        ours, theirs, own = (rank(views, weights) for views in (online, target, features))
        draws.append((ours, theirs, own, theirs - ours))
    # 1000 draws give a standard deviation to 2.2%, and the bias of order 1/n adds.
    np.testing.assert_allclose(found, np.std(draws, axis=0), rtol=0.1)
    assert found.rank_difference < 0.6 * np.hypot(found.online, found.target)
    shared = rank_errors(online, target, target, measure(online, target, features=target))
    np.testing.assert_allclose(shared, [found.online, found.target, found.target, found.rank_difference], rtol=1e-5)


def test_what_is_the_same_is_measured_once_and_equals_what_is_given_twice(views, low_pass):
    once, twice = probe(views @ low_pass, views), probe(views @ low_pass, views, features=views.copy())
    for first, second in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(jnp.abs(first), jnp.abs(second), rtol=1e-4, atol=1e-6)
    moments = measure(views, views, features=views)
    assert moments.online is moments.target is moments.features is moments.target_features


def test_moments_of_one_view_merge_and_stay_unknown(views):
    rows = views[0]
    parts = [measure(part, part, features=part) for part in (rows[:20], rows[20:])]
    merged = merge(*parts)
    assert np.isnan(merged.noise.moment()).all() and np.isnan(merged.pull).all()
    assert merged.noise.total() == merged.features.total() == 64
    np.testing.assert_allclose(merged.response, rows.T @ rows / 64, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: probe(z, z[:, :5]), r"alike, got shapes \(2, 64, 3\), \(2, 5, 3\)"),
        (lambda z: probe(z, z * np.nan), "target of shape .* hold NaN"),
        (lambda z: probe(z[:, :1], z[:, :1]), "of n >= 2 samples"),
        (lambda z: probe(lambda x: x, z), "pass the two views"),
        (lambda z: probe(z, z, method=_unknown_loss()), "theory has no growth rates for the loss of mine"),
    ],
)
def test_bad_input_gets_a_sentence(views, call, message):
    with pytest.raises(ValueError, match=message):
        call(views)


def _unknown_loss():
    return Method(name="mine", online=identity(), target=stop_gradient(), loss=lambda p, t: 0.0, measured=("", ""))


def test_loss_kinds_count_the_pairs():
    assert loss_kind(get("linear")) == LossKind("squared") and loss_kind(get("simsiam")) == LossKind("cosine")
    assert loss_kind(get("directpred")).factor == 4 and loss_kind(get("swav")).direct
    assert loss_kind(Method(name="sum", online=identity(), target=stop_gradient(), loss=squared_error, pairs="sum",
                            measured=("", ""))).factor == 2  # fmt: skip
