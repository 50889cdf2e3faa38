from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Hub(ThreadingHTTPServer):
    """A file server on 127.0.0.1 that keeps what was asked of it: (path, Range header or None) per request.

    cut_at: break each answer off at this byte of the file. shift: begin parts so many bytes later than asked.
    pause_s: wait for so long after the first byte of a file.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        ranges: bool = True,
        cut_at: int | None = None,
        shift: int = 0,
        port: int = 0,
        pause_s: float = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.files, self.ranges, self.cut_at, self.shift = files, ranges, cut_at, shift
        self.pause_s = pause_s
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:  # the name http.server calls
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start += self.server.shift if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content[start : self.server.cut_at]
        self.wfile.write(sent[:1])
        time.sleep(self.server.pause_s)
        with suppress(BrokenPipeError):  # the client was killed
            self.wfile.write(sent[1:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes], **options: Any) -> Iterator[Hub]:
    """Serve files on a thread. options: see Hub."""
    with Hub(files, **options) as hub:
        thread = Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
