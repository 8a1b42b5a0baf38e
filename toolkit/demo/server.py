"""The page over HTTP, for this machine alone: standard library, three paths, nothing of a request reaches the disk."""

import base64
import hashlib
import json
import re
import sys
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from toolkit.demo.classify import Classifier
from toolkit.demo.request import MAX_BODY_BYTES, Refused, read_question, too_large
from toolkit.errors import ConfigError

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page.html")
SILENT_SECONDS = 60
"""A connection that says nothing for so long is closed."""


class DemoServer(ThreadingHTTPServer):
    """Bound to the loopback address; `address` is what to open."""

    daemon_threads = True

    def __init__(self, port: int, classifier: Classifier, about: dict[str, Any]) -> None:
        """`about` is what the page asks for at its start; port 0 takes a free one. Raises ConfigError for a taken one."""
        self.classifier = classifier
        self.about = json.dumps(about).encode()
        self.page = PAGE.read_bytes()
        self.policy = content_policy(self.page.decode())
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--port {port} cannot be had ({error}); choose another, or leave it out for a free one"
            ) from error
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT/`."""
        return f"http://{HOST}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """GET / and /about, POST /classify; everything else is refused in JSON."""

    server: DemoServer
    protocol_version = "HTTP/1.1"
    timeout = SILENT_SECONDS

    def do_GET(self) -> None:
        """The page, or what it is about."""
        self.answer({"/": self.send_page, "/about": self.send_about})

    def do_POST(self) -> None:
        """A question."""
        self.answer({"/classify": self.classify})

    def answer(self, paths: dict[str, Any]) -> None:
        """Call what stands for the path; a refusal becomes JSON `{"error": sentence}`."""
        try:
            self.check_origin()
            if self.path not in paths:
                raise Refused(404, "There is only / here, and what its page asks for.")
            paths[self.path]()
        except Refused as why:
            self.close_connection = True  # its body may be unread
            self.send(why.status, json.dumps({"error": why.message}).encode(), "application/json")
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the browser has gone
        except Exception as error:  # a model that fails on this picture: the page says so, the demo goes on
            traceback.print_exc()
            self.close_connection = True
            first = (str(error).splitlines() or [""])[0][:200]
            message = f"The models failed ({type(error).__name__}: {first}). The terminal has more."
            self.send(500, json.dumps({"error": message}).encode(), "application/json")

    def check_origin(self) -> None:
        """Raise Refused unless asked by this machine's own name, and by this page where a page asks.

        A name that someone else lets point here (DNS rebinding) stands in Host, another site's page in Origin.
        """
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            raise Refused(403, f"This page is at {self.server.address} and answers under no other name.")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            raise Refused(403, "Another site may not ask here.")

    def send_page(self) -> None:
        """One file, with its style and script."""
        self.send(200, self.server.page, "text/html; charset=utf-8")

    def send_about(self) -> None:
        """Models, limits, samples."""
        self.send(200, self.server.about, "application/json")

    def classify(self) -> None:
        """Read what was sent, not more than the limit, and answer."""
        body = self.rfile.read(self.body_length())
        found = self.server.classifier.answer(read_question(body))
        self.send(200, json.dumps(found).encode(), "application/json")

    def body_length(self) -> int:
        """Bytes of the body, before one is read; raises Refused."""
        if self.headers.get_content_type() != "application/json":  # what a form of another site could not send unasked
            raise Refused(415, "The question is JSON; send Content-Type: application/json.")
        given = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(given) != 1 or not re.fullmatch(r"[0-9]{1,18}", given[0]):
            raise Refused(411, "The request does not say its length once, in bytes.")
        if int(given[0]) > MAX_BODY_BYTES:
            raise Refused(413, too_large(int(given[0]) * 3 // 4))
        return int(given[0])

    def send(self, status: int, body: bytes, content_type: str) -> None:
        """With headers that let the page load nothing from elsewhere, and nobody else load the page."""
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """No versions."""
        return "dime"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Only what went wrong inside, and that is a traceback."""

    def log_error(self, format: str, *args: Any) -> None:
        """A line for requests that are no HTTP."""
        print(f"demo: {format % args}", file=sys.stderr)


def content_policy(page: str) -> str:
    """Nothing but the page's own style and script, by their hashes; pictures from itself; requests to here."""
    style, script = (
        " ".join(f"'sha256-{digest(part)}'" for part in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S))
        for tag in ("style", "script")
    )
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def digest(part: str) -> str:
    """SHA-256 in base64, as browsers want it."""
    return base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
