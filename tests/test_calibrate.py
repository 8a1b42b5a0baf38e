"""`dime calibrate`: entropies of a brute force, proposals that are as sharp as the reference, mistakes in one line."""

import json
import math
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from toolkit.calibrate import sample as sampling
from toolkit.calibrate import sharpness as searching
from toolkit.calibrate.measure import GRID, measure
from toolkit.calibrate.page import write_page
from toolkit.calibrate.sample import Sample, draw_sample
from toolkit.calibrate.sharpness import sharpness, temperature_with
from toolkit.cli import dispatch
from toolkit.config import FIELD_PRESETS, Data, Run, Student, Teacher
from toolkit.config.losses import PVL, VL, Feature
from toolkit.data.build import Streams, build_sources
from toolkit.embed import prepare_stores
from toolkit.embeddings import unit
from toolkit.errors import ConfigError, DataError
from toolkit.models import build_teacher
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate") / "world"
    return write_world(folder, images=60, texts=50, test_images_per_class=1, test_pairs=20)


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Run:
    """The embedded teacher on 40 pictures and 40 sentences."""
    return Run(
        out_dir=str(tmp_path / "run"),
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="toolkit.playground.towers:scene_student"),
        losses={**FIELD_PRESETS["dimefm"], "feature": Feature()},
        data=Data(images=str(world / "train_images"), texts=str(world / "train_texts"), global_batch_size=40),
        precision="fp32",
        workers=0,
    )


@pytest.fixture
def recipe(run: Run, tmp_path: Path) -> Path:
    """The run as a file that a user has."""
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent(
            f"""
            from toolkit.config import *
            from toolkit.config.losses import PVL, VL, Feature, UDist

            DEFAULTS = {run!r}


            def main(overrides):
                raise SystemExit("a recipe is not run")
            """
        )
    )
    return path


def by_hand(rows: Tensor, columns: Tensor, scale: float) -> tuple[float, float]:
    """Entropy and top-1 probability, row by row in float64."""
    entropies, firsts = [], []
    for row in rows.double():
        p = torch.softmax(scale * columns.double() @ row, 0).tolist()
        entropies.append(-sum(x * math.log(x) for x in p if x > 0))
        firsts.append(max(p))
    return sum(entropies) / len(rows), sum(firsts) / len(rows)


def test_sharpness_is_that_of_a_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one-hot to flat, in bands that do not divide the rows."""
    monkeypatch.setattr(searching, "BAND", 7 * 11)
    rows, columns = unit(torch.randn(23, 5)), unit(torch.randn(11, 5))
    scales = [2000.0, 100.0, 31.4, 1.0, 0.01]
    for scale, found in zip(scales, sharpness(rows, columns, scales), strict=True):
        assert (found.entropy, found.top1) == pytest.approx(by_hand(rows, columns, scale), abs=2e-4)
        assert found.matches == pytest.approx(math.exp(found.entropy))
    assert found.entropy == pytest.approx(math.log(11), abs=1e-3)


def test_a_search_ends_at_the_entropy_or_at_an_end() -> None:
    rows = unit(torch.randn(50, 8))
    temperature, found = temperature_with(1.5, rows, rows, 100.0)
    assert by_hand(rows, rows, 100 / temperature)[0] == pytest.approx(1.5, abs=1e-3)
    assert found.entropy == pytest.approx(1.5, abs=1e-3)
    assert temperature_with(9.0, rows, rows, 100.0)[0] == searching.RANGE[1]  # more than ln 50
    assert temperature_with(-1.0, rows, rows, 100.0)[0] == searching.RANGE[0]


def test_the_sample_is_the_runs_first_batch(run: Run) -> None:
    teacher = build_teacher(run.teacher, run.precision, CPU)
    found = draw_sample(run, teacher, None)
    from toolkit.config import batch_arithmetic

    sources = build_sources(
        run.data, batch_arithmetic(run, 1), student=teacher.preprocess, teachers={"teacher": teacher.preprocess},
        tokenizers={"teacher_tokens": teacher.tokenizer()}, seed=run.seed,
    )  # fmt: skip
    first = Streams(sources, rank=0, world=1, first_step=0, workers=0).next()
    assert torch.equal(found.images, teacher.encode_image(first["images"].tensors["teacher_images"]))
    assert found.sentences is not None
    assert torch.equal(found.sentences, teacher.encode_text(first["texts"].tensors["teacher_tokens"]))


def test_a_complete_store_is_read_and_an_incomplete_one_is_not(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written either way; 13 rows at a time, and more than there are."""
    monkeypatch.setattr(sampling, "ROWS", 13)
    stored = replace(run, teacher=replace(run.teacher, store=str(tmp_path / "store")))
    teacher = build_teacher(run.teacher, run.precision, CPU)
    live = draw_sample(run, teacher, 1000)
    assert (len(live.images), len(live.sentences)) == (60, 50)
    assert "1,000 samples of data.texts were asked for, it holds 50" in " ".join(live.notes)
    missing = draw_sample(stored, teacher, 20)
    assert "lacks 1 of 1 shards" in " ".join(missing.notes) and not (tmp_path / "store").exists()
    prepare_stores(stored, {"teacher": teacher}, reads_text=True)
    capsys.readouterr()
    found = draw_sample(stored, teacher, 1000)
    assert "embedding" not in capsys.readouterr().out
    torch.testing.assert_close(found.images, live.images, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.sentences, live.sentences, rtol=0, atol=1e-5)


def test_the_command_prints_a_table_a_page_and_json(
    recipe: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every number of the JSON against the teacher's embeddings; the proposal is as sharp as the reference."""
    words = ["--local_rank=0", "calibrate", str(recipe), "losses.udist.scale=50", "--json", "losses.pvl.temperature=2"]
    dispatch(words)
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    page = tmp_path / "run" / "calibration.html"
    assert found["page"] == str(page) and f"plot: {page}" in lines
    html = page.read_text()
    assert html.count("<svg") == 2 and "<script" not in html and "http" not in html.replace("http-equiv", "")

    teacher = build_teacher(run.teacher, run.precision, CPU)
    sample = draw_sample(run, teacher, None)
    v, t, own = sample.images, sample.sentences, float(teacher.logit_scale)
    assert t is not None and (found["images"], found["sentences"], found["global_batch_size"]) == (40, 40, 40)
    pairs = {"image_to_text": (v, t), "text_to_image": (t, v), "image_to_image": (v, v)}
    for curve, scale in zip(found["curves"], (100.0, own), strict=True):
        assert curve["scale"] == pytest.approx(scale)
        for pair, matrices in pairs.items():
            for k in (0, 10, len(GRID) - 1):
                entropy, top1 = by_hand(*matrices, scale / found["temperatures"][k])
                assert curve[pair][k]["entropy"] == pytest.approx(entropy, abs=2e-4)
                assert curve[pair][k]["top1"] == pytest.approx(top1, abs=2e-4)
            assert [x["entropy"] for x in curve[pair]] == sorted(x["entropy"] for x in curve[pair])
    reference = (by_hand(v, t, own)[0] + by_hand(t, v, own)[0]) / 2
    assert found["reference"]["entropy"] == pytest.approx(reference, abs=1e-4)
    assert found["terms"]["vl"]["now"]["image_to_text"]["entropy"] == pytest.approx(by_hand(v, t, 100)[0], abs=1e-4)
    assert found["terms"]["pvl"]["now"]["image_to_image"]["entropy"] == pytest.approx(by_hand(v, v, 50)[0], abs=1e-4)
    assert found["overrides"][0].startswith("losses.pvl.temperature=") and any("Proposal:" in line for line in lines)
    for override, scale in zip(found["overrides"], (100, 50), strict=True):
        temperature = float(override.split("=")[1])
        assert by_hand(v, v, scale / temperature)[0] == pytest.approx(reference, abs=1e-3)
    assert any("losses.vl.temperature=3.18" in note for note in found["notes"])
    assert any(note.endswith("kind: feature.") for note in found["notes"])


def test_a_small_sample_is_warned_about_and_out_may_be_a_file(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(["calibrate", str(recipe), "--samples", "30", "--out", str(tmp_path / "a/b.html")])
    out = capsys.readouterr().out
    assert "Warning: the sample has 30 images and a step of the run 40" in out and (tmp_path / "a/b.html").is_file()


def test_without_sentences_or_within_no_range_nothing_is_proposed(run: Run, tmp_path: Path) -> None:
    """The numbers are still shown."""
    alone = replace(run, losses={"pvl": PVL()}, data=replace(run.data, texts=""))
    found = measure(alone, Sample(unit(torch.randn(40, 8)), None, []), "some", None)
    assert found.overrides == [] and found.terms[0].now and "no sentences" in " ".join(found.notes)
    assert "Nothing to propose" in write_page(found, tmp_path / "a.html").read_text()
    same = torch.ones(40, 4) / 2  # rows that cannot be told apart: ln 40 at any temperature
    found = measure(replace(run, losses={"v": VL(), "p": PVL()}), Sample(same, same.roll(1, 0), []), "some", None)
    assert found.overrides == [] and "No proposal." in " ".join(found.notes)
    assert len(found.curves) == 1 and found.own_scale is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "found nothing there; give a Python file"),
        ("x = 1", "has no DEFAULTS = config.Run"),
        ("from toolkit.config import Run\nDEFAULTS = Run()", r"has no main\(overrides\)"),
        ("import nowhere_to_be_found", r"failed to import \(ModuleNotFoundError: No module named 'nowhere_to"),
        ("raise SystemExit(3)", "failed to import"),
    ],
)
def test_what_is_no_recipe(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        dispatch(["calibrate", str(path)])


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["data.images=nowhere"], DataError, "data.images=nowhere: 1 of 1 shards do not exist.*must have run first"),
        (["--samples", "1"], ConfigError, "must be at least 2"),
        (["losses.pvl.temperatur=2"], ConfigError, "did you mean losses.pvl.temperature"),
        (["dry_run=true"], ConfigError, "no dry run"),
        (["teacher.name=''", "losses.vl.weight=0"], ConfigError, "needs a teacher"),
    ],
)
def test_settings_that_cannot_be(recipe: Path, words: list[str], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dispatch(["calibrate", str(recipe), *words])


def test_several_processes_are_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        dispatch(["calibrate", str(recipe)])
