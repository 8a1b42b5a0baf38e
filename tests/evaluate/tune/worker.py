"""One rank of a fine-tuning; writes what it found, for test_two_ranks."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tune_cases import Tower, Watched, pictures, text_head

from toolkit import distributed
from toolkit.errors import DataError
from toolkit.evaluate.metrics import METRICS
from toolkit.evaluate.tune import LabelledViews, TunedImages, TuneSettings, fine_tune


class Broken(Watched):
    """A picture that only the second rank cannot read, met in the first trials."""

    def batches(self, rows):
        if distributed.rank() == 1 and len(rows) > 1:
            raise DataError("row 7 is torn")
        yield from super().batches(rows)


def main(out: str) -> None:
    """Both protocols with dropout in the tower, and a failure of one rank."""
    torch.set_num_threads(1)
    distributed.init()
    settings = TuneSettings(METRICS["top1"], learning_rates=(1e-3, 3e-2), trial_epochs=1, final_epochs=3, batch_size=16)
    images, tower = pictures(60, 30, noise=150), Tower(torch.nn.Dropout(0.3))
    found, told = {}, []
    for protocol in ("elevater", "clean"):
        result = fine_tune(images, 3, settings, module_factory=lambda: tower, text_head=text_head(), protocol=protocol,
                           report=told.append)  # fmt: skip
        tried = [[point.learning_rate, point.weight_decay, score] for point, score in result.tried.items()]
        found[protocol] = [tried, result.test, result.epoch, result.curve, result.losses, result.probabilities.tolist()]
    found["trials"] = max(one.trials for one in told)
    torn = TunedImages(LabelledViews(Broken(images.train.views), images.train.labels), images.test, images.preprocess)
    try:
        fine_tune(torn, 3, settings, module_factory=lambda: tower, text_head=text_head())
    except DataError as error:
        found["said"] = str(error)
    Path(f"{out}.{distributed.rank()}").write_text(json.dumps(found))
    distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
