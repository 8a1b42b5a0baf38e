"""Small copies of the sets of captions, each in the files and folders of the real one; pictures show their number as a colour."""

import json
from pathlib import Path
from typing import Any

from set_copies import png, write_zip

PARTS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def image(number: int, split: str, captions: int = 5, **more: str) -> dict[str, Any]:
    """A picture of Karpathy's index; its captions are `<number> says <k>`, with the blanks that real ones have."""
    sentences = [
        {"tokens": ["x"], "raw": f" {number} says {k}. ", "imgid": number, "sentid": 10 * number + k}
        for k in range(captions)
    ]
    return {
        "sentids": [one["sentid"] for one in sentences],
        "imgid": number,
        "sentences": sentences,
        "split": split,
        "filename": f"{number}.jpg",
        **more,
    }


def write_flickr(data: Path, folder: str = "flickr30k/flickr30k-images") -> Path:
    """Three pictures of the test split among others; those of the other splits are not there."""
    images = [image(7, "train"), image(1, "test"), image(8, "val"), image(2, "test"), image(3, "test")]
    index = data / "flickr30k/dataset_flickr30k.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    (data / folder).mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        (data / folder / f"{number}.jpg").write_bytes(png(number))
    return index


def write_coco(data: Path, packed: bool = False) -> Path:
    """Two pictures of val2014, the first with six captions, and one of train2014, as `filepath` says."""
    images = [
        image(5, "test", 6, filepath="val2014", cocoid="1"),
        image(6, "restval", filepath="val2014"),
        image(4, "test", filepath="train2014"),
        image(9, "test", filepath="val2014"),
    ]
    index = data / "coco/dataset_coco.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps({"images": images, "dataset": "coco"}))
    for folder, numbers in (("val2014", (5, 9)), ("train2014", (4,))):
        if packed:
            write_zip(data / f"coco/{folder}.zip", [(f"{folder}/{number}.jpg", png(number)) for number in numbers])
            continue
        (data / "coco" / folder).mkdir(parents=True)
        for number in numbers:
            (data / "coco" / folder / f"{number}.jpg").write_bytes(png(number))
    return index


def write_sugar(data: Path, cases: int = 2, pictures: str = "coco/val2017") -> Path:
    """Seven files; case k of each part is about picture k."""
    folder = data / "sugar-crepe"
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        rows = {
            str(k): {
                "filename": f"{k:012d}.jpg",
                "caption": f"A {part} dog {k} bites a man. ",
                "negative_caption": f"A {part} man {k} bites a dog.",
            }
            for k in range(cases)
        }
        (folder / f"{part}.json").write_text(json.dumps(rows, indent=4))
    if pictures:
        (data / pictures).mkdir(parents=True, exist_ok=True)
        for k in range(cases):
            (data / pictures / f"{k:012d}.jpg").write_bytes(png(k))
    return folder


def case(name: str, box: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    """A case of ARO."""
    x, y, w, h = box
    return {
        "image_id": 1,
        "image_path": name,
        "bbox_x": x,
        "bbox_y": y,
        "bbox_w": w,
        "bbox_h": h,
        "true_caption": "the dog is on the bed",
        "false_caption": "the bed is on the dog",
        **more,
    }
