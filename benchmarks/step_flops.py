"""Model FLOPs of a sample, counted on the real architectures, and the best rate of a matrix product on this machine."""

import json
import sys
import time
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def model_flops(name: str, width: int | None = None) -> dict[str, float]:
    """Of one picture and one sentence of an open_clip model, forward (`image`, `text`) and with backward (`.._train`).

    Counted by torch on tensors without data, so that no weights are made. `width`: of the embeddings, where it is not the model's.
    """
    with torch.device("meta"):
        module: Any = open_clip.create_model(name, device="meta", **({"embed_dim": width} if width else {}))
        size = module.visual.image_size
        side = size if isinstance(size, int) else size[0]
        image = torch.zeros(1, 3, side, side)
        tokens = torch.zeros(1, int(getattr(module, "context_length", 77)), dtype=torch.int64)
    module.train()  # an attention in eval mode takes a fused path that the counter does not know
    return {
        "image": counted(module, "encode_image", image, backward=False),
        "image_train": counted(module, "encode_image", image, backward=True),
        "text": counted(module, "encode_text", tokens, backward=False),
        "text_train": counted(module, "encode_text", tokens, backward=True),
    }


def counted(module: nn.Module, method: str, given: Tensor, *, backward: bool) -> float:
    """FLOPs of a call, with its backward pass by the parameters if wanted."""
    with FlopCounterMode(display=False) as counter:
        found = getattr(module, method)(given)
        if backward:
            found.sum().backward()
    return float(counter.get_total_flops())


def best_rates() -> dict[str, float]:
    """FLOP per second of one large square product in fp32 and bf16, the best of eight."""
    cuda = torch.cuda.is_available()
    side = 16_384 if cuda else 2048
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device="cuda" if cuda else "cpu").to(dtype) for _ in range(2))
        found[name] = 2 * side**3 / min(seconds_of(a, b) for _ in range(8))
    return found


def seconds_of(a: Tensor, b: Tensor) -> float:
    """One product."""
    if a.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    torch.mm(a, b)
    if a.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    student, teacher, width = sys.argv[1:] if len(sys.argv) > 1 else ("", "", "")
    counts = {"student": model_flops(student, int(width)), "teacher": model_flops(teacher)} if student else None
    print(json.dumps({"rates": best_rates(), "flops": counts, "threads": torch.get_num_threads()}))
