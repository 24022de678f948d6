"""A home folder and a user name for the libraries, on machines where the user has none: containers, batch systems."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path


def provide_home() -> str | None:
    """Set the environment variables without which libraries fail for a user without a home folder or a name.

    Libraries ask for the home folder when they are imported (MLflow), and for folders below it when they store a
    download or a compiled kernel. Variables that are set already stay. A folder that exists is used as it is, because
    what an image contains is read from there.

    Returns:
        A line for the user if caches go to a temporary folder; None if nothing had to be changed for them.
    """
    try:
        getpass.getuser()
    except (KeyError, ImportError, OSError):  # the user has no entry in the user database
        os.environ["USER"] = f"uid{os.getuid()}"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():  # no HOME, and no entry in the user database
        folder = _private_folder()
        os.environ["HOME"] = str(folder)
        return _message("this user has no home folder", folder)
    missing = {name: path for name, path in _folders(home).items() if not (os.environ.get(name) or _usable(path))}
    if not missing:
        return None
    folder = _private_folder()
    os.environ.update({name: str(folder / path.relative_to(path.anchor)) for name, path in missing.items()})
    return _message(f"the home folder {home} cannot be written", folder)


def _folders(home: Path) -> dict[str, Path]:
    """Environment variable -> the folder below `home` that is used without it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        "XDG_CACHE_HOME": cache,
        "HF_HOME": cache / "huggingface",
        "TORCH_HOME": cache / "torch",
        "MPLCONFIGDIR": config / "matplotlib",
        "TRITON_CACHE_DIR": home / ".triton" / "cache",
    }


def _usable(path: Path) -> bool:
    """Whether a folder exists, or can be created."""
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
            if path.exists():
                return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    except OSError:  # a parent may not be entered
        return False
    return path.is_dir()


def _private_folder() -> Path:
    """The folder TMP/attention-ladder-UID if it belongs to this user alone, so that nobody else can put files there;
    otherwise a new folder.
    """
    folder = Path(tempfile.gettempdir()) / f"attention-ladder-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="attention-ladder-"))
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if private else Path(tempfile.mkdtemp(prefix="attention-ladder-"))


def _message(reason: str, folder: Path) -> str:
    return f"{reason}; caches are kept in {folder}; set HOME to a folder that you may write to keep them elsewhere"
