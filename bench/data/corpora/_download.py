"""Files from the web: continued where they broke off, checked, and written beside and renamed."""

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
"""Seconds without a byte after which a server is given up."""


def cache_folder(name: str) -> Path:
    """Where fetched corpora are kept: XDG_CACHE_HOME/attention-ladder/NAME, or the same in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-ladder" / name


def fetch(url: str, path: Path, sha256: str) -> bool:
    """Fetches a gzipped text to `path`; False if it was there. `sha256` is that of the text when unpacked.

    What has come so far is kept in PATH.part, from which the next call goes on.

    Raises:
        ValueError: the server cannot be reached, broke off, or sent something else; says what to do.
    """
    if path.exists() and _unpacked_hash(path) == sha256:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if not (part.exists() and _unpacked_hash(part) == sha256):
        _receive(url, part)
    found = _unpacked_hash(part)
    if found != sha256:
        part.unlink()
        raise ValueError(f"{url}: SHA-256 of the text is {found or 'none'}, not {sha256}; nothing is kept, try again")
    replace_file(part, path)
    return True


def _receive(url: str, part: Path) -> None:
    """Appends to `part` what is missing of the file at `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            continues = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            with open(part, "ab" if continues else "wb") as file:
                while block := answer.read(1 << 16):
                    file.write(block)
            missing = answer.length  # what the server announced and did not send
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # it is as long as the file or longer, and not the file
        raise ValueError(f"{url}: the server answers {error.code} {error.reason}; try again") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"{url}: cannot be fetched ({reason}); the same command continues") from error
    if missing:
        raise ValueError(f"{url}: broke off, {missing:,} bytes are missing; the same command continues")


def _unpacked_hash(path: Path) -> str | None:
    """SHA-256 of an unpacked .gz file; None if it is not a whole one."""
    try:
        return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
