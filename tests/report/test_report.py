"""The report of a made-up run: complete, torn, hostile, and missing."""

import base64
import io
import json
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from toolkit.errors import DataError
from toolkit.report import write_report

HOSTILE = "<script>alert('x')</script>"
RECALLS = [f"{direction}_r{rank}" for direction in ("image_to_text", "text_to_image") for rank in (1, 5, 10)]


def png() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def evaluation() -> dict:
    scenes = {
        "teacher": {"top1": 92.1, "top5": 99.0, "seen_top1": 92.5, "unseen_top1": 90.0},
        "student": {"top1": 89.2, "top5": 98.0, "unseen_top1": 81.0, "agreement_top1": 90.5, "mean_cosine": 0.931},
        "untrained": {"top1": 0.8, "top5": 4.2, "seen_top1": math.nan},
    }
    captions = {side: dict.fromkeys(RECALLS, value) for side, value in (("teacher", 50.0), ("student", 40.0))}
    return {
        "units": "percent",
        "seconds": 123.4,
        "sets": {
            "captions": {"kind": "retrieval", "samples": 500, "rows": captions},
            "scenes": {"kind": "classification", "classes": 120, "samples": 2400, "rows": scenes},
        },
    }


def metrics(steps: int) -> str:
    lines = []
    for step in range(1, steps + 1):
        loss = 10 * 0.9**step
        line = {
            "step": step,
            "train/loss": loss,
            "train/loss_vl": loss / 2,
            "optim/lr": 1e-3,
            "time/elapsed_seconds": 9.0,
        }
        line |= {"speed/images_per_second": 2900.0, "data/wait_fraction": 0.03, "data/skipped_decode": 2}
        lines.append(json.dumps(line))
    lines.append(json.dumps({"step": steps, "eval/scenes_top1": 88.0, "eval/scenes_unseen_top1": 80.0}))
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    config = "steps: 40\nstudent: {name: tiny}\nteacher: {name: big}\nlosses:\n  vl: {kind: vl, weight: 0.7}\n"
    (folder / "config.yaml").write_text(config)
    facts = {
        "recipe": "quickstart",
        "command": "deepspeed recipes/quickstart.py steps=40",
        "git_commit": "3fa9c21",
        "git_dirty": True,
        "versions": {"torch": "2.15.0"},
        "batch": "8 x 2 = 16",
        "student": {"name": "tiny", "image_params": 24_000_000, "text_params": 0},
        "teacher": {"name": "big", "image_params": 100_000_000, "text_params": 5},
        "data": {"images": {"shards": 4, "samples": 4000}},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "metrics.jsonl").write_text(metrics(40))
    (folder / "evaluation.json").write_text(json.dumps(evaluation()))
    guess = [["red circle", 0.9], [HOSTILE, 0.1]]
    samples = [{"png": png(), "truth": "red circle", "teacher": guess, "student": guess[::-1]}]
    (folder / "samples.json").write_text(json.dumps(samples))
    return folder


class Page(HTMLParser):
    """Every tag with its attributes, the ids, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(run: Path) -> tuple[str, str]:
    """The page, and its text with all white space as single spaces."""
    html = write_report(run).read_text(encoding="utf-8")
    return html, " ".join(Page(html).text.split())


def test_the_page_needs_nothing_outside_itself(run: Path) -> None:
    html, _ = page_of(run)
    tags = Page(html).tags
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
    links = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href", "srcset")]
    assert links, "the picture at least"
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in links)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "http" not in html.replace("http-equiv", "")


def test_ids_are_unique_and_every_plot_and_picture_has_words(run: Path) -> None:
    html, _ = page_of(run)
    tags = Page(html).tags
    counts = Counter(attributes["id"] for _, attributes in tags if "id" in attributes)
    assert [name for name, count in counts.items() if count > 1] == []
    for used in re.findall(r'(?:url\(#|href="#)([^)"]+)', html):
        assert used in counts
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    plots = [attributes for tag, attributes in tags if tag == "div" and attributes.get("role") == "img"]
    assert len(plots) == sum(tag == "svg" for tag, _ in tags) == 8
    assert all(attributes["aria-label"] for attributes in plots)


def test_the_headline_and_cards_say_the_result(run: Path) -> None:
    _, text = page_of(run)
    headline = (
        "The student has 24 % of the teacher’s image parameters and keeps 97 % of its top-1 on scenes (89.2 of 92.1)."
    )
    assert headline in text
    for words in ("Term vl (weight 0.7)", "teacher 92.1 (dashed)", "logarithmic", "3fa9c21 (with uncommitted changes)"):
        assert words in text
    for words in (
        "24.0 M",
        "mean cosine 0.931",
        "of 40 in 9.0 s",
        "Image → text R@10",
        "2 min 3 s",
        "deepspeed recipes",
    ):
        assert words in text
    assert "✓right: red circle 90 %" in text
    assert "✗wrong: <script>" in text


def observed(run: Path, steps: int = 40) -> None:
    """Lines as a run writes them that observes its losses: `feature` has no targets to be sharp or to agree with."""
    lines = [json.loads(line) for line in metrics(steps).splitlines()]
    for line in lines:
        if "train/loss" in line:
            line |= {"observed/vl_target_entropy": 0.5, "observed/vl_top1_agreement": 0.25}
            line |= {f"observed/{HOSTILE}_target_entropy": math.nan if line["step"] == 3 else 2.0}
            line |= {"observed/vl_gradient_share": 0.75, "observed/feature_gradient_share": 0.25}
            line |= {"observed/something_else": 7.0}
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_what_the_losses_see_has_three_plots_with_a_line_per_term(run: Path) -> None:
    observed(run)
    html, text = page_of(run)
    plots = [dict(attributes) for tag, attributes in Page(html).tags if attributes.get("role") == "img"]
    assert len(plots) == html.count("<svg") == 8 + 3 + 1  # what nobody knows stays with the other series
    section = text.split("What the losses see")[1].split("Evaluation during training")[0]
    assert "How sharp they are" in section and "1 non-finite value not drawn" in section
    assert f"vl 0.5 {HOSTILE} 2" in section and "vl 25 %" in section.replace("\u00a0", " ")
    assert "vl 75 % feature 25 %" in section.replace("\u00a0", " ")
    assert "observed/something_else" in text and "observed/vl" not in text
    alts = [alt.replace("\u00a0", " ") for plot in plots if (alt := plot["aria-label"])]
    assert "Share of the gradient (%): vl from 75 % at step 1 to 75 % at step 40; feature from" in " ".join(alts)


def test_a_term_has_one_colour_and_dash_in_all_plots(run: Path) -> None:
    """Of the key and of the drawing, though a plot may lack the terms before it."""
    observed(run)
    html, _ = page_of(run)
    styles: dict[str, set[tuple[str, str]]] = {}
    for ink, dash, name in re.findall(r'class="ink(\d) dash(\d)" aria-hidden="true"></i>([\w&]+)', html):
        styles.setdefault(name, set()).add((ink, dash))
    assert len(styles) == 3 and all(len(found) == 1 for found in styles.values())
    assert len(set.union(*styles.values())) == 3
    share = next(drawing for drawing in html.split("<svg") if 'id="observed-gradient_share-' in drawing)
    inks = {ink for name in ("vl", "feature") for ink, _ in styles[name]}
    assert inks == set(re.findall(r"var\(--line(\d)\)", share))


def test_a_run_that_observed_nothing_has_no_such_section(run: Path) -> None:
    _, text = page_of(run)
    assert "What the losses see" not in text


def test_report_json_has_the_first_classification_set_of_each_side(run: Path) -> None:
    write_report(run)
    report = json.loads((run / "report.json").read_text())
    assert set(report) == {"teacher", "student", "untrained", "seconds", "units", "sets"}
    assert report["student"] == {**evaluation()["sets"]["scenes"]["rows"]["student"], "image_params": 24_000_000}
    assert report["teacher"]["top1"] == 92.1 and report["teacher"]["image_params"] == 100_000_000
    assert report["untrained"] == {"top1": 0.8, "top5": 4.2}
    assert (report["seconds"], report["units"]) == (123.4, "percent")
    assert report["sets"]["captions"] == evaluation()["sets"]["captions"]


def test_names_from_outside_are_escaped_everywhere(run: Path) -> None:
    sets = {HOSTILE: {"kind": "classification", "rows": {HOSTILE: {HOSTILE: 1.0}, "student": {"top1": 2.0}}}}
    (run / "evaluation.json").write_text(json.dumps({"sets": sets}))
    (run / "run.json").write_text(json.dumps({"command": HOSTILE, HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}}))
    (run / "config.yaml").write_text(f'student: {{name: "{HOSTILE}"}}\nteacher: {{name: \'"><img src=x>\'}}\n')
    lines = [{"step": 1, "train/loss_" + HOSTILE: 1.0, "eval/" + HOSTILE: 3.0, HOSTILE: 4.0}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    html, text = page_of(run)
    assert "<script" not in html and "<img src=x" not in html
    assert HOSTILE in text


def test_half_a_surrogate_pair_and_nan_do_not_stop_the_report(run: Path) -> None:
    (run / "run.json").write_text('{"command": "caf\\ud83d"}')
    (run / "evaluation.json").write_text(json.dumps(evaluation() | {"seconds": math.nan}))
    _, text = page_of(run)
    assert "caf?" in text
    assert json.loads((run / "report.json").read_text())["seconds"] is None


def test_a_torn_last_line_is_left_out_and_said(run: Path) -> None:
    (run / "metrics.jsonl").write_text(metrics(40) + '{"step": 41, "train/lo')
    _, text = page_of(run)
    assert "The last line of metrics.jsonl (line 42) is torn and was left out." in text
    assert "at step 40" in text


def test_a_resumed_run_shows_the_later_values(run: Path) -> None:
    (run / "metrics.jsonl").write_text(metrics(40) + '{"step": 39, "tra\n{"step": 40, "train/loss": 123.0}\n')
    _, text = page_of(run)
    assert "1 of 43 lines of metrics.jsonl are torn and were left out: 42." in text
    assert "Step 40 was logged more than once" in text
    assert "123 at step 40" in text


def test_non_finite_values_and_long_series_are_drawn_and_said(run: Path) -> None:
    lines = [{"step": step, "train/loss": math.nan if step == 7 else 1.0 + step} for step in range(1000)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    html, text = page_of(run)
    assert "1 non-finite value not drawn" in text
    assert "A series of more than 240 points is drawn as the mean" in text
    assert len(html) < 200_000


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "evaluation.json", "samples.json"])
@pytest.mark.parametrize("state", ["missing", "torn", "of another kind"])
def test_each_missing_or_torn_file_is_named(run: Path, name: str, state: str) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}')
    if state == "missing":
        (run / name).unlink()
    else:
        (run / name).write_text('{"units": "per' if state == "torn" else "3")
    _, text = page_of(run)
    assert name in text and "this page lacks" in text.lower()
    json.loads((run / "report.json").read_text())


def test_only_a_config_is_still_a_page(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "config.yaml":
            path.unlink()
    _, text = page_of(run)
    for words in ("has not been evaluated", "No training step", "No training curves", "No pictures", "weight: 0.7"):
        assert words in text
    report = json.loads((run / "report.json").read_text())
    assert report["student"] == {"image_params": None} and report["sets"] == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"units": "fraction"}, "units should be 'percent', found 'fraction'"),
        ({"sets": {}}, "sets should be a mapping of at least one set"),
        ({"sets": {"a": {"rows": {"student": {"top1": "high"}}}}}, "sets.a.rows.student.top1 should be a number"),
        ({"sets": {"a": {"rows": [1]}}}, "sets.a.rows should be a mapping, found list"),
    ],
)
def test_an_evaluation_of_another_shape_is_left_out_with_the_reason(run: Path, change: dict, words: str) -> None:
    (run / "metrics.jsonl").unlink()  # drawing would take most of the time
    (run / "evaluation.json").write_text(json.dumps(evaluation() | change))
    _, text = page_of(run)
    assert words in text and "No evaluation results." in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"png": "no base64!"}, "[0].png is not base64"),
        ({"png": base64.b64encode(b"GIF89a").decode()}, "[0].png is not a PNG"),
        ({"teacher": [["red"]]}, "[0].teacher should hold [name, probability] pairs"),
    ],
)
def test_a_picture_that_is_none_is_left_out_with_the_reason(run: Path, change: dict, words: str) -> None:
    (run / "metrics.jsonl").unlink()  # drawing would take most of the time
    (run / "samples.json").write_text(json.dumps([{"png": png(), "truth": "a", "teacher": [], "student": []} | change]))
    _, text = page_of(run)
    assert words in text and "No pictures." in text


def test_what_is_no_run_is_refused_with_what_was_found(tmp_path: Path, run: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere: asked for the folder of a run, found nothing there; give the out_dir"
    ):
        write_report(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no config\.yaml, found 1 entries \(run\); give the out_dir"):
        write_report(tmp_path)
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"config\.yaml is not readable YAML"):
        write_report(run)
    (run / "config.yaml").write_text("- a\n")
    with pytest.raises(DataError, match=r"should hold a mapping, found list"):
        write_report(run)


def test_importing_the_report_loads_neither_torch_nor_matplotlib() -> None:
    code = "import sys, toolkit.report; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
