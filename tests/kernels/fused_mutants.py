"""The fused kernel with one wrong line each, to see whether the checks notice."""

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

from toolkit.kernels import fused

MUTANTS = {
    "row's sum over columns past the end": ("fused_tiles.py", "tl.where(column[None, :] < n, logits, float(\"-inf\"))", "logits"),
    "column's sum over rows past the end": ("fused_tiles.py", "tl.where(row[:, None] < b, logits, float(\"-inf\"))", "logits"),
    "value over columns past the end": ("fused_tiles.py", "tl.where(on_column[None, :], p * (log_p - log_q), 0.0)", "p * (log_p - log_q)"),
    "value over rows past the end": ("fused_tiles.py", "tl.where(on_row, by_row, 0.0)", "by_row"),
    "columns' direction left out of the value": ("fused_tiles.py", "value += part", "value += 0 * part"),
    "columns' direction left out of the gradient": ("fused_tiles.py", "found += more", "found += 0 * more"),
    "columns weigh as much as rows": ("fused.py", "math.log(lift * ratio)", "math.log(lift)"),
    "only the last band's columns": ("fused.py", "torch.logaddexp(of_columns, now)", "now"),
    "norms of the first band": ("fused.py", "row_norms[:, start:stop], row_norms", "row_norms[:, : stop - start], row_norms"),
    "teacher of the first band": ("fused.py", "teacher.rows[start:stop]", "teacher.rows[: stop - start]"),
    "gradient from rows of the first band": ("fused.py", "student.rows[start:stop], weight", "student.rows[: stop - start], weight"),
    "only the last band's gradient": ("fused.py", "keep=start > 0", "keep=False"),
    "gradient without the scale": ("fused.py", "by_rows.mul_(problem.scale)", "by_rows"),
    "ranks keep their columns' norms": ("fused.py", "problem.exchange.sum_lse(of_columns)", "of_columns"),
    "no weight for the number of ranks": ("problem.py", "self.exchange.world / len", "1 / len"),
}  # fmt: skip
"""One wrong line each: (file, what stands there, what the mutant has)."""


def mutate(folder: Path, file: str, old: str, new: str) -> dict[str, ModuleType]:
    """The kernel's modules, one of them with another line; the tiles that judge stay as they are."""
    originals, package = Path(fused.__file__).parent, f"mutant_{len(sys.modules)}"
    loaded: dict[str, ModuleType] = {}
    for name in ("problem", "fused_tiles", "fused"):
        source = (originals / f"{name}.py").read_text()
        if file == f"{name}.py":
            assert source.count(old) == 1, f"{file} has {source.count(old)} times {old!r}"
            source = source.replace(old, new)
        path = folder / f"{name}.py"
        path.write_text(source.replace("from toolkit.kernels.fused_tiles", f"from {package}.fused_tiles"))
        spec = util.spec_from_file_location(f"{package}.{name}", path)
        assert spec is not None and spec.loader is not None
        loaded[name] = sys.modules[spec.name] = util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    return loaded
