"""What Triton's compiler makes of the fused kernels for a GPU of compute capability 9.0, as JSON; needs no GPU.

A script of its own because compiling needs a process where Triton does not interpret.
"""

import json
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from toolkit.kernels import fused, fused_tiles

NUMBERS = {"b", "n", "width", "teacher_width", "row_norms_stride", "gradient_stride"}
FLOATS = {"by_row", "by_column", "row_norms", "column_norms", "values"}


def compiled() -> dict[str, Any]:
    """The plan that an H200 gets: shared memory, and whether products reach the tensor cores."""
    plan, seen = fused.PLANS["large"], {}
    for kernel, blocks in ((fused_tiles.norms_tile, plan.norms), (fused_tiles.gradient_tile, plan.gradient)):
        side = fused.Side(torch.empty(0, 768), torch.empty(0, 768))
        given = fused.launch(plan, blocks, side, side) | {"BOTH": True, "STORE": True}
        signature, constants, aligned = {}, {}, {}
        for at, name in enumerate(kernel.arg_names):
            if name.isupper():
                signature[name], constants[(at,)] = "constexpr", given[name]
                continue
            signature[name] = "i32" if name in NUMBERS else "*fp32" if name in FLOATS else "*fp16"
            if name not in fused_tiles.COUNTS:
                aligned[(at,)] = [["tt.divisibility", 16]]
        options = {name: given[name] for name in ("num_warps", "num_stages", "enable_fp_fusion")}
        source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
        binary = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        seen[kernel.__name__] = {
            "shared": binary.metadata.shared,
            "tensor_cores": "wgmma.mma_async" in binary.asm["ptx"],
        }
    return seen


if __name__ == "__main__":
    print(json.dumps(compiled()))
