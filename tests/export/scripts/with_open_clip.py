"""Classify a picture with open_clip alone: with_open_clip.py FOLDER PICTURE PROMPT..."""

import json
import sys

import open_clip
import torch
from PIL import Image


def classify(folder, picture, prompts):
    """Probability of each prompt."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad(), Image.open(picture) as image:
        image_features, text_features, scale = model(preprocess(image).unsqueeze(0), tokenizer(prompts))
    return (scale * image_features @ text_features.T).softmax(dim=-1)[0].tolist()


if __name__ == "__main__":
    print(json.dumps(classify(sys.argv[1], sys.argv[2], sys.argv[3:])))
