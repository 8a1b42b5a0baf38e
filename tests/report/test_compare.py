"""Several runs side by side: what is compared, and what is marked instead."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from judged_case import ROBUST, results

from toolkit.cli import dispatch
from toolkit.errors import ConfigError, DataError
from toolkit.report import write_comparison
from toolkit.report.compare_files import unique_names
from toolkit.report.compare_runs import flat

SETS = ["imagenet-1k", *ROBUST]


def make(folder: Path, *, seed: int, loss: bool = False, lr: float = 0.1, judged: dict[str, Any] | None = None) -> Path:
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: {seed}\noptim: {{lr: {lr}, name: adamw}}\nlosses: {{}}\n")
    if judged is not None:
        (folder / "benchmarks/results.json").write_text(json.dumps(judged))
    if loss:
        lines = [{"step": step, "train/loss": 2.0 / step, "speed/images_per_second": 9.0} for step in range(1, 9)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    top1 = {"student": {"top1": 50.0 + seed}}
    sets = {"scenes": {"kind": "classification", "samples": 100 + seed, "rows": top1}}
    (folder / "evaluation.json").write_text(json.dumps({"sets": sets}))
    (folder / "report.html").write_text("its own")
    return folder


def own_sha(content: dict[str, Any], letter: str) -> dict[str, Any]:
    content["models"]["student"]["sha256"] = letter * 64
    return content


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """Two runs whose teacher is the same; the second judged ImageNet-A with fewer pictures and ObjectNet with other prompts."""
    home = tmp_path_factory.mktemp("compare")
    one, two = own_sha(results(SETS, seed=0), "a"), own_sha(results(SETS, seed=1), "b")
    two["sets"]["imagenet-a"]["samples"] = 500
    two["sets"]["objectnet"]["tasks"]["zero_shot"]["label"] = "80 templates"
    make(home / "x/run", seed=0, loss=True, judged=one)
    make(home / "y/run", seed=1, loss=True, lr=0.2, judged=two)
    path = write_comparison([home / "x/run", home / "y/run"], None)
    return home, path.read_text(encoding="utf-8"), json.loads((path.parent / "comparison.json").read_text())


def test_values_stand_under_unique_names_and_the_shared_teacher_once(
    compared: tuple[Path, str, dict[str, Any]],
) -> None:
    home, html, content = compared
    assert list(content["models"]) == ["x/run", "y/run", "teacher", "open_clip:ViT-B-32-quickgelu/openai"]
    for seed, name in enumerate(("x/run", "y/run")):
        value = results(SETS, seed=seed)["sets"]["imagenet-r"]["tasks"]["zero_shot"]["rows"]["student"]["value"]
        assert content["tasks"]["zero_shot"]["imagenet-r"]["values"][name]["value"] == pytest.approx(value)
        assert f">{value:.1f}<small>[{value - 1.1:.1f}, {value + 1.1:.1f}]" in html
    assert (home / "x/run/report.html").read_text() == "its own" and not (home / "y/run/comparison.html").exists()
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")


def row_of(html: str, title: str) -> str:
    """The first table row whose head begins with `title`."""
    found = re.search(rf'<tr[^>]*>\s*<th scope="row">{re.escape(title)}<.*?</tr>', html, re.DOTALL)
    assert found, title
    return found[0]


def test_what_was_judged_differently_is_marked_unranked_and_in_no_plot(
    compared: tuple[Path, str, dict[str, Any]],
) -> None:
    _, html, content = compared
    judged = content["tasks"]["zero_shot"]
    assert not judged["imagenet-a"]["judged_alike"] and not judged["objectnet"]["judged_alike"]
    assert judged["imagenet-r"]["judged_alike"]
    shared = "x/run, teacher and open_clip:ViT-B-32-quickgelu/openai"
    assert f"ImageNet-A: judged differently: {shared} 10,000 pictures; y/run 500 pictures." in html
    assert f"ObjectNet: judged differently: {shared} 18 templates; y/run 80 templates." in html
    for title in ("ImageNet-A", "ObjectNet", "scenes"):
        assert "judged differently" in row_of(html, title)
    for title, ranked in (("ImageNet-A", 0), ("ObjectNet", 0), ("ImageNet-R", 1), ("ImageNet-1K", 1)):
        assert row_of(html, title).count('class="best') == ranked, title
    mean = row_of(html, "Mean of robustness sets")
    assert "holds sets judged differently" in mean and 'class="best' not in mean
    assert "left out of all plots: ImageNet-A and ObjectNet" in html
    drawn = " ".join(re.findall(r'role="img" aria-label="([^"]+)"', html))
    assert "ImageNet-R against" in drawn and "ImageNet-A against" not in drawn and "ObjectNet against" not in drawn
    assert "Zero-shot, 4 sets" in drawn  # the radar
    assert "scenes: judged differently: x/run 100 samples; y/run 101 samples." in html


def test_settings_and_curves_that_both_have_are_compared(compared: tuple[Path, str, dict[str, Any]]) -> None:
    _, html, content = compared
    assert content["settings"] == {"seed": {"x/run": "0", "y/run": "1"}, "optim.lr": {"x/run": "0.1", "y/run": "0.2"}}
    assert ">0.2<" in row_of(html, "optim.lr") and 'row">optim.name' not in html
    assert "train/loss: x/run from 2 at step 1 to 0.25 at step 8; y/run from 2" in html
    assert "images_per_second" not in html


def test_other_class_names_are_told(tmp_path: Path) -> None:
    one, two = own_sha(results(["cifar-10"]), "a"), own_sha(results(["cifar-10"]), "b")
    two["sets"]["cifar-10"]["classnames"] = ["plane", *one["sets"]["cifar-10"]["classnames"][1:]]
    for name, content in (("a", one), ("b", two)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    html = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out").read_text()
    assert "judged differently: the class names are not the same" in html
    assert (tmp_path / "out/comparison.json").is_file() and not (tmp_path / "a/comparison.html").exists()


def test_as_many_other_pictures_are_told_and_seven_models_have_their_names_at_the_bars(tmp_path: Path) -> None:
    for letter in "ab":
        content = own_sha(results(["cifar-10", "mnist"]), letter)
        for number in range(4):
            content["models"][f"model {number}"] = {"sha256": f"{number}" * 64}
            for one in content["sets"].values():
                rows = one["tasks"]["zero_shot"]["rows"]
                rows[f"model {number}"] = rows["teacher"]
        content["sets"]["cifar-10"]["copy"] = letter * 16
        (tmp_path / letter).mkdir()
        (tmp_path / letter / "results.json").write_text(json.dumps(content))
    html = write_comparison([tmp_path / "a", tmp_path / "b"], None).read_text()
    assert f"model 3 copy {'a' * 16}; b copy {'b' * 16}." in html and "judged differently" not in row_of(html, "MNIST")
    assert '<ul class="setbars told">' in html and '<span class="whose">model 3</span>' in html


def test_runs_without_a_benchmark_are_compared_by_what_they_have(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", seed=0), make(tmp_path / "b", seed=0, lr=0.3)
    html = write_comparison([a, b], None).read_text()
    assert "Own evaluation sets" in html and "a: no benchmark: benchmarks/results.json is not there" in html
    assert row_of(html, "scenes").count('class="best') == 2  # both 50.0
    assert "Zero-shot" not in html


def test_the_command_compares_several_and_refuses_what_makes_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = make(tmp_path / "a", seed=0), make(tmp_path / "b", seed=0)
    dispatch(["report", str(a), str(b), "--out", str(tmp_path / "c")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "c/comparison.html")
    with pytest.raises(ConfigError, match="goes with several folders"):
        dispatch(["report", str(a), "--out", str(tmp_path / "c")])
    with pytest.raises(DataError, match="named twice"):
        dispatch(["report", str(a), str(a / ".." / "a")])
    with pytest.raises(DataError, match="nothing there"):
        dispatch(["report", str(a), str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="cannot be a folder"):
        dispatch(["report", str(a), str(b), "--out", str(a / "config.yaml")])


def test_names_are_as_short_as_they_can_be() -> None:
    places = [Path("/r/a/run"), Path("/r/b/run"), Path("/r/other"), Path("/q/b/run")]
    assert unique_names(places) == ["a/run", "r/b/run", "other", "q/b/run"]


def test_a_config_is_flattened_as_one_writes_it() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": True, "e": None, "f": [1, 2], "g": 10000}) == {
        "a.b": "1", "a.c": "{}", "d": "true", "e": "null", "f": "[1, 2]", "g": "10000",
    }  # fmt: skip
