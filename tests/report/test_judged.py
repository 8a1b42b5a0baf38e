"""The sections of results.json: what they show, what they name as missing, what they refuse."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from judged_case import BASELINE, ELEVATER, ROBUST, png, results

from toolkit.errors import DataError
from toolkit.report import write_report
from toolkit.report.judged import task_order, task_title
from toolkit.report.read_judged import read_judgement
from toolkit.report.sections import build_sections

HOSTILE = "<script>alert('x')</script>"
THREE = ["imagenet-1k", "imagenet-a", "cifar-10"]


def words(html: str) -> str:
    """The text of a page with all white space as single spaces."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(html)
    return " ".join("".join(found).split())


def write(folder: Path, content: Any) -> Path:
    (folder / "benchmarks").mkdir(parents=True, exist_ok=True)
    path = folder / "benchmarks/results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def run_folder(folder: Path) -> Path:
    """As small a run as there is: drawing its curves would take most of the time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("steps: 40\nstudent: {name: tiny}\nteacher: {name: big}\n")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with a benchmark of three sets and everything that belongs to one."""
    folder = run_folder(tmp_path_factory.mktemp("judged") / "run")
    write(folder, results(THREE))
    return write_report(folder).read_text(encoding="utf-8")


def test_numbers_stand_with_intervals_differences_and_p_values(page: str) -> None:
    text, content = words(page), results(THREE)
    for name in THREE:
        task = content["sets"][name]["tasks"]["zero_shot"]
        for row in task["rows"].values():
            assert f"{row['value']:.1f}[{row['value'] - 1.1:.1f}, {row['value'] + 1.1:.1f}]" in text
        for difference in task["differences"].values():
            assert f"−{-difference['value']:.1f}[−9.0, −0.4]; p < 0.001" in text
    assert (
        "95 % bootstrap intervals over the pictures of the test set; they do not hold the spread over training seeds"
        in text
    )
    assert "top-1, 10,000 pictures, 6 classes" in text and "18 templates" in text
    assert "± 0.4" in text and "standard deviation over 3 seeds" in text
    imagenet = content["sets"]["imagenet-1k"]["tasks"]["zero_shot"]["rows"]
    assert f'<p class="headline">Zero-shot, ImageNet-1K: student {imagenet["student"]["value"]:.1f} [' in page


def test_the_calibration_error_of_every_task_is_in_a_table(page: str) -> None:
    content = results(THREE)
    rows = content["sets"]["imagenet-1k"]["tasks"]["linear_probe"]["rows"]
    shown = page.split("ImageNet-1K, linear probe<")[1].split("</tr>")[0]
    assert re.findall(r"<td[^>]*>([\d.]+)", shown) == [f"{row['calibration']['ece']:.1f}" for row in rows.values()]
    assert page.count('aria-label="Reliability on') == 3  # one drawing per set


def test_published_scores_are_apart_and_have_their_sources(page: str) -> None:
    text = words(page)
    assert "measured here" in text and "published by others" in text
    assert "Published scores were not measured here" in text
    for source in ("README of DIME-FM's repository", "docs/openclip_results.csv of open_clip"):
        assert source in text
    cells = re.findall(r'<td class="(?:best )?published">([\d.]+)<sup>(\d+)</sup>', page)
    assert ("66.5", "1") in cells  # DIME-FM on ImageNet-1K
    measured = re.findall(r'<td class="(?:best )?">([^<]*)', page)
    assert "66.5" not in measured
    assert not re.search(r'class="best published"', page)
    assert "CLIP ViT-B/32 (published)" in text  # a point beside the student's
    assert "CLIP ViT-B/32: docs/openclip_results.csv of open_clip" in text.split("Robustness")[1]


def test_a_mean_is_given_of_all_sets_of_a_group_only(page: str, tmp_path: Path) -> None:
    text = words(page)
    assert "Mean of ELEVATER1 of 20 sets: a mean is given of all of them only" in text
    assert "1 of 5 robustness sets are here (ImageNet-A), so there is no mean." in text
    whole = results(["imagenet-1k", *ELEVATER, *ROBUST])
    judgement = read_judgement(write(tmp_path, whole))
    from toolkit.report.sets import set_grid

    lines = {line.label: line for line in set_grid(judgement, "zero_shot").lines}
    mean = sum(whole["sets"][name]["tasks"]["zero_shot"]["rows"]["student"]["value"] for name in ELEVATER) / 20
    assert lines["Mean of ELEVATER"].entries[0].text == f"{mean:.1f}"
    assert lines["Mean of ELEVATER"].entries[3].small == "[−8.8, −6.6]; p = 0.002"
    assert "56.4" in [entry.text for entry in lines["Mean of ELEVATER"].entries]  # the paper's, published
    assert len(lines) == 1 + 20 + 5 + 2


def test_every_section_is_there_with_its_words(page: str) -> None:
    text = words(page)
    for heading in ("Zero-shot", "Linear probe", "5-shot, linear probe", "Pictures per class", "Retrieval", "Robustness",
                    "Compositionality", "Calibration", "Cost", "Nearest sentences", "What was judged"):  # fmt: skip
        assert re.search(rf"<h[23][^>]*>{heading}</h", page), heading
    assert "cat recall student 12.0 %, teacher 40.0 %; taken for dog 55.0 %, deer 20.0 %" in text.replace("\u00a0", " ")
    assert "a square in a square 0.35" in text and "ECE" in text and "20-shot" in text
    assert "1,000 pictures, 5,000 captions" in text
    assert "p95 11.7" in text and "352.2" in text and "CPU, 2 threads, fp32" in text
    assert "invented weights of teacher, width 512, pictures of 224 px, sha256 1f1f1f1f1f1f" in text
    assert "56.0<small>[53.5, 58.5]" in page  # retrieval
    crepe = page.split("SugarCrepe</h4>")[1].split("</table>")[0]
    assert crepe.count("bag of words") == 1 and "Texts alone are no score" in crepe
    alone = crepe.split("Texts alone: mean cosine")[1].split("</tr>")[0]
    assert re.findall(r"<td[^>]*>([\d.]+)", alone) == ["0.910"] * 3 + ["0.770"] and 'class="best' not in alone
    for detail in ("0.812", "mean cosine to the teacher", "0.003", "1e-06", "5,130", "1 min 1 s"):
        assert detail in text.replace("\u00a0", " "), detail
    assert "This page lacks" not in text.replace("metrics.jsonl is missing, so this page lacks", "")


def test_the_page_asks_for_nothing_and_its_ids_are_unique(page: str) -> None:
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    ids = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert [name for name, count in ids.items() if count > 1] == []
    assert all(name in ids for name in re.findall(r'(?:url\(#|href="#)([^)"]+)', page))
    assert page.count("<svg") == len(re.findall(r'role="img" aria-label="[^"]+"', page))


def test_a_recall_table_has_the_worst_first_and_a_dash_for_a_class_without_pictures(tmp_path: Path) -> None:
    content = results(["cifar-10"])
    recalls = content["sets"]["cifar-10"]["tasks"]["zero_shot"]["rows"]["student"]["per_class"]
    judgement = read_judgement(write(tmp_path, content))
    from toolkit.report.recalls import class_table

    one = judgement.sets["cifar-10"]
    table = class_table(judgement, one, one.tasks["zero_shot"])
    assert table is not None
    shown = [line.entries[0].text for line in table.lines]
    known = sorted(value for value in recalls if value is not None)
    assert shown == [*(f"{value:.1f}" for value in known), "–"] and len(known) == 5


def test_a_folder_with_a_benchmark_alone_has_a_page_of_it(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results(["cifar-10"])))
    path = write_report(tmp_path)
    text = words(path.read_text())
    assert f"Benchmark of {tmp_path.name}" in text and "Zero-shot, CIFAR-10: student" in text
    assert "No training curves" not in text and sorted(p.name for p in tmp_path.iterdir()) == [
        "report.html",
        "results.json",
    ]


def test_without_imagenet_the_robustness_plot_says_what_is_missing(tmp_path: Path) -> None:
    content = results(["imagenet-a"]) | {"missing": {"imagenet-1k": "fetch it from its owners"}}
    found = build_sections(read_judgement(write(tmp_path, content))).robustness
    assert found is not None and found.plots == []
    assert found.lack == "The plot needs ImageNet-1K zero-shot, which is not here: fetch it from its owners"
    assert build_sections(read_judgement(write(tmp_path, results(["cifar-10"])))).robustness is None


def test_parts_that_are_not_there_leave_no_heading(tmp_path: Path) -> None:
    content = results(["cifar-10"], models=("student",))
    for key in ("retrieval", "compositionality", "means", "nearest_sentences", "missing"):
        del content[key]
    del content["models"]["student"]["cost"]
    tasks = content["sets"]["cifar-10"]["tasks"]
    content["sets"]["cifar-10"]["tasks"] = {"zero_shot": {"label": "x", "rows": {"student": {"value": 50.0}}}}
    assert tasks
    html = write_report(write(tmp_path, content).parents[1]).read_text()
    for heading in (
        "Retrieval",
        "Compositionality",
        "Calibration",
        "Nearest sentences",
        "Robustness",
        "Classes and pictures",
    ):
        assert f">{heading}</h" not in html
    assert "radar" not in html.split("</style>")[1] and "[" not in words(html.split("</style>")[1])


def test_names_from_outside_are_escaped_in_tables_keys_and_drawings(tmp_path: Path) -> None:
    content = json.loads(
        json.dumps(results(THREE)).replace(BASELINE, HOSTILE).replace("CIFAR-10", HOSTILE).replace("dog", HOSTILE)
    )
    content["models"]["student"]["what"] = '"><img src=x>'
    html = write_report(write(tmp_path, content).parents[1]).read_text()
    assert "<script" not in html and "<img src=x" not in html
    assert "&lt;script&gt;ale" in html.split("<svg")[1]  # the radar writes names itself
    assert HOSTILE in words(html)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('{"format": 1, "mod', "results.json is not readable JSON"),
        ("[]", "should hold a mapping with models and sets"),
        ({"format": 2}, "this report reads format 1 in percent, found format 2"),
        ({"units": "fraction"}, "units 'fraction'"),
        ({"models": {}}, "results.json names no model"),
        ({"model": "other"}, "model is 'other', which is not among its models (student, teacher"),
        ({"models": {"student": {}}}, "rows of open_clip:ViT-B-32-quickgelu/openai, teacher, which models does not describe"),
        ({"sets": {"a": {"group": "mine", "samples": 1}}}, "results.json.sets.a.group should be one of imagenet"),
        ({"sets": {"a": {}}}, "results.json.sets.a has no samples"),
        ({"sets": {"a": {"samples": 1, "tasks": {"zero_shot": {"rows": {"student": {"value": "high"}}}}}}},
         "tasks.zero_shot.rows.student.value should be a number, found 'high'"),
        ({"sets": {"a": {"samples": 1, "tasks": {"zero_shot": {"pictures": [{"png": "R0lGODlh"}]}}}}}, "pictures[0].png is not a PNG"),
        ({"nearest_sentences": [{"png": png(__import__("random").Random(0)), "student": [["a"]]}]},
         "nearest_sentences[0].student[0] should be a [name, number] pair"),
    ],
)  # fmt: skip
def test_a_torn_or_foreign_file_is_refused_with_the_reason(change: Any, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, change if isinstance(change, str) else results(["cifar-10"]) | change)
    with pytest.raises(DataError, match=re.escape(said)):
        write_report(tmp_path)
    assert path.is_file() and not (tmp_path / "report.html").exists()


def test_a_run_with_a_torn_benchmark_keeps_its_page_and_says_so(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    write(run, '{"format": 1')
    text = words(write_report(run).read_text())
    assert "This page lacks the benchmarks; evaluate again" in text and "results.json is not readable JSON" in text
    assert "weight" not in text or "What was run" in text


def test_a_row_without_a_value_is_left_out_and_said(tmp_path: Path) -> None:
    content = results(["cifar-10"])
    content["sets"]["cifar-10"]["tasks"]["zero_shot"]["rows"]["teacher"]["value"] = None
    text = words(write_report(write(tmp_path, content).parents[1]).read_text())
    assert "results.json.sets.cifar-10.tasks.zero_shot.rows.teacher has no value and was left out." in text


def test_tasks_are_named_and_ordered() -> None:
    asked = ["20_shot", "fine_tune_clean", "5_shot_fine_tune", "mine", "zero_shot", "5_shot", "linear_probe"]
    order = ["zero_shot", "linear_probe", "fine_tune_clean", "5_shot", "5_shot_fine_tune", "20_shot", "mine"]
    assert sorted(asked, key=task_order) == order
    assert task_title("5_shot_fine_tune") == "5-shot, fine tune" and task_title("mine") == "Mine"
