"""Downloads: resumed after an interruption, verified by a hash, and moved into place in one step.

A file of which no hash is published is compared with the one that its host sends (Hugging Face does). Its own hash is
written beside it at the first download and is compared at every later use.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO, cast

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from bench.system import terminal
from bench.system.files import replace_file, write_file

TIMEOUT_S = 30
"""Seconds without data after which a download fails."""

LONGEST_WAIT_S = 60
"""A server that asks to wait longer before the next request (Retry-After) ends the download."""

ATTEMPTS = 4
"""Number of requests for one file, at most."""

BLOCK = 1 << 20
"""Bytes that are hashed at a time."""

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class RemoteFile:
    """A file at a fixed address.

    Attributes:
        url: Its address.
        digest: ALGORITHM:HEX, the algorithm being sha256 or md5 of the file, or `gunzip-sha256` of the decompressed
            content (the bytes of a .gz also depend on the program that compressed it); None: nobody has published it.
        size: Size in bytes; None: unknown.
    """

    url: str
    digest: str | None = None
    size: int | None = None


class Downloads:
    """Whether files may be downloaded, and whether one was refused. There is one object, `downloads`."""

    allowed, refused = True, False

    @contextmanager
    def forbidden(self) -> Iterator[Downloads]:
        """While the block runs, `fetch` raises ValueError for a file that is not there, and sets `refused`."""
        before, self.allowed, self.refused = self.allowed, False, False
        try:
            yield self
        finally:
            self.allowed = before


downloads = Downloads()


def fetch(remote: RemoteFile, path: Path) -> bool:
    """Download a file to `path`. Returns False if it is there already, with the right content.

    Data received so far is stored in PATH.part, and the next call resumes from there. Where no hash is known, the
    SHA-256 of the file is written to PATH.sha256, in the format of the command sha256sum.

    Raises:
        ValueError: the server cannot be reached, ended the connection early, or sent another file.
    """
    if is_complete(remote, path):
        return False
    if not downloads.allowed:
        downloads.refused = True
        raise ValueError(f"{path}: not downloaded; bench data fetch downloads it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_process(path):
        if is_complete(remote, path):  # another process has downloaded it meanwhile
            return False
        _download(remote, path)
    return True


def is_complete(remote: RemoteFile, path: Path) -> bool:
    """Whether `path` is the file with the right content. A file of unknown hash is trusted when it is first seen."""
    if not path.is_file():
        return False
    if expected := remote.digest or _recorded(path):
        return _digest(path, expected) == expected
    _check_format(path, str(path))
    _record(path)
    return True


def _download(remote: RemoteFile, path: Path) -> None:
    part, recorded = path.with_name(f"{path.name}.part"), None if remote.digest else _recorded(path)
    expected = remote.digest or recorded
    if not (expected and part.exists() and _digest(part, expected) == expected):
        expected = _receive_patiently(remote.url, part, path, remote.size, expected)
    if not expected:
        _check_format(part, remote.url, delete=True)
    elif (found := _digest(part, expected)) != expected:
        part.unlink()
        raise ValueError(
            f"{remote.url}: the hash of the file is {found or 'none, because it is damaged'}, not {expected}; the file "
            "was deleted; run the same command again, and if this repeats, a proxy answers in its place or the "
            "published file was changed" + (f" (delete {_record_file(path)} to accept the new one)" if recorded else "")
        )
    replace_file(part, path)
    if not remote.digest:
        _record(path)


def _receive_patiently(url: str, part: Path, path: Path, size: int | None, expected: str | None) -> str | None:
    """As `_receive`, but waits where the server asks for it. Raises ValueError, one line; `path` is for its advice."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _receive(url, part, size, expected)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.exists() and attempt < ATTEMPTS:
                part.unlink()  # it is at least as long as the file, but has another content
                continue
            answer = f"{url}: the server answers {error.code} {error.reason}"
            wait = _seconds_to_wait(error)
            if wait is None or wait > LONGEST_WAIT_S or attempt == ATTEMPTS:
                raise ValueError(f"{answer}; {_advice(error.code, wait, path)}") from error
            terminal.say(f"{answer} and asks to wait {wait:.0f} s; waiting")
            time.sleep(wait)
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:  # of our disk, not of the connection
                raise
            reason = getattr(error, "reason", error)
            raise ValueError(
                f"{url}: the download failed ({reason}); run the same command again to resume, or put the file "
                f"at {path}"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _receive(url: str, part: Path, size: int | None, expected: str | None) -> str | None:
    """Append the missing rest of a file to `part`. Returns the digest that it must have, or None if nobody knows it.

    Args:
        url: Its address.
        part: What has been received so far; it need not exist.
        size: Its size in bytes, if it is known.
        expected: Its digest, if it is known; otherwise that which the host sends.
    """
    received = part.stat().st_size if part.exists() else 0
    redirects = _Redirects()
    headers = {"User-Agent": "attention-ladder"} | ({"Range": f"bytes={received}-"} if received else {})
    opener = urllib.request.build_opener(redirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        expected = expected or redirects.digest or _linked_digest(response.headers)
        continues = response.status == HTTPStatus.PARTIAL_CONTENT
        if continues and not expected:  # the beginning may be of another version, and no hash would show it
            part.unlink()
            return _receive(url, part, size, None)
        received = received if continues else 0
        total = received + response.length if response.length is not None else None
        if size and total and total != size:
            raise ValueError(
                f"{url}: the server announces {total:,} bytes, and the published file has {size:,}; "
                "nothing was received; check whether a proxy answers in its place"
            )
        with (
            open(part, "ab") if continues else open(part, "wb") as file,
            _progress(url, received, total) as advance,
        ):
            while block := response.read(1 << 16):
                file.write(block)
                advance(len(block))
        missing = response.length  # bytes that the server announced and did not send
    if missing:
        raise http.client.HTTPException(f"the connection ended early, {missing:,} bytes are missing")
    return expected


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the hash that a redirecting host sends: the last host knows nothing of it."""

    digest: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.digest = self.digest or _linked_digest(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _linked_digest(headers: http.client.HTTPMessage) -> str | None:
    """The SHA-256 of a large file that Hugging Face sends with the redirect to it, as X-Linked-ETag: "HEX"."""
    tag = (headers.get("X-Linked-ETag") or "").strip().removeprefix("W/").strip('"')
    return f"sha256:{tag.lower()}" if re.fullmatch(r"[0-9a-fA-F]{64}", tag) else None


def _seconds_to_wait(error: urllib.error.HTTPError) -> float | None:
    """The seconds after which a busy server wants the next request (Retry-After, RFC 9110); None: it says nothing."""
    value = (error.headers.get("Retry-After") or "").strip()
    if error.code not in BUSY or not value:
        return None
    if value.isdecimal():
        return float(value)
    with suppress(ValueError):
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None


def _advice(code: int, wait: float | None, path: Path) -> str:
    if code in BUSY:
        how_long = f"{wait:.0f} s, as it asks," if wait is not None else "some minutes"
        return f"wait {how_long} and run the same command again to resume"
    if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "expected the file; the server has a fault, so run the same command again later"
    return (
        "expected the file; check that the corpus exists in these languages and is still published there, or download "
        f"it elsewhere and put it at {path}"
    )


def _check_format(path: Path, name: str, delete: bool = False) -> None:
    """Raises ValueError if a Parquet file is incomplete or is something else, such as a page of a proxy.

    Args:
        path: The file.
        name: What the message calls it.
        delete: Whether such a file is deleted.
    """
    if ".parquet" not in path.name:
        return
    with open(path, "rb") as file:
        begin = file.read(4)
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        end = file.read()
    if begin != b"PAR1" or end != b"PAR1":
        if delete:
            path.unlink()
        raise ValueError(
            f"{name}: the content is not a complete Parquet file; expected PAR1 as its first and last bytes; "
            f"{'it was deleted' if delete else 'delete it'}; run the same command again"
        )


def _digest(path: Path, like: str) -> str | None:
    """The digest of a file with the algorithm of the digest `like`, read in blocks; None if it cannot be read."""
    kind = like.partition(":")[0]
    digest = hashlib.new(kind.removeprefix("gunzip-"), usedforsecurity=kind != "md5")
    try:
        with gzip.open(path) if kind.startswith("gunzip-") else open(path, "rb") as file:
            while block := cast(IO[bytes], file).read(BLOCK):
                digest.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
    return f"{kind}:{digest.hexdigest()}"


def _record_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(path: Path) -> None:
    """Write the SHA-256 of a file beside it."""
    digest = _digest(path, "sha256:")
    assert digest is not None
    write_file(_record_file(path), f"{digest.removeprefix('sha256:')}  {path.name}\n")


def _recorded(path: Path) -> str | None:
    """The digest in the record beside a file; None if there is none."""
    with suppress(OSError, UnicodeDecodeError):
        words = _record_file(path).read_text(encoding="utf-8").split()
        return f"sha256:{words[0]}" if words and re.fullmatch(r"[0-9a-f]{64}", words[0]) else None
    return None


@contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Wait until no other process downloads to this folder: two would write into one PATH.part."""
    with open(path.parent / ".lock", "wb") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress(url: str, received: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Say what is downloaded, and show a bar on a terminal. Yields a function that takes the bytes of each block."""
    size = f" ({total / 1e6:,.1f} MB)" if total and total >= 1e5 else ""
    terminal.say(f"{'resuming' if received else 'downloading'} {url}{size}")
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = terminal.console
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(url.rpartition("/")[2], total=total, completed=received)
        yield lambda count: bar.advance(task, count)
