"""What a claim is: data. The engine that tries to break it lives in the modules beside this one.

A claim says: for every instance that satisfies the hypotheses, each conclusion's margin is >= 0
(an inequality) or is 0 (an identity). The hypotheses are built in by ``build``, which maps free
parameters to instances; dropping one of them is the same map with that one switched off. So the
sampler, the gradient search and the ablations all run over one parametrisation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rdm_jax.claims.tape import Tape
from rdm_jax.types import Array, Batched, PRNGKeyArray

Instance = Any  # a NamedTuple of arrays; every float leaf is a free datum of the statement
Raw = Any  # a pytree: float leaves are searched by gradient, all others are fixed structure
Dropped = Mapping[str, Array]  # ablation name -> boolean scalar


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """An assumption, and the test that an instance satisfies it.

    ``holds(instance)`` returns booleans. It is evaluated on float64 arrays, where it should use
    `rdm_jax.claims.at_least` and its relatives, and on object arrays of exact rationals.
    """

    name: str
    text: str
    holds: Callable[[Instance], Array]


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """One margin of a claim. ``error`` is the stated absolute error of the float64 margin.

    An ``inequality`` holds where the margin is >= 0, an ``identity`` where it is 0; the margin of an
    identity is minus its relative residual.
    """

    name: str
    error: float
    kind: Literal["inequality", "identity"] = "inequality"


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One hypothesis less: the same search must now find a counterexample.

    ``drops`` names the hypotheses that need no longer hold, ``instead`` what is required in their place. A near
    miss, for example, drops an order and requires it up to one per cent (`rdm_jax.claims.nearly_nonincreasing`).
    """

    name: str
    text: str
    drops: tuple[str, ...]
    instead: tuple[Hypothesis, ...] = ()


@dataclasses.dataclass(frozen=True)
class DomainCondition:
    """A condition whose violation is an error, not a counterexample: ``attempt()`` must raise ValueError."""

    name: str
    attempt: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Numbers of modes that share one compiled width, and their share of all instances.

    Searches leave a stratum out that is not ``searched``: one of many modes costs more to compile than it finds.
    """

    dims: tuple[int, ...]
    width: int
    share: float
    searched: bool = True


STRATA = (
    Stratum((2, 3, 8), 8, share=0.77),
    Stratum((32,), 32, share=0.2),
    Stratum((128,), 128, share=0.03, searched=False),
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement about finitely many numbers, ready to be checked, attacked, ablated and certified.

    Args:
      name: short and unique, for example ``"T1"``.
      statement: what is claimed, in one or two sentences.
      hypotheses: what an instance must satisfy.
      conclusions: one for each entry of the margin.
      sample: ``(tape, d) -> raw``; free parameters of an instance with ``d`` modes (a traced integer) in
        arrays of static length ``tape.width >= d``. Modes from ``d`` on are zero modes.
      build: ``(raw, dropped) -> instance``.
      margin: ``instance -> (k,)`` float margins, differentiable, through the library's own functions.
      ball_margin: ``instance -> [k balls]``, written from the statement alone in python-flint. Arrays of
        the instance arrive as object arrays of ``arb``, cut to the first d modes.
      distance: ``instance -> (k,)`` how far the instance is from the set where equality holds; the
        attack minimises margin/distance, so that it can't win by merely approaching equality.
      equality: ``instance (as in ball_margin) -> [k bools]``, exact: whether equality is claimed there.
        Where it is, a ball must contain 0; where it is not, the ball must be strictly positive.
        None: equality is not characterised, and balls need only be nonnegative.
      ablations, domain: see the classes.
      rows: how many vectors the sampler takes from its tape.
      strata: the numbers of modes that are sampled, with their static width and share of the instances.
    """

    name: str
    statement: str
    hypotheses: tuple[Hypothesis, ...]
    conclusions: tuple[Conclusion, ...]
    sample: Callable[[Tape, Array], Raw]
    build: Callable[[Raw, Dropped], Instance]
    margin: Callable[[Instance], Batched]
    ball_margin: Callable[[Instance], Sequence[Any]]
    distance: Callable[[Instance], Batched] | None = None
    equality: Callable[[Instance], Sequence[bool | None]] | None = None
    ablations: tuple[Ablation, ...] = ()
    domain: tuple[DomainCondition, ...] = ()
    rows: int = 8
    strata: tuple[Stratum, ...] = STRATA

    def __post_init__(self) -> None:
        known = {hypothesis.name for hypothesis in self.hypotheses}
        for ablation in self.ablations:
            unknown = sorted(set(ablation.drops) - known)
            if unknown:
                raise ValueError(
                    f"claim {self.name}: ablation {ablation.name!r} drops {unknown}, "
                    f"but the hypotheses are {sorted(known)}"
                )
        if not self.conclusions:
            raise ValueError(f"claim {self.name} has no conclusion: nothing could be checked")


@dataclasses.dataclass(frozen=True)
class Order:
    """An asymptotic statement: errors that shrink as size**slope.

    Args:
      name, statement: what is said to converge, in one sentence.
      slope: the claimed slope of log error against log size.
      sizes: the sizes (step, noise, 1/temperature, number of samples) that are tried, in geometric progression.
      measure: ``(key, sizes) -> (instances, len(sizes))`` positive errors, jit-compatible in the key.
    """

    name: str
    statement: str
    slope: float
    sizes: tuple[float, ...]
    measure: Callable[[PRNGKeyArray, tuple[float, ...]], Array]


@dataclasses.dataclass(frozen=True)
class Law:
    """An empirical law: what happens often, though not always. How often is measured; it is observed, not proved.

    Args:
      name, statement: what happens, and in trials drawn from what, in one sentence.
      measure: ``seed -> ((trials,) margins, instances)``: the law holds in a trial where its margin is >= 0. The
        instances are a NamedTuple of arrays with an entry a trial, by which the exceptions are recorded.
    """

    name: str
    statement: str
    measure: Callable[[int], tuple[Array, Instance]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of a statement, drawn from recorded numbers only.

    ``record(seed)`` returns numbers, strings and nested lists of them (they go to the JSON file);
    ``draw(figure, record)`` draws what came back from that file on a matplotlib figure.
    """

    caption: str
    record: Callable[[int], Mapping[str, Any]]
    draw: Callable[[Any, Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Statement:
    """A statement of the theory: its text, the claims and orders that test it, laws that are observed, and a picture.

    Args:
      name: its number in docs/theory.md, for example ``"S1"``.
      title: a few words.
      text: the statement in full.
      source: where it comes from, or how it is derived.
      not_checked: what of the statement is *not* tested here, and why.
      claims, orders, laws, figure: see the classes.
    """

    name: str
    title: str
    text: str
    source: str
    not_checked: str
    claims: tuple[Claim, ...] = ()
    orders: tuple[Order, ...] = ()
    laws: tuple[Law, ...] = ()
    figure: Figure | None = None

    def __post_init__(self) -> None:
        if not (self.claims or self.orders or self.laws):
            raise ValueError(f"statement {self.name} has no claim, no order and no law: nothing would be tested")
