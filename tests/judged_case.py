"""A results.json as a benchmark writes it, with numbers that were invented here and nowhere measured."""

import base64
import io
import random
from typing import Any

from PIL import Image

ROBUST = {
    "imagenetv2": "ImageNetV2",
    "imagenet-r": "ImageNet-R",
    "imagenet-a": "ImageNet-A",
    "imagenet-sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet",
}
ELEVATER = {
    "caltech-101": "Caltech-101",
    "cifar-10": "CIFAR-10",
    "cifar-100": "CIFAR-100",
    "country211": "Country211",
    "dtd": "Describable Textures",
    "eurosat_clip": "EuroSAT",
    "fer-2013": "FER 2013",
    "fgvc-aircraft-2013b-variants102": "FGVC Aircraft (variants)",
    "food-101": "Food-101",
    "gtsrb": "GTSRB",
    "hateful-memes": "Hateful Memes",
    "kitti-distance": "KITTI Distance",
    "mnist": "MNIST",
    "oxford-flower-102": "Oxford Flowers 102",
    "oxford-iiit-pets": "Oxford-IIIT Pets",
    "patch-camelyon": "PatchCamelyon",
    "rendered-sst2": "Rendered SST-2",
    "resisc45_clip": "RESISC45",
    "stanford-cars": "Stanford Cars",
    "voc-2007-classification": "VOC 2007",
}
METRICS = {"voc-2007-classification": "map_11point", "hateful-memes": "roc_auc", "caltech-101": "mean_per_class"}
BASELINE = "open_clip:ViT-B-32-quickgelu/openai"
STRENGTH = {"student": 0.80, "teacher": 1.0, BASELINE: 0.86}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog"]


def png(dice: random.Random, size: int = 24) -> str:
    """A little square of two colours, base64."""
    picture = Image.new("RGB", (size, size), tuple(dice.randrange(256) for _ in range(3)))
    picture.paste(tuple(dice.randrange(256) for _ in range(3)), (size // 4, size // 4, size // 2, size // 2))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def picture(dice: random.Random, truth: str) -> dict[str, Any]:
    wrong = next(name for name in CLASSES if name != truth)
    return {
        "png": png(dice),
        "truth": truth,
        "student": [[wrong, 0.61], [truth, 0.3], ["bird", 0.02]],
        "teacher": [[truth, 0.9], [wrong, 0.05], ["bird", 0.01]],
    }


def row(dice: random.Random, value: float, classes: int) -> dict[str, Any]:
    bins = []
    for tenth in range(1, 10):
        confidence = tenth / 10 + 0.05
        bins.append({"confidence": confidence, "accuracy": confidence * value / 100 + 0.1, "share": 1 / 9})
    return {
        "value": value,
        "low": value - 1.1,
        "high": value + 1.1,
        "top5": min(99.0, value + 15),
        "mean_cosine": 0.8125,
        "per_class": [None if number == 1 else dice.uniform(5, 95) for number in range(classes)],
        "calibration": {"ece": round(dice.uniform(1, 9), 2), "bins": bins},
    }


def judged_set(dice: random.Random, name: str, title: str, group: str, models: list[str]) -> dict[str, Any]:
    base = dice.uniform(40, 90)
    rows = {model: row(dice, base * STRENGTH[model], len(CLASSES)) for model in models}
    differences = {
        model: {"value": rows["student"]["value"] - rows[model]["value"], "low": -9.0, "high": -0.4, "p_value": 0.0004}
        for model in models[1:]
    }
    task = {"label": "18 templates", "rows": rows, "differences": differences}
    return {
        "title": title,
        "group": group,
        "metric": METRICS.get(name, "top1"),
        "samples": 10_000,
        "classes": len(CLASSES),
        "classnames": CLASSES,
        "layout": "elevater",
        "problems": [],
        "tasks": {"zero_shot": task},
    }


def score(rows: list[float]) -> dict[str, float]:
    value = sum(rows) / len(rows)
    return {"value": value, "low": value - 0.4, "high": value + 0.4}


def means(sets: dict[str, Any], models: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group, size in (("elevater", 20), ("robustness", 5)):
        tasks = [one["tasks"]["zero_shot"]["rows"] for one in sets.values() if one["group"] == group]
        if len(tasks) == size:
            rows = {model: score([task[model]["value"] for task in tasks]) for model in models}
            difference = {"value": -7.7, "low": -8.8, "high": -6.6, "p_value": 0.002}
            found[group] = {"sets": size, "rows": rows, "differences": {"teacher": difference}}
    return {"zero_shot": found} if found else {}


def cost(parameters: int) -> dict[str, Any]:
    ms = parameters / 9e6
    return {
        "image_bytes": 4 * parameters,
        "text_bytes": 250_000_000,
        "image_ms": {"1": {"p50": ms, "p95": 1.2 * ms, "runs": 50}, "32": {"p50": 20 * ms, "p95": 22 * ms, "runs": 50}},
        "text_ms": {"1": {"p50": 3.1, "p95": 3.4, "runs": 50}},
        "device": "CPU, 2 threads",
        "precision": "fp32",
    }


def text_only(cosine: float) -> dict[str, Any]:
    whole = {"mean_cosine": cosine, "indistinguishable": 0.5, "told_apart": 3.0}
    return {**whole, "parts": {"add_att": whole, "swap_obj": whole}}


def results(
    names: list[str], *, seed: int = 0, models: tuple[str, ...] = ("student", "teacher", BASELINE)
) -> dict[str, Any]:
    """Everything that the schema has, of the named sets."""
    dice = random.Random(seed)
    titles = {"imagenet-1k": "ImageNet-1K"} | ELEVATER | ROBUST
    groups = {"imagenet-1k": "imagenet"} | dict.fromkeys(ELEVATER, "elevater") | dict.fromkeys(ROBUST, "robustness")
    asked = [*models]
    sets = {name: judged_set(dice, name, titles[name], groups[name], asked) for name in names}
    for place, one in enumerate(sets.values()):
        tasks = one["tasks"]
        tasks["zero_shot"]["pictures"] = [picture(dice, dice.choice(CLASSES)) for _ in range(2)]
        if place:
            continue
        tasks["zero_shot"]["worst"] = [
            {
                "class": 3,
                "name": "cat",
                "recall": 12.0,
                "teacher_recall": 40.0,
                "confused": [["dog", 55.0], ["deer", 20.0]],
                "pictures": [picture(dice, "cat") for _ in range(2)],
            }
        ]
        trained = {"learning_rate": 0.003, "weight_decay": 1e-6, "epoch": 37, "trained_params": 5130, "seconds": 61.0}
        probe = {model: row(dice, 60 + 30 * STRENGTH[model], len(CLASSES)) | trained for model in asked}
        tasks["linear_probe"] = {"label": "ELEVATER's protocol, best test epoch", "rows": probe, "differences": {}}
        for shots, gain in ((5, 6.0), (20, 9.0)):
            few = {
                model: {"value": 55 * STRENGTH[model] + gain, "seeds": {"0": 1.0, "1": 2.0, "2": 3.0}, "std": 0.42}
                for model in asked
            }
            tasks[f"{shots}_shot"] = {"label": f"{shots} pictures per class", "rows": few, "differences": {}}
    recalls = [f"{way}_r{rank}" for way in ("image_to_text", "text_to_image") for rank in (1, 5, 10)]
    sizes = {"student": 88_045_824, "teacher": 303_966_208, BASELINE: 87_849_216}
    return {
        "format": 1,
        "units": "percent",
        "model": "student",
        "command": "dime evaluate runs/x --tasks zero_shot",
        "written_at": "2026-01-02T03:04:05",
        "seconds": 125.0,
        "data": "data",
        "versions": {"torch": "2.15.0"},
        "machine": {"cpu": "invented"},
        "git_commit": None,
        "models": {
            model: {
                "what": f"invented weights of {model}",
                "sha256": f"{number}f" * 32,
                "embed_dim": 512,
                "image_params": sizes[model],
                "text_params": 63_428_096,
                "image_size": 224,
                "cost": cost(sizes[model]),
            }
            for number, model in enumerate(asked)
        },
        "sets": sets,
        "retrieval": {
            "flickr30k": {
                "title": "Flickr30k, Karpathy's test split",
                "samples": 1000,
                "captions": 5000,
                "problems": [],
                "rows": {
                    model: {metric: 70.0 * STRENGTH[model] for metric in recalls}
                    | {"intervals": {"image_to_text_r1": [70.0 * STRENGTH[model] - 2.5, 70.0 * STRENGTH[model] + 2.5]}}
                    for model in asked
                },
            }
        },
        "compositionality": {
            "sugar-crepe": {
                "title": "SugarCrepe",
                "samples": 7511,
                "pictures": True,
                "problems": [],
                "rows": {
                    **{
                        model: {
                            "accuracy": 66.25,
                            "accuracy_micro": 68.0,
                            "parts": {"add_att": 71.5, "swap_obj": 61.0},
                            "text_only": text_only(0.91),
                        }
                        for model in asked
                    },
                    "bag of words": {"text_only": text_only(0.77)},
                },
            }
        },
        "means": means(sets, asked),
        "nearest_sentences": [
            {
                "png": png(dice),
                "student": [["a small square", 0.31], ["a red thing", 0.3], ["a photo", 0.2]],
                "teacher": [["a square in a square", 0.35], ["a flag", 0.3], ["a stamp", 0.2]],
            }
        ],
        "missing": {},
    }
