"""Downloads: resumed after an interruption, verified by SHA-256, and moved into place atomically."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from bench.system.files import replace_file

TIMEOUT = 30
"""Seconds without data after which a download fails."""


def cache_folder(name: str) -> Path:
    """The folder for downloaded corpora: XDG_CACHE_HOME/attention-ladder/NAME; XDG_CACHE_HOME defaults to ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-ladder" / name


def fetch(url: str, path: Path, sha256: str) -> bool:
    """Download a gzipped text to `path`. Returns False if the file already exists with the right content.

    Data received so far is stored in PATH.part, and the next call resumes from there.

    Args:
        url: Address of the file.
        path: Where the file is stored.
        sha256: Expected SHA-256 of the decompressed text.

    Raises:
        ValueError: the server cannot be reached, ended the connection early, or sent another file.
    """
    if path.exists() and _content_hash(path) == sha256:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if not (part.exists() and _content_hash(part) == sha256):
        _receive(url, part)
    found = _content_hash(part)
    if found != sha256:
        part.unlink()
        raise ValueError(
            f"{url}: SHA-256 of the text is {found or 'none'}, not {sha256}; the file was deleted, try again"
        )
    replace_file(part, path)
    return True


def _receive(url: str, part: Path) -> None:
    """Append the missing rest of the file at `url` to `part`."""
    received = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={received}-"} if received else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
            with open(part, "ab" if continues else "wb") as file:
                while block := response.read(1 << 16):
                    file.write(block)
            missing = response.length  # bytes that the server announced and did not send
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # it is at least as long as the file but has another content
        raise ValueError(f"{url}: the server answers {error.code} {error.reason}; try again") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"{url}: download failed ({reason}); run the same command again to resume") from error
    if missing:
        raise ValueError(
            f"{url}: the connection ended early, {missing:,} bytes are missing; run the same command again to resume"
        )


def _content_hash(path: Path) -> str | None:
    """SHA-256 of the decompressed content of a .gz file; None if it is damaged or incomplete."""
    try:
        return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
