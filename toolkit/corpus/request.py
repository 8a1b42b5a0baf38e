"""What `dime select` is asked for, and whether that can be."""

from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import ConfigError

METHODS = {
    "grounded": "sentences that are among the best --k of some image; ranked by their best similarity",
    "threshold": "the highest best similarities, whatever image they belong to; none below --threshold",
    "random": "any sentence that passes the filters",
    "captions": "any of the captions that --shards names",
    "prompts": "any of the class prompts that --shards names; their length is not filtered",
}
NAMED_SHARDS = ("captions", "prompts")
"""Methods whose pool is not everything in the store."""
MOST_K = 254


@dataclass(frozen=True)
class Filters:
    """Sentences outside these never take part; exact duplicates (case, white space, punctuation aside) never do."""

    min_words: int = 3
    max_words: int = 60
    min_chars: int = 0
    max_chars: int = 0
    """0: no limit."""
    max_tokens: int = 0
    """End and start tokens count; 0: no limit."""
    tokenizer: str = ""
    """open_clip name or .model file; the store's own where it is not given."""


@dataclass(frozen=True)
class Sizes:
    """How much is held at a time; the same whatever the number of workers, so that the results are."""

    text_rows: int = 8192
    image_rows: int = 512
    part_rows: int = 0
    """Sentences between two partial results; 0: from the number of images, see `compare.part_rows`."""


@dataclass(frozen=True)
class Mix:
    """So many samples of other text shards, beside those chosen."""

    pattern: str
    count: int


@dataclass(frozen=True)
class Request:
    """All options of the command."""

    images: Path
    texts: Path
    size: int
    out: Path
    shards: str = ""
    """Pattern; everything in the text store where it is not given, except shards in `out` and those of `mix`."""
    method: str = "grounded"
    k: int = 1
    max_k: int = 8
    fill: bool = False
    threshold: float | None = None
    mix: tuple[Mix, ...] = ()
    store: Path | None = None
    work: Path | None = None
    filters: Filters = Filters()
    text_key: str = "txt"
    samples_per_shard: int = 10_000
    seed: int = 0
    workers: int = 0
    """0: one per core."""
    device: str = "auto"
    sizes: Sizes = field(default_factory=Sizes)

    def check(self) -> None:
        """Raise ConfigError for options that contradict each other."""
        if self.method not in METHODS:
            raise ConfigError(f"--method {self.method} is not known; known: {', '.join(METHODS)}")
        for name, least in (("size", 1), ("k", 1), ("samples_per_shard", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} ({getattr(self, name)}) must be at least {least}")
        if not self.k <= self.max_k <= MOST_K:
            raise ConfigError(f"--max-k ({self.max_k}) must lie between --k ({self.k}) and {MOST_K}")
        if self.threshold is not None and self.method != "threshold":
            raise ConfigError(f"--threshold is of --method threshold, not of {self.method}; leave it away")
        if self.fill and self.method != "grounded":
            raise ConfigError(f"--fill is of --method grounded, not of {self.method}; leave it away")
        if self.method in NAMED_SHARDS and not self.shards:
            raise ConfigError(f"--method {self.method} takes the shards that hold them; name them with --shards")
        if self.store is not None and not self.shards and self.store.resolve() in self._text_folders():
            raise ConfigError(
                f"--store {self.store} is the store that is chosen from, so the next run would choose from this one's sentences; "
                "name the pool with --shards, or take another folder"
            )
        limits = self.filters
        for least, most, what in (
            (limits.min_words, limits.max_words, "words"),
            (limits.min_chars, limits.max_chars, "chars"),
        ):
            if min(least, most) < 0 or 0 < most < least:
                raise ConfigError(f"--max-{what} ({most}) must be 0 (no limit) or at least --min-{what} ({least})")
        if limits.max_tokens < 0:
            raise ConfigError(f"--max-tokens ({limits.max_tokens}) must be 0 (no limit) or more")

    def _text_folders(self) -> set[Path]:
        return {self.texts.resolve(), (self.texts / "text").resolve()}

    def asked(self) -> dict[str, object]:
        """What decides the outcome, as selection.json has it; not who computes it."""
        names = ["method", "size", "k", "max_k", "fill", "threshold", "seed", "shards", "text_key", "samples_per_shard"]
        return {
            **{name: getattr(self, name) for name in names},
            "images": str(self.images),
            "texts": str(self.texts),
            "store": None if self.store is None else str(self.store),
            "mix": [f"{mix.pattern}:{mix.count}" for mix in self.mix],
            "filters": dict(vars(self.active_filters())),
        }

    def active_filters(self) -> Filters:
        """Prompts may be as short as they are."""
        return Filters(0, 0) if self.method == "prompts" else self.filters


def mix_from(words: str) -> Mix:
    """From `SHARDS:COUNT`."""
    pattern, _, count = words.rpartition(":")
    if not pattern or pattern.endswith(":") or not count.isdigit() or int(count) == 0:
        raise ConfigError(f"--mix {words} must be SHARDS:COUNT, such as --mix shards/prompts:5000")
    return Mix(pattern, int(count))
