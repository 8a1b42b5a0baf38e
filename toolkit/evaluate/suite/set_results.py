"""Every task of every model on one set: the work shared out over the ranks, the rows put together by rank 0."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from toolkit import distributed
from toolkit.data.benchmarks.split import Split
from toolkit.errors import DataError
from toolkit.evaluate.confidence import Comparison
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.probe import Labelled, few_shot_rows
from toolkit.evaluate.projection import before_projection
from toolkit.evaluate.suite.cache import Cache
from toolkit.evaluate.suite.embedded import Embedder
from toolkit.evaluate.suite.progress import Progress
from toolkit.evaluate.suite.request import Request, shots_of
from toolkit.evaluate.suite.rows import Outcome, as_json, difference, row_of
from toolkit.evaluate.suite.sets import WORDS, JudgedSet, entry_named
from toolkit.evaluate.suite.tasks import Features, ProbeOptions, labelled, probe, zero_shot
from toolkit.evaluate.suite.tuning import check_trainable, tuned

TRIALS = 15
"""At most, of a search for one learning rate."""


@dataclass
class SetResults:
    """Of one set, on rank 0 complete."""

    json: dict[str, Any]
    """As results.json has it."""
    outcomes: dict[str, dict[str, Outcome]]
    """By task and model."""
    comparisons: dict[str, dict[str, Comparison]]
    """By task and baseline."""
    features: dict[str, Features]
    """By model, on every rank."""


class SetJudge:
    """Judges models on sets, one set at a time."""

    def __init__(
        self,
        request: Request,
        models: Mapping[str, Judged],
        embedder: Embedder,
        cache: Cache,
        cannot: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """The first model is the one in question; `cannot` are tasks that `check_splits` has ruled out, by set."""
        self.cannot = cannot or {}
        self.request, self.models, self.embedder, self.cache = request, models, embedder, cache
        self.main = next(iter(models))
        if any("fine_tune" in task for task in request.on_sets()):
            check_trainable(models)
        self.earlier = {who: before_projection(judged) for who, judged in models.items() if request.trained_projection}

    def judge(self, one: JudgedSet) -> SetResults:
        """A collective; the result is rank 0's, the other ranks have an empty one."""
        test = one.open("test")
        tasks = [task for task in self.request.on_sets() if task not in self.cannot.get(one.name, ())]
        train = one.open("train") if set(tasks) - {"zero_shot"} else None
        features = {who: self.features(one, judged, test, train) for who, judged in self.models.items()}
        outcomes: dict[str, dict[str, Outcome]] = {}
        for task in tasks:
            if task == "zero_shot":
                teacher = features.get("teacher")
                here = features if distributed.is_main() else {}  # 50,000 x 1,000 float64 for each model
                outcomes[task] = {
                    who: zero_shot(own, teacher if who != "teacher" else None) for who, own in here.items()
                }
            elif train is not None:
                copies = test.fingerprint + train.fingerprint
                if "fine_tune" in task:
                    outcomes[task] = self.tunes(task, one, features, (train, test), copies)
                else:
                    outcomes[task] = self.probes(task, one, features, copies)
        if not distributed.is_main():
            return SetResults({}, {}, {}, features)
        return self.put_together(one, test, train, outcomes, features)

    def features(self, one: JudgedSet, judged: Judged, test: Split, train: Split | None) -> Features:
        """Of one model; a collective."""
        encode, projection = self.earlier.get(judged.name, (None, None))

        def of(split: Split, earlier: Callable[[Tensor], Tensor] | None = None) -> Labelled:
            return labelled(self.embedder.images(judged, split, one.squash, earlier), split.labels)

        return Features(
            head=self.embedder.head(judged, one.classnames, one.templates),
            test=of(test),
            train=None if train is None else of(train, encode),
            projection=projection,
            probed=of(test, encode) if encode and train is not None else None,
            scale=judged.logit_scale,
        )

    def probes(self, task: str, one: JudgedSet, features: Mapping[str, Features], copies: str) -> dict[str, Outcome]:
        """Linear probes of all models, shared out over the ranks; kept on disk."""
        options = self.options(task, one)
        keys = {who: self.key(task, who, one, options, copies) for who in features}
        known = {who: self.cache.shared("probe", key) for who, key in keys.items()}
        found = {who: Outcome(list(of[0].values()), of[1]) for who, of in known.items() if of is not None}
        todo = [who for who in features if who not in found]
        mine: dict[str, Outcome] = {}
        for who in todo[distributed.rank() :: distributed.world()]:
            rates = len(options.settings(0).learning_rates)
            total = rates * TRIALS * (len(options.seeds) if options.shots else 1)
            progress = Progress(f"{task} of {who} on {one.name}", total, "settings at most")
            mine[who] = probe(features[who], options, progress.add)
            progress.close()
            self.cache.put("probe", keys[who], numbered(mine[who].runs), mine[who].facts)
        for part in gathered(mine):
            found |= part
        return {who: found[who] for who in features if who in found}

    def tunes(
        self, task: str, one: JudgedSet, features: Mapping[str, Features], splits: tuple[Split, Split], copies: str
    ) -> dict[str, Outcome]:
        """Fine-tunings of all models, one after the other, each on all ranks; kept on disk."""
        options = self.options(task, one)
        found: dict[str, Outcome] = {}
        for who, own in features.items():
            key = self.key(task, who, one, options, copies) | {"two_lr": self.request.two_lr}
            known = self.cache.shared("tune", key)
            if known is None:
                outcome = tuned(self.models[who], own, splits, one, options, self.request)
                if distributed.is_main():
                    self.cache.put("tune", key, numbered(outcome.runs), outcome.facts)
                found[who] = outcome
            else:
                found[who] = Outcome(list(known[0].values()), known[1])
        return found

    def options(self, task: str, one: JudgedSet) -> ProbeOptions:
        """Of `linear_probe`, `linear_probe_clean`, `5_shot`, `5_shot_fine_tune`."""
        shots = shots_of(task)
        return ProbeOptions(
            metric=one.metric,
            classes=len(one.classnames),
            set_name=one.name,
            protocol="clean" if task.endswith("_clean") else "elevater",
            shots=shots,
            seeds=self.request.seeds if shots else (0,),
            learning_rates=self.request.learning_rates,
            trial_epochs=self.request.trial_epochs,
            final_epochs=self.request.final_epochs,
        )

    def settings(self, task: str, one: JudgedSet) -> dict[str, Any]:
        """What a mean over sets must have in common."""
        options = self.options(task, one)
        return {
            "learning_rates": list(options.settings(0).learning_rates), "trial_epochs": options.trial_epochs,
            "final_epochs": options.final_epochs, "seeds": list(options.seeds), "two_lr": self.request.two_lr,
            "trained_projection": self.request.trained_projection,
        }  # fmt: skip

    def key(self, task: str, who: str, one: JudgedSet, options: ProbeOptions, copies: str) -> dict[str, Any]:
        """What decides a probe's outcome; heads start at the prompts."""
        judged = self.models[who]
        how = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(options).items() if name != "metric"}
        return {
            "task": task, "model": judged.sha256, "texts": judged.text_sha256, "copies": copies, "metric": options.metric.name,
            "projection": self.request.trained_projection, "classnames": one.classnames, "templates": one.templates,
            "squash": one.squash, **how,
        }  # fmt: skip

    def put_together(
        self,
        one: JudgedSet,
        test: Split,
        train: Split | None,
        outcomes: dict[str, dict[str, Outcome]],
        features: dict[str, Features],
    ) -> SetResults:
        """Rows, intervals and differences."""
        tasks: dict[str, Any] = {}
        comparisons: dict[str, dict[str, Comparison]] = {}
        for task, found in outcomes.items():
            rows = {who: row_of(outcome, test.labels, one.metric) for who, outcome in found.items()}
            ours = found[self.main]
            comparisons[task] = {
                who: difference(ours, theirs, test.labels, one.metric)
                for who, theirs in found.items()
                if who != self.main
            }
            differences = {who: as_json(one_) for who, one_ in comparisons[task].items()}
            tasks[task] = {"label": label_of(task, one, rows), "rows": rows, "differences": differences}
            if task != "zero_shot" and train is not None:
                tasks[task] |= {"settings": self.settings(task, one), "train": train.fingerprint[:16]}
        json = {
            "title": one.title, "group": one.group, "metric": one.metric.name, "samples": len(test),
            "classes": len(one.classnames), "classnames": one.classnames, "templates": one.templates, "layout": one.layout,
            "problems": [problem for split in (test, train) if split is not None for problem in one.problems(split)],
            "copy": test.fingerprint[:16],
            "tasks": tasks,
        }  # fmt: skip
        return SetResults(json, outcomes, comparisons, features)


def label_of(task: str, one: JudgedSet, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The protocol in words."""
    if task == "zero_shot":
        count = len(one.templates)
        return f"zero-shot, {count} template{'s' if count > 1 else ''}, softmax over 100 x cosine"
    first = next(iter(rows.values()))
    seeds = f", mean over the draws {', '.join(first['seeds'])}" if "seeds" in first else ""
    return str(first["protocol"]) + (f", {shots_of(task)} pictures per class{seeds}" if seeds else "")


def numbered(runs: list[Tensor]) -> dict[str, Tensor]:
    """For the cache, which sorts by name."""
    return {f"run{number:04d}": run for number, run in enumerate(runs)}


def gathered(mine: dict[str, Outcome]) -> list[dict[str, Outcome]]:
    """Of every rank, on every rank."""
    if distributed.world() == 1:
        return [mine]
    parts: list[dict[str, Outcome]] = [{} for _ in range(distributed.world())]
    dist.all_gather_object(parts, mine)
    return parts


def check_splits(request: Request, sets: dict[str, JudgedSet]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """(why tasks cannot be done, by set, and which ones), before anything is computed: indices are read, pictures are not.

    A set that cannot be opened is taken out of `sets`. DataError for one that was asked for by name, or where none is left.
    """
    entry = {word: entry_named(word, request.data) for word in request.sets if word not in WORDS}
    named = {word if found is None else found.name for word, found in entry.items()}
    why: dict[str, str] = {}
    cannot: dict[str, set[str]] = {}
    for name, one in list(sets.items()):
        reasons = undoable(request, one)
        if not reasons:
            continue
        reason = "; ".join(f"no {', '.join(tasks)}: {text}" for text, tasks in reasons.items())
        cannot[name] = {task for tasks in reasons.values() for task in tasks}
        if set(request.on_sets()) <= cannot[name]:
            del sets[name]
        if name in named or not sets:
            raise DataError(f"--sets {name}: {reason}; mend the copy, or leave the set or the task out")
        why[name] = reason
    return why, cannot


def undoable(request: Request, one: JudgedSet) -> dict[str, list[str]]:
    """Tasks that cannot be done on a set, by the reason."""
    tasks = request.on_sets()
    wanting = [task for task in tasks if task != "zero_shot"]
    try:
        one.open("test")
    except DataError as error:
        return {str(error): tasks}
    if wanting and "train" not in one.splits:
        return {f"it has the splits {', '.join(one.splits)} and none called train": wanting}
    try:
        labels = torch.from_numpy(one.open("train").labels.copy()) if wanting else torch.empty(0)
    except DataError as error:
        return {str(error): wanting}
    found: dict[str, list[str]] = {}
    for task in wanting:
        try:
            for seed in request.seeds if shots_of(task) else ():
                few_shot_rows(labels, shots_of(task), seed)
        except DataError as error:
            found.setdefault(str(error).split("; choose")[0], []).append(task)
    return found
