"""Classify a picture with onnxruntime, as preprocessing.json says: with_onnxruntime.py FOLDER PICTURE PROMPT...

Of a folder with a classifier the classes are its own, and no prompts are given.
"""

import json
import sys
from pathlib import Path

import onnxruntime

sys.path.insert(0, str(Path(__file__).parent))
from documented import prepared, probabilities, tokens_of


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
    return probabilities(how["logits"]["scale"] * (run(folder / "image.onnx", images) @ words.T)[0])


if __name__ == "__main__":
    print(json.dumps(classify(sys.argv[1], sys.argv[2], sys.argv[3:])))
