"""State a claim about spectra as data, and let the engine try to break it.

`check` tries random instances, `attack` searches for a violation by gradient, `ablate` repeats that search with a
hypothesis dropped and must succeed, `certify` decides signs in ball arithmetic, `order` measures a convergence order,
`law` a frequency.
``python -m rdm_jax.claims FILE...`` runs all of it on statements of your own (docs/claims.md).

Needs float64 (``jax.config.update("jax_enable_x64", True)``) and the extra ``proofs``.
"""

from rdm_jax.claims import balls, example, families
from rdm_jax.claims.certify import (
    Certificate,
    CertifyResult,
    Counterexample,
    certify,
    certify_instance,
    counterexample,
)
from rdm_jax.claims.claim import (
    STRATA,
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Law,
    Order,
    Statement,
    Stratum,
)
from rdm_jax.claims.law import Exceptional, LawResult, law, wilson_interval
from rdm_jax.claims.order import OrderResult, order
from rdm_jax.claims.predicates import (
    at_least,
    nearly_nondecreasing,
    nearly_nonincreasing,
    nondecreasing,
    nonincreasing,
    on,
)
from rdm_jax.claims.search import (
    Batch,
    CheckResult,
    SearchResult,
    Worst,
    ablate,
    attack,
    check,
)

__all__ = [
    "STRATA",
    "Ablation",
    "Batch",
    "Certificate",
    "CertifyResult",
    "CheckResult",
    "Claim",
    "Conclusion",
    "Counterexample",
    "DomainCondition",
    "Exceptional",
    "Figure",
    "Hypothesis",
    "Law",
    "LawResult",
    "Order",
    "OrderResult",
    "SearchResult",
    "Statement",
    "Stratum",
    "Worst",
    "ablate",
    "at_least",
    "attack",
    "balls",
    "certify",
    "certify_instance",
    "check",
    "counterexample",
    "example",
    "families",
    "law",
    "nearly_nondecreasing",
    "nearly_nonincreasing",
    "nondecreasing",
    "nonincreasing",
    "on",
    "order",
    "wilson_interval",
]
