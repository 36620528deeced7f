"""The pages about experiments: their commands are understood, their figures are there and small."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ["docs/dynamics.md", "docs/training.md", "docs/watching.md", "docs/results/README.md", "experiments/README.md"]
LARGEST = 100_000  # bytes of a figure: a clone should stay small


def text(page):
    return (ROOT / page).read_text()


def commands():
    found = [line for page in PAGES for line in re.findall(r"^python experiments/.*$", text(page), re.M)]
    return [line for line in dict.fromkeys(found) if not re.search("evaluate|extract", line)]  # see test_training.py


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command):
    words = [sys.executable, *shlex.split(command, comments=True)[1:], "--print-config"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"preset"' in done.stdout


def test_the_table_of_results_is_that_of_their_file():
    results = json.loads((ROOT / "docs/results/cifar10_small/results.json").read_text())
    rows = {row[0].replace("\N{NO-BREAK SPACE}", " "): row for row in results["parts"]["designs"]["grid"]["rows"]}
    shown = [re.split(r"\s*\|\s*", line)[1:-1] for line in text("docs/results/README.md").splitlines()]
    shown = {cells[0]: cells for cells in shown if len(cells) == 9 and cells[0] in rows}
    assert set(shown) == set(rows)
    for name, row in rows.items():
        numbers = [
            re.findall(r"[\d.]+", " ".join(cells)) for cells in (row[6:7] + row[8:], shown[name][5:6] + shown[name][7:])
        ]
        assert numbers[0] == numbers[1], name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text(page))
    assert links and [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_figures_are_small_and_used():
    figures = list((ROOT / "docs").glob("**/*.png"))
    shown = "".join(path.read_text() for path in (ROOT / "docs").glob("**/*.md"))
    assert figures and [path.name for path in figures if f"/{path.name}" not in shown] == []
    assert [path.name for path in figures if path.stat().st_size > LARGEST] == []
