"""The README's commands and Python, run as they stand there but for options that make them small."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NUMBER = r"[-+]?\d+\.?\d*"
# What is added to each kind of command, by its beginning; a command of no kind listed here fails its test.
SMALL = {
    "make verify-theorems": "ARGS='--only L1 --instances 1000 --starts 256 --certified 20 --workers 1 --out {out}'",
    "make test": "ARGS='--collect-only -q tests/contract/test_names.py'",
    "make train": "ARGS=--print-config",
    "make bench": "--dry-run",
    "make setup": "--dry-run",
    "make clean": "--dry-run",
    "make lint": "--dry-run",
    "make help": "",
    "python -m rdm_jax probe": "--help",  # run on files in test_own_loop.py
    "python -m proofs_numeric": "--instances 1000 --starts 256 --certified 20 --workers 1 --out {out}",
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands():
    """The commands in blocks, then those within the text, each once."""
    lines = [line.partition(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    found = [*filter(None, lines), *re.findall(r"`((?:make|python) [^`]+)`", README)]
    return list(dict.fromkeys(found))


def made_small(command, out):
    """The command with the options that its kind gets, unless it is small by options of its own."""
    begin = max((begin for begin in SMALL if command.startswith(begin)), key=len)
    return command if "ARGS=" in command else f"{command} {SMALL[begin].format(out=out)}"


def environment():
    """Without what the make that runs these tests was told."""
    told = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "EXTRA", "ARGS"}
    return {name: value for name, value in os.environ.items() if name not in told}


@pytest.mark.parametrize("command", commands())
def test_command(command, tmp_path):
    words = shlex.split(made_small(command, tmp_path / "out"))
    if words[0] == "make":  # with this environment in the place of .venv
        words[1:1] = ["--old-file=.venv/.ready", f"PY={sys.executable}"]
    else:
        words[0] = sys.executable
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", blocks("python"))
def test_python_prints_what_the_comments_after_it_say(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^# (.*)", code.rpartition("print(")[2], re.M)
    assert len(said) == len(done.stdout.splitlines())
    for expected, printed in zip(said, done.stdout.splitlines(), strict=True):
        assert re.sub(NUMBER, "", printed) == re.sub(NUMBER, "", expected)
        # Printed with one decimal; another jax may round the last one the other way.
        numbers = [list(map(float, re.findall(NUMBER, line))) for line in (printed, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.11)


def test_the_two_commands_come_first():
    assert commands()[:2] == ["make verify-theorems", "make test"]


def test_targets_named_in_the_texts_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    texts = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"`make ([a-z][a-z-]*)", texts)) <= targets


def test_files_named_in_the_texts_exist():
    texts = README + (ROOT / "CONTRIBUTING.md").read_text()
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", texts)
    assert links and [link for link in links if not (ROOT / link).exists()] == []
