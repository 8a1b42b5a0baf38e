"""The shards of a run by what they hold: one pattern, or several sources mixed by weight."""

from collections.abc import Iterator

from toolkit.config.schema import Data, Run, Source


def sources_of(data: Data, kind: str) -> dict[str, Source]:
    """`kind` is images, texts or pairs; by config path, such as `data.image_sources.photos`. Empty where there is none."""
    several = {"images": data.image_sources, "texts": data.text_sources}.get(kind, {})
    if several:
        group = "image_sources" if kind == "images" else "text_sources"
        return {f"data.{group}.{name}.shards": source for name, source in several.items()}
    pattern = getattr(data, kind)
    return {f"data.{kind}": Source(shards=pattern, weight=1.0)} if pattern else {}


def shards_of(data: Data, kind: str) -> str:
    """One pattern for all sources of a kind; empty where there is none."""
    return "::".join(source.shards for source in sources_of(data, kind).values())


def source_problems(run: Run) -> Iterator[str]:
    """Contradictions between `images` and `image_sources`, and sources that say nothing."""
    data = run.data
    for kind, group in (("images", "image_sources"), ("texts", "text_sources")):
        several = getattr(data, group)
        if several and getattr(data, kind):
            yield f"data.{kind} and data.{group} are both set; put the former into the latter as one more source"
        for name, source in several.items():
            if not source.shards:
                yield f"data.{group}.{name}.shards is not set; give its shards or leave the source out"
            if source.weight is not None and source.weight <= 0:
                yield f"data.{group}.{name}.weight ({source.weight}) must be above 0; leave the source out instead"
        given = [source.weight is not None for source in several.values()]
        if any(given) and not all(given):
            yield f"data.{group}: some sources have a weight and some have none; give all of them one, or none"
