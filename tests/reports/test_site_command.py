"""The command that writes a site, also from the exports that --from names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.main import main
from bench.tracking.export import export
from bench.tracking.exported import read_exports
from bench.tracking.store import Store
from reports.plots import main_plots
from tests.helpers import synthetic_runs

pytestmark = [*synthetic_runs.quiet_mlflow, pytest.mark.usefixtures("mixed", "compared")]


@pytest.fixture(scope="module")
def exports(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two exports and a folder that is none."""
    folder = tmp_path_factory.mktemp("exports")
    for name, suite in (("b", "mixed"), ("a", "earlier")):
        export(store, folder / name, [suite])
    (folder / "c").mkdir()
    return folder


def test_exports_are_read_one_by_one_or_from_a_folder_of_exports(exports: Path):
    assert [reader.suites() for reader in read_exports([exports])] == [["earlier"], ["mixed"]]
    assert [reader.suites() for reader in read_exports([exports / "b", exports / "a"])] == [["mixed"], ["earlier"]]
    assert read_exports([]) == []


def test_a_folder_without_exports_is_an_error(exports: Path):
    with pytest.raises(ValueError, match=r"c has no readable export\.yaml"):
        read_exports([exports / "b", exports / "c"])


def test_the_command_writes_a_site_from_exports(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(main_plots, "all_plots", lambda _: [])
    arguments = [part for name in ("a", "b") for part in ("--from", f"{exports}/{name}")]
    assert main(["report", *arguments, "--site", f"{tmp_path}/one", "--lang", "ko"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/one/index.html (8 pages)\n"
    assert main(["report", "--from", str(exports), "--site", f"{tmp_path}/two", "--lang", "ko"]) == 0
    index = (tmp_path / "one" / "index.html").read_text()
    assert index == (tmp_path / "two" / "index.html").read_text()
    assert "모든 실험" in (tmp_path / "one" / "rows" / "base.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--site", "site", "--suite", "mixed"], "--suite: a site has all suites and its own folder"),
        (["--site", "site", "--format", "csv"], "--format: a site has all suites and its own folder"),
        (["--site", "site", "--from", "none"], "none has no readable export.yaml; make one with"),
    ],
)
def test_flags_that_do_not_fit_are_named(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["report", *flags]) == 2
    assert message in capsys.readouterr().err
