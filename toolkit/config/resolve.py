"""Defaults of a recipe plus overrides from the command line -> one checked `Run`; saving and loading it."""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toolkit.config import losses as loss_options
from toolkit.config.losses import LossOptions
from toolkit.config.schema import Run
from toolkit.config.validate import validate
from toolkit.errors import ConfigError
from toolkit.registry import did_you_mean


def resolve(defaults: Run, overrides: Sequence[str] = ()) -> Run:
    """Apply `key.sub=value` overrides and check the whole; `--dry-run` is short for `dry_run=true`.

    The launcher's own `--local_rank=N` is dropped. Raises ConfigError naming the key and the nearest known one.
    """
    run = merge(defaults, parse_overrides(overrides))
    validate(run)
    return run


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["optim.lr=4e-4"]` -> `{"optim": {"lr": 4e-4}}`, values read as YAML."""
    words = []
    for word in overrides:
        if word.startswith(("--local_rank", "--local-rank")):
            continue
        if word == "--dry-run":
            words.append("dry_run=true")
        elif word.startswith("-") or "=" not in word:
            raise ConfigError(f"{word!r} is not an override; write key=value, for example steps=1000 (or --dry-run)")
        else:
            words.append(word)
    config = OmegaConf.create()
    for word in words:
        try:
            config.merge_with_dotlist([word])
        except (yaml.YAMLError, OmegaConfBaseException, TypeError) as error:
            key, _, value = word.partition("=")
            raise ConfigError(
                f"{word} could not be read ({first_line(error)}); the value is YAML, so quote one that begins with a "
                f"bracket or holds ${{: {key}='\"{value}\"'"
            ) from error
    tree = OmegaConf.to_container(config)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def merge(defaults: Run, tree: dict[str, Any]) -> Run:
    """`defaults` with a nested mapping laid over it, types checked by the dataclasses."""
    tree = dict(tree)
    losses = merge_losses(defaults.losses, tree.pop("losses", None) or {})
    check_keys(Run, tree, "")
    bare = replace(without_foreign_kwargs(defaults, tree), losses={})
    merged = to_dataclass(bare, tree, "")
    return replace(merged, losses=losses)


def without_foreign_kwargs(defaults: Run, tree: dict[str, Any]) -> Run:
    """Another student or teacher does not inherit the keyword arguments that the recipe has for its own."""
    for section in ("student", "teacher"):
        default, given = getattr(defaults, section), tree.get(section, {})
        if given.get("name", default.name) != default.name:
            defaults = replace(defaults, **{section: replace(default, kwargs={})})
    return defaults


def to_dataclass(default: Any, tree: dict[str, Any], where: str) -> Any:
    """Merge `tree` over the structured config of `default`; OmegaConf's complaint becomes a ConfigError."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(default), tree))
    except (OmegaConfBaseException, TypeError) as error:
        full_key = getattr(error, "full_key", None) or " and ".join(tree)  # not every complaint names its key
        key = ".".join(part for part in (where, str(full_key)) if part)
        raise ConfigError(f"{key}: {first_line(error)}; correct the value") from error


def first_line(error: Exception) -> str:
    """What an exception says, without the lines that only its authors understand."""
    return (str(getattr(error, "msg", None) or error).splitlines() or [type(error).__name__])[0]


def check_keys(schema: Any, tree: dict[str, Any], where: str) -> None:
    """Raise ConfigError for a key the dataclass does not have, naming the nearest one it has."""
    hints = get_type_hints(schema)
    for key, value in tree.items():
        full = f"{where}{key}"
        if key not in hints:
            raise ConfigError(f"no setting named {full}{did_you_mean(key, hints, where)}; known: {', '.join(hints)}")
        hint = hints[key]
        if is_dataclass(hint):
            if not isinstance(value, dict):
                raise ConfigError(f"{full} is a group of settings, found {value!r}; set {full}.<name>=value")
            check_keys(hint, value, f"{full}.")
        elif isinstance(value, dict) and get_args(hint) and is_dataclass(get_args(hint)[-1]):
            for name, entry in value.items():
                if isinstance(entry, dict):
                    check_keys(get_args(hint)[-1], entry, f"{full}.{name}.")


def merge_losses(defaults: dict[str, LossOptions], tree: Any) -> dict[str, LossOptions]:
    """Pick each term's option class by kind first, then merge, so that `losses.vl.temperature=2` is checked by VL."""
    merged: dict[str, LossOptions] = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"losses is a group of terms, found {tree!r}; set losses.<name>.weight=value")
    for name in [*defaults, *(key for key in tree if key not in defaults)]:
        given = tree.get(name, {})
        if not isinstance(given, dict):
            raise ConfigError(f"losses.{name} is a group of settings, found {given!r}; set losses.{name}.weight=value")
        default = defaults.get(name)
        kind = str(given.get("kind") or (default.kind if default else "") or name)
        if kind not in loss_options.OPTIONS:
            known = loss_options.OPTIONS
            raise ConfigError(
                f"losses.{name}: no loss named {kind}{did_you_mean(kind, known)}; known: {', '.join(known)}"
            )
        schema = loss_options.OPTIONS[kind]
        check_keys(schema, given, f"losses.{name}.")
        base = default if isinstance(default, schema) else schema()
        merged[name] = to_dataclass(replace(base, kind=kind), given, f"losses.{name}")
    return merged


def to_yaml(run: Run) -> str:
    """The whole run as YAML, in the order of the schema."""
    return str(yaml.safe_dump(plain(asdict(run)), sort_keys=False, allow_unicode=True))


def plain(value: Any) -> Any:
    """Tuples become lists, so that plain YAML can hold the value."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def save(run: Run, path: Path) -> None:
    """Write the resolved run; `load` reads it back equal. By a rename: half a file would keep the run from going on."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(to_yaml(run))
    aside.replace(path)


def load(path: Path) -> Run:
    """Read a saved run and check it like one from the command line."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} could not be read as a run config ({error}); give a folder that a run has written"
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no run config; give a folder that a run has written")
    run = merge(Run(), tree)
    validate(run)
    return run


def differences(left: Run, right: Run, keys: Sequence[str]) -> list[str]:
    """Dotted settings under `keys` in which two runs differ, as `key: left -> right`."""
    found: list[str] = []

    def walk(a: Any, b: Any, where: str) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in [*a, *(k for k in b if k not in a)]:
                walk(a.get(key), b.get(key), f"{where}.{key}")
        elif a != b:
            found.append(f"{where}: {a} -> {b}")

    for key in keys:
        walk(plain(asdict(left))[key], plain(asdict(right))[key], key)
    return found
