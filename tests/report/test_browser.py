"""In a browser: the pages are as wide as a phone, whatever their names; wide tables scroll inside their own box."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from judged_case import BASELINE, ROBUST, results

from toolkit.report import write_comparison, write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 390
SHORT = ["imagenet-1k", *ROBUST, "cifar-10", "voc-2007-classification"]
LONG = "VeryLongNameWithoutAnyPlaceWhereItCouldBeBrokenInTwo" * 3
MEASURE = """<script>
f.onload = () => {
  const page = f.contentDocument, root = page.documentElement, all = what => [...page.querySelectorAll(what)];
  all("details").forEach(one => one.open = true);
  const cut = all("figure, p, h2, h3, dd").filter(one => !one.closest(".scroll, pre"))
    .filter(one => one.getBoundingClientRect().right > root.clientWidth + 1);
  const captions = all("caption span").filter(one => one.offsetWidth > one.closest(".scroll").clientWidth - 16);
  const table = Math.max(...all("table").map(one => one.scrollWidth));
  document.title = `page=${root.scrollWidth} table=${table} cut=${cut.length} caption=${captions.length}`;
}
</script>"""


def widths(page: Path, folder: Path) -> dict[str, int]:
    """Of the page in a frame of PHONE pixels (a window itself cannot be so narrow): its own, and the widest table's."""
    text = html.escape(page.read_text(encoding="utf-8"))
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe id="f" style="border:0" width="{PHONE}" height="900" srcdoc="{text}"></iframe>{MEASURE}'
    )
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--hide-scrollbars", "--virtual-time-budget=10000", "--dump-dom", frame.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", done.stdout.split("</title>")[0])}


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("names", ["as they are", "very long"])
def test_report_and_comparison_fit_a_phone(names: str, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        content = json.dumps(results(SHORT, seed=number))
        if names == "very long":
            content = content.replace(BASELINE, LONG).replace("CIFAR-10", LONG).replace('"cat"', f'"{LONG}"')
        (tmp_path / name / "benchmarks").mkdir(parents=True)
        (tmp_path / name / "benchmarks/results.json").write_text(content)
        (tmp_path / name / "config.yaml").write_text(f"seed: {number}\nsome: {{key: {LONG}{number}}}\n")
    for page in (write_report(tmp_path / "a"), write_comparison([tmp_path / "a", tmp_path / "b"], None)):
        found = widths(page, tmp_path)
        assert found["page"] == PHONE, found
        assert found["cut"] == 0 and found["caption"] == 0, found
        assert found["table"] > PHONE  # so there was something to scroll
