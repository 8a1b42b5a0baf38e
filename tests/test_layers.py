"""Imports point down only: the syntax trees are walked, and the walker is shown to find what is planted."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
LAYERS = (
    ("config", "registry", "errors", "signals", "launches", "allocator"),
    ("embeddings", "distributed", "heartbeat"),
    ("models", "losses", "kernels", "data", "schedules"),
    (
        "distiller",
        "engine",
        "checkpoint",
        "metrics",
        "meter",
        "facts",
        "first_batch",
        "step",
        "embed",
        "reshape",
        "agreement",
    ),
    (
        "train",
        "evaluate",
        "report",
        "calibrate",
        "corpus",
        "demo",
        "doctor",
        "estimate",
        "export",
        "imports",
        "playground",
        "profile",
    ),
    (
        "cli",
        "cli_checkpoints",
        "cli_demo",
        "cli_doctor",
        "cli_embed",
        "cli_estimate",
        "cli_evaluate",
        "cli_export",
        "cli_import",
        "cli_profile",
        "cli_select",
        "cli_shards",
        "launch",
        "recipe",
        "build_ops",
    ),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
SIDEWAYS = {
    ("losses", "kernels"),
    ("train", "evaluate"),
    ("train", "report"),
    ("report", "evaluate"),
    ("calibrate", "report"),
    ("corpus", "report"),
    ("demo", "evaluate"),
    ("doctor", "train"),
    ("doctor", "evaluate"),
    ("export", "evaluate"),
}
"""Imports between parts of layer 2 or of layer 4 that are allowed; within the other layers all are."""
ONLY = {"deepspeed": {"engine", "checkpoint", "distributed"}, "webdataset": {"data"}}
"""Packages that only some parts may import."""
FLOOR = ("config", "registry", "errors", "signals", "launches")
FLOOR_PACKAGES = {"omegaconf", "yaml"}
NOT_FOR_LOSSES = {"data", "models", "engine", "metrics", "checkpoint", "distiller", "train", "evaluate", "schedules"}
FORBIDDEN_NAMES = {"utils", "common", "base", "helpers"}
MAX_LINES = 300


def imports_of(path: Path) -> list[tuple[str, int, bool]]:
    """(dotted name, line, at module level) of everything a file imports; relative imports are made absolute."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if node is not function
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                package = path.parts[: len(path.parts) - node.level]
                root = max(i for i, part in enumerate(package) if part == "toolkit")
                source = ".".join([*package[root:], *([source] if source else [])])
            # `from toolkit import distributed` imports a part; `from toolkit.x import y` may too, but of the same part
            names = [f"{source}.{alias.name}" for alias in node.names] if source == "toolkit" else [source]
        else:
            continue
        found += [(name, node.lineno, id(node) not in inside) for name in names]
    return found


def part_of(path: Path, root: Path) -> str:
    """`losses` for toolkit/losses/dime.py, `engine` for toolkit/engine.py."""
    return path.relative_to(root / "toolkit").parts[0].removesuffix(".py")


def violations(root: Path) -> list[str]:
    """What under `root`/toolkit and `root`/recipes breaks the layers, one sentence each; empty when all is well."""
    found = []
    for path in sorted((root / "toolkit").rglob("*.py")):
        where = path.relative_to(root)
        if path.stem in FORBIDDEN_NAMES or FORBIDDEN_NAMES & set(where.parts):
            found.append(f"{where}: a file of this name holds what nobody has decided")
        if (lines := len(path.read_text().splitlines())) > MAX_LINES:
            found.append(f"{where}: {lines} lines, the limit is {MAX_LINES}")
        part = part_of(path, root)
        if part == "__init__":
            found += [f"{where}:{line}: the package itself imports {name}" for name, line, _ in imports_of(path)]
            continue
        if part not in LAYER_OF:
            found.append(f"{where}: {part} stands in no layer; give it one in tests/test_layers.py")
            continue
        for name, line, at_module_level in imports_of(path):
            if problem := forbidden(part, name, at_module_level):
                found.append(f"{where}:{line}: {problem}")
    for path in sorted((root / "recipes").rglob("*.py")):
        where = path.relative_to(root)
        for name, line, at_module_level in imports_of(path):
            package = name.split(".")[0]
            if package in ONLY or (package == "torch" and at_module_level):
                found.append(f"{where}:{line}: a recipe imports {name}")
    return found


def forbidden(part: str, name: str, at_module_level: bool) -> str:
    """Why `part` may not import `name`, or an empty string."""
    package, _, rest = name.partition(".")
    if package in ONLY and part not in ONLY[package]:
        return f"only {', '.join(sorted(ONLY[package]))} may import {package}"
    if part in FLOOR and package not in {*sys.stdlib_module_names, *FLOOR_PACKAGES, "toolkit"}:
        return f"{part} imports {package}; the floor has the standard library and OmegaConf only"
    if part == "launch" and at_module_level and package not in {*sys.stdlib_module_names, "toolkit"}:
        return f"launch imports {package} at module level"
    if package == "recipes":
        return "the toolkit imports a recipe"
    other = rest.split(".")[0]
    if package != "toolkit" or other in ("", part, "__version__"):
        return ""
    if other not in LAYER_OF:
        return f"imports toolkit.{other}, which stands in no layer"
    if part == "losses" and other in NOT_FOR_LOSSES:
        return f"losses may not import {other}"
    if LAYER_OF[other] > LAYER_OF[part]:
        return f"{part} (layer {LAYER_OF[part]}) imports {other} above it (layer {LAYER_OF[other]})"
    if part == "launch" and at_module_level and other not in FLOOR:
        return f"launch imports {other} at module level; import it inside the function that needs it"
    if LAYER_OF[other] == LAYER_OF[part] and LAYER_OF[part] in (2, 4) and (part, other) not in SIDEWAYS:
        return f"{part} imports its sibling {other}"
    return ""


def test_the_tree_keeps_its_layers() -> None:
    """The rule itself."""
    assert violations(REPO) == []


def test_every_file_is_walked() -> None:
    """A walker that looks in the wrong folder would find nothing wrong for ever."""
    assert len(list((REPO / "toolkit").rglob("*.py"))) > 30
    assert any(name == "toolkit.train" for name, _, _ in imports_of(REPO / "toolkit/launch.py"))


PLANTED = {
    "toolkit/config/a.py": ("import torch", "standard library and OmegaConf"),
    "toolkit/config/b.py": ("def f():\n    import numpy", "standard library and OmegaConf"),
    "toolkit/registry.py": ("from toolkit.models import Model", "above it"),
    "toolkit/embeddings.py": ("from toolkit.data.plan import Plan", "above it"),
    "toolkit/losses/a.py": ("from toolkit.models.contract import Model", "losses may not import models"),
    "toolkit/losses/b.py": ("from toolkit import engine", "losses may not import engine"),
    "toolkit/losses/c.py": ("def f():\n    from toolkit.metrics import Metrics", "losses may not import metrics"),
    "toolkit/models/a.py": ("import toolkit.data.images", "sibling data"),
    "toolkit/models/b.py": ("from ..data import images", "sibling data"),
    "toolkit/models/utils.py": ("", "nobody has decided"),
    "toolkit/data/common/x.py": ("", "nobody has decided"),
    "toolkit/train.py": ("import deepspeed", "only checkpoint, distributed, engine"),
    "toolkit/models/c.py": ("def f():\n    from deepspeed import zero", "only checkpoint, distributed, engine"),
    "toolkit/evaluate/a.py": ("import webdataset as wds", "only data"),
    "toolkit/evaluate/b.py": ("from toolkit.train import train", "sibling train"),
    "toolkit/report/a.py": ("from toolkit.export.reader import x", "sibling export"),
    "toolkit/metrics.py": ("from toolkit.report import write_report", "above it"),
    "toolkit/launch.py": ("import torch", "at module level"),
    "toolkit/engine.py": ("from toolkit.launch import start", "above it"),
    "toolkit/newcomer.py": ("", "no layer"),
    "toolkit/data/long.py": ("\n" * 300, "301 lines"),
    "toolkit/__init__.py": ("import torch", "the package itself"),
    "toolkit/schedules.py": ("from recipes import quickstart", "imports a recipe"),
    "recipes/a.py": ("import torch", "a recipe imports torch"),
    "recipes/b.py": ("def f():\n    import deepspeed", "a recipe imports deepspeed"),
}


@pytest.mark.parametrize("path", PLANTED)
def test_a_planted_violation_is_found(path: str, tmp_path: Path) -> None:
    """Each rule has a file that breaks it, and exactly that file is reported."""
    code, said = PLANTED[path]
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(code + "\n")
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(path) and said in found[0]


def test_what_is_allowed_is_not_reported(tmp_path: Path) -> None:
    """Downward imports, the sideways ones, and lazy imports in launch.py."""
    good = {
        "toolkit/losses/a.py": "from toolkit.kernels import x\nfrom toolkit.embeddings import LOCAL\nimport torch",
        "toolkit/train.py": "from toolkit.evaluate import Harness\nfrom toolkit.report import write_report",
        "toolkit/calibrate/a.py": "from toolkit.report.lines import draw_lines\nfrom toolkit.embed import pools",
        "toolkit/launch.py": "from toolkit import config\ndef f():\n    from toolkit.train import train\n    import torch",
        "toolkit/checkpoint.py": "from toolkit.engine import x\nimport deepspeed",
        "toolkit/data/a.py": "import webdataset\nfrom toolkit.data.plan import Plan\nfrom .plan import Plan",
        "recipes/a.py": "from toolkit import config\nfrom toolkit.playground.prepare import x",
    }
    for path, code in good.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code + "\n")
    assert violations(tmp_path) == []


def test_settings_are_checked_without_torch() -> None:
    """A bad setting fails at once on a login node: nothing heavy is imported by what checks it."""
    code = (
        "import sys, toolkit.config, toolkit.config.ds_config, toolkit.launch, toolkit.cli, toolkit.registry\n"
        "heavy = {'torch', 'numpy', 'deepspeed', 'open_clip', 'timm', 'webdataset'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
