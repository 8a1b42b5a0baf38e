"""One fine-tuning: the search over the ranks, and the final training."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from toolkit import distributed
from toolkit.errors import DataError
from toolkit.evaluate.probe.grid import SPANS, Point, search
from toolkit.evaluate.probe.trials import judge
from toolkit.evaluate.tune.network import Beginning
from toolkit.evaluate.tune.pictures import LabelledViews
from toolkit.evaluate.tune.progress import TRAINED, Meter
from toolkit.evaluate.tune.spread import largest_share, shared_out, together
from toolkit.evaluate.tune.training import Course, TuneSettings, judged_course, logits_of, tuned_epochs

DIVERGED = -1.0
"""What a trial that diverged tells the other ranks; its score is 0."""


@dataclass(frozen=True)
class Run:
    """One call of fine_tune."""

    beginning: Beginning
    settings: TuneSettings
    sigmoid: bool
    meter: Meter

    def searched(
        self, fitted: LabelledViews, held: LabelledViews, final_work: int
    ) -> tuple[Point, dict[Point, float], int]:
        """(best setting, score of each that was tried, how many of them diverged)."""
        settings, rates = self.settings, len(self.settings.learning_rates)
        trial_work = settings.trial_epochs * (TRAINED * len(fitted) + len(held))
        later = [len(SPANS) - number for number in range(len(SPANS) + 1)]
        found: list[float] = []

        def trial(point: Point) -> float:
            left = self.meter.left - trial_work
            course = judged_course(
                self.beginning, point, fitted, held, settings, settings.trial_epochs, self.sigmoid, self.meter
            )
            self.meter.expect(left)
            self.meter.trial()
            return DIVERGED if course.diverged else course.score

        def scores(points: list[Point]) -> list[float]:
            trials = largest_share(len(points)) + later.pop(0) * largest_share(2 * rates)
            self.meter.expect(trials * trial_work + final_work)
            told = shared_out([partial(trial, point) for point in points])
            found.extend(told)
            return [max(score, 0.0) for score in told]

        best, tried = search(scores, settings.learning_rates)
        self.meter.expect(final_work)
        return best, tried, found.count(DIVERGED)

    def trained(self, point: Point, train: LabelledViews, judged: LabelledViews) -> Course:
        """The final training, on every rank; the first's is what counts."""
        epochs = self.settings.final_epochs
        course = together(
            lambda: judged_course(self.beginning, point, train, judged, self.settings, epochs, self.sigmoid, self.meter)
        )
        found: Course = distributed.broadcast_object(course)
        if not found.curve:
            raise diverged_at(point, 1)
        return found

    def judged_once(self, point: Point, train: LabelledViews, test: LabelledViews, epochs: int) -> tuple[float, Tensor]:
        """(metric, probabilities) after so many epochs; the test pictures are read here and nowhere before."""

        def work() -> tuple[float, Tensor]:
            networks = [
                network for network, _ in tuned_epochs(self.beginning, point, train, self.settings, epochs, self.meter)
            ]
            if len(networks) < epochs:
                raise diverged_at(point, len(networks) + 1)
            logits = logits_of(networks[-1], test, self.meter)
            if not bool(logits.isfinite().all()):
                raise diverged_at(point, epochs)
            return judge(logits, test.labels, self.settings.metric, self.sigmoid)

        found: tuple[float, Tensor] = distributed.broadcast_object(together(work))
        return found


def diverged_at(point: Point, epoch: int) -> DataError:
    """What to raise where there is no number to report."""
    return DataError(
        f"fine-tune: the final training diverged in epoch {epoch}, at the learning rate {point.learning_rate:g} and weight "
        f"decay {point.weight_decay:g} that the search had chosen; leave the highest of settings.learning_rates out"
    )


def final_work(
    protocol: str,
    settings: TuneSettings,
    fitted: LabelledViews,
    held: LabelledViews,
    final: LabelledViews,
    test: LabelledViews,
) -> int:
    """Of what follows the search, in forward passes, at most."""
    if protocol == "elevater":
        return settings.final_epochs * (TRAINED * len(final) + len(test))
    return settings.final_epochs * (TRAINED * (len(fitted) + len(final)) + len(held)) + len(test)
