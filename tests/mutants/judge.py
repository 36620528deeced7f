"""Applies mutants to a copy of the project, one after another, and runs the test that should catch each.

A request is a line of JSON on standard input (file, old, new, tests), a verdict one on standard output. One process
serves many mutants, because importing jax takes longer than most tests: between two runs everything that came from
the copy is forgotten, and the same tests must pass on the unchanged copy before a mutant is tried.

    python judge.py COPY < requests > verdicts
"""

import faulthandler
import functools
import json
import os
import pathlib
import shlex
import sys

import pytest
from hypothesis import Phase, settings

TIMEOUT = 120  # seconds; a mutant that hangs ends the process, which the caller reports
OPTIONS = [
    "-oaddopts=--import-mode=importlib",  # without the shapes in annotations: it is values that must tell
    "-Wignore::pytest.PytestAssertRewriteWarning",  # pytest's plugins are imported before the second run
    *("-x", "-q", "-pno:cacheprovider", "-pno:xdist"),
]
OURS = {"rdm_jax", "proofs_numeric", "tests", "conftest"}


class Recorder:
    """A pytest plugin that keeps the kinds of exception that tests failed with."""

    def __init__(self):
        self.failures = []

    def pytest_sessionstart(self):
        # The first example that fails is enough: looking for the simplest takes longest.
        unshrunk = [phase for phase in settings.default.phases if phase not in (Phase.shrink, Phase.explain)]
        settings.register_profile("unshrunk", settings.default, phases=unshrunk)
        settings.load_profile("unshrunk")

    def pytest_runtest_makereport(self, call):
        if call.when == "call" and call.excinfo is not None:
            self.failures.append(call.excinfo.typename)


def run(tests: str) -> dict:
    """Run the tests on the copy as it is now, with modules loaded afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    recorder, finders, path = Recorder(), list(sys.meta_path), list(sys.path)
    try:
        code = pytest.main([*OPTIONS, *shlex.split(tests)], plugins=[recorder])
    finally:
        sys.meta_path[:], sys.path[:] = finders, path
    return {"code": int(code), "failures": recorder.failures}


def judge(copy: pathlib.Path, baseline, file: str, old: str, new: str, tests: str) -> dict:
    """The verdict on one mutant: ``code`` and ``failures`` of its tests, or the ``error`` that kept it from running."""
    target = copy / file
    original = target.read_text()
    if original.count(old) != 1:
        return {"error": f"the old text occurs {original.count(old)} times in {file}"}
    if baseline(tests)["code"] != 0:
        return {"error": f"{tests} does not pass on the unchanged project"}
    target.write_text(original.replace(old, new))
    try:
        return run(tests)
    finally:
        target.write_text(original)


def main() -> None:
    """Answer requests until standard input ends; what pytest prints goes to standard error."""
    copy = pathlib.Path(sys.argv[1])
    os.chdir(copy)
    sys.dont_write_bytecode = True  # a mutant may have its original's size and second
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    baseline = functools.cache(run)
    for line in sys.stdin:
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        verdict = judge(copy, baseline, **json.loads(line))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    main()
