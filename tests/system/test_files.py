"""Atomic writes: the file has the old or the new content, and no other file remains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.system.files import fill_file, inside, remove_partial_files, write_file


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "file"
    write_file(path, "old")

    def half(partial: Path) -> None:
        partial.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        fill_file(path, half)
    assert path.read_text() == "old"
    assert [path.name for path in path.parent.iterdir()] == ["file"]


def test_an_error_other_than_oserror_leaves_no_partial_file(tmp_path: Path) -> None:
    def interrupted(partial: Path) -> None:
        partial.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_file(tmp_path / "file", interrupted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("durable", [True, False])
def test_the_content_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda one, other: (steps.append("rename"), replace(one, other)))
    write_file(tmp_path / "file", "Wörter", durable=durable)
    assert (tmp_path / "file").read_bytes() == "Wörter".encode()
    assert steps == (["fsync", "rename"] if durable else ["rename"])


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".file.123", ".other.5", "file"):
        (tmp_path / name).write_text("")
    remove_partial_files(tmp_path, "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.5", "file"]
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_path_made_of_names_stays_inside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for each in (folder / "real", outside):
        each.mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "own").symlink_to(folder / "real")
    for names in (("a", "b"), ("real", "..a"), ("own", "new"), ("%2e%2e", "50% 日本\u3000"), ()):
        assert inside(folder, *names) == folder.joinpath(*names)
    for names in (("..",), ("a", ".."), ("a/../../b",), ("/etc",), ("",), (".",), ("a\0b",)):
        with pytest.raises(ValueError, match="is not used as the name of a file"):
            inside(folder, *names)
    for names in (("link",), ("link", "new")):
        with pytest.raises(ValueError, match=r"leads to .*, outside of"):
            inside(folder, *names)
    (tmp_path / "linked").symlink_to(folder)
    assert inside(tmp_path / "linked", "a") == tmp_path / "linked" / "a"
