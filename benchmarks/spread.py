"""How far a spread batch is from one process: ranks x accumulation x ZeRO stage, largest difference of any weight.

    python benchmarks/spread.py            (two minutes on two cores)

The cases are those of tests/engine/test_spread.py: two towers with drop-path, five losses, one with parameters of its own,
three steps of SGD at 0.2; stage 3 with every parameter in pieces. Writes benchmarks/results/spread_cpu2_202611.{md,json}.
"""

import json
import sys
import tempfile
from pathlib import Path

from receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from launch_ranks import run_ranks  # noqa: E402

WORKER = ROOT / "tests" / "engine" / "spread_worker.py"
RANKS = (1, 2, 4)
ACCUMULATIONS = (1, 2, 4)
MUTANTS = {
    "no_gradient": "gather without gradient",
    "average": "backward of the gather averages",
    "no_replay": "random numbers not replayed",
    "wrong_offset": "gradients of another micro-batch",
    "per_micro_batch": "naive accumulation (another loss)",
}


def main() -> None:
    """One launch per number of ranks and precision."""
    raw: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for ranks in RANKS:
            raw[str(ranks)] = {}
            for kind in ("plain", "zero"):
                out = Path(folder) / f"{kind}{ranks}.json"
                words = [name for name in MUTANTS if name != "per_micro_batch"] if kind == "plain" else []
                run_ranks(WORKER, str(out), kind, *words, ranks=ranks)
                raw[str(ranks)] |= json.loads(out.read_text())
    text = table(raw)
    print(text)
    title = "A spread batch against one process: largest difference of any weight after three steps of SGD"
    write("spread_cpu2_202611", title, text, receipt("python benchmarks/spread.py"), raw)


def table(raw: dict[str, dict[str, float]]) -> str:
    """A row per spread, then what broken variants give on two ranks."""
    kinds = {"plain": "float64, plain gloo", **{f"zero{stage}": f"ZeRO {stage}, fp32" for stage in range(4)}}
    lines = ["| ranks x micro-batches | " + " | ".join(kinds.values()) + " |", "|---" * (1 + len(kinds)) + "|"]
    for ranks, found in raw.items():
        for count in ACCUMULATIONS:
            cells = [f"{found[f'{kind} x{count}']:.1e}" for kind in kinds]
            lines.append(f"| {ranks} x {count} | " + " | ".join(cells) + " |")
    lines += ["", "| broken on purpose, 2 ranks x 2 micro-batches, float64 | difference |", "|---|---|"]
    lines += [f"| {words} | {raw['2'][f'{name} x2']:.2f} |" for name, words in MUTANTS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
