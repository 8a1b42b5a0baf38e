"""All three DIME-FM losses on one GPU: time, memory and error of the forms in which they can be computed.

    python benchmarks/losses_gpu.py [--sizes 1024 4096 65536] [--forms tiles fused] [--repeats 10] [--sweep]

Writes benchmarks/results/losses_gpu_<hardware>_<yyyymm>.{md,json}. `--sweep` times launch shapes of the kernels instead and
writes nothing: it is how the plans in toolkit/kernels/fused.py are chosen.
"""

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from receipt import receipt, write  # noqa: E402
from torch import Tensor  # noqa: E402

from toolkit.embeddings import Embeddings, unit  # noqa: E402
from toolkit.kernels import fused, tiles  # noqa: E402
from toolkit.losses import build_loss  # noqa: E402

WEIGHTS = {"vl": 0.68, "pvl": 0.22, "udist": 0.10}
"""The preset dimefm-udist, all three on."""
SIZES = tuple(2**k for k in range(10, 17))
PRODUCTS = {"vl": 5, "pvl": 5, "udist": 6}
"""What the fused kernel multiplies, in units of rows x columns x width: each of two similarities twice, then a gradient by
rows, and by columns where these are the student's."""
EXACT_UP_TO = 4096
"""Rows up to which gradients are compared with float64."""


def loss_of(z: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The library's losses, whichever `solve` they find."""
    student, teacher = Embeddings(image=z), Embeddings(image=v, text=t)
    return torch.stack([weight * build_loss(name)(student, teacher) for name, weight in WEIGHTS.items()]).sum()


def full_matrices(z: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The same from whole similarity matrices, as one writes it first."""
    z, v, t = unit(z), unit(v), unit(t)

    def kl(teacher: Tensor, student: Tensor, scale: float, both: bool) -> Tensor:
        log_p, log_q = (scale * teacher.float()), (scale * student.float())
        total: Tensor = torch.zeros((), device=z.device)
        for p, q in ((log_p, log_q), (log_p.T, log_q.T))[: 1 + both]:
            p, q = p.log_softmax(1), q.log_softmax(1)
            total = total + (p.exp() * (p - q)).sum() / len(p)
        return total

    return (
        WEIGHTS["vl"] * kl(v @ t.T, z @ t.T, 100.0, both=True)
        + WEIGHTS["pvl"] * 2 * kl(v @ v.T, z @ v.T, 100.0 / 3, both=False)
        + WEIGHTS["udist"] * 2 * kl(v @ v.T, z @ z.T, 100.0 / 7, both=False)
    )


@contextmanager
def solved_by(solve: Callable[..., Any]) -> Iterator[None]:
    """Let the library's losses be computed by one of the two, whatever it would choose."""
    module = importlib.import_module("toolkit.losses.similarity_kl")
    chosen, module.solve = module.solve, solve  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.solve = chosen  # type: ignore[attr-defined]


def library(solve: Callable[..., Any]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The library's losses by one of the two."""

    def form(z: Tensor, v: Tensor, t: Tensor) -> Tensor:
        with solved_by(solve):
            return loss_of(z, v, t)

    return form


def autocast(form: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Products in bf16, softmaxes in fp32."""

    def inner(*features: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return form(*features)

    return inner


def compiled() -> Callable[..., Tensor]:
    """Afresh for each size: after eight of them torch would quietly stop compiling."""
    torch.compiler.reset()
    return torch.compile(full_matrices, dynamic=False)  # type: ignore[no-any-return]


FORMS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "full": lambda: full_matrices,
    "full autocast": lambda: autocast(full_matrices),
    "compiled": compiled,
    "compiled autocast": lambda: autocast(compiled()),
    "tiles": lambda: library(tiles.solve),
    "fused fp16": lambda: library(partial(fused.solve, dtype=torch.float16)),
    "fused bf16": lambda: library(partial(fused.solve, dtype=torch.bfloat16)),
}
"""fp32 products (TF32 off) unless the name says otherwise."""


def features(count: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """z (leaf), v, t of unit norm: students near their teachers, sentences in the teachers' half-space."""
    torch.manual_seed(0)
    centre = torch.randn(width, device="cuda")
    v = unit(torch.randn(count, width, device="cuda") + centre)
    t = unit(torch.randn(count, width, device="cuda") + centre)
    z = unit(v + 0.02 * torch.randn(count, width, device="cuda"))
    return z.requires_grad_(), v, t


def milliseconds(call: Callable[[], Any], repeats: int, warm: int = 3) -> list[float]:
    """Each of several calls, by the device's own clock."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return times


def teraflops(repeats: int, side: int = 16_384) -> float:
    """What one large bf16 product reaches here; random numbers, since zeros run faster than real ones."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / statistics.median(milliseconds(lambda: torch.mm(a, b, out=out), repeats)) / 1e9


def measure(form: Callable[..., Tensor], count: int, width: int, repeats: int) -> dict[str, Any]:
    """Forward and backward at one size, or that it does not fit."""
    z, v, t = features(count, width)

    def step() -> None:
        z.grad = None
        form(z, v, t).backward()

    try:
        step()
        z.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        extra = torch.cuda.max_memory_allocated() - before - z.nbytes
        found: dict[str, Any] = {"extra_bytes": extra, "milliseconds": milliseconds(step, repeats)}
    except torch.cuda.OutOfMemoryError:
        return {"failed": "out of memory"}
    except Exception as error:  # the compiler has limits of its own at large sizes
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    assert z.grad is not None
    if count <= EXACT_UP_TO:
        exact = z.detach().double().requires_grad_()
        with solved_by(tiles.solve):
            loss_of(exact, v.double(), t.double()).backward()
        assert exact.grad is not None
        difference = z.grad.double() - exact.grad
        found["max_error"] = float(difference.abs().max() / exact.grad.abs().max())
        found["norm_error"] = float(difference.norm() / exact.grad.norm())
    return found


def sweep(count: int, width: int, repeats: int) -> None:
    """Launch shapes against each other: one kernel's at a time, the other's as planned."""
    z, v, t = features(count, width)
    planned = fused.plan_for(z.device, fused.PRODUCTS)
    shapes = [(128, 256), (256, 128), (128, 128), (128, 64), (64, 256), (64, 128), (256, 64)]
    for kernel in ("norms", "gradient"):
        for rows, columns in shapes:
            for inner, warps, stages in ((64, 8, 3), (64, 8, 4), (64, 4, 3), (64, 4, 4), (128, 8, 2), (32, 8, 4)):
                blocks = fused.Blocks(rows, columns, inner, warps, stages)
                plan = planned._replace(**{kernel: blocks})
                form = library(partial(fused.solve, plan=plan))
                try:
                    took = milliseconds(lambda form=form: form(z, v, t).backward(), repeats, warm=1)
                except Exception as error:  # a shape that does not fit says so in several ways
                    print(f"{kernel} {tuple(blocks)}: {type(error).__name__}")
                    continue
                print(f"{kernel} {tuple(blocks)}: {statistics.median(took):.2f} ms", flush=True)


def table(raw: dict[str, dict[str, Any]], width: int, rate: float) -> str:
    """A row for each size and form."""
    lines = ["| rows | form | ms (median) | min - max | extra GiB | of the matrix rate | largest gradient error |"]
    lines.append("|---|---|---|---|---|---|---|")
    for count, forms in raw.items():
        for name, found in forms.items():
            if "failed" in found:
                lines.append(f"| {count} | {name} | {found['failed'].split(':')[0]} | | | | |")
                continue
            times = found["milliseconds"]
            reached = 2 * sum(PRODUCTS.values()) * int(count) ** 2 * width / statistics.median(times) / 1e9 / rate
            error = f"{found['max_error']:.1e}" if "max_error" in found else ""
            lines.append(
                f"| {count} | {name} | {statistics.median(times):.2f} | {min(times):.2f} - {max(times):.2f} "
                f"| {found['extra_bytes'] / 2**30:.3f} | {f'{reached:.0%}' if 'fused' in name else ''} | {error} |"
            )
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    """Measure, print, write the receipt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows of images and of sentences")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--sweep", action="store_true", help="time launch shapes at the largest of --sizes; writes nothing"
    )
    asked = parser.parse_args(words)
    if not torch.cuda.is_available():
        sys.exit("benchmarks/losses_gpu.py needs a CUDA device, and torch finds none here")
    if asked.sweep:
        return sweep(max(asked.sizes), asked.width, asked.repeats)
    rate = teraflops(asked.repeats)
    raw: dict[str, dict[str, Any]] = {}
    for count in asked.sizes:
        for name in asked.forms:
            found = raw.setdefault(str(count), {})[name] = measure(FORMS[name](), count, asked.width, asked.repeats)
            torch.cuda.empty_cache()
            print(count, name, json.dumps(found), flush=True)
    print(table(raw, asked.width, rate))
    facts = receipt("python benchmarks/losses_gpu.py" + "".join(f" {word}" for word in words))
    facts |= {
        "losses": f"{WEIGHTS}, forward and backward, fp32 features of width {asked.width}, as many sentences as images",
        "matrix rate": f"{rate:.0f} TFLOP/s, a bf16 product of 16,384 x 16,384 in the same process",
        "products": f"the fused kernel executes {sum(PRODUCTS.values())} of rows x columns x width ({PRODUCTS})",
        "extra GiB": "peak memory less what lay there before (features) and the gradient",
        "largest gradient error": f"largest difference to float64 over the largest entry, up to {EXACT_UP_TO} rows",
        "repeats": f"{asked.repeats} after 3 that are not counted",
    }
    hardware = torch.cuda.get_device_name().split()[-1].lower()
    name = f"losses_gpu_{hardware}_{datetime.now(UTC):%Y%m}"
    write(name, "The DIME-FM losses on one GPU", table(raw, asked.width, rate), facts, raw)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
