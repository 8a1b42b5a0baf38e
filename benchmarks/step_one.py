"""One rank of one variant of benchmarks/step.py: a real loop, timed from inside. Not called by hand.

torchrun benchmarks/step_one.py ours | dimefm | open_clip --result FILE [options] key=value ...
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stopwatch import Stopwatch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


def main() -> None:
    """Pin, then build and run the loop until the stopwatch has seen enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("ours", "dimefm", "open_clip"))
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--core", type=int, default=-1, help="of local rank 0; each rank gets a core of its own")
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--tsv", type=Path)
    parser.add_argument("--tiles", action="store_true", help="losses without the fused kernel")
    given, words = parser.parse_known_args()
    words = [word for word in words if not word.startswith("--local_rank")]
    if given.core >= 0:  # before torch counts its threads
        os.sched_setaffinity(0, {given.core + int(os.environ.get("LOCAL_RANK", "0"))})

    from stopwatch import Finished, Stopwatch

    from toolkit import config, distributed

    rank = int(os.environ.get("RANK", "0"))
    watch = Stopwatch(given.result, given.warmup, given.steps, rank=rank, together=given.together)
    try:
        if given.kind == "ours":
            ours(words, watch, tiles=given.tiles)
        else:
            from recipes.distill_vitb32 import DEFAULTS

            run = config.resolve(DEFAULTS, words)
            if given.kind == "dimefm":
                import step_dimefm

                step_dimefm.train(run, watch, amp=given.amp, tsv=given.tsv)
            else:
                import step_open_clip

                step_open_clip.train(run, watch, amp=given.amp)
    except Finished:
        distributed.barrier()
        distributed.shutdown()
        return
    sys.exit("the loop ended before its steps were counted")


def ours(words: list[str], watch: "Stopwatch", *, tiles: bool) -> None:
    """The toolkit's own run, from its recipe and through its launch; only the streams are told to report to the watch."""
    from recipes import distill_vitb32
    from toolkit import train
    from toolkit.kernels import fused

    class Watched(train.Streams):
        def next(self) -> Any:
            return watch.take(super().next)

    train.Streams = Watched  # type: ignore[misc]
    if tiles:
        fused.serves = lambda problem: False
    distill_vitb32.main(words)


if __name__ == "__main__":
    main()
