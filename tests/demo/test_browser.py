"""The page of `dime demo RUN` in a real headless Chromium, by keyboard, file chooser, drop and paste."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.asking import STUDENT, picture, question, save_run
from demo.chromium import PROGRAM, Tab
from launch_ranks import environment

from toolkit.demo.request import MAX_PICTURE_BYTES
from toolkit.playground.prepare import TEACHER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium, chromium-browser or google-chrome on this machine"),
]
ROOT = Path(__file__).resolve().parents[2]
LABELS = ["red circle", "blue square", "a green star"]
DROP = """(type, files) => {
  const given = new DataTransfer();
  for (const [name, text] of files) given.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  const event = type === 'drop' ? new DragEvent('drop', { dataTransfer: given, bubbles: true, cancelable: true })
    : new ClipboardEvent('paste', { clipboardData: given, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of the command itself, in a process of its own, which Ctrl-C ends with one line and exit code 0."""
    save_run(tmp_path / "tiny", STUDENT, f"teacher.name={TEACHER}")
    command = [sys.executable, "-m", "toolkit.cli", "demo", "tiny", "--port", "0"]
    env = environment(PYTHONPATH=str(ROOT))
    heard = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would the demo
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    signal.signal(signal.SIGINT, heard)
    assert process.stdout is not None
    try:
        said = [process.stdout.readline() for _ in range(3)]
        assert said[0] == "loading tiny ...\n" and said[1].startswith("no sample pictures: "), said
        assert said[2].startswith("http://127.0.0.1:"), said
        yield said[2].split()[0]
        os.kill(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert rest.strip() == "demo ended" and process.returncode == 0, rest
    finally:
        process.kill()


def test_by_keyboard_and_at_every_width(address: str, tmp_path: Path) -> None:
    """A picture and labels give both models' answers, those of a bare request; nothing is asked of anybody else."""
    asyncio.run(by_keyboard(address, tmp_path))


async def by_keyboard(address: str, folder: Path) -> None:
    """The file chooser, then Tab, letters and Enter alone."""
    (folder / "noise.png").write_bytes(picture())
    async with Tab(folder / "profile") as tab:
        await tab.resize(1280, 900)
        await tab.open(address)
        await tab.until("about !== null")
        order = []
        for _ in range(4):
            await tab.key("Tab")
            order.append(await tab.js("document.activeElement.id"))
        assert order == ["file", "labels", "prompt", "ask"]
        await tab.key("Enter")
        assert "Give a picture first" in await tab.until("!at('error').hidden && at('error').innerText")
        await tab.choose_file("#file", folder / "noise.png")
        await tab.until("at('error').hidden && document.activeElement.id === 'labels'")
        assert await tab.js("at('preview').alt") == "noise.png"
        await tab("Input.insertText", text="\n".join(LABELS))
        assert await tab.js("at('count').innerText") == "3 labels"
        await tab.key("Enter", modifiers=2)
        await tab.until("!at('found').hidden")
        await check_answer(tab, address, LABELS, "a photo of a {}.")

        for _ in range(2):
            await tab.key("Tab")
        await tab.js("at('prompt').value = 'here is {}'")
        await tab.js("last = null")
        await tab.key("Enter")
        await tab.until("last !== null")
        await check_answer(tab, address, LABELS, "here is {}")

        for width in (1280, 768, 390, 320):
            await tab.resize(width, 844, phone=width < 500)
            assert await tab.js("document.documentElement.scrollWidth") <= width
        foreign = [url for url in tab.requests if not url.startswith((address, "data:", f"blob:{address}"))]
        assert len(tab.requests) >= 4 and not foreign and not tab.problems


async def check_answer(tab: Tab, address: str, labels: list[str], prompt: str) -> None:
    """What stands on the page against the server's own answer to the same question."""
    body = question(labels, prompt=prompt)
    asked = urllib.request.Request(f"{address}classify", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as reply:
        right: Any = json.load(reply)
    assert await tab.js("at('agree').innerText") == right["agreement"]
    for name in ("student", "teacher"):
        chances = right["models"][name]["probabilities"]
        best = max(range(len(labels)), key=chances.__getitem__)
        card = await tab.js(f"document.querySelector('.model.{name}').innerText")
        assert labels[best] in card and f"{100 * chances[best]:.1f} %" in card and " ms" in card
        rows = await tab.js(
            "[...at('bars').children].map((row) => [row.querySelector('b').innerText, "
            f"row.querySelector('.{name} .percent').innerText, row.querySelector('.{name} .fill').style.width])"
        )
        assert {label for label, *_ in rows} == set(labels)
        for label, percent, width in rows:
            chance = chances[labels.index(label)]
            assert float(width.rstrip("%")) == pytest.approx(100 * chance, abs=0.01)
            assert percent == (f"{100 * chance:.1f} %" if chance >= 0.0005 else "< 0.1 %")


def test_errors_are_told_in_the_page(address: str, tmp_path: Path) -> None:
    """Drop, paste, and what cannot be used; the last thing told is why, and the next good picture is answered."""
    asyncio.run(told(address, tmp_path))


async def told(address: str, folder: Path) -> None:
    """Each of the mistakes, one after the other."""
    noise = json.loads(question(["x"]))["picture"]

    async with Tab(folder / "profile") as tab:
        await tab.open(address)
        await tab.until("about !== null")
        await tab.js("at('labels').value = 'cat\\ndog'")

        async def given(kind: str, files: list[list[str]], words: str) -> None:
            await tab.js(f"({DROP})('{kind}', {json.dumps(files)})")
            await tab.until(f"at('error').innerText.includes({json.dumps(words)})")

        await given("drop", [["a.png", "bm8gcGljdHVyZQ=="]], "not a picture that can be read")
        await given("drop", [["a.png", ""]], "The file is empty")
        await given("drop", [], "That was no file")
        await tab.js(f"take(new File([new Uint8Array({MAX_PICTURE_BYTES + 1})], 'big.png'), 'big.png')")
        await tab.until("at('error').innerText.includes('20 MiB at most')")
        await tab.js("at('labels').value = ''; ask()")
        await tab.until("at('error').innerText.includes('Type at least one label')")
        await tab.js("at('labels').value = Array.from({ length: 257 }, (_, k) => 'l' + k).join('\\n')")
        await given("paste", [["a.png", noise]], "257 labels are too many: 256 at most")
        await tab.js("at('labels').value = 'cat\\ndog'; at('prompt').value = 'no braces'; ask()")
        await tab.until("at('error').innerText.includes('The prompt has no {}')")
        assert await tab.js("at('found').hidden")
        await tab.js("at('prompt').value = '{}'")
        await tab.js(f"({DROP})('paste', {json.dumps([['a.png', noise]])})")
        await tab.until("!at('found').hidden && at('error').hidden")
        await given("drop", [["a.png", noise], ["b.png", noise]], "2 files were given; this is the first one")
        await tab.until("!at('found').hidden")

        await tab.js("window.fetch = () => Promise.reject(new TypeError('gone')); ask()")
        await tab.until("at('error').innerText.includes('The demo does not answer')")
