"""Options of `dime select`."""

import argparse
from pathlib import Path

MEMORY = """\
Memory, whatever the pool, in each process: 12 e (T + I) + 8 T I + 16 n K bytes for blocks of T = 8192 sentences and
I = 512 images of width e, and the best K = --max-k sentences of each of n images; for 100,000 images of width 768 and
K = 8 about 125 MB, beside torch itself (0.6 GB, most of it shared). The first process also holds 3 bytes per sentence of
the pool (filters, levels, chosen or not), 60 bytes per sentence chosen, and 150 MB while it ranks 4 million at a time.
Partial results on disk: at most 256 x 12 n K bytes, and 5 (at first 9) bytes per sentence; removed when all is done,
unless they lie in --work.

Killed and run again, the same command continues and gives the same bytes; --workers does not change them either. The
shards hold the sentences in the order of the pool; chosen.npy has shard, row, rank and score of each.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Everything the verb takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = MEMORY
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="STORE", help="the teacher's embeddings of the images")
    add("--texts", type=Path, required=True, metavar="STORE", help="the same teacher's embeddings of the sentences")
    add("--size", type=int, required=True, metavar="N", help="sentences to choose")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the text shards, selection.json and .html")
    add("--shards", default="", metavar="PATTERN", help="text shards to choose from (default all in the text store)")
    add("--method", default="grounded", help="grounded (default), threshold, random, captions, prompts")
    add("--k", type=int, default=1, help="grounded: sentences kept per image (default 1)")
    add("--max-k", type=int, default=8, help="grounded: how far k is raised until N are found (default 8)")
    add("--fill", action="store_true", help="grounded: where --max-k is not enough, fill up by best similarity")
    add(
        "--threshold", type=float, default=None, metavar="T", help="threshold: the least best similarity (default none)"
    )
    add("--mix", action="append", default=[], metavar="SHARDS:COUNT", help="add so many samples of other text shards")
    add("--store", type=Path, default=None, metavar="OUT", help="write the embeddings of the corpus into this store")
    add("--min-words", type=int, default=3, help="shorter sentences are left out (default 3)")
    add("--max-words", type=int, default=60, help="longer sentences are left out (default 60; 0: no limit)")
    add("--min-chars", type=int, default=0, help="the same in characters (default 0)")
    add("--max-chars", type=int, default=0, help="the same in characters (default 0: no limit)")
    add(
        "--max-tokens",
        type=int,
        default=0,
        help="the same in tokens of --tokenizer, with start and end (default no limit)",
    )
    add("--tokenizer", default="", help="open_clip name or .model file, for --max-tokens")
    add("--text-key", default="txt", help="field of the sentences, several separated by ; (default txt)")
    add("--samples-per-shard", type=int, default=10_000, help="in the shards that are written (default 10,000)")
    add("--seed", type=int, default=0, help="of random choices (default 0)")
    add("--workers", type=int, default=0, help="processes (default one per core)")
    add("--device", default="auto", help="auto (default), cpu or cuda")
    add(
        "--work",
        type=Path,
        default=None,
        metavar="DIR",
        help="keep partial results here, shared by methods on one pool",
    )
    add("--json", action="store_true", help="print one JSON object as the last line")


def run_select(words: argparse.Namespace) -> None:
    """Choose, and say what was chosen."""
    from toolkit.corpus import Filters, Request, select_corpus
    from toolkit.corpus.request import mix_from

    named = vars(words)
    filters = {name: named[name] for name in Filters.__dataclass_fields__}
    asked = {name: named[name] for name in Request.__dataclass_fields__ if name in named and name != "mix"}
    request = Request(**asked, mix=tuple(map(mix_from, words.mix)), filters=Filters(**filters))
    select_corpus(request, as_json=words.json)
