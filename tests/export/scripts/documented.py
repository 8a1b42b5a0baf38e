"""Pictures and sentences as a preprocessing.json says, with numpy, PIL and sentencepiece; CLIP's byte pairs from the files."""

import itertools
import json
import re

import numpy as np
from PIL import Image


def prepared(picture, how):
    """[1, 3, size, size]"""
    side, by = how["size"], {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    assert how["resize_mode"] == "shortest"
    short = min(image.size)
    width, height = (round(side * length / short) for length in image.size)
    image = image.resize((width, height), by[how["interpolation"]])
    left, top = (width - side) // 2, (height - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32) * how["scale"]
    return ((pixels - how["mean"]) / how["std"]).transpose(2, 0, 1)[None].astype(np.float32)


def tokens_of(prompts, how, folder):
    """[prompts, length]"""
    tokenizer, length = how["tokenizer"], how["length"]
    rows = np.full((len(prompts), length), tokenizer["pad"], dtype=np.int64)
    pieces = {"sentencepiece": sentencepiece_ids, "clip_bpe": byte_pair_ids}[tokenizer["kind"]](tokenizer, folder)
    start = [tokenizer["start"]] if "start" in tokenizer else []
    for row, prompt in zip(rows, prompts, strict=True):
        cut = [*start, *pieces(prompt)][: length - 1]
        ids = [*cut, tokenizer["end"]]
        row[: len(ids)] = ids
    return rows


def sentencepiece_ids(tokenizer, folder):
    """Sentence -> numbers."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(folder / tokenizer["file"])).encode


def byte_pair_ids(tokenizer, folder):
    """Sentence -> numbers: words of letters, digits or marks; of each the two neighbours that were merged first are joined."""
    vocabulary_file, merges_file = tokenizer["files"]
    vocabulary = json.loads((folder / vocabulary_file).read_text())
    lines = (folder / merges_file).read_text().splitlines()[1:]
    ranks = {tuple(line.split(" ")): number for number, line in enumerate(lines)}
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {number: chr(number) for number in shown}
    letters |= {number: chr(256 + k) for k, number in enumerate(n for n in range(256) if n not in letters)}

    def split(word):
        parts = [letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            place = next(k for k in range(len(parts)) if tuple(parts[k : k + 2]) == best)
            parts[place : place + 2] = ["".join(best)]
        return [vocabulary[part] for part in parts]

    def ids(sentence):
        words = re.findall(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+", sentence.lower().strip())
        return [number for word in words for number in split(word)]

    return ids


def probabilities(logits):
    """Softmax."""
    powers = np.exp(logits - logits.max())
    return (powers / powers.sum()).tolist()
