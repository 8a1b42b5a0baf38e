"""Fine-tuning, captions, exports as models, and results that add up."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_copies import write_sugar
from export.conftest import save_model
from PIL import Image

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.suite import command
from toolkit.evaluate.suite.command import evaluate
from toolkit.evaluate.suite.request import Request
from toolkit.models.build import build_model

MakeRun = Callable[..., Path]
QUICK: dict[str, Any] = {
    "learning_rates": (1e-2,), "trial_epochs": 1, "final_epochs": 2, "workers": 0, "batch_size": 4, "cost": False,
    "shots": (2,), "seeds": (0,),
}  # fmt: skip


def request(model: Path | str, data: Path, **more: Any) -> Request:
    """Quick, with a cache beside the data."""
    return Request(str(model), data, cache=data.parent / "cache", **QUICK | more)


def write_captions(folder: Path) -> list[str]:
    """Three pictures, one of them with two captions."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (36, 36, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    captions = ["a.png\tone thing", "a.png\tthe same thing", "b.png\tanother", "c.png\tlast"]
    (folder / "captions.tsv").write_text("\n".join(captions))
    return captions


def test_fine_tuning_from_the_command(image_run: MakeRun, data: Path) -> None:
    """Tower and head train; the second command reads it from the disk."""
    asked = request(image_run(), data, sets=("colours",), tasks=("fine_tune", "fine_tune_clean", "k_shot_fine_tune"))
    tasks = evaluate(asked)["sets"]["colours"]["tasks"]
    assert list(tasks) == ["fine_tune", "fine_tune_clean", "2_shot_fine_tune"]
    for who in ("student", "teacher"):
        assert tasks["fine_tune"]["rows"][who]["trained_params"] > 16 * 3 + 3
    assert "TEST set" in tasks["fine_tune"]["label"] and "read once" in tasks["fine_tune_clean"]["label"]
    again = evaluate(asked)["sets"]["colours"]["tasks"]
    assert again == tasks  # the seconds too
    with pytest.raises(ConfigError, match="learning-rates"):
        evaluate(replace(asked, learning_rates=(-1.0,)))


def test_captions_from_the_command(image_run: MakeRun, data: Path) -> None:
    """Retrieval on a folder with captions, SugarCrepe without pictures, each routed to its task."""
    write_captions(data / "mine")
    write_sugar(data, pictures="")
    asked = request(image_run(), data, tasks=("retrieval", "compositionality"))
    results = evaluate(asked)
    assert results["sets"] == {}
    assert (results["retrieval"]["mine"]["samples"], results["retrieval"]["mine"]["captions"]) == (3, 4)
    assert {"image_to_text_r1", "text_to_image_r10"} < set(results["retrieval"]["mine"]["rows"]["teacher"])
    crepe = results["compositionality"]["sugar-crepe"]
    assert not crepe["pictures"]
    assert crepe["rows"]["student"] == crepe["rows"]["teacher"]  # the student borrows its words
    assert {"coco", "flickr30k"} < set(results["missing"])
    named = evaluate(replace(asked, tasks=("retrieval", "zero_shot"), sets=("mine", "few")))
    assert (list(named["retrieval"]), list(named["sets"])) == (["mine"], ["few"])
    for sets, tasks, words in (
        (("mine",), ("zero_shot",), "--sets mine is for --tasks retrieval"),
        (("few",), ("retrieval",), "--sets few is for --tasks zero_shot"),
        (("few",), ("zero_shot", "retrieval"), "names nothing for --tasks retrieval"),
        (("sugar-crepe",), ("retrieval",), "is for --tasks compositionality"),
    ):
        with pytest.raises(ConfigError, match=words):
            evaluate(replace(asked, tasks=tasks, sets=sets))


def test_results_add_up(image_run: MakeRun, data: Path) -> None:
    """Tasks and sets of an earlier command stay; with other weights nothing does."""
    run = image_run()
    asked = request(run, data, sets=("colours",))
    first = evaluate(asked)["sets"]["colours"]["tasks"]["zero_shot"]
    evaluate(replace(asked, tasks=("linear_probe",)))
    both = evaluate(replace(asked, sets=("few",)))["sets"]
    assert list(both["colours"]["tasks"]) == ["zero_shot", "linear_probe"] and list(both["few"]["tasks"]) == [
        "zero_shot"
    ]
    assert both["colours"]["tasks"]["zero_shot"] == first
    other = evaluate(replace(asked, sets=("few",), precision="bf16"))["sets"]
    assert list(other) == ["few"]


def test_a_second_command_loses_nothing_of_the_first(
    image_run: MakeRun, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs and sentences stay where the second asks for neither; pictures go where it forbids them."""
    (data.parent / "words.txt").write_text("a red one\na green one\na blue one\n")
    asked = request(image_run(), data, sets=("colours",))
    monkeypatch.setattr(command, "costs_of", lambda models, report: {who: {"image_bytes": 1} for who in models})
    first = evaluate(replace(asked, cost=True, sentences=data.parent / "words.txt"))
    for _ in range(2):
        second = evaluate(replace(asked, sets=("few",)))
    assert second["models"] == first["models"]
    assert second["nearest_sentences"] == first["nearest_sentences"]
    hidden = evaluate(replace(asked, sets=("few",), pictures=("none",)))
    assert "png" not in json.dumps(hidden) and list(hidden["sets"]) == ["colours", "few"]


def test_results_of_other_prompts_or_another_metric_do_not_add_up(image_run: MakeRun, data: Path) -> None:
    """A linear probe that started elsewhere is none of these results."""
    asked = request(image_run(), data, sets=("colours",), tasks=("linear_probe",))
    for card in ({"metric": "mean-per-class"}, {"templates": ["not a {}"]}):
        (data / "colours/classes.json").write_text("{}")
        evaluate(asked)
        (data / "colours/classes.json").write_text(json.dumps(card))
        assert list(evaluate(replace(asked, tasks=("zero_shot",)))["sets"]["colours"]["tasks"]) == ["zero_shot"]


def test_results_with_another_teachers_sentences_do_not_add_up(image_run: MakeRun, clip: str, data: Path) -> None:
    """The student's pictures are the same, its heads are not."""
    asked = request(image_run(), data, sets=("colours",))
    evaluate(asked)
    teacher = save_model(build_model(clip, {}, embed_dim=None, text_tower=True, asked_by="x"), {}, True, data / "../t2")
    other = evaluate(replace(asked, sets=("few",), overrides=(f"teacher.name={teacher}",)))
    assert list(other["sets"]) == ["few"]


def test_pictures_of_an_earlier_command_may_not_be_shown_either(image_run: MakeRun, data: Path) -> None:
    """--pictures is about the file that is written."""
    asked = request(image_run(), data, sets=("colours",))
    assert "worst" in evaluate(asked)["sets"]["colours"]["tasks"]["zero_shot"]
    hidden = replace(asked, tasks=("linear_probe",), pictures=("none",))
    assert not {"pictures", "worst"} & set(evaluate(hidden)["sets"]["colours"]["tasks"]["zero_shot"])


def test_an_export_as_the_model(image_run: MakeRun, data: Path) -> None:
    """ONNX gives the run's answers, and cannot be fine-tuned."""
    from toolkit.export.command import export_run

    run = image_run()
    export_run(run, "onnx", data.parent / "onnx")
    asked = request(run, data, sets=("colours",))
    wanted = evaluate(asked)["sets"]["colours"]["tasks"]["zero_shot"]["rows"]["student"]
    found = evaluate(replace(asked, model=str(data.parent / "onnx")))
    row = found["sets"]["colours"]["tasks"]["zero_shot"]["rows"]["student"]
    assert row["value"] == wanted["value"] and row["per_class"] == wanted["per_class"]
    assert json.loads((data.parent / "onnx/benchmarks/results.json").read_text()) == found
    with pytest.raises(ConfigError, match="fine-tuning needs a torch module"):
        evaluate(replace(asked, model=str(data.parent / "onnx"), tasks=("fine_tune",)))
    with pytest.raises(ConfigError, match="does not go with the export"):
        evaluate(replace(asked, model=str(data.parent / "onnx"), checkpoint="best"))


def test_nearest_sentences(image_run: MakeRun, data: Path) -> None:
    """Of the first set whose pictures may be shown; three each, the nearest first."""
    (data.parent / "words.txt").write_text("a red one\na green one\n\na blue one\nsomething\na red one\n")
    asked = request(image_run(), data, sets=("colours", "few"), sentences=data.parent / "words.txt", pictures=("few",))
    found = evaluate(asked)["nearest_sentences"]
    assert len(found) == 6
    for entry in found:
        for who in ("student", "teacher"):
            cosines = [value for _, value in entry[who]]
            assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)
    (data.parent / "words.txt").write_text("one\n")
    with pytest.raises(DataError, match="holds 1 sentences"):
        evaluate(asked)


def test_results_of_other_weights_are_set_aside(image_run: MakeRun, data: Path) -> None:
    """Neither they nor a torn file are written over."""
    run = image_run()
    asked = request(run, data, sets=("few",), out=data.parent / "out")
    first = evaluate(asked)
    evaluate(replace(asked, precision="bf16"))
    kept = data.parent / f"out/results.{first['models']['student']['sha256'][:12]}.json"
    assert json.loads(kept.read_text()) == first
    (data.parent / "out/results.json").write_text('{"format"')
    evaluate(asked)
    assert (data.parent / "out/results.unreadable.json").read_text() == '{"format"'


def test_other_training_pictures_or_settings(image_run: MakeRun, data: Path) -> None:
    """What was trained on pictures that are gone does not stay; what was searched otherwise says how."""
    asked = request(image_run(), data, sets=("colours",), tasks=("zero_shot", "linear_probe"))
    tasks = evaluate(asked)["sets"]["colours"]["tasks"]
    assert tasks["linear_probe"]["settings"]["learning_rates"] == [1e-2] and "settings" not in tasks["zero_shot"]
    (data / "colours/train/red/0.png").unlink()
    later = evaluate(replace(asked, tasks=("k_shot",)))["sets"]["colours"]["tasks"]
    assert list(later) == ["zero_shot", "2_shot"]


def test_a_typo_in_pictures(image_run: MakeRun, data: Path) -> None:
    """A set that is not judged."""
    with pytest.raises(ConfigError, match="--pictures colors: no such set is judged; did you mean colours"):
        evaluate(request(image_run(), data, sets=("colours",), pictures=("colors",)))
