"""A local HTTP server for files, with the faults that real hosts have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path.

    Attributes:
        max_bytes: The connection is closed after so many bytes of a file; None: after all.
        ranges: Whether requests for a part of a file are answered with it, or with the whole file.
        faults: Status and headers of the next answers; they replace the files.
        redirects: Path -> status, headers and address (Location).
        requests: Path and header Range of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.max_bytes: int | None = None
        self.ranges = True
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.redirects: dict[str, tuple[int, dict[str, str], str]] = {}
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer  # pyright: ignore[reportIncompatibleVariableOverride]  # the only server that makes this handler

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requests.append((self.path, wanted))
        if self.server.faults:
            self.answer(*self.server.faults.pop(0))
        elif self.path in self.server.redirects:
            status, headers, address = self.server.redirects[self.path]
            self.answer(status, headers | {"Location": address})
        elif self.path not in self.server.files:
            self.answer(404, {})
        else:
            content = self.server.files[self.path]
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
            if begin >= len(content):
                self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            rest = content[begin:]
            self.wfile.write(rest if self.server.max_bytes is None else rest[: self.server.max_bytes])

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server in a thread."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
