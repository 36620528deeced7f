"""Everything the engine does with one statement, and the verdict that follows.

A verdict of "holds" is earned: no violation was found, no margin was undefined, every ablation found its
certified counterexample, every ball decided, every float margin lay within its stated error, every order was met.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, get_args

import jax
import numpy as np

from rdm_jax.claims.certify import (
    CertifyResult,
    Counterexample,
    Verdict,
    certify,
    certify_suspects,
    counterexample,
)
from rdm_jax.claims.claim import Ablation, Claim, Law, Order, Statement
from rdm_jax.claims.law import law
from rdm_jax.claims.order import order
from rdm_jax.claims.search import CheckResult, SearchResult, Worst, ablate, attack, check

Record = dict[str, Any]
Progress = Callable[[str], None]

_OUTSIDE = 0.01


@dataclasses.dataclass(frozen=True)
class Budget:
    """How hard a statement is tried: random instances, restarts and certified instances, all shared by its claims.

    Every search of a claim, the attack and each ablation, has all restarts of the claim.
    """

    instances: int = 500_000
    starts: int = 4096
    certified: int = 10_000

    def shared_by(self, claims: int) -> "Budget":
        """The budget of one of so many claims, rounded up."""
        claims = max(claims, 1)
        return Budget(*(-(-total // claims) for total in dataclasses.astuple(self)))


def _plain(value: Any) -> Any:
    """Arrays and NamedTuples to lists and dicts that json can write."""
    if isinstance(value, Worst):
        return {"value": value.value, "modes": value.modes, "instance": _plain(value.instance)}
    if hasattr(value, "_asdict"):
        return {name: _plain(entry) for name, entry in value._asdict().items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    return value


def _by_conclusion(claim: Claim, worst: tuple[Worst | None, ...]) -> Record:
    return {c.name: _plain(w) for c, w in zip(claim.conclusions, worst, strict=True)}


def _check_record(claim: Claim, result: CheckResult) -> Record:
    return {
        "instances": result.instances,
        "high_dimensional": result.high_dimensional,
        "drawn": result.drawn,
        "undefined": result.undefined,
        "below_error": dict(zip((c.name for c in claim.conclusions), result.negative, strict=True)),
        "worst": _by_conclusion(claim, result.worst),
        "worst_normalised": _by_conclusion(claim, result.worst_normalised),
    }


def _certify_sample(claim: Claim, result: CheckResult, count: int) -> Record:
    """Certify a sample, nine in ten from the first stratum, whose instances are small and hence cheap."""
    shares = [1.0] if len(claim.strata) == 1 else [0.9] + [0.1 / (len(claim.strata) - 1)] * (len(claim.strata) - 1)
    parts = [certify(claim, b, limit=round(count * s)) for b, s in zip(result.sample, shares, strict=True)]
    names = [f.name for f in dataclasses.fields(CertifyResult) if f.name not in ("deviation", "failing")]
    record: Record = {name: sum(getattr(part, name) for part in parts) for name in names}
    record["deviation"] = max(part.deviation for part in parts)
    record["failing"] = next((_plain(part.failing) for part in parts if part.failing), None)
    return record


def _attack_record(claim: Claim, result: SearchResult, met: CheckResult) -> Record:
    """The attack, and the verdicts on all that is negative in floats: its suspects and the worst random instances."""
    random = [(i, w) for i, w in enumerate(met.worst) if w is not None and w.value < 0]
    decided = certify_suspects(claim, [*result.suspects, *random])
    failing = [(which, worst) for which, worst, verdict in decided if verdict == "fails"]
    found = counterexample(claim, None, failing)
    return {
        "starts": result.starts,
        "undefined": result.undefined,
        "best": _by_conclusion(claim, result.best),
        "lowest": _by_conclusion(claim, result.lowest),
        "negative_floats": {v: sum(x[2] == v for x in decided) for v in get_args(Verdict)},
        "counterexample": dataclasses.asdict(found) if found else None,
    }


def _ablation_records(claim: Claim, budget: Budget, seed: int, progress: Progress) -> list[Record]:
    records = []
    for ablation in claim.ablations:
        progress(f"{claim.name}: ablate {ablation.name}")
        found: list[Counterexample] = []

        def enough(result: SearchResult, ablation: Ablation = ablation, found: list[Counterexample] = found) -> bool:
            found.extend(filter(None, [counterexample(claim, ablation, result.suspects)]))
            return bool(found)

        result = ablate(claim, ablation, starts=budget.starts, seed=seed, enough=enough)
        records.append(
            {
                "name": ablation.name,
                "text": ablation.text,
                "drops": list(ablation.drops),
                "starts": result.starts,
                "violations": len(result.suspects),
                "counterexample": dataclasses.asdict(found[0]) if found else None,
            }
        )
    return records


def _domain_records(claim: Claim) -> list[Record]:
    def message(attempt: Callable[[], Any]) -> str | None:
        try:
            attempt()
        except ValueError as error:
            return str(error)
        return None

    return [{"name": condition.name, "error": message(condition.attempt)} for condition in claim.domain]


def _claim_reasons(record: Record) -> tuple[list[str], list[str]]:
    """Why the claim does not hold, and why it is undecided."""
    check_, attack_, certify_ = record["check"], record["attack"], record["certify"]
    negative, undefined = attack_["negative_floats"], check_["undefined"] + attack_["undefined"]
    # A few on the boundary are rounding; more would mean that some hypothesis never holds for floats.
    outside = certify_["outside"] / certify_["instances"]
    failures = [
        (undefined, f"{undefined} margins are undefined (NaN)"),
        (certify_["fails"], f"{certify_['fails']} sampled margins are certified violations"),
        (negative["fails"], f"{negative['fails']} attacked margins fail"),
        (
            outside > _OUTSIDE,
            f"{outside:.0%} of the margins fail where rounding has put them outside of the hypotheses",
        ),
        (certify_["misjudged"], f"{certify_['misjudged']} float margins are further from their ball than stated"),
        *((not a["counterexample"], f"ablation {a['name']!r} found no counterexample") for a in record["ablations"]),
        *((d["error"] is None, f"domain condition {d['name']!r} raised no error") for d in record["domain"]),
    ]
    open_ = certify_["undecided"] + negative["undecided"]
    return [text for happened, text in failures if happened], [f"{open_} margins are undecided"] if open_ else []


def _verdict(failures: list[str], open_: list[str]) -> str:
    return "fails" if failures else "undecided" if open_ else "holds"


def verify_claim(claim: Claim, *, budget: Budget, seed: int = 0, progress: Progress = lambda stage: None) -> Record:
    """Check, attack, ablate and certify one claim; the record is ready for JSON."""
    progress(f"{claim.name}: check")
    checked = check(claim, instances=budget.instances, seed=seed)
    progress(f"{claim.name}: certify")
    certified = _certify_sample(claim, checked, budget.certified)
    progress(f"{claim.name}: attack")
    attacked = attack(claim, starts=budget.starts, seed=seed)
    record = {
        "name": claim.name,
        "statement": claim.statement,
        "hypotheses": [{"name": h.name, "text": h.text} for h in claim.hypotheses],
        "conclusions": [dataclasses.asdict(c) for c in claim.conclusions],
        "check": _check_record(claim, checked),
        "certify": certified,
        "attack": _attack_record(claim, attacked, checked),
        "ablations": _ablation_records(claim, budget, seed, progress),
        "domain": _domain_records(claim),
    }
    failures, open_ = _claim_reasons(record)
    return {**record, "verdict": _verdict(failures, open_), "reasons": failures + open_}


def _order_record(asymptotic: Order, seed: int) -> Record:
    result = order(asymptotic, seed=seed)
    text = f"slope {result.slope:.3f}, claimed {result.claimed:g}"
    return {
        "name": asymptotic.name,
        "statement": asymptotic.statement,
        **dataclasses.asdict(result),
        "verdict": "holds" if result.holds else "fails",
        "reasons": [] if result.holds else [text],
    }


def _law_record(empirical: Law, seed: int) -> Record:
    result = law(empirical, seed=seed)
    return {
        "name": empirical.name,
        "statement": empirical.statement,
        "trials": result.trials,
        "held": result.held,
        "frequency": result.frequency,
        "interval": list(result.interval),
        "exceptions": [_plain(exception) for exception in result.exceptions],
        "verdict": "observed",
    }


def verify_statement(
    statement: Statement, *, budget: Budget, seed: int = 0, progress: Progress = lambda stage: None
) -> Record:
    """Everything about one statement: its claims, orders and laws, the numbers of its figure, and the verdict.

    The record is ready for JSON and, but for ``seconds``, the same for the same seed on the same machine.
    """
    start = time.perf_counter()
    share = budget.shared_by(len(statement.claims))
    parts = [verify_claim(claim, budget=share, seed=seed, progress=progress) for claim in statement.claims]
    orders = []
    for asymptotic in statement.orders:
        progress(f"{asymptotic.name}: order")
        orders.append(_order_record(asymptotic, seed))
    laws = []
    for empirical in statement.laws:
        progress(f"{empirical.name}: law")
        laws.append(_law_record(empirical, seed))
    progress(f"{statement.name}: figure")
    figure = dict(statement.figure.record(seed)) if statement.figure else None
    verdicts = {part["verdict"] for part in parts + orders + laws}
    verdict = next(v for v in ("fails", "undecided", "holds", "observed") if v in verdicts)
    return {
        "name": statement.name,
        "title": statement.title,
        "text": statement.text,
        "source": statement.source,
        "not_checked": statement.not_checked,
        "claims": parts,
        "orders": orders,
        "laws": laws,
        "figure": figure,
        "caption": statement.figure.caption if statement.figure else None,
        "verdict": verdict,
        "seconds": time.perf_counter() - start,
    }
