"""Classify a picture with torch's programs, as preprocessing.json says: with_torch.py FOLDER PICTURE PROMPT...

Of a folder with a classifier the classes are its own, and no prompts are given.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from documented import prepared, probabilities, tokens_of


def run(path, given):
    """Output of a program with one input."""
    with torch.no_grad():
        return torch.export.load(path).module()(torch.from_numpy(given)).numpy()


def classify(folder, picture, prompts=()):
    """Probability of each prompt, or of each class of a classifier."""
    folder = Path(folder)
    how = json.loads((folder / "preprocessing.json").read_text())
    images = prepared(picture, how["image"])
    if (folder / "classifier.pt2").is_file():
        return run(folder / "classifier.pt2", images)[0].tolist()
    words = run(folder / "text.pt2", tokens_of(prompts, how["text"], folder))
    return probabilities(how["logits"]["scale"] * (run(folder / "image.pt2", images) @ words.T)[0])


if __name__ == "__main__":
    print(json.dumps(classify(sys.argv[1], sys.argv[2], sys.argv[3:])))
