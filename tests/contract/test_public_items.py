"""Every public item: listed where it lives, on one path, annotated, and documented as CONTRIBUTING.md says."""

import ast
import collections
import doctest
import importlib
import inspect
import re

import pytest

from tests.contract.public import modules_inside, public_classes, public_functions, public_items, public_modules

MATHEMATICS = {"spectra", "filters", "theory", "dynamics"}
SOURCE = re.compile(r"docs/theory\.md|et al\.|\(\d{4}\)|\b(19|20)\d\d\b")


def parametrize(argument, items):
    return pytest.mark.parametrize(argument, items.values(), ids=items.keys())


def defined_names(module):
    """The names without an underscore that a module makes, or a package takes from its own modules."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.ImportFrom) and is_package(module) and node.module.startswith("rdm_jax"):
            yield from (alias.asname or alias.name for alias in node.names)


def is_package(module):
    return hasattr(module, "__path__")


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_all_lists_what_the_module_defines(module):
    listed = list(module.__all__)
    assert len(set(listed)) == len(listed)
    assert [name for name in listed if not hasattr(module, name)] == []
    assert [name for name in defined_names(module) if not name.startswith("_") and name not in listed] == []


@pytest.mark.parametrize("module", modules_inside(), ids=lambda module: module.__name__)
def test_what_a_module_inside_a_package_lists_is_listed_by_the_package(module):
    package = importlib.import_module(module.__name__.rpartition(".")[0])
    listed = set(getattr(module, "__all__", []))
    assert listed <= set(defined_names(module)) and listed <= set(package.__all__)


def test_every_item_has_one_path():
    paths = collections.defaultdict(list)
    for path, item in public_items().items():
        paths[id(item)].append(path)
    assert [several for several in paths.values() if len(several) > 1] == []


@parametrize("item", public_items())
def test_is_documented(item):
    summary = inspect.getdoc(item).splitlines()[0]
    assert summary.endswith((".", ":")) and len(summary) > 10


@parametrize("function", public_functions())
def test_is_annotated(function):
    signature = inspect.signature(function)
    bare = [name for name, parameter in signature.parameters.items() if parameter.annotation is inspect._empty]
    assert bare == [] and signature.return_annotation is not inspect._empty


@parametrize("function", public_functions())
def test_docstring_has_all_its_parts(function):
    text = inspect.getdoc(function)
    parameters = inspect.signature(function).parameters
    arguments = text.partition("Args:")[2].partition("Returns:")[0]
    undescribed = [name for name in parameters if not re.search(rf"\b{name}\b.*: ", arguments)]
    missing = [part for part in ("Returns:", ">>> ") if part not in text]
    assert (undescribed, missing) == ([], [])


@parametrize("function", {path: item for path, item in public_functions().items() if path.split(".")[1] in MATHEMATICS})
def test_formulas_name_their_source(function):
    assert SOURCE.search(inspect.getdoc(function))


@parametrize("cls", public_classes())
def test_methods_are_documented(cls):
    methods = [value for name, value in vars(cls).items() if not name.startswith("_") and inspect.isroutine(value)]
    assert all(inspect.getdoc(method) for method in methods if method.__module__ == cls.__module__)


@parametrize("item", {path: item for path, item in public_items().items() if path.split(".")[1] != "training"})
def test_doctest_holds_in_64_bits_too(item, x64):
    """The 32-bit run is pytest's own, by --doctest-modules; networks are float32 in any case."""
    module = inspect.getmodule(inspect.unwrap(item))
    runner = doctest.DocTestRunner(verbose=False)
    for case in doctest.DocTestFinder(recurse=False).find(item, item.__name__, module=False, globs=dict(vars(module))):
        runner.run(case)
    assert runner.summarize(verbose=False).failed == 0
