"""Downloads from a local server that closes the connection, sends another file, or does not support resuming."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.data.corpora import multi30k
from bench.data.corpora._download import cache_folder, fetch
from bench.data.corpus import CorpusSettings
from bench.data.find_corpus import load

TEXT = "".join(f"Line {n} of a text with é.\n" for n in range(3000)).encode()
FILE = gzip.compress(TEXT, mtime=0)
HASH = hashlib.sha256(TEXT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves FILE, or `content`, at every path, and closes the connection after `max_bytes` bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.max_bytes, self.ranges = FILE, len(FILE), True
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]  # the only server that makes this handler

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requests.append((self.path, wanted))
        if self.server.files and self.path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files.get(self.path, self.server.content)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin : begin + self.server.max_bytes])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "file.gz"
    assert fetch(f"{server.url}/file.gz", path, HASH)
    assert path.read_bytes() == FILE
    assert not fetch(f"{server.url}/file.gz", path, HASH)
    assert server.requests == [("/file.gz", None)]
    assert [found.name for found in path.parent.iterdir()] == ["file.gz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path, ranges: bool) -> None:
    path, third = tmp_path / "file.gz", len(FILE) // 3
    server.max_bytes, server.ranges = third, ranges
    with pytest.raises(ValueError, match=r"/file\.gz: .*run the same command again to resume"):
        fetch(f"{server.url}/file.gz", path, HASH)
    assert not path.exists()
    assert (tmp_path / "file.gz.part").stat().st_size == third
    server.max_bytes = len(FILE)
    assert fetch(f"{server.url}/file.gz", path, HASH)
    assert path.read_bytes() == FILE
    assert server.requests[-1] == ("/file.gz", f"bytes={third}-")
    assert [found.name for found in tmp_path.iterdir()] == ["file.gz"]


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"Another text.\n", mtime=0), b"<html>Not found</html>", FILE[:-1]],
    ids=["another text", "a page", "cut off"],
)
def test_another_file_is_refused_and_deleted(server: Server, tmp_path: Path, content: bytes) -> None:
    server.content = content
    path = tmp_path / "file.gz"
    with pytest.raises(
        ValueError, match=r"/file\.gz: SHA-256 of the text is .*, not .*; the file was deleted, try again"
    ):
        fetch(f"{server.url}/file.gz", path, HASH)
    assert list(tmp_path.iterdir()) == []
    server.content = FILE
    assert fetch(f"{server.url}/file.gz", path, HASH)


def test_a_damaged_file_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(FILE[:100])
    assert fetch(f"{server.url}/file.gz", path, HASH)
    assert path.read_bytes() == FILE


def test_a_complete_part_file_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.gz.part").write_bytes(FILE)
    assert fetch(f"{server.url}/file.gz", tmp_path / "file.gz", HASH)
    assert server.requests == []


def test_a_part_file_that_is_too_long_is_deleted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.gz.part").write_bytes(bytes(len(FILE) + 5))
    with pytest.raises(ValueError, match=r"416 .*try again"):
        fetch(f"{server.url}/file.gz", tmp_path / "file.gz", HASH)
    assert fetch(f"{server.url}/file.gz", tmp_path / "file.gz", HASH)


def test_the_error_for_an_unreachable_server_names_the_address(server: Server, tmp_path: Path) -> None:
    server.files = {"/other": FILE}
    with pytest.raises(ValueError, match=r"/file\.gz: the server answers 404 Not Found"):
        fetch(f"{server.url}/file.gz", tmp_path / "file.gz", HASH)
    with pytest.raises(
        ValueError, match=r"^http://127\.0\.0\.1:1/file\.gz: download failed \(.*run the same command again"
    ):
        fetch("http://127.0.0.1:1/file.gz", tmp_path / "file.gz", HASH)
    assert list(tmp_path.iterdir()) == []


def test_multi30k_is_downloaded_to_the_cache_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {name: f"{name} one\n{name} two\n".encode() for name in multi30k.TEXTS}
    server.files = {f"/{name}.gz": gzip.compress(text, mtime=0) for name, text in texts.items()}
    monkeypatch.setattr(multi30k, "TEXTS", {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()})
    monkeypatch.setattr(multi30k, "ADDRESS", server.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MULTI30K", raising=False)
    with pytest.raises(ValueError, match=r"^corpus\.path: multi30k is not here; fetch it with `bench data fetch"):
        load(CorpusSettings("multi30k-en-fr"))
    assert server.requests == []  # loading does not start a download
    assert multi30k.fetch() == cache_folder("multi30k") == tmp_path / "attention-ladder" / "multi30k"
    assert len(server.requests) == 12
    corpus = load(CorpusSettings("multi30k-en-fr"))
    assert list(corpus.tests) == ["test_2016_flickr", "test_2017_flickr"]
    assert list(corpus.train) == [("train.en one", "train.fr one"), ("train.en two", "train.fr two")]
    multi30k.fetch()
    assert len(server.requests) == 12
