"""A web server in a thread that misbehaves on request."""

import threading
import time
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Site:
    """Serves a folder; `tricks["/a/00000.tar"] = ["500", "cut"]` spoils the first two answers to GET of that path.

    A number is that status; `cut` announces all and sends half, `short` is half of it and says so, `flip` has one byte changed,
    `stall` sends half and then nothing, `slow` takes a second, `unsized` does not say how long it is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tricks: dict[str, list[str]] = {}
        self.seen: Counter[tuple[str, str]] = Counter()
        self.end = threading.Event()
        site = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, directory=str(root), **kwargs)

            def log_message(self, *args: Any) -> None:
                """Nothing."""

            def do_HEAD(self) -> None:
                site.seen["HEAD", self.path.partition("?")[0]] += 1
                super().do_HEAD()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                site.seen["GET", path] += 1
                tricks = site.tricks.get(path, [])
                if tricks:
                    site.spoil(self, tricks.pop(0), path)
                else:
                    super().do_GET()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *args: Any) -> None:
                """Clients that hang up are part of the tests."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def gets(self, path: str) -> int:
        """How often a path was asked for with GET."""
        return self.seen["GET", path]

    def spoil(self, handler: Any, trick: str, path: str) -> None:
        """Answer in one of the wrong ways."""
        if trick.isdigit():
            handler.send_error(int(trick))
            return
        content = (self.root / path[1:]).read_bytes()
        if trick == "short":
            content = content[: len(content) // 2]
        if trick == "flip":
            content = bytes([content[0] ^ 1]) + content[1:]
        handler.send_response(200)
        if trick != "unsized":
            handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Connection", "close")
        handler.close_connection = True
        handler.end_headers()
        half = len(content) // 2
        handler.wfile.write(content[:half])
        if trick == "stall":
            self.end.wait(60)
        if trick == "slow":
            time.sleep(1.0)
        if trick not in ("cut", "stall"):
            handler.wfile.write(content[half:])

    def close(self) -> None:
        """Stop serving."""
        self.end.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
