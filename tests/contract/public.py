"""Every public item of the library, found by walking it: nothing is listed by hand."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import rdm_jax


def public_modules() -> list[ModuleType]:
    """The library, its packages and the modules that stand directly in it: the places one imports from."""
    found = pkgutil.iter_modules(rdm_jax.__path__, "rdm_jax.")
    names = [module.name for module in found if not module.name.rpartition(".")[2].startswith("_")]
    return [rdm_jax, *map(importlib.import_module, names)]


def modules_inside() -> list[ModuleType]:
    """The modules below those."""
    found = pkgutil.walk_packages(rdm_jax.__path__, "rdm_jax.")
    names = [module.name for module in found if module.name.count(".") > 1 and "__main__" not in module.name]
    return list(map(importlib.import_module, names))


def public_items() -> dict[str, Any]:
    """Path to object, for the functions and classes of our own that the public modules list."""
    return {
        f"{module.__name__}.{name}": item
        for module in public_modules()
        for name in getattr(module, "__all__", [])
        if callable(item := getattr(module, name)) and _is_ours(item)
    }


def _is_ours(item: Any) -> bool:
    return (getattr(item, "__module__", None) or "").split(".")[0] == "rdm_jax" and hasattr(item, "__name__")


def public_functions() -> dict[str, Any]:
    """Path to function; jitted functions count."""
    return {path: item for path, item in public_items().items() if not inspect.isclass(item)}


def public_classes() -> dict[str, type]:
    """Path to class."""
    return {path: item for path, item in public_items().items() if inspect.isclass(item)}
