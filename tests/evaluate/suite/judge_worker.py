"""A rank of `dime evaluate` that judges what its words say; prints the rows as JSON."""

import json
import sys
from pathlib import Path

from toolkit import distributed
from toolkit.evaluate.suite.command import evaluate
from toolkit.evaluate.suite.request import Request

if __name__ == "__main__":
    run, data, out = sys.argv[1:]
    asked = Request(
        run, Path(data), tasks=("zero_shot", "linear_probe", "k_shot"), sets=("colours",), out=Path(out), cache=Path(out) / "cache",
        workers=0, batch_size=4, cost=False, learning_rates=(1e-2,), trial_epochs=2, final_epochs=2, shots=(2,), seeds=(0,),
    )  # fmt: skip
    results = evaluate(asked)
    if distributed.is_main():
        print(json.dumps(results["sets"]["colours"]["tasks"]))
