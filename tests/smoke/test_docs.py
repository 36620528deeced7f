"""The how-to in docs/claims.md is run as a reader would run it; docs/theory.md and proofs_numeric/ tell of the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

from rdm_jax.claims.runner import find_statements, load_statement

ROOT = Path(__file__).parents[2]
TINY = ["--instances", "500", "--starts", "64", "--certified", "50"]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.M | re.S)


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_worked_example_runs(tmp_path):
    statement, breaking, law = blocks("claims.md", "python")
    (command,) = blocks("claims.md", "sh")
    (tmp_path / "noise_raises_rank.py").write_text(statement)
    said = run(tmp_path, *command.split()[1:], *TINY)
    assert "1 statement: 1 held" in said
    assert (tmp_path / "results" / "rdm_jax.claims" / "report.html").is_file(), "where the page says that it is"
    holds, found = run(tmp_path, "-c", breaking).splitlines()
    assert holds == "True"
    assert re.match(r"Counterexample\(conclusion='log effective rank', modes=2, .*margin='-", found)
    (tmp_path / "random_filter.py").write_text(law)
    assert "1 statement: 1 observed" in run(tmp_path, "-m", "rdm_jax.claims", "random_filter.py")


def test_every_statement_of_the_theory_has_its_file_and_every_file_its_statement():
    theory = (ROOT / "docs" / "theory.md").read_text()
    tested, _, later = theory.partition("## Stated, not yet tested here")
    stated = re.findall(r"^\*\*([LTS]\d+) \(", tested, re.M)
    files = find_statements(ROOT / "proofs_numeric")
    assert sorted(stated) == sorted(files)
    assert not set(files) & set(re.findall(r"^\*\*([LTS]\d+) \(", later, re.M))


def test_statement_files_are_complete():
    names = set()
    for name, path in find_statements(ROOT / "proofs_numeric").items():
        statement = load_statement(path)
        assert statement.name == name, path
        for field in ("title", "text", "source", "not_checked"):
            assert getattr(statement, field).strip(), f"{path.name}: {field} is empty"
        assert len(statement.title) <= 30, f"{name}: the title does not fit the table"
        parts = [part.name for part in (*statement.claims, *statement.orders, *statement.laws)]
        assert not names & set(parts), f"{name}: a claim's name belongs to one claim, and so do its random numbers"
        names |= set(parts)
        for claim in statement.claims:
            assert claim.ablations, f"{claim.name}: a check that has not been ablated has not shown that it can fail"
