"""Sentences of any source into shards."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.data.convert.convert import Stored, convert
from toolkit.data.convert.job import Job
from toolkit.data.convert.prompts import class_sets
from toolkit.data.convert.sentence_job import SentenceJob, forget
from toolkit.data.convert.sentences import SentenceOptions
from toolkit.data.convert.sources import Source, recognise_texts
from toolkit.data.convert.workspace import Workspace
from toolkit.errors import ConfigError


def convert_texts(
    words: Sequence[str],
    out: Path,
    options: SentenceOptions,
    *,
    workers: int = 1,
    forced: str = "",
    classnames: str = "",
    templates: str = "",
    teacher: str = "",
    store: str = "",
) -> dict[str, Any]:
    """Sentences of the SRC words and of class names x templates into shards at `out`; returns the report.

    Raises DataError and ConfigError. With stored features among the words a TSV row gives one sentence, its first.
    """
    if not words and not classnames:
        raise ConfigError("nothing to convert; give SRC, or --classnames")
    if templates and not classnames and forced != "classes":
        raise ConfigError("--templates was given without --classnames; give both")
    sources, features = recognise_texts(words, forced, options.column) if words else ([], [])
    sources = [replace(source, column=templates) if source.kind == "classes" else source for source in sources]
    if classnames:
        sources.append(Source("classes", classnames, templates))
    for source in sources:
        if source.kind == "classes":
            list(class_sets(source.path, source.column))  # a wrong name is told at once
    if features:
        options = replace(options, captions="first")

    def job(work: Workspace) -> Job:
        return SentenceJob(tuple(sources), options, work.lists)

    forget()
    return convert(job, out, workers, Stored(features, teacher, store))
