"""A few pictures to try, from the run's first evaluation set that has classes."""

import base64
from typing import Any

import numpy as np

from toolkit import config
from toolkit.data.decode import BadSample, open_image
from toolkit.data.shards import expand_shards, scan_shard
from toolkit.errors import DataError
from toolkit.evaluate.sets import IMAGES, MAX_PIXELS, Classes, read_classes

COUNT = 6
MAX_BYTES = 1 << 20
"""Larger ones are left out: all of them travel with the page."""
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def samples_of(run: config.Run) -> tuple[dict[str, Any], str]:
    """For the page, and a sentence on why there is nothing where there is nothing.

    `set`, `labels` (all classes), `prompt` (its first one) and `pictures`: `data` (a data: URL) and `name` (the true class).
    """
    name = next((name for name, chosen in run.evaluation.sets.items() if chosen.kind == "classification"), None)
    if name is None:
        return {}, "no sample pictures: the run names no evaluation set with classes"
    chosen = run.evaluation.sets[name]
    if "://" in chosen.shards:
        return {}, f"no sample pictures: evaluation.sets.{name} lies behind a URL, and nothing is fetched for a demo"
    try:
        classes = read_classes(chosen.classes, asked_by=f"evaluation.sets.{name}.classes")
        pictures = pictures_of(name, chosen, classes)
    except DataError as error:
        return {}, f"no sample pictures: {error}"
    labels = list(dict.fromkeys(classes.classnames))
    return {"set": name, "labels": labels, "prompt": classes.templates[0], "pictures": pictures}, ""


def pictures_of(name: str, chosen: config.EvalSet, classes: Classes) -> list[dict[str, str]]:
    """The same ones each time, spread over shards and rows; those that browsers do not show are left out."""
    paths = expand_shards(chosen.shards, asked_by=f"evaluation.sets.{name}.shards")
    picked = np.linspace(0, len(paths) - 1, min(COUNT, len(paths))).round().astype(int)
    shards = [scan_shard(paths[number]) for number in picked.tolist()]
    places = [(shard, row) for shard in shards for row in range(shard.count)]
    order = np.random.default_rng(0).permutation(len(places)).tolist()
    found: list[dict[str, str]] = []
    for shard, row in (places[number] for number in order):
        if len(found) == COUNT:
            break
        extension = shard.extension_of(row, IMAGES)
        if extension is None or shard.extension_of(row, ["cls"]) is None:
            continue
        data, label = shard.read(row, extension), shard.read(row, "cls").decode(errors="replace").strip()
        try:
            kind = KINDS.get(open_image(data, MAX_PIXELS).format or "")
        except BadSample:
            continue
        if kind and len(data) <= MAX_BYTES and label.isdecimal() and int(label) < len(classes.classnames):
            url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
            found.append({"data": url, "name": classes.classnames[int(label)]})
    return found
