"""Facts about code and machine: what cannot be read is unknown, never clean, none or empty."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from bench.system import facts
from bench.system.facts import COMMIT, UNCOMMITTED_CHANGES, UNKNOWN, code_state, environment_tags, fact

NOT_KNOWN = {COMMIT: UNKNOWN, UNCOMMITTED_CHANGES: UNKNOWN}


def git(folder: Path, *arguments: object) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always", "-C", folder]
    done = subprocess.run([*map(str, [*command, *arguments])], capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of one file, package/code.py."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "repository"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "code.py").write_text("one\n")
    git(tmp_path, "init", "-q", folder)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_and_uncommitted_changes(repository: Path) -> None:
    file, commit = repository / "package" / "code.py", git(repository, "rev-parse", "HEAD")
    assert code_state(file) == {COMMIT: commit, UNCOMMITTED_CHANGES: "false"}
    file.write_text("two\n")
    assert code_state(file) == {COMMIT: commit, UNCOMMITTED_CHANGES: "true"}


def test_changed_results_are_no_change_of_the_code(repository: Path) -> None:
    """A suite that exports to the committed results changes them while it runs."""
    file, result = repository / "package" / "code.py", repository / "reports" / "results" / "table.csv"
    result.parent.mkdir(parents=True)
    result.write_text("1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "results")
    result.unlink()
    assert code_state(file)[UNCOMMITTED_CHANGES] == "false"
    file.write_text("two\n")
    assert code_state(file)[UNCOMMITTED_CHANGES] == "true"


def test_a_clone_of_another_user_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git refuses such a clone ("dubious ownership"); the variable is that of git's own tests."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    assert code_state(repository / "package" / "code.py") == NOT_KNOWN


def test_code_outside_a_repository_or_without_git_is_unknown(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone.py"
    alone.touch()
    assert code_state(alone) == NOT_KNOWN
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(repository / "package" / "code.py") == NOT_KNOWN


def test_an_installed_package_does_not_have_the_commit_of_the_project_around_it(repository: Path) -> None:
    installed = repository / ".venv" / "site-packages" / "bench" / "facts.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert code_state(installed) == NOT_KNOWN


def test_a_repository_without_a_commit_is_unknown(repository: Path, tmp_path: Path) -> None:
    shutil.rmtree(repository / ".git")
    git(tmp_path, "init", "-q", repository)
    git(repository, "add", ".")
    assert code_state(repository / "package" / "code.py")[COMMIT] == UNKNOWN


def test_a_slow_git_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "GIT_SECONDS", 1e-6)
    assert code_state(repository / "package" / "code.py") == NOT_KNOWN


@pytest.mark.parametrize("kind", ["detached", "shallow", "worktree", "submodule", "hook of another repository"])
def test_every_kind_of_checkout_has_its_commit(
    kind: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, other = git(repository, "rev-parse", "HEAD"), tmp_path / "other"
    if kind == "detached":
        git(repository, "checkout", "-q", "--detach")
        other = repository
    elif kind == "shallow":
        git(tmp_path, "clone", "-q", "--depth", 1, repository.as_uri(), other)
    elif kind == "worktree":
        git(repository, "worktree", "add", "-q", other)
    else:
        git(tmp_path, "init", "-q", other)
        git(other, "commit", "-q", "--allow-empty", "-m", "of the other repository")
        if kind == "submodule":
            git(other, "submodule", "add", "-q", repository, "code")
            other /= "code"
        else:
            monkeypatch.setenv("GIT_DIR", str(other / ".git"))
            other = repository
    assert code_state(other / "package" / "code.py") == {COMMIT: commit, UNCOMMITTED_CHANGES: "false"}


def test_a_fact_that_fails_or_is_empty_is_unknown() -> None:
    def fails() -> str:
        raise RuntimeError("the driver does not answer")

    assert [fact(read) for read in (fails, lambda: None, lambda: "", lambda: 0)] == [UNKNOWN] * 3 + ["0"]


def test_a_machine_that_tells_nothing_costs_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_metadata(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(facts, "version", no_metadata)
    monkeypatch.setattr(
        facts, "Path", lambda path: tmp_path / "absent" if str(path).startswith("/proc") else Path(path)
    )
    monkeypatch.setattr("os.cpu_count", lambda: None)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "")
    tags = environment_tags(torch.device("cpu"))
    assert {tags[f"version.{package}"] for package in facts.PACKAGES} == {UNKNOWN}
    assert (tags["hardware.cpu"], tags["hardware.cores"], tags["hardware.gpu"]) == (UNKNOWN, UNKNOWN, "none")

    def no_driver(device: torch.device) -> str:
        raise RuntimeError("CUDA driver initialization failed")

    monkeypatch.setattr("torch.cuda.get_device_name", no_driver)
    assert environment_tags(torch.device("cuda"))["hardware.gpu"] == UNKNOWN
