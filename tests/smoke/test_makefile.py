"""The Makefile's set-up, with a stand-in for Python that notes what it is asked to do and installs nothing."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COPIED = ["Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"]
PYTHON = """#!/bin/sh
echo "$*" >> {folder}/calls
case "$*" in
    -V) echo "Python {version}" ;;
    *version_info*) [ {version} != 3.10.1 ] ;;
    *ensurepip*) [ ! -e {folder}/no-venv ] ;;
    "-m venv "*) rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"pip install"*) [ ! -e {folder}/no-network ] ;;
esac
"""


def environment():
    """Without what the make that runs these tests was told."""
    told = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "EXTRA", "ARGS"}
    return {name: value for name, value in os.environ.items() if name not in told}


class Checkout:
    """The files that the set-up reads, in an empty folder, and a way to call make there."""

    def __init__(self, folder, version="3.12.0"):
        self.folder = folder
        for name in COPIED:
            shutil.copy(ROOT / name, folder)
        self.python = self.stand_in(version)

    def stand_in(self, version):
        path = self.folder / f"python-{version}"
        path.write_text(PYTHON.format(folder=self.folder, version=version))
        path.chmod(0o755)
        return path

    def make(self, *arguments):
        """The finished process, and what was installed by it."""
        (self.folder / "calls").write_text("")
        command = ["make", f"PYTHON={self.python}", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True)
        calls = (self.folder / "calls").read_text()
        return done, re.findall(r"-e \.\[(.*)\]", calls)

    def change(self, file):
        """Make the file, and no other, newer than the environment."""
        for path in [self.folder / name for name in COPIED]:
            os.utime(path, (1000, 1000))
        for stamp in (self.folder / ".venv").glob(".[rw]*"):
            os.utime(stamp, (2000, 2000))
        (self.folder / file).touch()

    @property
    def ready(self):
        return (self.folder / ".venv/.ready").exists()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def targets():
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_help_lists_every_target_with_a_line(checkout, arguments):
    done, installed = checkout.make(*arguments)
    assert re.findall(r"^make ([a-z-]+) +\w.{10,}$", done.stdout, re.M) == targets()
    assert installed == [] and len(targets()) == 9


def test_set_up_happens_once(checkout):
    done, installed = checkout.make("setup")
    assert done.returncode == 0 and installed == ["proofs,train,test"]
    assert "a minute or two" in done.stdout and "make verify-theorems" in done.stdout
    assert checkout.make("verify-theorems")[1] == checkout.make("test")[1] == checkout.make("setup")[1] == []


@pytest.mark.parametrize("target", ["verify-theorems", "train", "test", "lint"])
def test_targets_set_up_by_themselves(checkout, target):
    done, installed = checkout.make(target)
    assert done.returncode == 0 and installed == ["proofs,train,test"]


@pytest.mark.parametrize("file", ["setup.cfg", "pyproject.toml", "constraints.txt"])
def test_a_changed_pin_sets_up_anew(checkout, file):
    checkout.make("setup")
    checkout.change(file)
    assert checkout.make("test")[1] == ["proofs,train,test"]


def test_an_extra_is_added_once_and_outlives_a_changed_pin(checkout):
    checkout.make("setup")
    assert checkout.make("setup", "EXTRA=cuda")[1] == ["cuda"]
    assert checkout.make("setup", "EXTRA=cuda")[1] == []
    checkout.change("constraints.txt")
    assert checkout.make("test")[1] == ["proofs,train,test", "cuda"]


def test_an_unknown_extra_is_refused_before_anything_is_installed(checkout):
    done, installed = checkout.make("setup", "EXTRA=cuba")
    assert done.returncode != 0 and installed == []
    assert "EXTRA is cuda or tpu, not 'cuba'" in done.stderr


def test_an_interrupted_installation_is_not_taken_for_a_finished_one(checkout):
    (checkout.folder / "no-network").touch()
    assert checkout.make("test")[0].returncode != 0 and not checkout.ready
    (checkout.folder / "no-network").unlink()
    assert checkout.make("test")[1] == ["proofs,train,test"] and checkout.ready


def test_an_old_python_gets_a_sentence(checkout):
    checkout.python = checkout.stand_in("3.10.1")
    done, installed = checkout.make("verify-theorems")
    assert done.returncode != 0 and installed == []
    assert f"rdm_jax needs Python 3.11 or newer; {checkout.python} is 'Python 3.10.1'." in done.stderr


def test_an_absent_python_gets_a_sentence(checkout):
    checkout.python = "python-that-is-not-there"
    done, _ = checkout.make("verify-theorems")
    assert done.returncode != 0
    assert re.search("rdm_jax needs Python 3.11 or newer; python-that-is-not-there is '.*not found", done.stderr)


def test_an_absent_venv_module_gets_a_sentence(checkout):
    (checkout.folder / "no-venv").touch()
    done, installed = checkout.make("verify-theorems")
    assert done.returncode != 0 and installed == []
    assert "has no venv module. Install it (Debian: apt install python3-venv)" in done.stderr


def test_another_python_than_that_of_the_environment_is_refused(checkout):
    checkout.make("setup")
    checkout.python = checkout.stand_in("3.13.0")
    done, installed = checkout.make("setup")
    assert done.returncode != 0 and installed == []
    assert "was made with Python 3.12.0" in done.stderr and "make clean" in done.stderr
    checkout.make("clean")
    assert checkout.make("setup")[1] == ["proofs,train,test"]


def test_ci_runs_the_test_target():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=True)
