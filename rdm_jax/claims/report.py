"""How the records of a run read: a table for the terminal, and one self-contained HTML page."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from rich import box
from rich.table import Table

from rdm_jax import reporting
from rdm_jax.claims.certify import Verdict
from rdm_jax.reporting import tag as _tag

Record = Mapping[str, Any]

VERDICT_STYLE = {
    "holds": "green",
    "observed": "blue",
    "fails": "bold red",
    "undecided": "bold yellow",
    "not run": "dim",
}
_READING = (
    "The numbering of the statements is this project's own. Margins are the smallest met; those of inequalities are "
    "divided, where that is resolved in float64, by the distance to the set where equality holds."
)
PACKAGES = ("rdm_jax", "jax", "jaxlib", "numpy", "optax", "python-flint", "matplotlib")


# ---------------------------------------------------------------------------------------------- a line a statement


def _smallest(records: Iterable[Record], stage: str, preferred: str, otherwise: str) -> float | None:
    """The smallest margin of the inequalities: normalised where that was resolved, raw where it nowhere was."""
    for track in (preferred, otherwise):
        found = [
            claim[stage][track][conclusion["name"]]
            for claim in records
            for conclusion in claim["conclusions"]
            if conclusion["kind"] == "inequality"
        ]
        if any(found):
            return min(met["value"] for met in found if met)
    return None


def summary(record: Record) -> dict[str, Any]:
    """The figures of one statement's row: counts, smallest margins, verdict and time."""
    claims = record["claims"]
    ablations = [ablation for claim in claims for ablation in claim["ablations"]]
    return {
        "instances": sum(claim["check"]["instances"] for claim in claims),
        "worst": _smallest(claims, "check", "worst_normalised", "worst"),
        "attack": _smallest(claims, "attack", "best", "lowest"),
        "ablations": (sum(a["counterexample"] is not None for a in ablations), len(ablations)),
        "certified": sum(claim["certify"]["instances"] for claim in claims),
        "orders": [order["slope"] for order in record["orders"]],
        "laws": [law["frequency"] for law in record["laws"]],
        "verdict": record["verdict"],
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _cells(record: Record, seconds: float | None) -> list[str]:
    row = summary(record)
    found, tried = row["ablations"]
    measured = [f"{slope:.2f}" for slope in row["orders"]] + [f"{frequency:.1%}" for frequency in row["laws"]]
    return [
        f"{row['instances'] / 1e6:.2f} M" if row["instances"] else "",
        _number(row["worst"]),
        _number(row["attack"]),
        f"{found}/{tried}" if tried else "",
        f"{row['certified']:,}" if row["certified"] else "",
        "".join(measured[:1]) + (f" +{len(measured) - 1}" if len(measured) > 1 else ""),
        row["verdict"],
        "" if seconds is None else f"{seconds:.1f}",
    ]


_COLUMNS = ("instances", "worst", "attack", "ablated", "certified", "order", "verdict", "sec")
_LEFT = ("order", "verdict")


def table(records: Sequence[Record], seconds: Mapping[str, float]) -> Table:
    """The closing table; only the titles are cut where the terminal is narrow."""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0), expand=True)
    out.add_column("statement", no_wrap=True, overflow="ellipsis", ratio=1)
    rows = [_cells(record, seconds.get(record["name"])) for record in records]
    for i, name in enumerate(_COLUMNS):
        width = max(len(name), *(len(row[i]) for row in rows))
        out.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True, min_width=width)
    widest = max(len(record["name"]) for record in records)
    for record, cells in zip(records, rows, strict=True):
        cells[6] = f"[{VERDICT_STYLE[cells[6]]}]{cells[6]}[/]"
        out.add_row(f"{record['name']:<{widest}} {record['title']}", *cells)
    return out


# ---------------------------------------------------------------------------------------------------- the HTML page


def _verdict(verdict: str) -> str:
    return _tag("span", verdict, class_=f"verdict {verdict.replace(' ', '-')}")


def _values(entries: Any) -> str:
    """The data of an instance, flat lists as (a, b, c), long ones cut."""
    if not isinstance(entries, list):
        return html.escape(f"{entries:.4g}" if isinstance(entries, float) else str(entries))
    shown = [_values(entry) for entry in entries[:10]]
    return "(" + ", ".join(shown + (["&hellip;"] if len(entries) > 10 else [])) + ")"


def _instance(instance: Record) -> str:
    return "; ".join(f"{html.escape(name)} = {_values(value)}" for name, value in instance.items())


def _counterexample(found: Record | None) -> str:
    if found is None:
        return _tag("strong", "none found")
    where = f"{html.escape(found['conclusion'])}: margin {html.escape(found['margin'])} at "
    return where + _tag("span", _instance(found["instance"]), class_="exact")


def _conclusions(claim: Record) -> str:
    def cell(stage: str, track: str, name: str) -> str:
        met = claim[stage][track][name]
        return f"{met['value']:.3g} <small>({met['modes']} modes)</small>" if met else "&ndash;"

    def row(conclusion: Record) -> list[str]:
        name = conclusion["name"]
        kind = "= 0" if conclusion["kind"] == "identity" else "&ge; 0"
        cells = [cell("check", "worst", name), cell("check", "worst_normalised", name), cell("attack", "best", name)]
        return [f"{html.escape(name)} {kind}", *cells, f"{conclusion['error']:.0e}"]

    header = ("margin", "worst sampled", "worst per distance to equality", "attack, per distance", "stated float error")
    return reporting.table(header, map(row, claim["conclusions"]))


def _claim_counts(claim: Record) -> str:
    check, attack, certificate = claim["check"], claim["attack"], claim["certify"]
    negative = attack["negative_floats"]
    decided = sum(certificate[verdict] for verdict in get_args(Verdict))

    def outside(counts: Record) -> str:
        return f", {counts['outside']:,} fail where rounding left the hypotheses" if counts["outside"] else ""

    return _tag(
        "p",
        f"{check['instances']:,} random instances, {check['high_dimensional']:,} of them with 32 modes or more. "
        f"Attacked from {attack['starts']:,} starts; {sum(negative.values()):,} margins came out negative in floats, "
        f"and ball arithmetic says of them: {negative['holds']:,} hold, {negative['fails']:,} fail, "
        f"{negative['undecided']:,} undecided{outside(negative)}. "
        f"Certified on {certificate['instances']:,} instances ({decided:,} margins): "
        f"{certificate['holds']:,} hold ({certificate['equality']:,} as equalities), {certificate['fails']:,} fail, "
        f"{certificate['undecided']:,} undecided{outside(certificate)}; "
        f"float margins deviate from their balls by at most {certificate['deviation']:.2g} of their stated error.",
    )


def _claim_section(claim: Record) -> str:
    assumptions = "".join(
        _tag("li", f"<b>{html.escape(h['name'])}</b>: {html.escape(h['text'])}") for h in claim["hypotheses"]
    )
    parts = [_tag("h3", f"{html.escape(claim['name'])} {_verdict(claim['verdict'])}")]
    parts += [_tag("p", html.escape(claim["statement"])), _tag("ul", assumptions)]
    parts += [_reasons(claim["reasons"]), _claim_counts(claim), _conclusions(claim)]
    if claim["attack"]["counterexample"]:
        parts.append(_tag("p", "Counterexample: " + _counterexample(claim["attack"]["counterexample"])))
    if claim["ablations"]:
        rows = (
            [html.escape(a["text"]), ", ".join(map(html.escape, a["drops"])), _counterexample(a["counterexample"])]
            for a in claim["ablations"]
        )
        parts.append(reporting.table(("instead", "drops", "certified counterexample"), rows))
    if claim["domain"]:
        rows = ([html.escape(d["name"]), html.escape(d["error"] or "no error: a failure")] for d in claim["domain"])
        parts.append(reporting.table(("domain condition", "the error it raises"), rows))
    return "".join(parts)


def _reasons(reasons: Sequence[str]) -> str:
    return (
        _tag("ul", "".join(_tag("li", html.escape(reason)) for reason in reasons), class_="reasons") if reasons else ""
    )


def _orders(orders: Sequence[Record]) -> str:
    if not orders:
        return ""
    rows = (
        [
            f"{html.escape(o['name'])}: {html.escape(o['statement'])}",
            f"{o['claimed']:g}",
            f"{o['slope']:.3f} &plusmn; {o['standard_error']:.3f}",
            f"{o['sizes'][0]:g} &hellip; {o['sizes'][-1]:g}",
            f"{o['instances']:,}",
            _verdict(o["verdict"]),
        ]
        for o in orders
    )
    return reporting.table(("asymptotic statement", "claimed slope", "measured", "sizes", "instances", "verdict"), rows)


def _laws(laws: Sequence[Record]) -> str:
    if not laws:
        return ""

    def exceptions(law: Record) -> str:
        return "<br>".join(
            f"{found['margin']:.3g} at " + _tag("span", _instance(found["instance"]), class_="exact")
            for found in law["exceptions"]
        )

    rows = (
        [
            f"{html.escape(law['name'])}: {html.escape(law['statement'])}",
            f"{law['frequency']:.1%} <small>({law['interval'][0]:.1%} &hellip; {law['interval'][1]:.1%})</small>",
            f"{law['held']:,} of {law['trials']:,}",
            exceptions(law) or "none",
            _verdict(law["verdict"]),
        ]
        for law in laws
    )
    header = ("empirical law", "frequency (95% interval)", "trials", "worst exceptions: margins", "verdict")
    return reporting.table(header, rows)


def _section(record: Record, image: bytes | None) -> str:
    title = f"{html.escape(record['name'])} &middot; {html.escape(record['title'])} {_verdict(record['verdict'])}"
    parts = [_tag("h2", title)]
    if record["text"]:
        parts.append(_tag("blockquote", html.escape(record["text"])))
    if "error" in record:
        parts.append(_tag("pre", html.escape(record["error"])))
    parts += [_claim_section(claim) for claim in record["claims"]]
    parts += [_orders(record["orders"]), _laws(record["laws"])]
    if image is not None:
        parts.append(reporting.figure(image, record["caption"] or ""))
    for label, key in (("Source", "source"), ("Not checked", "not_checked")):
        if record[key]:
            parts.append(_tag("p", f"<b>{label}.</b> {html.escape(record[key])}"))
    return _tag("section", "".join(parts), id=record["name"])


def page(results: Record, seconds: Mapping[str, float], images: Mapping[str, bytes]) -> str:
    """One HTML page that needs nothing but itself: no network, no script, no other file."""
    records = results["statements"]
    header = ("statement", *_COLUMNS)
    rows = []
    for record in records:
        name = html.escape(record["name"])
        cells = _cells(record, seconds.get(record["name"]))
        cells[6] = _verdict(cells[6])
        rows.append([f'<a href="#{name}">{name}</a> {html.escape(record["title"])}', *cells])
    sections = (_section(record, images.get(record["name"])) for record in records)
    return reporting.page(
        results["title"],
        outcome(records),
        f"{reporting.facts(results['run'])}; seed {results['config']['seed']}. {_READING}",
        reporting.table(header, rows, class_="summary") + "".join(sections),
    )


def outcome(records: Sequence[Record]) -> str:
    """The run in one sentence."""
    count = {verdict: sum(r["verdict"] == verdict for r in records) for verdict in VERDICT_STYLE}
    instances = sum(summary(r)["instances"] for r in records)
    said = ", ".join(f"{count[verdict]} {word}" for verdict, word in _WORDS.items() if count[verdict])
    noun = "statement" if len(records) == 1 else "statements"
    return f"{len(records)} {noun}: {said}; {instances:,} random instances."


_WORDS = {"holds": "held", "observed": "observed", "fails": "failed", "undecided": "undecided", "not run": "not run"}
