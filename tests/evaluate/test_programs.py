"""Programs of torch.export are looked at before they are loaded: each way in which such a file can run code is planted."""

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from toolkit.errors import ExportError
from toolkit.evaluate.programs import load_program

MODEL, INPUTS = "models/model.json", "data/sample_inputs/model.pt"
CONSTANTS, WEIGHTS = (f"data/{kind}/model_{kind}_config.json" for kind in ("constants", "weights"))


class Touch:
    """A pickle that makes a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Tower(nn.Module):
    """With a size that depends on the batch, a constant, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 6), nn.LayerNorm(3)
        self.register_buffer("mask", torch.tril(torch.ones(2, 2)), persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[b, 4] -> [b, 6]."""
        pairs = self.norm(self.layer(rows).view(2 * rows.shape[0], 3))
        return (pairs.view(-1, 2, 3).transpose(1, 2) @ self.mask).flatten(1)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program as the exporter saves it."""
    path = tmp_path_factory.mktemp("programs") / "good.pt2"
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Tower().eval(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path)
    return path


def changed(good: Path, path: Path, **parts: Callable[[bytes], bytes] | bytes) -> Path:
    """A copy with records changed or added; names have `__` for `/`."""
    new = {name.replace("__", "/"): part for name, part in parts.items()}
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as archive:
        for name in old.namelist():
            root, _, inside = name.partition("/")
            part = new.pop(inside, None)
            content = old.read(name)
            archive.writestr(name, content if part is None else part(content) if callable(part) else part)
        for inside, part in new.items():
            assert isinstance(part, bytes)
            archive.writestr(f"{root}/{inside}", part)
    return path


def edited(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    """Of JSON."""

    def apply(content: bytes) -> bytes:
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    return apply


def test_what_the_exporter_writes_is_loaded(good: Path, tmp_path: Path) -> None:
    """A copy of it too, and it computes."""
    rows = torch.randn(5, 4)
    wanted = torch.export.load(good).module()(rows)
    for path in (good, changed(good, tmp_path / "copy.pt2")):
        assert torch.equal(load_program(path).module()(rows), wanted)


def call(target: str) -> Callable[[bytes], bytes]:
    """Let the first node call something else."""
    return edited(lambda model: model["graph_module"]["graph"]["nodes"][0].update(target=target))


def every_size(formula: str) -> Callable[[bytes], bytes]:
    """Put a formula where the sizes stand."""

    def change(value: Any) -> None:
        for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "expr_str":
                value[key] = formula
            elif isinstance(inside, dict | list):
                change(inside)

    return edited(change)


def pickled(thing: Any) -> bytes:
    """As torch saves it."""
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def in_spec(kind: str, context: str | None) -> Callable[[bytes], bytes]:
    """Let the arguments lie in another container."""
    spec = json.dumps([1, {"type": kind, "context": context, "children_spec": []}])
    return edited(lambda model: model["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=spec))


def attacks(trap: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Name -> (what is changed, what the message has)."""
    code = f"__import__('pathlib').Path('{trap}').touch()"
    opaque = {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    constants, weights = (name.replace("/", "__") for name in (CONSTANTS, WEIGHTS))
    model, inputs = MODEL.replace("/", "__"), INPUTS.replace("/", "__")
    first: Callable[[Any], Any] = lambda held: next(iter(held["config"].values()))  # noqa: E731
    return {
        "a pickled input": ({inputs: pickled(Touch(trap))}, "an example input that is more than tensors"),
        "a pickled constant": (
            {
                constants: edited(lambda c: c["config"].update(opaque)),
                "data__constants__opaque_obj_0": pickle.dumps(Touch(trap)),
            },
            "a part named 'data/constants/opaque_obj_0'",
        ),
        "a pickled weight": (
            {
                weights: edited(lambda c: first(c).update(use_pickle=True)),
                "data__weights__weight_0": pickled(Touch(trap)),
            },
            "as something other than a tensor",
        ),
        "weights of old": ({"data__weights__model.pt": pickled(Touch(trap))}, "a part named 'data/weights/model.pt'"),
        "a formula": ({model: every_size(code)}, 'the expr_str "__import__'),
        "a library": ({"data__aotinductor__model__x.so": b""}, "a part named 'data/aotinductor/model/x.so'"),
        "a function of torch": ({model: call("torch.os.system")}, "the target 'torch.os.system'"),
        "an operator": ({model: call("_operator.methodcaller")}, "the target '_operator.methodcaller'"),
        "a part of the interpreter": (
            {model: call("torch.ops.aten.__init__.__globals__")},
            "the target 'torch.ops.aten.__init__.__globals__'",
        ),
        "a file": ({model: call("torch.ops.aten.from_file.default")}, "the target 'torch.ops.aten.from_file.default'"),
        "a guard": ({model: edited(lambda m: m.update(guards_code=[code]))}, 'the guards_code "__import__'),
        "a name": (
            {model: edited(lambda m: m["graph_module"]["graph"]["nodes"][0].update(name=f"x={code};y"))},
            'the name "x=__import__',
        ),
        "a module by name": ({model: in_spec("builtins.dict", '{"__enum__": 1, "fqn": "x:y"}')}, "the context"),
        "the same in disguise": ({model: in_spec("builtins.dict", r'["\u005f"]')}, "the context"),
        "a container of one's own": ({model: in_spec("mine.Pair", None)}, "a container 'mine.Pair'"),
    }


RUN_BY_TORCH = ("a pickled input", "a pickled constant", "a pickled weight", "a formula")
"""Those of which it is shown that torch.export.load itself runs what was planted."""


@pytest.mark.parametrize("name", list(attacks(Path("x"))))
def test_what_could_run_code_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    """By its kind, and nothing was run."""
    trap = tmp_path / "trap"
    parts, said = attacks(trap)[name]
    path = changed(good, tmp_path / "bad.pt2", **parts)
    with pytest.raises(ExportError) as caught:
        load_program(path)
    assert said in str(caught.value) and "it was not loaded" in str(caught.value)
    assert not trap.exists()
    if name in RUN_BY_TORCH:
        with contextlib.suppress(Exception):
            torch.export.load(path)
        assert trap.exists()


def test_torn_files(good: Path, tmp_path: Path) -> None:
    """Half of one, an empty one, and one whose JSON has lost a part."""
    half = tmp_path / "half.pt2"
    for content in (good.read_bytes()[:2000], b""):
        half.write_bytes(content)
        with pytest.raises(ExportError, match=r"half\.pt2 could not be read as a program of torch\.export"):
            load_program(half)
    part = {MODEL.replace("/", "__"): edited(lambda m: m.pop("graph_module"))}
    with pytest.raises(ExportError, match="could not be read as a program"):
        load_program(changed(good, half, **part))
