"""Classify a picture with transformers alone: with_transformers.py FOLDER PICTURE PROMPT..."""

import json
import sys

import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor


def classify(folder, picture, prompts):
    """Probability of each prompt."""
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad(), Image.open(picture) as image:
        given = processor(text=prompts, images=image.convert("RGB"), return_tensors="pt", padding=True, truncation=True)
        logits = model(**given).logits_per_image
    return logits.softmax(dim=-1)[0].tolist()


if __name__ == "__main__":
    print(json.dumps(classify(sys.argv[1], sys.argv[2], sys.argv[3:])))
