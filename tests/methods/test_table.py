"""Every method of the table: its loss against NumPy, where its gradients go, and a state that scans."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.filters import power
from rdm_jax.methods import (
    METHODS,
    Context,
    Method,
    States,
    chain,
    cross_entropy,
    evaluate,
    get,
    identity,
    l2_normalize,
    linear_predictor,
    prototypes,
    softmax,
    squared_error,
    stop_gradient,
)
from tests.methods import reference

N, D, K, EPOCH = 12, 4, 6, 4.0
DESIGNS = {
    "simsiam": ("simsiam", {"hidden": (5,)}),
    "byol": ("byol", {"hidden": (5,)}),
    "swav": ("swav", {"count": K, "queue": 2 * N, "queue_start": 3}),
    "dino": ("dino", {"count": K, "teacher_temperature": (0.04, 0.07, 7)}),
    "symsimsiam": ("symsimsiam", {}),
    "rdm_simsiam online": ("rdm_simsiam", {}),
    "rdm_simsiam target": ("rdm_simsiam", {"side": "target"}),
    "rdm_byol online": ("rdm_byol", {"filter": "power:2"}),
    "rdm_byol target": ("rdm_byol", {"filter": power(-0.7), "side": "target"}),
    "directpred": ("directpred", {}),
    "isoloss": ("isoloss", {}),
    "linear": ("linear", {}),
}


def make(design):
    name, options = DESIGNS[design]
    return get(name, **options)


class Step:
    """One step of a design from a state that is not the first: inputs, and what came out."""

    def __init__(self, design, seed=1):
        self.method = method = make(design)
        keys = jax.random.split(jax.random.key(seed), 6)
        self.online = jax.random.normal(keys[0], (2, N, D)) * jnp.array([[[2.0, 1.0, 0.7, 0.3]]]) + 0.2
        self.target = self.online
        self.params, states = method.init(keys[1], jax.ShapeDtypeStruct((2, N, D), jnp.float32))
        self.target_params = None
        if method.target_weights == "ema":
            self.target = jax.random.normal(keys[2], (2, N, D)) + 0.1
            self.target_params = jax.tree.map(lambda leaf: 1.1 * leaf + 0.1, method.target_params(self.params))
        self.before = jax.tree.map(lambda leaf: disturbed(leaf, keys[3]), states)
        out, self.gradients = jax.jit(jax.value_and_grad(self.loss, argnums=(0, 1, 2, 3), has_aux=True))(
            self.params, self.target_params, self.online, self.target
        )
        self.value, (self.states, self.measured) = out

    def loss(self, params, target_params, online, target, epoch=EPOCH):
        out = evaluate(
            self.method, params, self.before, online, target, Context(epoch=epoch), target_params=target_params
        )
        return out.loss, (out.states, out.measured)


def disturbed(leaf, key):
    """Another state: a filled queue, a centre on its way, a correlation that is positive definite."""
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf + 2 * N
    if leaf.ndim == 2:
        return leaf + jnp.diag(jnp.arange(1.0, len(leaf) + 1))
    return leaf + 0.2 * jnp.abs(jax.random.normal(key, leaf.shape))


@functools.cache
def step_of(design):
    return Step(design)


def outputs(step):
    """Online and target outputs of both views, in NumPy, with the value of the loss for an ordered pair."""
    name = step.method.name
    z, t = reference.f64(step.online, step.target)
    if name in ("simsiam", "byol"):
        p = [reference.perceptron(view, step.params["predictor"], 1)[0] for view in z]
        return p, t
    if name == "linear":
        return z @ reference.f64(step.params["predictor"]).T, t
    if name == "symsimsiam":
        centred = [view - view.mean(axis=0) for view in z]
        return centred, centred
    if name.startswith("rdm"):
        (exponent,) = step.method.options["filter"].parameters
        filtered = [reference.filtered(view, lambda s: s**exponent) for view in (z if on_online(step) else t)]
        return (filtered, t) if on_online(step) else (z, filtered)
    if name in ("directpred", "isoloss"):
        rows = z.reshape(2 * N, D)
        momentum = step.method.options["momentum"]
        moment = momentum * reference.f64(step.before.online[1].moment) + (1 - momentum) * rows.T @ rows / (2 * N)
        function = reference.direct_pred if name == "directpred" else lambda values: np.sqrt(values / values.max())
        return z @ reference.predictor_matrix(moment, function), t
    return assignments(step, z, t)


def on_online(step):
    return step.method.options["side"] == "online"


def assignments(step, z, t):
    logits = [scores(view, step.params) for view in z]
    if step.method.name == "swav":
        past = reference.f64(step.before.target.features)
        together = [np.concatenate(pair) for pair in zip(t, past, strict=True)]
        return logits, [reference.sinkhorn(scores(rows, step.params), 0.05, 3)[:N] for rows in together]
    temperature = np.linspace(0.04, 0.07, 7)[int(EPOCH)]
    center = reference.f64(step.before.target[1][1])
    return logits, [reference.softmax(scores(view, step.target_params) - center, temperature) for view in t]


def scores(rows, params):
    return reference.unit(rows) @ reference.unit(params["prototypes"]).T


def pair_loss(step, p, t):
    name = step.method.name
    if name in ("swav", "dino"):
        return reference.cross_entropy(p, t, 0.1)
    if name == "linear":
        return np.mean(np.sum((p - t) ** 2, axis=1)) / 2
    cosine = np.mean(reference.cosines(p, t))
    return -cosine if name in ("simsiam", "symsimsiam", "rdm_simsiam") else 2 - 2 * cosine


SUMMED = {"byol", "rdm_byol", "directpred", "isoloss"}


@pytest.mark.parametrize("design", DESIGNS)
def test_loss_is_that_of_the_definition_over_both_ordered_pairs(design):
    step = step_of(design)
    p, t = outputs(step)
    both = pair_loss(step, p[0], t[1]) + pair_loss(step, p[1], t[0])
    assert float(step.value) == pytest.approx(both if step.method.name in SUMMED else both / 2, rel=1e-4)


@pytest.mark.parametrize("design", DESIGNS)
def test_gradients_flow_where_they_should_and_nowhere_else(design):
    step = step_of(design)
    params, target_params, online, target = step.gradients
    assert all(np.abs(np.asarray(view)).max() > 1e-4 for view in online)
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(params))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(target_params))
    if design == "symsimsiam":
        np.testing.assert_allclose(target, online, rtol=1e-3, atol=1e-6)
    else:
        assert np.all(target == 0)


@pytest.mark.parametrize("design", DESIGNS)
def test_what_is_measured(design):
    step = step_of(design)
    p, t = outputs(step)
    if step.method.assignments:
        p = [reference.softmax(view, 0.1) for view in p]
    if design == "symsimsiam":
        p = t = [reference.unit(view) for view in p]
    np.testing.assert_allclose(step.measured.online, p, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(step.measured.target, t, rtol=2e-3, atol=1e-4)
    online, target = reference.f64(step.online, step.target)
    if step.method.assignments:
        online = [scores(view, step.params) for view in online]
        target = [scores(view, step.params if step.target_params is None else step.target_params) for view in target]
    elif design == "symsimsiam":
        online = target = p
    np.testing.assert_allclose(step.measured.online_input, online, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(step.measured.target_input, target, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("design", DESIGNS)
def test_states_scan_in_half_precision_too(design):
    step = step_of(design)
    half = jax.ShapeDtypeStruct((2, N, D), jnp.bfloat16)
    loss, (states, _) = jax.eval_shape(step.loss, step.params, step.target_params, half, half)
    assert loss.shape == () and loss.dtype == jnp.float32
    assert avals(states) == avals(step.before) == avals(step.states)


def avals(states):
    return jax.tree.structure(states), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(states)]


def test_half_precision_views_are_widened_first():
    step = step_of("dino")
    half = [view.astype(jnp.bfloat16) for view in (step.online, step.target)]
    one = step.loss(step.params, step.target_params, *half)[0]
    other = step.loss(step.params, step.target_params, *(view.astype(jnp.float32) for view in half))[0]
    assert float(one) == float(other)


@pytest.mark.parametrize("design", ["swav", "dino", "simsiam"])
def test_a_scan_is_a_loop(design):
    step = step_of(design)

    def advance(states, epoch):
        context = Context(epoch=epoch)
        args = (step.method, step.params, states, step.online, step.target, context)
        out = evaluate(*args, target_params=step.target_params)
        return out.states, out.loss

    states, losses = step.before, []
    compiled = jax.jit(advance)
    for epoch in (2.0, 3.0, 4.0):
        states, loss = compiled(states, jnp.float32(epoch))
        losses.append(loss)
    scanned, together = jax.lax.scan(advance, step.before, jnp.array([2.0, 3.0, 4.0]))
    np.testing.assert_allclose(together, jnp.stack(losses), rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), scanned, states)
    # Running statistics do not act while training; the queue and the centre do.
    assert (len(set(map(float, losses))) > 1) == (design != "simsiam")


@pytest.mark.parametrize(("name", "log"), [("swav", 8.0064), ("dino", 8.3178)])
def test_published_collapse_constants(name, log):
    method = get(name)
    assert method.collapse_loss == pytest.approx(log, abs=5e-5)
    small = make(name)
    views = jnp.zeros((2, N, D))
    params, states = small.init(jax.random.key(0), views)
    target_params = small.target_params(params) if name == "dino" else None
    out = evaluate(small, params, states, views, views, Context(epoch=0), target_params=target_params)
    assert float(out.loss) == pytest.approx(small.collapse_loss, rel=1e-6) == pytest.approx(np.log(K))


def test_published_sizes():
    views = jax.ShapeDtypeStruct((2, 256, 256), jnp.float32)
    byol, _ = jax.eval_shape(get("byol").init, jax.random.key(0), views)
    assert byol["predictor"]["linear0"]["kernel"].shape == (256, 4096)
    simsiam, _ = jax.eval_shape(get("simsiam").init, jax.random.key(0), views.update(shape=(2, 256, 2048)))
    assert simsiam["predictor"]["linear1"]["kernel"].shape == (512, 2048)
    swav, states = jax.eval_shape(get("swav").init, jax.random.key(0), views.update(shape=(2, 256, 128)))
    assert swav["prototypes"].shape == (3000, 128) and states.target.features.shape == (2, 3840, 128)
    assert get("swav").queue == (3840, 50) and get("swav").frozen == {"prototypes": 2}
    dino, states = jax.eval_shape(get("dino").init, jax.random.key(0), views)
    assert dino["prototypes"].shape == (4096, 256) and states.target[1][1].shape == (4096,)
    assert get("dino").frozen == {"prototypes": 1} and get("dino").options["teacher_temperature"] == (0.04, 0.07, 50)
    assert get("swav", queue=0).queue is None


def test_published_ranges():
    rows = jax.random.normal(jax.random.key(1), (N, D))
    for name, least, most in (("simsiam", -1, 1), ("byol", 0, 8)):
        method = get(name, hidden=())
        params = {"predictor": {"linear0": {"kernel": jnp.eye(D), "bias": jnp.zeros(D)}}}
        target_params = {} if method.target_weights == "ema" else None
        for sign, bound in ((1, least), (-1, most)):
            views = jnp.stack([rows, sign * rows])
            states = method.init(jax.random.key(0), views)[1]
            out = evaluate(method, params, states, views, views, Context(), target_params=target_params)
            assert float(out.loss) == pytest.approx(bound, abs=1e-5)


@pytest.mark.parametrize(("pairs", "value"), [("mean", 3.0), ("sum", 6.0)])
def test_pairs_are_of_a_view_with_the_other_one(pairs, value):
    plain = dict(name="own", online=identity(), target=stop_gradient(), measured=("p", "t"), pairs=pairs)
    own = Method(**plain, loss=lambda p, t: (p * t).mean())
    views = jnp.stack([jnp.full((2, 1), 1.0), jnp.full((2, 1), 3.0)])
    out = evaluate(own, {}, States(((), ()), ((), ())), views, views, Context())
    assert float(out.loss) == value


def test_predicted_responses_start_after_the_head():
    spectrum, context = [4.0, 1.0], Context(noise=0.5, samples=9, width=K, mean=[0.0, 0.6], epoch=0)
    sizes = {"swav": {"count": K}, "dino": {"count": K}}
    names = ("simsiam", "swav", "dino", "symsimsiam")
    online = {name: get(name, **sizes.get(name, {})).online_response(spectrum, context).tolist() for name in names}
    assert online["simsiam"] == pytest.approx([0.875, 0.5])
    assert online["swav"] == online["dino"] == pytest.approx([1 / (0.1 * K)] * 2)
    assert online["symsimsiam"] == [1.0, 1.0]
    swav = get("swav", count=K).target_response(spectrum, context)
    np.testing.assert_allclose(swav, [1 / (0.05 * K), 0.8 / (0.05 * K)], rtol=1e-5)
    dino = get("dino", count=K).target_response(spectrum, context)
    np.testing.assert_allclose(dino, [1 / (0.04 * K), 0.8 / (0.04 * K)], rtol=1e-5)


def test_predicted_responses_of_filters_are_on_their_side():
    spectrum, context = [4.0, 1.0], Context(samples=9)
    assert get("rdm_simsiam").online_response(spectrum, context).tolist() == pytest.approx([6.0, 3.0])
    assert get("rdm_simsiam").target_response(spectrum, context).tolist() == [1.0, 1.0]
    rdm = get("rdm_byol", side="target")
    np.testing.assert_allclose(rdm.target_response(spectrum, context), [6**-0.5, 3**-0.5], rtol=1e-5)
    assert rdm.online_response(spectrum, context).tolist() == [1.0, 1.0]


def test_controls_say_that_they_are():
    for name, options, words in (
        ("simsiam", {"stopped": False}, "without stop_gradient"),
        ("linear", {"stopped": False}, "without stop_gradient"),
        ("rdm_simsiam", {"filter": "power:1", "side": "target"}, "low-pass, and on the target side"),
        ("rdm_byol", {"filter": "power:-0.5"}, "high-pass, and on the online side"),
        ("rdm_simsiam", {"filter": "identity"}, "constant gain"),
        ("symsimsiam", {}, "no asymmetry"),
    ):
        (warning,) = get(name, **options).warnings
        assert warning.startswith("negative control") and words in warning
    for name in METHODS.keys() - {"symsimsiam"}:
        assert get(name).warnings == ()


def test_options_are_recorded_and_losses_exchanged():
    method = get("rdm_simsiam", loss="squared_error", scale="sample")
    assert method.loss is squared_error
    wanted = {"filter": power(1), "side": "online", "method": "exact", "scale": "sample", "loss": "squared_error"}
    assert method.options == wanted
    for name, make_method in METHODS.items():
        assert get(name).options.keys() == inspect.signature(make_method).parameters.keys()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simsam", {}, "method must be one of .* did you mean 'simsiam'"),
        ("byol", {"hiden": (4,)}, "option of byol must be one of .* did you mean 'hidden'"),
        ("byol", {"loss": "negative_cosin"}, "did you mean 'negative_cosine'"),
        ("byol", {"weights": "emma"}, "target_weights must be one of .* did you mean 'ema'"),
        ("rdm_byol", {"side": "onlin"}, "side must be one of .* did you mean 'online'"),
        ("rdm_byol", {"filter": "pow:1"}, "filter must be one of .* did you mean 'power'"),
        ("swav", {"queue": 0, "queue_start": 3}, "queue_start would be ignored"),
    ],
)
def test_what_get_refuses(name, options, message):
    with pytest.raises(ValueError, match=message):
        get(name, **options)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"online": stop_gradient()}, "the online branch has a transform that belongs on the target side"),
        ({"target": linear_predictor()}, "the target branch has a transform that belongs on the online side"),
        ({"head": linear_predictor()}, "the head serves both sides"),
        ({"target": identity(), "target_weights": "ema"}, "add stop_gradient"),
        ({"loss": cross_entropy}, "cross_entropy wants assignments"),
        ({"readout": prototypes(3)}, "the readout has parameters"),
        ({"pairs": "men"}, "did you mean 'mean'"),
    ],
)
def test_designs_that_make_no_sense(parts, message):
    plain = dict(name="own", online=identity(), target=stop_gradient(), loss=squared_error, measured=("p", "t"))
    assert Method(**plain).warnings == ()
    with pytest.raises(ValueError, match=f"own: .*{message}|{message}"):
        Method(**(plain | parts))


def test_a_design_of_ones_own_with_a_learned_head(key):
    head = chain(l2_normalize(), prototypes(K))
    own = Method(
        name="own", head=head, online=identity(), target=chain(stop_gradient(), softmax()), loss=cross_entropy,
        measured=("scores", "softmax"), assignments=True,
    )  # fmt: skip
    views = jax.random.normal(key, (2, N, D))
    params, states = own.init(key, views)
    assert list(params) == ["prototypes"] == list(own.target_params(params))
    logits = [scores(view, params) for view in views]
    expected = np.mean([reference.cross_entropy(logits[i], reference.softmax(logits[1 - i]), 1.0) for i in (0, 1)])
    assert float(evaluate(own, params, states, views, views, Context()).loss) == pytest.approx(expected, rel=1e-5)


def test_evaluate_refuses_what_it_would_ignore_or_lack():
    views = jnp.ones((2, N, D))
    shared, ema = step_of("rdm_simsiam online"), step_of("rdm_byol online")
    with pytest.raises(ValueError, match="rdm_simsiam shares its weights: target_params would be ignored"):
        evaluate(shared.method, {}, shared.before, views, views, Context(), target_params={})
    with pytest.raises(ValueError, match="rdm_byol needs target_params"):
        evaluate(ema.method, {}, ema.before, views, views, Context())
    with pytest.raises(ValueError, match=r"online_views must be two views of shape \(n, d\) each"):
        evaluate(shared.method, {}, shared.before, jnp.ones((3, N, D)), views, Context())
    with pytest.raises(ValueError, match=r"both views of a batch, \(2, n, d\)"):
        shared.method.init(jax.random.key(0), jnp.ones((N, D)))
