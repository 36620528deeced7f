"""Wrong formulas and wrong statements that the tests must catch.

Each file ``*.toml`` beside this one is a list of mutants:

    [[mutant]]
    what = "entropy of the unnormalised spectrum"             # what is wrong, in words
    file = "rdm_jax/spectra/rank.py"                          # where
    old = "total = jnp.sum(values)"                           # text that occurs there exactly once
    new = "total = 1.0"                                       # what stands there instead
    tests = "tests/spectra/test_rank.py::test_two_values"     # the cheapest test that must fail by it

Each is applied to a copy of the project, never to the project itself.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tomllib

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ["rdm_jax", "proofs_numeric", "tests", "docs", "setup.cfg"]
BROKEN = {"AttributeError", "ImportError", "ModuleNotFoundError", "NameError", "SyntaxError"}
MUTANTS = [
    {**mutant, "list": path.stem}
    for path in sorted(HERE.glob("*.toml"))
    for mutant in tomllib.loads(path.read_text())["mutant"]
]


class Judge:
    """Asks a process that judges mutants in its copy of the project; one that ended is replaced, with a fresh copy."""

    def __init__(self, new_folder):
        self.new_folder, self.process = new_folder, None

    def __call__(self, file, old, new, tests):
        if self.process is None:
            self.start()
        print(json.dumps({"file": file, "old": old, "new": new, "tests": tests}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.stop()
            return {"error": "the tests ended the process:\n" + self.log.read_text()[-3000:]}
        return json.loads(answer)

    def start(self):
        copy = self.new_folder()
        copy_project(copy)
        self.log = copy / "log.txt"
        command, pipe = [sys.executable, HERE / "judge.py", copy], subprocess.PIPE
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)

    def stop(self):
        if self.process is not None:
            self.process.communicate()
            self.process = None


def copy_project(folder):
    """What the tests need of the project, without bytecode: a mutant may have its original's size and second."""
    for source in [ROOT / name for name in COPIED if (ROOT / name).exists()]:
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    judge = Judge(lambda: tmp_path_factory.mktemp("copy"))
    yield judge
    judge.stop()


def caught(verdict):
    """Whether a test failed because of what the mutant computes, rather than because it can't run."""
    return verdict.get("code") == 1 and bool(verdict["failures"]) and not BROKEN & set(verdict["failures"])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant['list']}: {mutant['what']}")
def test_mutant_is_caught(judge, mutant):
    verdict = judge(*(mutant[part] for part in ("file", "old", "new", "tests")))
    assert caught(verdict), f"{mutant['what']}: {verdict}"


SELF = "tests/mutants/example.py"
CHECK = "tests/mutants/example.py::test_double"


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("2 * x", "3 * x", {"code": 1, "failures": ["AssertionError"]}),
        ("2 * x", "x + x", {"code": 0, "failures": []}),
        ("2 * x", "twice(x)", {"code": 1, "failures": ["NameError"]}),
        ("2 * x", "2 * * x", {"code": 4, "failures": []}),
        ("def ", "async def ", {"error": f"the old text occurs 3 times in {SELF}"}),
        ("absent", "", {"error": f"the old text occurs 0 times in {SELF}"}),
    ],
)
def test_the_judge_tells_a_catch_from_a_survivor_and_from_broken_code(judge, old, new, verdict):
    assert judge(SELF, old, new, CHECK) == verdict
    assert caught(verdict) == (new == "3 * x")


def test_a_test_that_fails_anyway_catches_nothing(judge):
    verdict = judge(SELF, "2 * x", "3 * x", "tests/mutants/example.py::test_fails_anyway")
    assert "does not pass on the unchanged project" in verdict["error"]


def test_a_test_that_does_not_exist_catches_nothing(judge):
    assert "error" in judge(SELF, "2 * x", "3 * x", "tests/mutants/example.py::test_absent")


def test_a_mutant_that_ends_the_process_is_an_error_and_the_next_is_judged(judge):
    assert "error" in judge(SELF, "2 * x", "os._exit(0)", CHECK)
    assert caught(judge(SELF, "2 * x", "3 * x", CHECK))
