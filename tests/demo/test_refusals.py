"""What the demo refuses, and how it says so: nothing of a request is trusted."""

import base64
import hashlib
import http.client
import json
import re
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from demo.asking import ask, picture, question

from toolkit.demo import server as server_module
from toolkit.demo.request import MAX_BODY_BYTES, MAX_PICTURE_BYTES
from toolkit.demo.server import DemoServer
from toolkit.errors import ConfigError


def huge_png() -> bytes:
    """A header that promises 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def raw(**asked: Any) -> bytes:
    """JSON as it comes."""
    return json.dumps(asked).encode()


SHOWN = base64.b64encode(picture()).decode()
REFUSED = {
    "no json": (b"picture", 400, "not JSON"),
    "deep json": (b"[" * 200_000, 400, "not JSON"),
    "a list": (b"[]", 400, "not a JSON object"),
    "no picture": (raw(labels=["a"]), 400, "Give a picture first"),
    "picture is no base64": (raw(labels=["a"], picture="/etc/passwd!"), 400, "did not arrive whole"),
    "picture is no picture": (question(["a"], b"GIF89a, or so it says"), 422, "not a picture that can be read"),
    "an EPS": (question(["a"], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 422, "not a picture"),
    "a torn one": (question(["a"], picture()[:500]), 422, "not a picture that can be read"),
    "too many pixels": (question(["a"], huge_png()), 422, "million pixels"),
    "no labels": (question([]), 400, "Type at least one label"),
    "empty labels": (question(["", "  "]), 400, "Type at least one label"),
    "labels are no list": (question("cat"), 400, "Type at least one label"),  # type: ignore[arg-type]
    "a label is a number": (question([7]), 400, "A label is not text"),
    "a label is no text": (raw(picture=SHOWN, labels=["\ud800"]), 400, "no text"),
    "too many labels": (question([f"l{k}" for k in range(257)]), 400, "257 labels are too many: 256 at most"),
    "far too many labels": (question(["a"] * 5000), 400, "5000 labels are too many"),
    "a long label": (question(["a" * 201]), 400, "A label has 201 letters: 200 at most"),
    "a prompt without {}": (question(["a"], prompt="a photo"), 400, "The prompt has no {}"),
    "a long prompt": (question(["a"], prompt="{}" * 200), 400, "The prompt has 400 letters"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, server: DemoServer) -> None:
    """A status and a sentence for the page."""
    body, status, words = REFUSED[what]
    got, _, found = ask(server, "POST", "/classify", body)
    assert got == status and words in found["error"], found


def test_goes_on_afterwards(server: DemoServer) -> None:
    """And 256 labels are not too many."""
    assert ask(server, "POST", "/classify", question([f"l{k}" for k in range(256)]))[0] == 200


def send(server: DemoServer, text: str) -> bytes:
    """Raw bytes to the server, and all it says before it closes."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as line:
        line.sendall(text.encode())
        said = b""
        while more := line.recv(65536):
            said += more
    return said


def test_the_limit_is_enforced_before_reading(server: DemoServer) -> None:
    """No body is ever sent here: whoever waited for it would wait for ever."""
    head = f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nContent-Type: application/json\r\n"
    said = send(server, f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ") and b"20 MiB at most" in said and b"Connection: close" in said
    for length in ("", "Content-Length: -1\r\n", "Content-Length: 1e3\r\n", f"Content-Length: {'9' * 30}\r\n",
                   "Content-Length: 5\r\nContent-Length: 6\r\n", "Transfer-Encoding: chunked\r\n"):  # fmt: skip
        assert send(server, f"{head}{length}\r\n").startswith(b"HTTP/1.1 411 "), length
    assert ask(server, "GET", "/about")[2]["limits"]["picture_bytes"] == MAX_PICTURE_BYTES


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "", "127.0.0.1:{}.evil.com"])
def test_other_names_are_refused(host: str, server: DemoServer) -> None:
    """A name of someone else's that points to this machine must not reach the page (DNS rebinding)."""
    for method, path, body in (("GET", "/", None), ("GET", "/about", None), ("POST", "/classify", question(["a"]))):
        status, _, found = ask(server, method, path, body, Host=host.format(server.server_port))
        assert status == 403 and "under no other name" in found["error"]


def test_names_of_this_machine_are_not(server: DemoServer) -> None:
    """With the port; none at all, or two, are none."""
    assert ask(server, "GET", "/", Host=f"localhost:{server.server_port}")[0] == 200
    assert send(server, "GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    own = f"Host: 127.0.0.1:{server.server_port}\r\n"
    assert send(server, f"GET / HTTP/1.1\r\n{own}Host: evil.example\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_other_sites_may_not_ask(server: DemoServer) -> None:
    """Neither with their Origin, nor as a form would; and no header ever allows them to."""
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert ask(server, "POST", "/classify", question(["a"]), Origin=origin)[0] == 403
    own = server.address.rstrip("/")
    status, headers, _ = ask(server, "POST", "/classify", question(["a"]), Origin=own)
    assert status == 200 and not [name for name in headers if name.lower().startswith("access-control")]
    assert ask(server, "POST", "/classify", question(["a"]), Content_Type="text/plain")[0] == 415
    assert ask(server, "OPTIONS", "/classify")[0] == 501


def test_no_path_reaches_the_disk(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three paths, whatever is written into them; the page itself is in memory."""
    for path in ("/page.html", "/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/?x", "/about/", "/classify"):
        assert ask(server, "GET", path)[0] == 404, path
    assert ask(server, "POST", "/about", b"{}")[0] == 404
    monkeypatch.setattr(server_module, "PAGE", Path("/nowhere"))
    assert ask(server, "GET", "/")[0] == 200


def test_the_page_asks_nobody_else(server: DemoServer) -> None:
    """No address in it, no handler or style that its policy would refuse, and the policy knows its own script and style."""
    _, headers, page = ask(server, "GET", "/")
    text = page.decode()
    assert "//" not in re.sub(r"<script>.*</script>", "", text, flags=re.S) and not re.search(
        r"https?:|url\(|@import", text
    )
    assert not re.search(r"<[^>]*\s(on\w+|style)=", text.split("<script>")[0])
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    for tag in ("style", "script"):
        inside = text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        own = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{own}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'" and policy["connect-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff" and "Python" not in headers["Server"]


def test_a_model_that_fails(server: DemoServer, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """The page hears of it, the terminal has the traceback, and the next question is answered."""

    def broken(question: Any) -> None:
        raise RuntimeError("out of memory\nand more")

    with monkeypatch.context() as patched:
        patched.setattr(server.classifier, "answer", broken)
        status, _, found = ask(server, "POST", "/classify", question(["a"]))
    assert status == 500 and found["error"] == "The models failed (RuntimeError: out of memory). The terminal has more."
    assert "Traceback" in capfd.readouterr().err
    assert ask(server, "POST", "/classify", question(["a"]))[0] == 200


def test_a_connection_stays_open_while_all_is_well(server: DemoServer) -> None:
    """Two questions over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    for _ in range(2):
        connection.request("POST", "/classify", question(["a"]), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 200 and reply.read()
    connection.close()


def test_a_taken_port(server: DemoServer) -> None:
    """Is a user's mistake, and so is one that is none."""
    for port in (server.server_port, 65536):
        with pytest.raises(ConfigError, match="choose another, or leave it out"):
            DemoServer(port, server.classifier, {})
