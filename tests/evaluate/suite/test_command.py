"""One command judges a run on sets in folders; every number again by hand."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluate.suite.conftest import write_pictures
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from toolkit.data.benchmarks import open_set
from toolkit.data.images import plain_view
from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.named import models_named
from toolkit.evaluate.suite.command import evaluate
from toolkit.evaluate.suite.embedded import Embedder
from toolkit.evaluate.suite.request import Request
from toolkit.models import Teacher

MakeRun = Callable[..., Path]
QUICK: dict[str, Any] = {
    "learning_rates": (1e-2, 1e-1), "trial_epochs": 2, "final_epochs": 3, "workers": 0, "batch_size": 4, "cost": False,
    "shots": (2,), "seeds": (0, 1),
}  # fmt: skip


def request(model: Path | str, data: Path, **more: Any) -> Request:
    """Quick, with a cache beside the data."""
    return Request(str(model), data, cache=data.parent / "cache", **QUICK | more)


def by_hand(run: Path, data: Path, who: str) -> tuple[np.ndarray, np.ndarray]:
    """(cosines [n, k], labels [n]) of a model on `colours`, picture by picture."""
    judged = models_named(str(run), which="newest", overrides=(), precision="fp32", device=torch.device("cpu"))[who]
    split = open_set("colours", data)
    heads = []
    for name in ("blue", "green", "red colour"):
        prompts = [f"a {name} picture", f"all {name}", name]
        rows = judged.encoder.encode_text(judged.encoder.tokenizer()(prompts)).double()
        mean = (rows / rows.norm(dim=1, keepdim=True)).mean(dim=0)
        heads.append(mean / mean.norm())
    views = [plain_view(split.picture(row), judged.encoder.preprocess) for row in range(len(split))]
    features = torch.cat([judged.encoder.encode_image(view[None]) for view in views]).double()
    return (features @ torch.stack(heads).T).numpy(), split.labels


def test_zero_shot_of_student_and_teacher(image_run: MakeRun, data: Path) -> None:
    """Top-1, top-5 where there are so many, recall per class, agreement, and the difference's sign."""
    run = image_run()
    results = evaluate(request(run, data, sets=("colours",)), command="dime evaluate x")
    assert results == json.loads((run / "benchmarks/results.json").read_text())
    found = results["sets"]["colours"]
    assert found["classnames"] == ["blue", "green", "red colour"]
    assert (found["group"], found["samples"], found["layout"]) == ("yours", 15, "folders")
    rows = found["tasks"]["zero_shot"]["rows"]
    answers = {}
    for who in ("student", "teacher"):
        cosines, labels = by_hand(run, data, who)
        answers[who] = cosines.argmax(axis=1)
        assert rows[who]["value"] == pytest.approx(100 * top_k_accuracy_score(labels, cosines, k=1), abs=1e-9)
        assert np.mean(rows[who]["per_class"]) == pytest.approx(
            100 * balanced_accuracy_score(labels, answers[who]), abs=1e-9
        )
        assert rows[who]["low"] <= rows[who]["value"] <= rows[who]["high"]
        assert sum(one["share"] for one in rows[who]["calibration"]["bins"]) == pytest.approx(1)
    assert rows["student"]["agreement_top1"] == pytest.approx(100 * (answers["student"] == answers["teacher"]).mean())
    gap = found["tasks"]["zero_shot"]["differences"]["teacher"]
    assert gap["value"] == pytest.approx(rows["student"]["value"] - rows["teacher"]["value"])
    assert len(found["tasks"]["zero_shot"]["pictures"]) == 8


def test_probes_both_protocols_and_shots(image_run: MakeRun, data: Path) -> None:
    """Every task has a row per model, and the few-shot value is the mean of its draws."""
    asked = ("zero_shot", "linear_probe", "linear_probe_clean", "k_shot")
    tasks = evaluate(request(image_run(), data, sets=("colours",), tasks=asked))["sets"]["colours"]["tasks"]
    assert list(tasks) == ["zero_shot", "linear_probe", "linear_probe_clean", "2_shot"]
    for name in list(tasks)[1:]:
        assert set(tasks[name]["rows"]) == {"student", "teacher"}
        assert tasks[name]["rows"]["student"]["trained_params"] == 16 * 3 + 3
    assert "TEST set" in tasks["linear_probe"]["label"] and "read once" in tasks["linear_probe_clean"]["label"]
    row = tasks["2_shot"]["rows"]["student"]
    assert row["value"] == pytest.approx(np.mean(list(row["seeds"].values())), abs=1e-9)
    assert row["std"] == pytest.approx(np.std(list(row["seeds"].values())), abs=1e-9)
    assert "2 pictures per class, mean over the draws 0, 1" in tasks["2_shot"]["label"]


def test_features_are_computed_once(image_run: MakeRun, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command encodes nothing; a picture that changed is encoded anew, and so are other weights."""
    run = image_run()
    asked = request(run, data, sets=("colours",), tasks=("zero_shot", "linear_probe"))
    first = evaluate(asked)["sets"]
    seen: list[int] = []
    usual = Teacher.encode_image

    def counted(self: Teacher, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return usual(self, images)

    monkeypatch.setattr(Teacher, "encode_image", counted)
    monkeypatch.setattr(Embedder, "_encode", Embedder._encode)
    assert evaluate(asked)["sets"] == first
    assert not seen
    picture = data / "colours/test/red/0.png"
    picture.write_bytes((data / "colours/test/blue/0.png").read_bytes())
    assert evaluate(asked)["sets"] != first
    assert sum(seen) == 2 * 15  # the test split of both models, nothing of the train split
    seen.clear()
    evaluate(replace(asked, precision="bf16", tasks=("zero_shot",)))
    assert sum(seen) == 2 * 15


def test_torn_cache_is_computed_anew(image_run: MakeRun, data: Path) -> None:
    """A file cut in half is no result and no error."""
    asked = request(image_run(), data, sets=("colours",))
    first = evaluate(asked)["sets"]
    for path in (data.parent / "cache").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert evaluate(asked)["sets"] == first


def test_what_is_missing_is_named(image_run: MakeRun, data: Path) -> None:
    """Of a group: how to get it. A set without training pictures: why. Neither is a zero."""
    results = evaluate(request(image_run(), data, tasks=("zero_shot", "linear_probe")))
    assert set(results["sets"]) == {"colours", "few"}
    assert "Source:" in results["missing"]["cifar-10"] and len(results["missing"]) == 26 + 1
    assert "none called train" in results["missing"]["few"]
    assert list(results["sets"]["few"]["tasks"]) == ["zero_shot"]
    assert results["means"] == {}


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"sets": ("cifar-10",)}, DataError, "--sets cifar-10: it is not in"),
        ({"sets": ("colour",)}, ConfigError, "no evaluation set is called 'colour'"),
        ({"sets": ("../data",)}, ConfigError, "no evaluation set is called '../data'"),
        ({"sets": ("few",), "tasks": ("linear_probe",)}, DataError, "none called train"),
        ({"sets": ("elevater",)}, DataError, "no evaluation set is in"),
        ({"tasks": ("zero_shoot",)}, ConfigError, "no task 'zero_shoot'; did you mean zero_shot"),
        ({"shots": (0,)}, ConfigError, "--shots 0"),
        ({"seeds": (1, 1)}, ConfigError, "each once"),
        ({"predictions": Path("x"), "sets": ("colours",)}, DataError, "none of colours is one of ELEVATER's 20 sets"),
        ({"trained_projection": True}, ConfigError, "--trained-projection goes with linear_probe"),
        ({"beside": ("open_clip:x",)}, ConfigError, "give name and tag"),
        ({"beside": ("open_clip:ViT-B-23/openai",)}, ConfigError, "did you mean ViT-B-32"),
        ({"model": "nowhere"}, ConfigError, "nowhere is no model"),
    ],
)
def test_mistakes(more: dict[str, Any], kind: type[Exception], words: str, image_run: MakeRun, data: Path) -> None:
    """One message each, before anything is computed."""
    asked = replace(request(image_run(), data, sets=("colours",)), **more)
    with pytest.raises(kind, match=words):
        evaluate(asked)
    assert not list(data.parent.glob("run/benchmarks/*"))


def test_folders_that_cannot_be_written(image_run: MakeRun, data: Path) -> None:
    """Said before anything is computed, as are a rate of nothing and sentences that no picture would be beside."""
    file = data.parent / "file"
    file.touch()
    run = image_run()
    for more in ({"out": file / "below"}, {"cache": file}):
        with pytest.raises(DataError, match="no folder that can be written"):
            evaluate(replace(request(run, data), **more))
    for more in ({"pictures": ("none",)}, {"tasks": ("retrieval",)}):
        with pytest.raises(ConfigError, match="--sentences shows those nearest to pictures"):
            evaluate(request(run, data, sentences=file, **more))
    with pytest.raises(ConfigError, match="above 0"):
        evaluate(request(run, data, tasks=("linear_probe",), **{"learning_rates": (0.0,)}))


def test_file_names_of_any_bytes(image_run: MakeRun, data: Path) -> None:
    """Not every name is UTF-8."""
    first = data / "colours/test/red/0.png"
    os.rename(first, os.fsencode(first.parent) + b"/caf\xe9.png")
    assert evaluate(request(image_run(), data, sets=("colours",)))["sets"]["colours"]["samples"] == 15


def test_models_beside(image_run: MakeRun, own_text_run: MakeRun, clip: str, data: Path) -> None:
    """Another run's student and an open_clip model, each with its difference to the model in question."""
    words = (str(own_text_run()), f"open_clip:{clip}/random")
    torch.manual_seed(0)
    results = evaluate(request(image_run(), data, sets=("few",), beside=words, pictures=("none",)))
    one = results["sets"]["few"]["tasks"]["zero_shot"]
    assert list(one["rows"]) == ["student", "teacher", "run", words[1]]
    assert list(one["differences"]) == ["teacher", "run", words[1]]
    assert "pictures" not in one and "worst" not in one
    assert results["models"]["student"]["text_params"] == 0 and results["models"]["run"]["text_params"] > 0


def test_trained_projection_starts_at_the_embedding(own_text_run: MakeRun, data: Path) -> None:
    """unit(features before it @ projection) is the model's embedding; more is trained than the head."""
    from toolkit.evaluate.projection import before_projection

    run = own_text_run()
    judged = models_named(str(run), which="newest", overrides=(), precision="fp32", device=torch.device("cpu"))[
        "student"
    ]
    encode, projection = before_projection(judged)
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(
        torch.nn.functional.normalize(encode(pictures) @ projection, dim=-1),
        judged.encoder.encode_image(pictures),
        atol=1e-6,
    )
    asked = request(
        run, data, sets=("colours",), tasks=("linear_probe",), trained_projection=True, out=data.parent / "out"
    )
    row = evaluate(asked)["sets"]["colours"]["tasks"]["linear_probe"]["rows"]["student"]
    assert row["trained_params"] == 16 * 3 + 3 + projection.numel()
    assert "trained projection" in row["protocol"]


def test_other_prompts_make_other_probes(image_run: MakeRun, data: Path) -> None:
    """Heads start at the prompts: with others in `classes.json` no probe of before is read."""
    asked = request(image_run(), data, sets=("colours",), tasks=("linear_probe", "k_shot"))
    evaluate(asked)
    card = {"classnames": ["sky", "banana", "car"], "templates": ["not a {}"]}
    (data / "colours/classes.json").write_text(json.dumps(card))
    found, wanted = (
        evaluate(replace(asked, cache=data.parent / where))["sets"]["colours"]["tasks"] for where in ("cache", "fresh")
    )
    for task in (*found.values(), *wanted.values()):
        for row in task["rows"].values():
            row.pop("seconds")
    assert found == wanted


def test_another_vocabulary_is_another_model(small_scene_run: Path, tmp_path: Path) -> None:
    """Its name is a path; what lies there decides the tokens."""
    from toolkit.playground.prepare import TEACHER

    teacher = tmp_path / "teacher"
    shutil.copytree(TEACHER, teacher)
    again = tmp_path / "again"
    shutil.copytree(TEACHER, again)
    vocabulary = again / json.loads((again / "student.json").read_text())["tokenizer"]
    first, moved = (teacher_hash(small_scene_run, folder) for folder in (teacher, again))
    vocabulary.write_bytes(vocabulary.read_bytes() + b" ")
    assert first == moved != teacher_hash(small_scene_run, again)


def teacher_hash(run: Path, folder: Path) -> str:
    """Of the model in a folder, as the teacher of a run."""
    asked = [f"teacher.name={folder}"]
    judged = models_named(str(run), which="newest", overrides=asked, precision="fp32", device=torch.device("cpu"))
    return judged["teacher"].sha256


def test_other_folders_beside(image_run: MakeRun, data: Path) -> None:
    """Captions and a set that has no test pictures are no reason to judge nothing; asked for by name they are one."""
    write_pictures(data / "unsplit/train", 1, 3)
    for name in ("paired/x.png", "coco/train2014/x.png", "coco/val2014/x.png"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes((data / "few/test/red/0.png").read_bytes())
    with tarfile.open(data / "paired/0.tar", "w") as tar:
        tar.add(data / "paired/x.png", "0.png")
        (data / "0.txt").write_text("a red one")
        tar.add(data / "0.txt", "0.txt")
    asked = request(image_run(), data)
    results = evaluate(asked)
    assert set(results["sets"]) == {"colours", "few"}
    assert "has the splits train and no test split" in results["missing"]["unsplit"]
    with pytest.raises(DataError, match="has the splits train and no test split"):
        evaluate(replace(asked, sets=("unsplit",)))


def test_too_few_pictures_and_torn_copies_are_told_before(image_run: MakeRun, data: Path) -> None:
    """They cost their own tasks, not those of the other sets; asked for by name they are an error."""
    write_pictures(data / "sparse/train", 1, 3)
    write_pictures(data / "sparse/test", 1, 3)
    torn = data / "classification/cifar_10_20211007"
    torn.mkdir(parents=True)
    (torn / "test.txt").write_text("")
    asked = request(image_run(), data, tasks=("zero_shot", "k_shot"))
    results = evaluate(asked)
    assert list(results["sets"]["colours"]["tasks"]) == ["zero_shot", "2_shot"]
    assert list(results["sets"]["sparse"]["tasks"]) == ["zero_shot"]
    assert "3 classes have fewer, class 0 got 1 of its 1" in results["missing"]["sparse"]
    assert "labels.txt cannot be read" in results["missing"]["cifar-10"]
    for name, words in (("sparse", "no 2_shot: few-shot: 2 pictures"), ("cifar10", "labels.txt cannot be read")):
        with pytest.raises(DataError, match=f"--sets .*{words}"):
            evaluate(replace(asked, sets=(name,)))


def test_training_pictures_are_counted(image_run: MakeRun, data: Path) -> None:
    """A linear probe on another number of them is not the protocol's."""
    from set_copies import ELEVATER, write_coco

    known = ELEVATER["kitti-distance"]
    folder = data / "classification" / known.folder
    write_coco(folder, known._replace(index="train_meta.json", archive="train_images.zip"), [0, 1, 2, 3] * 4)
    write_coco(folder, known, [0, 1, 2, 3])
    asked = request(image_run(), data, sets=("kitti-distance",), tasks=("linear_probe",))
    assert evaluate(asked)["sets"]["kitti-distance"]["problems"] == [
        "test: 4 pictures, the protocol has 711",
        "train: 16 pictures, the protocol has 6,347",
    ]
