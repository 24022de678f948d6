"""A user without a home folder or a name, as in containers: libraries get folders that can be written."""

from __future__ import annotations

import getpass
import os
import stat
from pathlib import Path

import pytest

from bench.system.home import provide_home

VARIABLES = ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without these variables, and a folder for temporary files; returns the folder."""
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CONFIG_HOME", *VARIABLES):
        # set first, because the variables that the code sets must be removed after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def unknown_user(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


def test_an_unknown_user_without_home_gets_a_temporary_home_and_a_name(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwuid", unknown_user)
    folder = environment / f"attention-ladder-{os.getuid()}"
    message = provide_home() or ""
    assert message.startswith(f"this user has no home folder; caches are kept in {folder}; set HOME")
    assert Path.home() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert provide_home() is None  # a worker has the variables of its driver


def test_a_home_that_cannot_be_written_keeps_its_settings(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null")  # as service users have it
    monkeypatch.setenv("HF_HOME", "/data/huggingface")
    message = provide_home() or ""
    folder = environment / f"attention-ladder-{os.getuid()}"
    assert f"the home folder /dev/null cannot be written; caches are kept in {folder}" in message
    assert (os.environ["HOME"], os.environ["HF_HOME"]) == ("/dev/null", "/data/huggingface")
    assert {name for name in VARIABLES if Path(os.environ[name]).is_relative_to(folder)} == {*VARIABLES} - {"HF_HOME"}


def test_an_existing_cache_is_still_read(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image may contain a corpus in a home folder that its user cannot write."""
    home = environment / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("os.access", lambda path, mode: not Path(path).is_relative_to(home))
    assert provide_home()
    assert "XDG_CACHE_HOME" not in os.environ
    assert "HF_HOME" not in os.environ
    assert "TRITON_CACHE_DIR" in os.environ


def test_a_usual_home_changes_nothing(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(environment / "new"))  # libraries create it
    before = dict(os.environ)
    assert provide_home() is None
    assert dict(os.environ) == before


def test_a_folder_of_somebody_else_is_not_used(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    folder, elsewhere = environment / f"attention-ladder-{os.getuid()}", environment / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    provide_home()
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert cache.is_relative_to(environment)
    assert not cache.is_relative_to(folder)
    assert list(elsewhere.iterdir()) == []
