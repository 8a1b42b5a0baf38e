"""A headless Chromium driven through its own DevTools protocol; whatever a page asks for is written down."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Tab:
    """One page; `async with Tab(folder) as tab`. `requests` are all URLs it asked for, `problems` what its console said."""

    def __init__(self, profile: Path) -> None:
        """`profile` is an empty folder."""
        self.profile = profile
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> "Tab":
        assert PROGRAM is not None
        home = {**os.environ, "HOME": str(self.profile)}
        command = [PROGRAM, *OPTIONS, f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(command, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = (await self._port_file()).split()[0]
        self.session = aiohttp.ClientSession()
        async with self.session.get(f"http://127.0.0.1:{port}/json") as reply:
            page = next(one for one in await reply.json() if one["type"] == "page")
        self.line = await self.session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=1 << 28)
        self.reader = asyncio.create_task(self._read())
        for domain in ("Network", "Page", "Runtime", "Log", "DOM"):
            await self(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.reader.cancel()
        await self.session.close()
        self.process.terminate()
        self.process.wait(20)

    async def _port_file(self) -> str:
        """What Chromium writes once it listens."""
        for _ in range(600):
            path = self.profile / "DevToolsActivePort"
            if path.is_file() and (found := path.read_text()):
                return found
            assert self.process.poll() is None, "chromium ended"
            await asyncio.sleep(0.05)
        raise TimeoutError("chromium does not listen")

    async def _read(self) -> None:
        """Sort what arrives."""
        async for message in self.line:
            found = json.loads(message.data)
            if "id" in found:
                self._waiting.pop(found["id"]).set_result(found)
            elif found["method"] == "Network.requestWillBeSent":
                self.requests.append(found["params"]["request"]["url"])
            elif found["method"] == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(found["params"]["exceptionDetails"])[:500])
            elif found["method"] == "Log.entryAdded":
                self.problems.append(found["params"]["entry"]["text"])

    async def __call__(self, method: str, **words: Any) -> Any:
        """A command of the protocol, and its result."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self.line.send_json({"id": number, "method": method, "params": words})
        found = await asyncio.wait_for(self._waiting[number], 60)
        assert "error" not in found, (method, found["error"])
        return found["result"]

    async def js(self, code: str) -> Any:
        """Value of an expression in the page."""
        found = await self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (code, found["exceptionDetails"])
        return found["result"].get("value")

    async def until(self, code: str, seconds: float = 20) -> Any:
        """The value of an expression once it is true."""
        for _ in range(int(seconds / 0.05)):
            if value := await self.js(code):
                return value
            await asyncio.sleep(0.05)
        raise TimeoutError(f"never true: {code}; the page says {await self.js('document.body.innerText')!r}")

    async def open(self, address: str) -> None:
        """And wait for it to be there."""
        await self("Page.navigate", url=address)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def key(self, key: str, modifiers: int = 0) -> None:
        """Press and release; modifiers: 2 Ctrl, 8 Shift."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key)
        pressed = {"key": key, "windowsVirtualKeyCode": codes[key], "modifiers": modifiers}
        await self("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": text} if text else {}))
        await self("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def choose_file(self, selector: str, path: Path) -> None:
        """As a file chooser would."""
        root = (await self("DOM.getDocument"))["root"]["nodeId"]
        node = (await self("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    async def resize(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Of the screen."""
        await self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self("Emulation.setEmulatedMedia", features=scheme)

    async def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        found = await self("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
