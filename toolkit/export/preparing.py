"""What someone without this toolkit must know to feed an export: `preprocessing.json`, and the tokenizer's files."""

import json
from pathlib import Path
from typing import Any

import open_clip
import sentencepiece
from open_clip.tokenizer import SimpleTokenizer

from toolkit.config import Preprocess
from toolkit.export.source import Source

NAME = "preprocessing.json"
VOCABULARY, MERGES, PIECES = "vocab.json", "merges.txt", "tokenizer.model"
RESIZE = {
    "shortest": "resize so that the shorter side has `size` pixels, then cut the central `size` x `size`",
    "longest": "resize so that the longer side has `size` pixels, then pad with black to `size` x `size`",
    "squash": "resize both sides to `size` pixels",
}


def write_preparing(source: Source, out: Path, classnames: list[str] | None) -> None:
    """Write the json and copy the vocabulary; with `classnames` for a classifier, which needs no tokenizer."""
    content: dict[str, Any] = {"image": image_part(source.student.preprocess)}
    if classnames is None:
        content["text"] = text_part(source, out)
        content["logits"] = {
            "scale": source.logit_scale,
            "bias": source.logit_bias,
            "how": "scale * image_features @ text_features.T (+ bias); softmax over the texts gives probabilities",
        }
    else:
        content["classnames"] = classnames
    (out / NAME).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def image_part(preprocess: Preprocess) -> dict[str, Any]:
    """Of pictures."""
    return {
        "input": "images",
        "layout": "float32 [batch, 3, size, size], RGB",
        "size": preprocess.image_size,
        "resize_mode": preprocess.resize_mode,
        "interpolation": preprocess.interpolation,
        "scale": 1 / 255,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "steps": [
            "decode, turn upright, convert to RGB",
            f"{RESIZE[preprocess.resize_mode]}; {preprocess.interpolation} from all pixels, as PIL does",
            "multiply bytes by `scale`, subtract `mean`, divide by `std`, channels first",
        ],
    }


def text_part(source: Source, out: Path) -> dict[str, Any]:
    """Of sentences; writes the vocabulary into `out`."""
    part = {"input": "tokens", "layout": "int64 [batch, length]", "length": source.text.context_length}
    name = str(source.text.tokenizer)
    if name.endswith(".model"):
        pieces = sentencepiece.SentencePieceProcessor(model_file=name)
        (out / PIECES).write_bytes(Path(name).read_bytes())
        how = "the pieces of the sentence, cut to length - 1, then `end`, then `pad` up to length"
        ids = {"end": pieces.eos_id(), "pad": max(pieces.pad_id(), 0)}
        return {**part, "tokenizer": {"kind": "sentencepiece", "file": PIECES, **ids, "how": how}}
    tokenizer = clip_tokenizer(source)
    if tokenizer is None:
        return {**part, "tokenizer": {"kind": "open_clip", "name": name, "how": f"open_clip.get_tokenizer({name!r})"}}
    write_clip_vocabulary(tokenizer, out)
    ids = {"start": tokenizer.sot_token_id, "end": tokenizer.eot_token_id, "pad": 0}
    how = "CLIP's byte pairs of the lower-cased sentence: `start`, pieces, `end`, then `pad` up to length; the last stays `end`"
    return {**part, "tokenizer": {"kind": "clip_bpe", "files": [VOCABULARY, MERGES], **ids, "how": how}}


def clip_tokenizer(source: Source) -> SimpleTokenizer | None:
    """CLIP's own byte pairs, None where the text tower has another tokenizer."""
    name = str(source.text.tokenizer)
    if name.endswith(".model"):
        return None
    found = open_clip.get_tokenizer(name, context_length=source.text.context_length)
    plain = isinstance(found, SimpleTokenizer) and found.reduction_fn is None and len(found.all_special_ids) == 2
    return found if plain else None


def write_clip_vocabulary(tokenizer: SimpleTokenizer, out: Path) -> None:
    """`vocab.json` and `merges.txt` as Hugging Face's CLIPTokenizer reads them."""
    special = {tokenizer.sot_token_id: "<|startoftext|>", tokenizer.eot_token_id: "<|endoftext|>"}
    vocabulary = {special.get(number, token): number for token, number in tokenizer.encoder.items()}
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    (out / VOCABULARY).write_text(json.dumps(vocabulary, ensure_ascii=False))
    (out / MERGES).write_text("#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in merges))
