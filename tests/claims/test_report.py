"""The closing table on terminals of several widths."""

import io

import pytest
from rich.console import Console

from rdm_jax.claims import report


def claim(name, value):
    met = {"margin": {"value": value}}
    return {
        "name": name,
        "conclusions": [{"name": "margin", "kind": "inequality"}],
        "check": {"instances": 550_000, "worst_normalised": met, "worst": met},
        "attack": {"best": met, "lowest": met},
        "ablations": [{"counterexample": {}}, {"counterexample": None}],
        "certify": {"instances": 10_000},
    }


def statement(name, title, value):
    orders = [{"slope": -1.0}, {"slope": -2.0}]
    parts = {"claims": [claim(name, value)], "orders": orders, "laws": []}
    return {"name": name, "title": title, **parts, "verdict": "holds"}


def law(name, title, *frequencies):
    laws = [{"frequency": frequency} for frequency in frequencies]
    return {"name": name, "title": title, "claims": [], "orders": [], "laws": laws, "verdict": "observed"}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_cuts_titles_and_nothing_else(width):
    records = [statement("T1", "a title of many words " * 3, -3.8e-16), statement("T12", "short", 0.25)]
    records.append(law("T15", "another title of many words " * 3, 0.9886, 1.0))
    out = io.StringIO()
    Console(file=out, width=width).print(report.table(records, {"T1": 12.34, "T12": 105.0}))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    names = ("T1", "T12", "T15")
    first, second, third = (next(line for line in lines if line.split()[:1] == [name]) for name in names)
    assert first.split()[-8:] == ["-3.8e-16", "-3.8e-16", "1/2", "10,000", "-1.00", "+1", "holds", "12.3"]
    assert second.split()[-8:] == ["0.25", "0.25", "1/2", "10,000", "-1.00", "+1", "holds", "105.0"]
    assert third.split()[-3:] == ["98.9%", "+1", "observed"]
    assert "…" in first or width == 160
