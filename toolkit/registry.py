"""From a name to a callable: `package.module:function`, with a hint when nothing has that name."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from toolkit.errors import ConfigError


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence naming the nearest known name (after `prefix`), or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def load_callable(path: str, *, asked_by: str) -> Callable[..., Any]:
    """The object at `package.module:function`; the working directory is searched first, as `python -m` would.

    `asked_by` is the config path that holds the name. Raises ConfigError saying whether the module could not be found,
    failed to import, or lacks the function.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{asked_by}={path} is not of the form package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{asked_by}={path}: module {error.name!r} was not found from {os.getcwd()}; "
            "install it, run from the folder that holds it, or correct the name"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{asked_by}={path}: {module_name} failed to import ({type(error).__name__}: {error}); mend that file"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ConfigError(
            f"{asked_by}={path}: {module_name} has no function {attribute!r}{did_you_mean(attribute, names)}"
        )
    return found
