"""Fine-tuning of one model on one set, with what is left to do on stderr."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit import distributed
from toolkit.data.benchmarks.split import Split
from toolkit.data.convert.progress import in_words
from toolkit.errors import ConfigError
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.suite.request import Request
from toolkit.evaluate.suite.rows import Outcome
from toolkit.evaluate.suite.sets import JudgedSet
from toolkit.evaluate.suite.tasks import Features, ProbeOptions, drawn, outcome_of
from toolkit.evaluate.tune import Progress, TunedImages, TuneResult, TuneSettings, fine_tune, tuned_images

EVERY_SECONDS = 5.0


def check_trainable(models: Mapping[str, Judged]) -> None:
    """Raise ConfigError for a model without a torch module."""
    for who, judged in models.items():
        if judged.image_module is None:
            raise ConfigError(
                f"fine-tuning needs a torch module, and {who} ({judged.what}) has none; give the run, or leave it out"
            )


def tuned(
    judged: Judged, own: Features, splits: tuple[Split, Split], one: JudgedSet, options: ProbeOptions, request: Request
) -> Outcome:
    """Tower and head on all training pictures, or on some per class for each seed; a collective."""
    begin = time.perf_counter()
    train, test = splits
    pictures = tuned_images(train, test, judged.encoder.preprocess, one.squash, request.workers)
    found = {seed: tune_once(judged, own, pictures, options, request, seed) for seed in options.seeds}
    return outcome_of(found, options, begin)


def tune_once(
    judged: Judged, own: Features, pictures: TunedImages, options: ProbeOptions, request: Request, seed: int
) -> TuneResult:
    """One seed."""
    assert own.train is not None
    rows, merge, search_rows = drawn(own.train.labels, options, seed)
    plain = options.settings(seed)
    settings = TuneSettings(
        plain.metric,
        plain.learning_rates,
        plain.trial_epochs,
        plain.final_epochs,
        plain.batch_size,
        seed,
        two_lr=request.two_lr,
    )
    return fine_tune(
        pictures,
        options.classes,
        settings,
        module_factory=lambda: judged.image_module,
        text_head=own.head,
        protocol=options.protocol,
        train_rows=rows,
        search_rows=search_rows,
        merge_validation=merge,
        report=Said(f"fine-tuning {judged.name} on {options.set_name}"),
    )


@dataclass
class Said:
    """Says how far it is, seldom, on rank 0."""

    what: str
    begin: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def __call__(self, done: Progress) -> None:
        """Trials, epochs and the time left at the rate so far."""
        now = time.monotonic()
        if not distributed.is_main() or (now - self.said < EVERY_SECONDS and done.work_left):
            return
        self.said = now
        left = (now - self.begin) * done.work_left / max(done.work, 1)
        end = f", at most {in_words(left)} left" if done.work_left else f", {in_words(now - self.begin)}"
        print(
            f"{self.what}: {done.stage}, {done.trials} settings, {done.epochs} epochs{end}", file=sys.stderr, flush=True
        )
