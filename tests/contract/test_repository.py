"""The repository as a stranger gets it: everything pinned, and nothing of the machine it was written on."""

import configparser
import importlib.metadata
import pathlib
import re
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]
MACHINE = re.compile(r"(?<![\w.~}/)])/(?:" + "|".join(["home", "root", "Users", "tmp", "work", "opt", "mnt"]) + r")/\w")
REGISTRY = re.compile("|".join(["index-url", "find-links", "trusted-host"]))
TEXT = {"", ".py", ".md", ".cfg", ".toml", ".txt", ".json", ".cff", ".html", ".csv"}


def text_files():
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).suffix in TEXT and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", ["/home/me/x", "at /tmp/a", "'/root/x'", "(/work/y)"])
def test_a_machine_path_is_recognised(path):
    assert MACHINE.search(path)
    assert not MACHINE.search("https://a.org/home/x or ./tmp/a or $HOME/work/x or a/work/b")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git tells which files are the project's own")
def test_no_file_names_a_place_of_one_machine():
    leaks = [
        f"{path.relative_to(ROOT)}: {line.strip()[:100]}"
        for path in text_files()
        if path != pathlib.Path(__file__)
        for line in path.read_text().splitlines()
        if MACHINE.search(line) or REGISTRY.search(line)
    ]
    assert leaks == []


def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_an_installed_copy_has_all_files():
    patterns = config()["options.package_data"]["*"].split(", ")
    files = [path for path in (ROOT / "rdm_jax").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [path for path in files if path.suffix != ".py" and not any(map(path.match, patterns))] == []
    assert [path for path in files if not (path.parent / "__init__.py").exists()] == []


def requirements(extras):
    """Names of all packages that rdm_jax with these extras needs here, found through what is installed."""
    lists = [config()["options"]["install_requires"], *(config()["options.extras_require"][extra] for extra in extras)]
    seen, waiting = set(), [Requirement(line) for text in lists for line in text.split("\n") if line]
    while waiting:
        wanted = waiting.pop()
        if (wanted.name, *wanted.extras) in seen or not applies(wanted):
            continue
        seen.add((wanted.name, *wanted.extras))
        texts = importlib.metadata.requires(wanted.name) or []
        waiting += [found for found in map(Requirement, texts) if applies(found, wanted.extras)]
    return {canonicalize_name(name) for name, *_ in seen}


def applies(requirement, extras=()):
    """Whether the requirement's marker holds on this Python, asked for with the extras."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ["", *extras])


def test_every_package_that_the_set_up_installs_is_pinned():
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    here = {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    assert requirements(["proofs", "test"]) - here.keys() == set()
