"""What tests of the statements share: margins of instances made by hand, and wrong variants that must be refuted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from rdm_jax.claims import Conclusion, Stratum, check
from rdm_jax.claims.certify import certify_suspects
from rdm_jax.claims.tape import Tape, blank_tapes

SMALL = (Stratum((2, 3, 8), 8, 1.0),)
TWO_MODES = (Stratum((2,), 2, 1.0),)


def exact(instance):
    """An instance of lists, floats and integers as `ball_margin` receives it."""

    def leaf(value):
        if isinstance(value, int):
            return value
        entries = np.empty(np.shape(value), dtype=object)
        entries.flat = [arb(float(entry)) for entry in np.ravel(value)]
        return entries if np.ndim(value) else arb(value)

    return type(instance)(*map(leaf, instance))


def floats(instance):
    """The same instance as `margin` receives it."""
    return type(instance)(*map(jnp.asarray, instance))


def assert_margins(claim, instance, expected, rtol=1e-13, atol=1e-15):
    """Float margins and balls of an instance of lists, floats and integers against numbers from elsewhere."""
    np.testing.assert_allclose(jax.jit(claim.margin)(floats(instance)), expected, rtol=rtol, atol=atol)
    balls = claim.ball_margin(exact(instance))
    np.testing.assert_allclose([float(ball.mid()) for ball in balls], expected, rtol=rtol, atol=atol)


def variants(claim, rules, strata=SMALL, dropped=None, **parts):
    """A claim whose conclusions are the ``rules``, name -> function of (margins, instance), on the claim's instances.

    ``dropped`` names an ablation whose hypothesis is silently dropped. Equality, distances and ablations are not kept.
    """
    names = [ablation.name for ablation in claim.ablations]
    parts = {"equality": None, "distance": None, "ablations": (), "strata": strata, **parts}
    return dataclasses.replace(
        claim,
        name=f"{claim.name}, variants",
        conclusions=tuple(Conclusion(name, 1e-13) for name in rules),
        build=lambda raw, _: claim.build(raw, {name: jnp.asarray(name == dropped) for name in names}),
        margin=lambda c: jnp.stack([rule(claim.margin(c), c) for rule in rules.values()]),
        ball_margin=lambda c: [rule(claim.ball_margin(c), c) for rule in rules.values()],
        **parts,
    )


def drawn(claim, count, generator):
    """Random instances of a claim with eight modes, their leaves stacked."""
    dropped = {ablation.name: jnp.asarray(False) for ablation in claim.ablations}

    def one(vectors, scalars):
        return claim.build(claim.sample(Tape(vectors, scalars), jnp.asarray(8)), dropped)

    return jax.jit(jax.vmap(one))(*blank_tapes(generator, count, claim.rows, 8))


def refuted(claim):
    """The conclusions that certainly fail at the worst of some thousand random instances."""
    found = check(claim, instances=2000)
    suspects = [(i, worst) for i, worst in enumerate(found.worst) if worst is not None and worst.value < 0]
    return {claim.conclusions[i].name for i, _, verdict in certify_suspects(claim, suspects) if verdict == "fails"}
