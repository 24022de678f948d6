"""Downloads from a local server that closes the connection, sends another file, redirects, or asks to wait."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from bench.data.corpora import _download
from bench.data.corpora._download import RemoteFile, downloads, fetch
from tests.helpers.file_server import FileServer, serving

TEXT = "".join(f"Line {n} of a text with é.\n" for n in range(3000)).encode()
GZIPPED = gzip.compress(TEXT, mtime=0)
TEXT_DIGEST = f"gunzip-sha256:{hashlib.sha256(TEXT).hexdigest()}"
PARQUET = b"PAR1" + random.Random(1).randbytes(5000) + b"PAR1"
SHA256 = hashlib.sha256(PARQUET).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        server.files = {"/file.gz": GZIPPED, "/a.parquet": PARQUET}
        yield server


def visible(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir() if not found.name.startswith("."))


def test_a_file_is_downloaded_once(server: FileServer, tmp_path: Path) -> None:
    path, remote = tmp_path / "deeper" / "file.gz", RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST)
    assert fetch(remote, path)
    assert path.read_bytes() == GZIPPED
    assert not fetch(remote, path)
    assert server.requests == [("/file.gz", None)]
    assert visible(path.parent) == ["file.gz"]


@pytest.mark.parametrize("digest", [f"sha256:{SHA256}", f"md5:{hashlib.md5(PARQUET).hexdigest()}"])
def test_the_algorithm_is_that_of_the_digest(server: FileServer, tmp_path: Path, digest: str) -> None:
    path = tmp_path / "a.parquet"
    assert fetch(RemoteFile(f"{server.url}/a.parquet", digest, len(PARQUET)), path)
    assert path.read_bytes() == PARQUET


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(server: FileServer, tmp_path: Path, ranges: bool) -> None:
    path, third = tmp_path / "file.gz", len(GZIPPED) // 3
    remote = RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST)
    server.max_bytes, server.ranges = third, ranges
    with pytest.raises(ValueError, match=r"/file\.gz: .* bytes are missing\); run the same command again to resume"):
        fetch(remote, path)
    assert not path.exists()
    assert (tmp_path / "file.gz.part").stat().st_size == third
    server.max_bytes = None
    assert fetch(remote, path)
    assert path.read_bytes() == GZIPPED
    assert server.requests[-1] == ("/file.gz", f"bytes={third}-")
    assert visible(tmp_path) == ["file.gz"]


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"Another text.\n", mtime=0), b"<html>Not found</html>", GZIPPED[:-1]],
    ids=["another text", "a page", "cut off"],
)
def test_another_file_is_refused_and_deleted(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files["/file.gz"] = content
    path, remote = tmp_path / "file.gz", RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST)
    with pytest.raises(ValueError, match=r"/file\.gz: the hash of the file is .*, not gunzip-sha256:.* was deleted"):
        fetch(remote, path)
    assert visible(tmp_path) == []
    server.files["/file.gz"] = GZIPPED
    assert fetch(remote, path)


def test_a_file_of_another_size_is_refused_before_it_is_received(server: FileServer, tmp_path: Path) -> None:
    server.files["/a.parquet"] = b"<html>Log in</html>"
    with pytest.raises(ValueError, match=r"announces 19 bytes, and the published file has 5,008"):
        fetch(RemoteFile(f"{server.url}/a.parquet", f"sha256:{SHA256}", len(PARQUET)), tmp_path / "a.parquet")
    assert visible(tmp_path) == []


def test_a_damaged_file_is_downloaded_again(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(GZIPPED[:100])
    assert fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), path)
    assert path.read_bytes() == GZIPPED


def test_a_complete_part_file_is_used(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.gz.part").write_bytes(GZIPPED)
    assert fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    assert server.requests == []


def test_a_part_file_that_is_too_long_is_received_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.gz.part").write_bytes(bytes(len(GZIPPED) + 5))
    assert fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    assert (tmp_path / "file.gz").read_bytes() == GZIPPED
    assert [wanted for _, wanted in server.requests] == [f"bytes={len(GZIPPED) + 5}-", None]


def test_the_error_for_an_unreachable_server_names_the_address(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/b\.gz: the server answers 404 Not Found; expected the file; .*put it at"):
        fetch(RemoteFile(f"{server.url}/b.gz", TEXT_DIGEST), tmp_path / "b.gz")
    server.faults = [(500, {})]
    with pytest.raises(ValueError, match=r"the server answers 500 .*again later"):
        fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    with pytest.raises(
        ValueError, match=r"^http://127\.0\.0\.1:1/file\.gz: the download failed \(.*run the same command again"
    ):
        fetch(RemoteFile("http://127.0.0.1:1/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    assert visible(tmp_path) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed_also_when_resuming(server: FileServer, tmp_path: Path, status: int) -> None:
    server.redirects["/resolve/a.parquet"] = (status, {}, "/a.parquet")  # relative, as Hugging Face sends it
    remote, path = RemoteFile(f"{server.url}/resolve/a.parquet", f"sha256:{SHA256}"), tmp_path / "a.parquet"
    server.max_bytes = 1000
    with pytest.raises(ValueError, match="4,008 bytes are missing"):
        fetch(remote, path)
    server.max_bytes = None
    assert fetch(remote, path)
    assert path.read_bytes() == PARQUET
    assert server.requests[-2:] == [("/resolve/a.parquet", "bytes=1000-"), ("/a.parquet", "bytes=1000-")]


def test_a_busy_server_is_asked_again_after_the_time_that_it_says(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(_download.time, "sleep", waited.append)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    server.faults = [(429, {"Retry-After": "3"}), (503, {"Retry-After": date})]
    assert fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    assert waited[0] == 3
    assert 15 < waited[1] <= 20
    assert "the server answers 429 Too Many Requests and asks to wait 3 s; waiting" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("headers", "advice"),
    [
        ({"Retry-After": "600"}, "wait 600 s, as it asks, and run the same command again"),
        ({}, "wait some minutes and run"),
        ({"Retry-After": "soon"}, "wait some minutes and run"),
    ],
)
def test_a_server_that_stays_busy_is_an_error(
    server: FileServer, tmp_path: Path, headers: dict[str, str], advice: str
) -> None:
    server.faults = [(429, headers)]
    with pytest.raises(ValueError, match=rf"answers 429 Too Many Requests; {advice}"):
        fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    assert len(server.requests) == 1


def test_the_number_of_requests_is_limited(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download.time, "sleep", lambda _: None)
    server.faults = [(429, {"Retry-After": "1"})] * 10
    with pytest.raises(ValueError, match="answers 429"):
        fetch(RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz")
    assert len(server.requests) == 4


# --- files whose hash nobody has published ----------------------------------------------------------------------------


def linked(server: FileServer, digest: str = SHA256) -> RemoteFile:
    """A file behind a redirect that has its SHA-256, as Hugging Face sends it."""
    server.redirects["/resolve/a.parquet"] = (302, {"X-Linked-ETag": f'"{digest}"'}, "/a.parquet")
    return RemoteFile(f"{server.url}/resolve/a.parquet")


def test_the_first_download_is_compared_with_the_hash_that_the_host_sends(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(ValueError, match=rf"the hash of the file is sha256:{SHA256}, not sha256:0000.*was deleted"):
        fetch(linked(server, "0" * 64), path)
    assert visible(tmp_path) == []
    assert fetch(linked(server), path)
    assert visible(tmp_path) == ["a.parquet", "a.parquet.sha256"]
    assert (tmp_path / "a.parquet.sha256").read_text() == f"{SHA256}  a.parquet\n"  # for sha256sum --check


def test_later_uses_compare_with_the_first_download(server: FileServer, tmp_path: Path) -> None:
    path, remote = tmp_path / "a.parquet", linked(server)
    assert fetch(remote, path)
    assert not fetch(remote, path)
    path.write_bytes(PARQUET[:-4] + b"2PAR1")
    assert fetch(remote, path)  # damaged after the download
    assert path.read_bytes() == PARQUET
    path.unlink()
    server.files["/a.parquet"] = PARQUET[:-4] + b"2PAR1"
    server.redirects.clear()
    server.files["/resolve/a.parquet"] = server.files["/a.parquet"]  # the published file was changed, and no hash sent
    for sent in (None, hashlib.sha256(server.files["/a.parquet"]).hexdigest()):
        if sent:  # the host changed the hash, too
            linked(server, sent)
        with pytest.raises(
            ValueError, match=rf"not sha256:{SHA256}; .*delete .*a\.parquet\.sha256 to accept the new one"
        ):
            fetch(remote, path)
        assert not path.exists()


def test_a_download_of_unknown_hash_is_not_resumed(server: FileServer, tmp_path: Path) -> None:
    path, remote = tmp_path / "a.parquet", RemoteFile(f"{server.url}/a.parquet")
    server.max_bytes = 1000
    with pytest.raises(ValueError, match="bytes are missing"):
        fetch(remote, path)
    assert not path.exists()
    server.max_bytes, server.files["/a.parquet"] = None, b"PAR1 another version PAR1" + bytes(2000) + b"PAR1"
    assert fetch(remote, path)
    assert path.read_bytes() == server.files["/a.parquet"]  # and not the begin of the first version


def test_a_download_of_unknown_hash_is_resumed_where_the_host_sends_it(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    server.max_bytes = 1000
    with pytest.raises(ValueError, match="bytes are missing"):
        fetch(linked(server), path)
    server.max_bytes = None
    assert fetch(linked(server), path)
    assert path.read_bytes() == PARQUET
    assert server.requests[-1] == ("/a.parquet", "bytes=1000-")


def test_a_page_in_place_of_a_parquet_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.files["/a.parquet"] = b"<html>Log in</html>"
    with pytest.raises(ValueError, match=r"/a\.parquet: the content is not a complete Parquet file; expected PAR1"):
        fetch(RemoteFile(f"{server.url}/a.parquet"), tmp_path / "a.parquet")
    assert visible(tmp_path) == []


def test_a_file_that_was_put_there_by_hand_is_used(server: FileServer, tmp_path: Path) -> None:
    path, remote = tmp_path / "a.parquet", RemoteFile(f"{server.url}/a.parquet")
    path.write_bytes(PARQUET[:-1])
    with pytest.raises(ValueError, match="not a complete Parquet file"):
        fetch(remote, path)
    path.write_bytes(PARQUET)
    assert not fetch(remote, path)
    assert server.requests == []
    assert visible(tmp_path) == ["a.parquet", "a.parquet.sha256"]


def test_two_processes_download_a_file_once(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = _download._receive

    def slowly(*arguments: Any) -> str | None:
        time.sleep(0.2)
        return receive(*arguments)

    monkeypatch.setattr(_download, "_receive", slowly)
    results: list[bool] = []
    remote, path = RemoteFile(f"{server.url}/file.gz", TEXT_DIGEST), tmp_path / "file.gz"
    threads = [threading.Thread(target=lambda: results.append(fetch(remote, path))) for _ in range(2)]
    for thread in threads:  # flock is per open file, so it separates threads as well as processes
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    assert len(server.requests) == 1


def test_a_forbidden_download_asks_no_server(server: FileServer, tmp_path: Path) -> None:
    with downloads.forbidden() as attempted, pytest.raises(ValueError, match="not downloaded; bench data fetch"):
        fetch(RemoteFile(f"{server.url}/file"), tmp_path / "file")
    assert attempted.refused
    assert downloads.allowed
    assert not server.requests
    assert not list(tmp_path.iterdir())
