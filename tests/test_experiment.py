"""An experiment leaves numbers, figures drawn from them, and a page; whatever happens, what is finished can be read."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from rich.console import Console

from rdm_jax import experiment, reporting
from rdm_jax.commandline import Options
from rdm_jax.experiment import Experiment, Finding, Outcome, Part, PartError


@dataclasses.dataclass(frozen=True)
class Chosen(Options):
    """Options with a choice of parts."""

    only: tuple[str, ...] = ()
    """These parts only."""


def compute(options, tell):
    tell("half", 0.5)
    data = {"x": np.array([0.0, 1.0, np.nan]), "y": np.arange(3)}
    return Outcome(data, [Finding("a number", 1 / 3, predicted=0.3, spread=0.01), Finding("another", None)], ["a < b"])


def fail(options, tell):
    raise PartError("the start was bad: take another")


def stop(options, tell):
    os.kill(os.getpid(), signal.SIGINT)


def draw(figure, data):
    assert data == {"x": [0.0, 1.0, None], "y": [0, 1, 2]}, "as read back from JSON"
    figure.subplots().plot(data["y"])


def run(folder, parts, *words):
    made = Experiment(
        "try", "A title", "About it.", [Part(name, name, "read <so>", call, draw) for name, call in parts]
    )
    return experiment.main(made, {"paper": Chosen(), "smoke": Chosen(preset="smoke")}, ["--out", str(folder), *words])


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    return tmp_path / "out"


def test_numbers_figures_and_a_page_are_left(out, capsys):
    assert run(out, [("first", compute), ("second", compute)], "--preset", "smoke", "--seed", "4") == 0
    results = json.loads((out / "results.json").read_text())
    assert results["config"] == {"preset": "smoke", "out": str(out), "seed": 4, "only": []}
    assert results["run"]["packages"]["jax"] and results["run"]["machine"]
    part = results["parts"]["first"]
    assert part["data"] == {"x": [0.0, 1.0, None], "y": [0, 1, 2]}
    assert part["findings"][0] == {
        "quantity": "a number",
        "measured": 0.333333,
        "predicted": 0.3,
        "chance": None,
        "spread": 0.01,
    }
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["first.png", "second.png"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "a &lt; b" in page and "read &lt;so&gt;" in page
    said = capsys.readouterr().out
    assert all("0.333 ± 0.01" in text.replace("\N{NO-BREAK SPACE}", " ") for text in (page, said))
    assert "preset smoke, seed 4." in page


def test_parts_are_chosen_by_name(out, capsys):
    assert run(out, [("first", compute), ("second", compute)], "--only", "second") == 0
    assert list(json.loads((out / "results.json").read_text())["parts"]) == ["second"]
    assert run(out / "new", [("first", compute)], "--only", "frist") == 2
    assert "did you mean 'first'" in capsys.readouterr().err and not (out / "new").exists()


def test_a_failed_part_is_told_and_the_others_go_on(out, capsys):
    assert run(out, [("bad", fail), ("good", compute)]) == 1
    assert "bad failed: the start was bad: take another" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["parts"]["good"]["data"] and "the start was bad" in (out / "report.html").read_text()


def test_what_was_finished_before_an_interrupt_is_kept(out, capsys):
    assert run(out, [("good", compute), ("stopped", stop), ("later", compute)]) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert list(json.loads((out / "results.json").read_text())["parts"]) == ["good"]
    assert (out / "figures" / "good.png").is_file() and "data:image/png" in (out / "report.html").read_text()
    assert not [path for path in out.rglob("*") if "partial" in path.name]


def test_a_used_folder_is_refused(out, capsys):
    assert run(out, [("good", compute)]) == 0
    before = (out / "results.json").read_bytes()
    assert run(out, [("good", compute)]) == 2
    assert "not empty" in capsys.readouterr().err and (out / "results.json").read_bytes() == before


def test_the_configuration_can_be_printed_and_nothing_is_written(out, capsys):
    assert run(out, [("good", compute)], "--print-config") == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "paper" and not out.exists()


def test_the_closing_table_fits_80_columns(capsys):
    finding = Finding(
        "a quantity that takes many words to describe, with a unit (1 / time)", 1234.5678, -0.00001234, 0.999
    )
    part = {"title": "A part with a long title " * 3, "findings": [reporting.plain(finding)]}
    Console(width=80).print(experiment.summary({"parts": {"part": part}}))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "1.23e+03" in " ".join(lines) and "-1.23e-05" in " ".join(lines)
