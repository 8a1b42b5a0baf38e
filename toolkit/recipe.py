"""A recipe as data: the `DEFAULTS` of a Python file, for the verbs that look at a run without training it."""

import importlib.util
import sys

from toolkit.config import Run
from toolkit.config.shipped import shipped
from toolkit.errors import ConfigError


def load_defaults(path: str) -> Run:
    """`DEFAULTS` of the recipe at `path`, also of a shipped one (`recipes/quickstart.py`); its `main` is not called.

    As with `python path`, the recipe's folder is searched first for what it imports. Raises ConfigError when the file is
    missing, fails to import, or is no recipe.
    """
    found = shipped(path)
    if found is None or not found.is_file():
        what = "a folder" if found else "nothing there"
        raise ConfigError(f"recipe {path}: found {what}; give a Python file, for example recipes/distill_vitb32.py")
    if found.suffix != ".py":
        raise ConfigError(f"recipe {path} is no Python file; give one, for example recipes/distill_vitb32.py")
    folder, name = str(found.resolve().parent), f"recipe_{found.stem}"
    spec = importlib.util.spec_from_file_location(name, found)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses of the recipe look themselves up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(
            f"recipe {path} failed to import ({type(error).__name__}: {error}); mend that file"
        ) from error
    defaults = getattr(module, "DEFAULTS", None)
    if not isinstance(defaults, Run) or not callable(getattr(module, "main", None)):
        lacks = "main(overrides)" if isinstance(defaults, Run) else "DEFAULTS = config.Run(...)"
        raise ConfigError(f"recipe {path} has no {lacks}; write it like recipes/distill_vitb32.py")
    return defaults
