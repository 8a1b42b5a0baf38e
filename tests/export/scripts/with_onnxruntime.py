"""Classify a picture with onnxruntime, as preprocessing.json says: with_onnxruntime.py FOLDER PICTURE PROMPT...

Of a folder with a classifier the classes are its own, and no prompts are given.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
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
    import sentencepiece

    tokenizer = how["tokenizer"]
    assert tokenizer["kind"] == "sentencepiece"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / tokenizer["file"]))
    rows = np.full((len(prompts), how["length"]), tokenizer["pad"], dtype=np.int64)
    for row, prompt in zip(rows, prompts, strict=True):
        ids = [*pieces.encode(prompt)[: how["length"] - 1], tokenizer["end"]]
        row[: len(ids)] = ids
    return rows


def run(path, given):
    """Output of a file with one input."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def classify(folder, picture, prompts=()):
    """Probability of each prompt, or of each class of a classifier."""
    folder = Path(folder)
    how = json.loads((folder / "preprocessing.json").read_text())
    images = prepared(picture, how["image"])
    if (folder / "classifier.onnx").is_file():
        return run(folder / "classifier.onnx", images)[0].tolist()
    words = run(folder / "text.onnx", tokens_of(prompts, how["text"], folder))
    logits = how["logits"]["scale"] * (run(folder / "image.onnx", images) @ words.T)[0]
    powers = np.exp(logits - logits.max())
    return (powers / powers.sum()).tolist()


if __name__ == "__main__":
    print(json.dumps(classify(sys.argv[1], sys.argv[2], sys.argv[3:])))
