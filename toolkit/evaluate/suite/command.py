"""The whole of `dime evaluate MODEL --tasks ...`: models, sets, tasks, and results.json."""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit import distributed
from toolkit.data.index import write_aside
from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.confidence import Comparison
from toolkit.evaluate.cost import costs_of
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.named import OPEN_CLIP, models_named
from toolkit.evaluate.suite import captions, means, predictions, shown, table
from toolkit.evaluate.suite.cache import Cache, default_folder
from toolkit.evaluate.suite.earlier import earlier_results, joined, set_aside
from toolkit.evaluate.suite.embedded import Embedder
from toolkit.evaluate.suite.nearest import nearest_sentences, read_sentences
from toolkit.evaluate.suite.request import ALL, Request, check
from toolkit.evaluate.suite.routes import routed
from toolkit.evaluate.suite.set_results import SetJudge, SetResults, check_splits
from toolkit.evaluate.suite.sets import JudgedSet, chosen_sets
from toolkit.facts import PACKAGES, git_state, version_of
from toolkit.registry import did_you_mean

FORMAT = 1
NAME = "results.json"
FOLDER = "benchmarks"


def evaluate(request: Request, *, command: str = "", as_json: bool = False) -> dict[str, Any]:
    """Judge, print a table, and write results.json after every set, so that a kill loses the set at hand alone; a collective.

    What was computed before for the same weights, copies and settings is read from the cache. Raises ConfigError and DataError.
    """
    begin = time.perf_counter()
    check(request)
    routes = routed(request)
    sets, missing = chosen_sets(routes.labelled, request.data) if routes.labelled else ({}, {})
    why_not, cannot = check_splits(request, sets)
    predictions.check_counts(request, sets)
    check_pictures(request, sets)
    sentences = read_sentences(request.sentences) if request.sentences else []
    cache = Cache(request.cache or default_folder())
    if request.out is not None:
        writable(request.out, f"--out {request.out}")
    writable(cache.folder, f"--cache {cache.folder}")
    distributed.init()
    models = all_models(request)
    if request.out is None:
        writable(place(request), f"{place(request)}, where the results go without --out,")
    embedder = Embedder(cache, request.batch_size, request.workers)
    path = place(request) / NAME
    results = begun(path, request, models, command) | {"missing": {**missing, **routes.missing, **why_not}}
    judge = SetJudge(request, models, embedder, cache, cannot)
    comparisons: dict[str, dict[str, dict[str, Comparison]]] = {}
    for name, one in sets.items():
        found = judge.judge(one)
        if distributed.is_main():
            add_set(results, request, models, one, found)
            comparisons[name] = found.comparisons
            results["means"] = means.group_means(results["sets"], comparisons, results["means"])
            results["seconds"] = time.perf_counter() - begin
            write(path, results)
            print(table.of_set(name, found.json, judge.main), flush=True)
        if sentences and request.shows(name):
            features = {who: one_.test.features for who, one_ in found.features.items()}
            results["nearest_sentences"] = nearest_sentences(sentences, one.open("test"), models, features, embedder)
            sentences = []  # of the first set that may be shown
        distributed.barrier()
    for kind, entry_of in (("retrieval", captions.retrieval), ("compositionality", captions.compositionality)):
        for name in getattr(routes, kind):
            entry = entry_of(name, request, models, embedder)
            if distributed.is_main():
                results.setdefault(kind, {})[name] = entry
                write(path, results)
                print(table.of_captions(name, entry), flush=True)
    if distributed.is_main():
        if request.cost:
            add_costs(results, models)
        results["seconds"] = time.perf_counter() - begin
        write(path, results)
        print(table.of_end(results, path, len(sets) + len(routes.retrieval) + len(routes.compositionality)), flush=True)
        if as_json:
            print(json.dumps(results), flush=True)
    return results


def check_pictures(request: Request, sets: Mapping[str, JudgedSet]) -> None:
    """Raise ConfigError where `--pictures` names a set that is not judged."""
    for name in request.pictures:
        if name not in (ALL, "none", *sets):
            near = did_you_mean(name, list(sets))
            raise ConfigError(f"--pictures {name}: no such set is judged{near}; give all, none, or names")


def begun(path: Path, request: Request, models: Mapping[str, Judged], command: str) -> dict[str, Any]:
    """The results before the first set: what an earlier command at `path` found for the same models."""
    results = header(request, models, command) | {"sets": {}, "means": {}}
    results |= earlier_results(path, results, request.shows)
    if distributed.is_main() and (aside := set_aside(path, results)):
        print(f"{path} was of other weights or torn; it is {aside.name} now", flush=True)
    if ALL not in request.pictures:  # of which set they were is not written down
        results.pop("nearest_sentences", None)
    for who, cost in results.pop("costs", {}).items():
        results["models"][who]["cost"] = cost
    return results


def all_models(request: Request) -> dict[str, Judged]:
    """The model in question, its teacher, then those beside it; the first is the one in question."""
    device = distributed.device()
    own = {"which": request.checkpoint, "overrides": request.overrides}
    found = models_named(request.model, **own, precision=request.precision, device=device)  # type: ignore[arg-type]
    for word in request.beside:
        other = next(
            iter(models_named(word, which="newest", overrides=(), precision=request.precision, device=device).values())
        )
        name = word if word.startswith(OPEN_CLIP) else Path(word).name
        if name in found:
            raise ConfigError(f"--beside {word}: there is a model called {name} already; give its folder another name")
        other.name = name
        found[name] = other
    return found


def place(request: Request) -> Path:
    """The folder of results.json."""
    if request.out is not None:
        return request.out
    if request.model.startswith(OPEN_CLIP):
        return Path("runs") / FOLDER / request.model.removeprefix(OPEN_CLIP).replace("/", "-")
    return Path(request.model) / FOLDER


def writable(folder: Path, asked_by: str) -> None:
    """Make it, and DataError where it cannot be, or nothing can be written there: before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"{asked_by} is no folder that can be written ({error.strerror or error}); give another"
        ) from error


def header(request: Request, models: Mapping[str, Judged], command: str) -> dict[str, Any]:
    """What was judged, and by what."""
    commit, _ = git_state()
    return {
        "format": FORMAT,
        "units": "percent",
        "model": next(iter(models)),
        "command": command,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(request.data),
        "git_commit": commit,
        "versions": {name: version_of(name) for name in PACKAGES},
        "precision": request.precision,
        "models": {name: of_model(judged) for name, judged in models.items()},
    }


def of_model(judged: Judged) -> dict[str, Any]:
    """What a report says of it."""
    return {
        "what": judged.what,
        "sha256": judged.sha256,
        "embed_dim": judged.embed_dim,
        "image_params": judged.image_params,
        "text_params": judged.text_params,
        "image_size": judged.encoder.preprocess.image_size,
        "logit_scale": judged.logit_scale,
        **({"text_sha256": judged.text_sha256} if judged.text_sha256 else {}),
        **({"licence": judged.licence} if judged.licence else {}),
        **judged.facts,
    }


def add_set(
    results: dict[str, Any], request: Request, models: Mapping[str, Judged], one: JudgedSet, found: SetResults
) -> None:
    """Rows, pictures and submission files of a set; rank 0."""
    main = str(results["model"])
    zero_shot = found.outcomes.get("zero_shot")
    if zero_shot is not None and request.shows(one.name) and not one.metric.multi_label:
        own = {who: outcome.calibrated for who, outcome in zero_shot.items() if outcome.calibrated is not None}
        found.json["tasks"]["zero_shot"] |= shown.shown(one.open("test"), one.classnames, own, main)
    results["sets"][one.name] = joined(results["sets"].get(one.name, {}), found.json)
    if request.predictions is not None:
        predictions.write_all(request.predictions, one.name, models[main], found.outcomes, request.seeds)


def write(path: Path, results: dict[str, Any]) -> None:
    """Aside, then renamed; never NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def add_costs(results: dict[str, Any], models: Mapping[str, Judged]) -> None:
    """Sizes and latencies, measured in turn; those of an earlier command where all models have them."""
    if all("cost" in results["models"][who] for who in models):
        return
    for who, cost in costs_of(models, lambda line: print(line, file=sys.stderr, flush=True)).items():
        results["models"][who]["cost"] = cost
