"""`torch.export` programs from files that nobody vouches for: read first, loaded only where nothing in them can run code.

A .pt2 file is a program. `torch.export.load` unpickles, evaluates formulas, resolves names below `torch`, and makes Python
source out of the names in it, so that a file can be written that does as it likes. What `dime export` writes needs none of it.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from toolkit.errors import ExportError

RECORDS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)|"
    r"data/sample_inputs/model\.pt|models/model\.json|version|byteorder|archive_format|archive_version|"
    r"\.data/serialization_id|\.data/version|\.format_version|\.storage_alignment"
)
"""Names in the archive: raw tensors, JSON, and one input that the weights-only reader takes. No pickles, no libraries."""
OPERATORS = re.compile(
    r"torch\.ops\.aten\.((?!__|from_file)\w+|__(and|or|xor|lshift|rshift)__)(\.(?!_)\w+)?|torch\.sym_\w+|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
"""What a node may call: torch's own operations on tensors (of which one opens files) and arithmetic on sizes."""
SYMBOL = r"Symbol\('[su]\d+'(, (positive|nonnegative|integer)=True)*\)"
PIECES = (
    SYMBOL
    + r"|[su]\d|\d|Mul|Add|Integer|Rational|Max|Min|Mod|PythonMod|FloorDiv|Eq|Ne|Le|Lt|Ge|Gt|int_oo|[-+*/(),<>=& ]"
)
FORMULA = re.compile(rf"({PIECES})*")
"""Of sizes: torch's symbols, numbers, and a few functions; nothing that could reach an attribute."""
GUARD = re.compile(rf"(L\['\w+'\](\[\d+\])*\.size\(\)\[\d+\]|{PIECES})*")
WORD = re.compile(r"[\w.]*")
"""Any other text in it: names end up in source code."""
CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
CONTEXT = re.compile(r'[\w ",.\[\]]*')
"""What a container says of itself as JSON: names in a list. Objects and escapes could name a module to import."""
ANY_TEXT = {"as_string", "as_strings", "torch_version"}
"""Text that is quoted where it is used, or not used."""
STORED = {"nn_module_stack", "torch_fn", "from_node", "source_fn_stack"}
"""Of a node's metadata, which is kept and not run; where the code lay (`stack_trace`) is not among it."""


def load_program(path: Path) -> torch.export.ExportedProgram:
    """What `torch.export.load` gives; raises ExportError where a file holds anything that could run code, or is torn."""
    content = path.read_bytes()
    try:
        wrong = next(complaints(torch._C.PyTorchFileReader(io.BytesIO(content))), "")
        if not wrong:
            return torch.export.load(io.BytesIO(content))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ExportError(
            f"{path} could not be read as a program of torch.export ({type(error).__name__}: {reason}); export it again"
        ) from error
    raise ExportError(
        f"{path} holds {wrong}, which is not among the tensors, operations and sizes that are known to be harmless; programs can "
        "run code, so it was not loaded. Judge the run itself, or export it to onnx"
    )


def complaints(archive: Any) -> Iterator[str]:
    """Each thing that is not known to be harmless, in words."""
    records = archive.get_all_records()
    yield from (f"a part named {name!r}" for name in records if not RECORDS.fullmatch(name))
    for kind, part in (("weights", "weight"), ("constants", "tensor")):
        config = json.loads(archive.get_record(f"data/{kind}/model_{kind}_config.json"))
        for name, entry in config["config"].items():
            if entry["use_pickle"] is not False or not re.fullmatch(rf"{part}_\d+", entry["path_name"]):
                yield f"{name!r} as something other than a tensor of numbers"
    try:
        torch.load(io.BytesIO(archive.get_record("data/sample_inputs/model.pt")), weights_only=True)
    except Exception:
        yield "an example input that is more than tensors"
    yield from graph_complaints(json.loads(archive.get_record("models/model.json")), "")


def graph_complaints(value: Any, key: str) -> Iterator[str]:
    """Of the JSON that says what is computed; `key` is the name under which `value` stands."""
    if isinstance(value, dict):
        for name, inside in value.items():
            if key == "range_constraints" and not FORMULA.fullmatch(name):
                yield f"the size {name!r}"
            elif not WORD.fullmatch(name):
                yield f"the name {name!r}"
            elif key == "metadata":
                if name not in STORED:
                    yield f"the note {name!r}"
            else:
                yield from graph_complaints(inside, name)
    elif isinstance(value, list):
        for inside in value:
            yield from graph_complaints(inside, key)
    elif isinstance(value, str):
        yield from text_complaints(value, key)


def text_complaints(text: str, key: str) -> Iterator[str]:
    """Of one text under the name `key`."""
    if key in ANY_TEXT:
        return
    if key in ("in_spec", "out_spec"):
        if text:
            yield from container_complaints(json.loads(text)[1])
        return
    allowed: dict[str, Callable[[str], Any]] = {
        "target": OPERATORS.fullmatch,
        "as_operator": OPERATORS.fullmatch,
        "expr_str": FORMULA.fullmatch,
        "guards_code": GUARD.fullmatch,
    }
    if not allowed.get(key, WORD.fullmatch)(text):
        yield f"the {key or 'text'} {text[:60]!r}"


def container_complaints(spec: dict[str, Any]) -> Iterator[str]:
    """Of how arguments are nested: plain containers, whose names are texts."""
    if spec["type"] not in CONTAINERS:
        yield f"a container {spec['type']!r}"
    if not CONTEXT.fullmatch(spec["context"] or ""):
        yield f"the context {spec['context']!r}"
    for inside in spec["children_spec"]:
        yield from container_complaints(inside)
