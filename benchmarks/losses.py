"""The three DIME-FM losses forward and backward on a CPU: tiles against full matrices, time and memory by batch size.

    python benchmarks/losses.py            (about ten minutes; --sizes 1024,2048 for fewer)

Each size and form runs in a process of its own, so that one's memory is not another's; times of one size are taken in
turn. `full` computes each direction of each term from full matrices, as open_clip's ClipLoss does; `full, shared` is the
best we could write plainly: one matrix for both directions of vl, one teacher matrix for pvl and udist. Writes
benchmarks/results/losses_cpu2_202611.{md,json}.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from receipt import receipt, write
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.config import FIELD_PRESETS  # noqa: E402
from toolkit.embeddings import LOCAL, Embeddings  # noqa: E402
from toolkit.losses import build_losses  # noqa: E402

WIDTH = 768
SIZES = (1024, 2048, 4096, 8192, 16384, 32768)
FULL_UP_TO = 16384
"""Full matrices of the next size would take 60 GiB."""
PRODUCTS = {"tiles": 12, "full": 13, "full, shared": 9}
"""Products of rows x columns x width that each form executes, forward and backward."""
WEIGHTS = (0.68, 0.22, 0.10)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of KL between softmaxes of full logit matrices."""
    target = F.log_softmax(teacher, -1)
    return F.kl_div(F.log_softmax(student, -1), target, reduction="batchmean", log_target=True)


def full(student: Embeddings, teacher: Embeddings) -> Tensor:
    """A matrix for each direction of each term."""
    z, v, t = student.image, teacher.image, teacher.text

    def term(a: Tensor, b: Tensor, c: Tensor, d: Tensor, scale: float) -> Tensor:
        with torch.no_grad():
            teacher = scale * c @ d.T
        return kl(scale * a @ b.T, teacher)

    vl = term(z, t, v, t, 100.0) + term(t, z, t, v, 100.0)
    return WEIGHTS[0] * vl + WEIGHTS[1] * 2 * term(z, v, v, v, 100 / 3) + WEIGHTS[2] * 2 * term(z, z, v, v, 100 / 7)


def full_shared(student: Embeddings, teacher: Embeddings) -> Tensor:
    """Every matrix once."""
    z, v, t = student.image, teacher.image, teacher.text
    with torch.no_grad():
        v_t, v_v = 100 * v @ t.T, 100 * v @ v.T
    z_t = 100 * z @ t.T
    vl = kl(z_t, v_t) + kl(z_t.T, v_t.T)
    pvl, udist = 2 * kl(100 / 3 * z @ v.T, v_v / 3), 2 * kl(100 / 7 * z @ z.T, v_v / 7)
    return WEIGHTS[0] * vl + WEIGHTS[1] * pvl + WEIGHTS[2] * udist


def tiles(student: Embeddings, teacher: Embeddings) -> Tensor:
    """The toolkit's."""
    total: Tensor = build_losses(FIELD_PRESETS["dimefm-udist"])(student, teacher, LOCAL).total
    return total


FORMS = {"tiles": tiles, "full": full, "full, shared": full_shared}


def features(n: int) -> tuple[Embeddings, Embeddings]:
    """Rows around one direction, the student near the teacher, so that the softmaxes are neither flat nor one-hot."""
    draw = torch.Generator().manual_seed(0)
    centre = torch.randn(1, WIDTH, generator=draw)
    v, t = (F.normalize(centre + torch.randn(n, WIDTH, generator=draw), dim=-1) for _ in range(2))
    z = v + 0.3 * torch.randn(n, WIDTH, generator=draw) / WIDTH**0.5
    student = Embeddings(image=z)
    assert student.image is not None
    student.image.requires_grad_().grad = torch.ones_like(student.image)  # there before the peak is reset: not counted
    return student, Embeddings(image=v, text=t)


def rate() -> float:
    """FLOP per second of one large fp32 product, the best of five."""
    a, b = torch.randn(4096, WIDTH), torch.randn(WIDTH, 4096)
    best = min(timed(lambda: a @ b) for _ in range(5))
    return 2 * 4096 * 4096 * WIDTH / best


def timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def status(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(form: str, n: int, repeats: int) -> dict[str, float]:
    """Seconds of each repeat, peak memory above features and gradient, value, and the machine's rate beside it."""
    student, teacher = features(n)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        loss = FORMS[form](student, teacher)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": min(seconds), "all_seconds": seconds, "extra_bytes": status("VmHWM") - before,
        "value": float(loss.detach()), "gradient_norm": float(student.image.grad.norm()), "rate": rate(),
    }  # fmt: skip


def main() -> None:
    """Measure all, or one in this process (`--one`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--one", nargs=3, metavar=("FORM", "N", "REPEATS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        form, n, repeats = given.one
        print(json.dumps(measure(form, int(n), int(repeats))))
        return
    raw: dict[str, dict[str, Any]] = {}
    for n in (int(size) for size in given.sizes.split(",")):
        repeats = min(30, 2**15 // n)  # the best counts: others may use the machine
        for form in FORMS if n <= FULL_UP_TO else ["tiles"]:
            command = [sys.executable, __file__, "--one", form, str(n), str(repeats)]
            found = json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            )
            raw.setdefault(str(n), {})[form] = found
            print(n, form, {k: v for k, v in found.items() if k != "all_seconds"}, flush=True)
    facts = receipt("python benchmarks/losses.py")
    facts |= {"threads": torch.get_num_threads()}
    print(table(raw))
    write(
        "losses_cpu2_202611",
        "DIME-FM's three losses, forward and backward, width 768, fp32",
        table(raw),
        facts,
        raw,
        NOTES,
    )


NOTES = """Extra memory is the peak above features and their gradient. `of the rate`: products executed (tiles 12, full 13,
full shared 9; 2 n^2 768 FLOP each) per second, over the rate of one large fp32 product measured in the same process."""


def table(raw: dict[str, dict[str, Any]]) -> str:
    """A row per size."""
    head = ["n"]
    for form in FORMS:
        head += [f"{form}: s", "GiB", "of the rate"]
    head += ["tiles / full", "tiles / full, shared"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for n, row in raw.items():
        cells = [f"{int(n):,}"]
        for form in FORMS:
            found = row.get(form)
            if found is None:
                cells += ["-", "-", "-"]
                continue
            flops = PRODUCTS[form] * 2 * int(n) ** 2 * WIDTH
            share = flops / found["seconds"] / found["rate"]
            cells += [f"{found['seconds']:.2f}", f"{found['extra_bytes'] / 2**30:.2f}", f"{share:.0%}"]
        for form in ("full", "full, shared"):
            cells.append(f"{row['tiles']['seconds'] / row[form]['seconds']:.2f}" if form in row else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
