"""`dime select`: look, compare, choose, write, report; whatever was done before is not done again."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toolkit.corpus.choose import Choice, choose
from toolkit.corpus.compare import Part, TopK, compare, merge, parts_of
from toolkit.corpus.filters import KEPT, REASONS, load, look, look_jobs, mark_duplicates, open_shard, read_text
from toolkit.corpus.jobs import Progress, cores, run_jobs
from toolkit.corpus.measure import Measures, examples, histogram, measure
from toolkit.corpus.mixing import Mixed, open_mix
from toolkit.corpus.page import write_page
from toolkit.corpus.pool import Pool, fingerprint, open_pool
from toolkit.corpus.request import Request
from toolkit.corpus.words import as_text
from toolkit.corpus.write import write_corpus, write_store
from toolkit.data.index import write_aside
from toolkit.data.store import EmbeddingStore
from toolkit.errors import ConfigError, DataError

RESULT, PAGE, PARTIAL = "selection.json", "selection.html", ".partial"


def select_corpus(request: Request, *, as_json: bool = False) -> dict[str, Any]:
    """Write the corpus into `request.out`, print what was chosen; returns what selection.json holds.

    Run again it continues, and gives the same bytes as one run. Raises ConfigError for options, DataError for stores and shards.
    """
    request.check()
    device = device_of(request.device)
    pool = open_pool(request)
    request = with_tokenizer(request, pool)
    inputs = fingerprint(request, pool, device)
    found = earlier(request, inputs)
    if found is None:
        found = make(request, pool, device, inputs)
    else:
        print(f"{request.out} holds this selection already", flush=True)
    shutil.rmtree(request.out / PARTIAL, ignore_errors=True)
    page = write_page(found, request.out / PAGE)
    print(f"{as_text(found)}\npage: {page}", flush=True)
    if as_json:
        print(json.dumps({**found, "out": str(request.out), "page": str(page)}), flush=True)
    return found


def device_of(asked: str) -> str:
    """`cpu` or `cuda`."""
    if asked not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {asked} is not known; known: auto, cpu, cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here; leave it away")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def with_tokenizer(request: Request, pool: Pool) -> Request:
    """For --max-tokens: the one that was asked for, else that of the store; raises ConfigError where it has no name."""
    limits = request.filters
    if not limits.max_tokens or limits.tokenizer:
        return request
    name = str(pool.manifest.get("tokenizer") or "")
    if not name or len(name) == 64:  # a vocabulary file has a hash only
        raise ConfigError(
            "--max-tokens: the text store does not name its tokenizer; give an open_clip name or a .model file as --tokenizer"
        )
    return replace(request, filters=replace(limits, tokenizer=name))


def earlier(request: Request, inputs: str) -> dict[str, Any] | None:
    """The same selection made before; raises DataError where the folder holds anything else."""
    path = request.out / RESULT
    if not path.is_file():
        if any(request.out.glob("*.tar")) and not (request.out / PARTIAL).is_dir():
            raise DataError(f"--out {request.out} holds shards that are no selection; choose another folder")
        return None
    try:
        found = dict(json.loads(path.read_text()))
        asked, before = dict(found["asked"]), found["inputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no selection ({error}); remove {request.out} or choose another folder") from error
    here = json.loads(json.dumps(request.asked()))
    wrong = [f"{key} {asked.get(key)} there, {value} here" for key, value in here.items() if asked.get(key) != value]
    if wrong or before != inputs:
        why = "; ".join(wrong) or "the stores or shards have changed since"
        raise DataError(f"--out {request.out} holds another selection ({why}); choose another folder or remove it")
    return found


def make(request: Request, pool: Pool, device: str, inputs: str) -> dict[str, Any]:
    """Everything, from the first look to selection.json, which is written last."""
    (request.out / PARTIAL).mkdir(parents=True, exist_ok=True)
    if request.store is not None:
        EmbeddingStore(request.store, pool.manifest).check_identity()
    mixed = [
        open_mix(
            number, mix, pool.text_folder if request.store else None, pool.texts.width, request.text_key, request.seed
        )
        for number, mix in enumerate(request.mix)
    ]
    work = (request.work or request.out / PARTIAL) / inputs[:16]
    work.mkdir(parents=True, exist_ok=True)
    workers = request.workers or cores()
    look_at_pool(request, pool, work, workers)
    parts = parts_of(pool.images, pool.texts, work, request.max_k, request.sizes, device)
    top = compare_pool(parts, 1 if device == "cuda" else workers)
    choice = choose(request, parts, top)
    measures = measure(parts, top, choice, 1 if device == "cuda" else workers)
    write_corpus(
        request.out,
        request.out / PARTIAL / "shards",
        pool.texts,
        choice,
        mixed,
        request.text_key,
        request.samples_per_shard,
    )
    if request.store is not None:
        write_store(request.store, pool.manifest, request.out, pool.texts, choice, mixed, request.samples_per_shard)
    found = result(request, pool, parts, choice, measures, mixed)
    found["inputs"] = inputs
    write_aside(request.out / RESULT, (json.dumps(found, indent=1) + "\n").encode())
    return found


def look_at_pool(request: Request, pool: Pool, work: Path, workers: int) -> None:
    """Leaves `reasons.npy` in the folder of partial results; raises DataError when no sentence is left."""
    path = work / "reasons.npy"
    if not path.is_file():
        filters = request.active_filters()
        jobs = look_jobs(pool.texts, work, filters, request.text_key)
        todo = [job for job in jobs if not job.path.is_file()]
        done = sum(job.samples for job in jobs) - sum(job.samples for job in todo)
        run_jobs(
            look, [(job, job.samples) for job in todo], workers, Progress("read", "sentences", len(pool.texts), done)
        )
        mark_duplicates(jobs, path)
        for job in jobs:
            job.path.unlink(missing_ok=True)
    counts = by_reason(work)
    if not counts.get("kept"):
        said = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        raise DataError(f"none of the {len(pool.texts):,} sentences passes the filters ({said}); loosen them")


def by_reason(work: Path) -> dict[str, int]:
    """How many sentences were kept, and why the others were not."""
    reasons = load(work / "reasons.npy")
    counts = [int((reasons == code).sum()) for code in range(len(REASONS))]
    return {
        name: count for code, (name, count) in enumerate(zip(REASONS, counts, strict=True)) if count or code == KEPT
    }


def compare_pool(parts: Sequence[Part], workers: int) -> TopK:
    """The best sentences of every image; raises DataError when no image is embedded."""
    todo = [part for part in parts if not part.is_done]
    total = parts[-1].stop
    done = total - sum(part.stop - part.start for part in todo)
    progress = Progress("compared", f"sentences with {len(parts[0].images):,} images", total, done)
    run_jobs(compare, [(part, part.stop - part.start) for part in todo], workers, progress)
    top = merge(parts)
    if not bool((top.places[:, 0] >= 0).any()):
        raise DataError(
            f"none of the {len(parts[0].images):,} images of the store is embedded (all rows are NaN or zero)"
        )
    return top


def result(
    request: Request, pool: Pool, parts: Sequence[Part], choice: Choice, measures: Measures, mixed: Sequence[Mixed]
) -> dict[str, Any]:
    """What selection.json holds."""
    texts = pool.texts
    shown = {
        kind: [
            {"quantile": share, "score": round(score, 5), "text": text_at(pool, place, request.text_key)}
            for share, place, score in found
        ]
        for kind, found in examples(parts, choice).items()
    }
    return {
        "version": 1,
        "asked": request.asked(),
        "teacher": pool.teacher,
        "pool": {
            "sentences": len(texts),
            "by_filter": by_reason(parts[0].work),
            "shards": [str(shard.path) for shard in texts.shards],
        },
        "images": {"embedded": measures.images, "not_embedded": measures.images_left_out},
        "chosen": len(choice.places),
        "mixed": [{"shards": other.mix.pattern, "samples": len(other.places), "of": other.usable} for other in mixed],
        "k": choice.k,
        "union_by_k": {str(k): count for k, count in choice.union.items()},
        "scores": {"pool": measures.pool.as_dict(), "chosen": measures.chosen.as_dict()},
        "coverage": {
            "best_sentence_in_corpus": round(measures.coverage, 5),
            "similarity_to_pool": measures.to_pool.as_dict(),
            "similarity_to_corpus": measures.to_corpus.as_dict(),
        },
        "histograms": {
            "scores": histogram({"pool": measures.pool, "chosen": measures.chosen}),
            "coverage": histogram({"pool": measures.to_pool, "chosen": measures.to_corpus}),
        },
        "examples": shown,
        "notes": choice.notes,
    }


def text_at(pool: Pool, place: int, text_key: str) -> str:
    """The sentence at a place of the pool."""
    ((number, row, _),) = pool.texts.pieces(place, place + 1)
    return read_text(open_shard(pool.texts.shards[number]), row, text_key)
