"""The command line over statement files: exit codes, reports, interruption. Each test starts a real process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdm_jax.claims.__main__ import own

TOYS = Path(__file__).parent / "toys.py"
ROOT = Path(__file__).parents[2]
TINY = ["--instances", "500", "--starts", "32", "--certified", "50"]

HEADER = f"import sys\nsys.path.insert(0, {str(TOYS.parent)!r})\nimport dataclasses\nfrom toys import *\n"
FALSE = (
    HEADER
    + "slow = dataclasses.replace(SQUARE_ROOT, slope=1.0)\n"
    + "STATEMENT = dataclasses.replace(STATEMENT, name='wrong', orders=(slow,))\n"
)
OPEN = HEADER + (
    "from flint import arb, fmpq\n"
    "third = lambda c: [(c.large * arb(fmpq(1, 3))) * 3 - c.large]\n"
    "undecidable = variant(conclusions=SQUARES.conclusions[:1], margin=lambda c: 0 * margin(c)[:1], distance=None,\n"
    "                      ball_margin=third, equality=lambda c: [False], ablations=(),\n"
    "                      build=lambda raw, dropped: build(raw, {'reversed': jnp.asarray(False)}))\n"
    "STATEMENT = dataclasses.replace(STATEMENT, name='open', claims=(undecidable,), orders=())\n"
)
SLOW = HEADER + (
    "import time\nfrom rdm_jax.claims import Figure\n"
    "STATEMENT = dataclasses.replace(STATEMENT, name='slow', figure=Figure('', lambda seed: time.sleep(300), None))\n"
)
LAW = HEADER + ("STATEMENT = dataclasses.replace(STATEMENT, name='law', claims=(), orders=(), laws=(HALVES,))\n")
UNMEASURED = HEADER + (
    "lost = dataclasses.replace(HALVES, measure=lambda seed: (jnp.array([jnp.nan]), ()))\n"
    "STATEMENT = dataclasses.replace(STATEMENT, name='lost', claims=(), orders=(), laws=(lost,))\n"
)
DYING = HEADER + (
    "import os\nfrom rdm_jax.claims import Figure\n"
    "STATEMENT = dataclasses.replace(STATEMENT, name='dying', figure=Figure('', lambda seed: os._exit(9), None))\n"
)


def command(*arguments):
    return [sys.executable, "-m", "rdm_jax.claims", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def run(folder, *arguments):
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=240
    )


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_all_hold_and_the_numbers_depend_on_the_seed_alone(tmp_path):
    (tmp_path / "second.py").write_text(HEADER + "STATEMENT = dataclasses.replace(STATEMENT, name='toy2')\n")
    files = [TOYS, tmp_path / "second.py"]
    one = run(tmp_path, *files, *TINY, "--workers", "1", "--out", "one")
    assert one.returncode == 0, one.stdout + one.stderr
    assert "2 statements: 2 held" in one.stdout
    assert max(map(len, one.stdout.splitlines())) <= 100
    two = run(tmp_path, *files[::-1], *TINY, "--workers", "2", "--out", "two")
    assert two.returncode == 0
    first, second = (sorted(results(tmp_path / n)["statements"], key=lambda s: s["name"]) for n in ("one", "two"))
    assert first == second
    page = (tmp_path / "one" / "report.html").read_text()
    assert "squares keep order" in page
    assert not re.search(r"(src|href)=.(https?:)?//", page), "opens from disk with no network"
    assert results(tmp_path / "one")["run"]["packages"]["jax"]
    again = run(tmp_path, *files, *TINY, "--out", "one")
    assert again.returncode == 0, "an earlier report may be replaced"


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        (FALSE, 1, "slope 1.990, claimed 1"),
        (OPEN, 3, "margins are undecided"),
        (UNMEASURED, 1, "1 of 1 trials have no margin (NaN)"),
        (DYING, 1, "the worker process died (exit code 9)"),
        ("STATEMENT = 3\n", 2, "must define STATEMENT"),
        ("import no_such_module\n", 2, "does not import: ModuleNotFoundError"),
    ],
    ids=["false", "undecided", "unmeasured", "dying", "no statement", "import error"],
)
def test_exit_codes_and_their_sentences(tmp_path, source, code, words):
    (tmp_path / "own.py").write_text(source)
    done = run(tmp_path, tmp_path / "own.py", *TINY)
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_law_is_observed_and_shown(tmp_path):
    (tmp_path / "law.py").write_text(LAW)
    done = run(tmp_path, tmp_path / "law.py", *TINY, "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 statement: 1 observed" in done.stdout
    (law,) = results(tmp_path / "out")["statements"][0]["laws"]
    frequency = f"{law['frequency']:.1%}"
    assert re.search(rf"law squares keep order +{frequency} observed", done.stdout)
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{frequency} <small>({law['interval'][0]:.1%} &hellip; {law['interval'][1]:.1%})</small>" in page
    assert f"{law['exceptions'][0]['margin']:.3g} at" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "tay"], "did you mean toy?"),
        (["--instances", "0"], "--instances must be at least 1"),
        (["--out", "full"], "holds something else"),
        (["--out", "file"], "must name a folder"),
        (["--sede", "1"], "--seed"),
        (["none.py"], "no such file"),
        ([], "name a statement file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)
def test_bad_usage_is_a_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    (tmp_path / "file").touch()
    files = [] if not arguments or arguments[0].endswith(".py") else [TOYS]
    try:
        code = own([*map(str, files), *arguments])
    except SystemExit as stopped:  # tyro's way of refusing an option
        code = stopped.code
    assert code == 2
    said = capsys.readouterr()
    assert words in said.err + said.out
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_readable_partial_report(tmp_path, number, code):
    (tmp_path / "slow.py").write_text(SLOW)
    call = command(TOYS, tmp_path / "slow.py", *TINY, "--workers", "1", "--out", "out")
    process = subprocess.Popen(call, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("toy")
    time.sleep(0.5)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the report holds what was finished" in said
    assert {s["name"]: s["verdict"] for s in results(tmp_path / "out")["statements"]} == {
        "toy": "holds",
        "slow": "not run",
    }
    assert "not run" in (tmp_path / "out" / "report.html").read_text()


def test_list_and_explain(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert own([str(TOYS), "--list"]) == 0
    assert capsys.readouterr().out.split() == ["toy", "squares", "keep", "order"]
    (tmp_path / "law.py").write_text(LAW)
    assert own([str(tmp_path / "law.py"), "--explain", "law"]) == 0
    assert "Law halves. Of two uniform numbers" in capsys.readouterr().out
    (tmp_path / "law.py").unlink()
    assert own([str(TOYS), "--explain", "toy"]) == 0
    explained = capsys.readouterr().out
    for words in ("Squares of nonnegative numbers", "large >= small", "Not checked. negative numbers", "slope 2"):
        assert words in explained
    assert list(tmp_path.iterdir()) == [], "nothing is written"
