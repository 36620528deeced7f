"""The names and signatures that other people's code relies on; changing one is a breaking change."""

import importlib
import inspect

import pytest

# A default of ... stands for any default; keyword-only options may be added, with defaults.
CONTRACT = {
    "rdm_jax.spectra": """
        second_moment(features, *, center=False, normalize=False)
        eigenvalues(moment)
        singular_values(features)
        effective_rank(spectrum)
        renyi_effective_rank(spectrum, order)
        participation_ratio(spectrum)
        stable_rank(spectrum)
        numerical_rank(spectrum, rtol=...)
        rankme(features)
        alpha_req(spectrum)
        lidar(features, groups)
        feature_effective_rank(features, *, center=False, normalize=False)
        rank_difference(online, target, *, center=False, normalize=False)
        null_effective_rank(n, d)
        spectral_filter(online, target)
        low_pass_index(gains, spectrum)
        eigenspace_alignment(online, target, *, top=None)
        MomentAccumulator.init(d)
        MomentAccumulator.update(self, features)
        MomentAccumulator.merge(self, other)
        MomentAccumulator.moment(self, *, center=...)
    """,
    "rdm_jax.filters": """
        power(exponent)
        log()
        log1p()
        log1p_square()
        identity()
        wiener(noise, ridge)
        compose(f, g)
        apply(filter, features, *, side=..., method=...)
    """,
    "rdm_jax.dynamics": """
        solve(field, state, args, times, *, record=..., rtol=..., atol=..., max_steps=...)
        descend(field, state, args, *, learning_rate, steps, every=..., record=...)
        require_success(solution, args=...)
    """,
    "rdm_jax.methods": """
        get(name, **options)
        chain(*transforms)
        evaluate(method, params, states, online_views, target_views, context, *, target_params=...)
    """,
    "rdm_jax.claims": "Claim Law check attack ablate certify order",
}
ENTRIES = [
    (module, entry.strip())
    for module, text in CONTRACT.items()
    for entry in (text.splitlines() if "(" in text else text.split())
    if entry.strip()
]


def agreed_parameters(entry):
    """The parameters in the entry's parentheses, as inspect gives them."""
    scope = {}
    exec(f"def agreed({entry.partition('(')[2]}: pass", scope)
    return inspect.signature(scope["agreed"]).parameters


def mismatches(agreed, actual):
    """What keeps a call written for the agreed parameters from meaning the same with the actual ones."""
    for name, parameter in actual.items():
        if name not in agreed and parameter.default is parameter.empty:
            yield f"{name} is new and must be given"
    if positional(actual)[: len(positional(agreed))] != positional(agreed):
        yield f"positions are {positional(actual)}, agreed {positional(agreed)}"
    for name, old in agreed.items():
        new = actual.get(name)
        if new is None or new.kind is not old.kind:
            yield f"{name} is {new and new.kind.description}, agreed {old.kind.description}"
        elif new.default is new.empty if old.default is ... else new.default != old.default:
            yield f"{name} defaults to {new.default}, agreed {old.default}"


def positional(parameters):
    return [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]


@pytest.mark.parametrize(("module", "entry"), ENTRIES, ids=lambda text: text.partition("(")[0])
def test_name_is_as_agreed(module, entry):
    owner = importlib.import_module(module)
    path, parenthesis, _ = entry.partition("(")
    assert path.split(".")[0] in owner.__all__
    for name in path.split("."):
        owner = getattr(owner, name)
    if parenthesis:
        assert list(mismatches(agreed_parameters(entry), inspect.signature(owner).parameters)) == []


@pytest.mark.parametrize(
    "changed",
    [
        "a, b=1, *, c=2",  # another default
        "a, b, *, c=1",  # no default
        "a, *, c=1",  # one less
        "b, a=1, *, c=1",  # another order
        "a, b=1, c=1",  # another kind
        "a, b=1, *, c=1, d",  # one more that must be given
        "a, d=2, b=1, *, c=1",  # one more in between
    ],
)
def test_a_changed_signature_is_noticed(changed):
    agreed = agreed_parameters("f(a, b=1, *, c=1)")
    assert list(mismatches(agreed, agreed_parameters(f"f({changed})")))
    assert not list(mismatches(agreed, agreed_parameters("f(a, b=1, e=0, *, c=1, d=None)")))
    assert list(mismatches(agreed_parameters("f(a=...)"), agreed_parameters("f(a)")))
