"""A report from an exported folder, in other languages, and against another suite."""

from __future__ import annotations

import re
from pathlib import Path

import html5lib
import pytest

from bench.cli.main import main
from bench.experiment.loading import row_files, resolve
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs.suite import Suite
from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs, snapshot
from reports.gathering.context import Context
from reports.tables import detail_tables
from reports.text import catalogue
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic

pytestmark = synthetic_runs.quiet_mlflow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two suites: in the later one Tested is better, Same is the same, and each has a row of its own."""
    store = synthetic_runs.new_store(tmp_path_factory.mktemp("runs"))
    same = Synthetic("same", "Same", 2015, 4, 2e12)
    earlier = [Synthetic("tested", "Tested", 2014, 2, 1e12), same, Synthetic("gone", "Gone", 2013, 3, 1e12)]
    later = [Synthetic("tested", "Tested", 2014, 20, 3e12), same, Synthetic("new", "New", 2017, 3, 1e12)]
    synthetic_runs.suite(store, "earlier", earlier, "tested,same,gone", "same")
    synthetic_runs.suite(store, "later", later, "tested,same,new", "same")
    return store


@pytest.fixture(scope="module")
def compared(store: Store) -> Context:
    return gather_runs.gather(store, "later", compare_with="earlier")


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_report_from_a_snapshot_has_the_same_bytes(store: Store, compared: Context, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later", compare_with="earlier")
    recorder.export(tmp_path / "kept")
    again = gather_runs.gather(snapshot.Snapshot(tmp_path / "kept"), "later", compare_with="earlier")
    ours, theirs = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in write.all_forms(context, folder)
            if path.suffix != ".pdf"
        }
        for context, folder in ((compared, tmp_path / "a"), (again, tmp_path / "b"))
    )  # a PDF holds its hour
    assert ours == theirs
    assert len(ours) > 8


def test_a_snapshot_names_no_place_on_this_machine(store: Store, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later")
    kept = recorder.export(tmp_path / "kept").read_text()
    assert str(store.settings.path) not in kept
    assert snapshot.Snapshot(tmp_path / "kept").suites() == ["later"]


def test_a_password_in_an_address_stays_out_of_snapshot_and_page(store: Store, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    recorder.uri = "https://user:secret@host:5000/mlflow"
    page = write.page(gather_runs.gather(recorder, "later"))
    kept = recorder.export(tmp_path / "kept").read_text()
    assert "https://host:5000/mlflow/#/experiments/" in page
    assert '"uri": "https://host:5000/mlflow"' in kept
    assert "secret" not in page + kept + write.page(gather_runs.gather(store, "later", "http://me:secret@[::1]:5000"))


def test_the_command_exports_and_reads_a_snapshot(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert (
        main(
            [
                "report",
                "--suite",
                "later",
                "--tracking.uri",
                store.uri,
                "--format",
                "csv",
                "--export",
                f"{tmp_path}/kept",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert main(["report", "--from", f"{tmp_path}/kept", "--format", "csv"]) == 0
    assert printed.splitlines()[1:] == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "--from: nowhere has no readable snapshot.json; make one with bench report --export"),
        (["--from", "a", "--export", "b"], "remove one of the flags"),
        (["--suite", "later", "--lang", "tlh"], "--lang: there is no 'tlh'; there are: en, ko"),
        (["--suite", "later", "--compare", "never"], "there is no suite 'never'"),
    ],
)
def test_wrong_arguments_are_one_line(
    store: Store,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- what changed -----------------------------------------------------------------------------------------------------


def test_what_changed_is_tested_in_pairs(compared: Context):
    table = detail_tables.changes(compared)
    assert table is not None
    lines = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    tested = next(test for test in compared.changes if test.row == "tested")
    before, now, difference, _, p, adjusted, verdict, flops, latency = lines["Tested"]
    assert float(difference) == pytest.approx(float(now) - float(before), abs=0.11)
    assert tested.difference > 0
    assert (tested.corrected_for, verdict, flops, latency) == (1, "better", "×\u00a03.00", "×\u00a01.00")
    assert p == adjusted  # one row differs: nothing to correct for
    assert lines["Same"][2:7] == ["+0.0", "0.0–0.0", "—", "—", "identical"]
    assert (lines["New"][6], lines["Gone"][0]) == ("only now", "only before")


def test_what_changed_stands_in_every_form(compared: Context, tmp_path: Path):
    write.all_forms(compared, tmp_path)
    assert 'id="changes"' in (tmp_path / "report.html").read_text()
    assert "## What changed since earlier" in (tmp_path / "report.md").read_text()
    assert "BLEU of later and of earlier" in (tmp_path / "report.tex").read_text()


def test_suites_with_other_sentences_are_not_tested(store: Store, compared: Context):
    other = gather_runs.gather(store, "earlier")
    track = compared.tracks[0]
    other.translations[other.tracks[0]].references[0] = "Ein anderer Satz."
    assert gather_runs._changes(compared, other) == ()
    assert compared.translations[track].references[0] != "Ein anderer Satz."


def test_suites_without_a_common_seed_are_not_tested(store: Store):
    runs = [Synthetic("tested", "Tested", 2014, 2, 1e12, seed=2), Synthetic("gone", "Gone", 2013, 3, 1e12)]
    synthetic_runs.suite(store, "others", runs, "tested,gone", "tested")
    table = detail_tables.changes(gather_runs.gather(store, "later", compare_with="others"))
    assert table
    verdicts = {row[0].text: [entry.text for entry in row if not entry.missing] for row in table.rows}
    assert "no common seed" in verdicts["Tested"]
    assert verdicts["Same"][-1] == "only now"


def test_a_row_is_compared_with_itself_at_the_same_preset(store: Store):
    """The older suite has run it on the same text at two presets, the wrong one first."""
    presets = {"small": 2, "demo": 20}
    runs = [
        Synthetic("tested", "Tested", 2014, wrong, 3e12, tags={"preset": preset}) for preset, wrong in presets.items()
    ]
    runs.append(Synthetic("gone", "Gone", 2013, 3, 1e12, tags={"preset": "small"}))
    synthetic_runs.suite(store, "presets", runs, "tested,gone", "tested")
    context = gather_runs.gather(store, "later", compare_with="presets")
    assert [(test.row, test.verdict) for test in context.changes] == [("tested", "identical")]


def test_a_row_is_tested_on_the_track_whose_numbers_are_printed(store: Store):
    """The older suite has failed at the same preset, and finished at another one."""
    runs = [
        Synthetic("tested", "Tested", 2014, 2, 3e12, tags={"preset": "small"}),
        Synthetic("tested", "Tested", 2014, 2, 3e12, status="FAILED", reason="out of memory"),
    ]
    synthetic_runs.suite(store, "halves", runs, "tested", "tested")
    context = gather_runs.gather(store, "later", compare_with="halves")
    assert context.changes == ()
    table = detail_tables.changes(context)
    assert table
    (line,) = [[entry.text for entry in row] for row in table.rows if row[0].text == "Tested"]
    assert (line[1], line[7]) == ("—", "only now")


# --- languages --------------------------------------------------------------------------------------------------------


def test_catalogues_have_the_same_keys_and_values():
    english = catalogue.load_catalogue("en").texts
    for name in catalogue.languages():
        texts = catalogue.load_catalogue(name).texts
        assert texts.keys() == english.keys()
        for key, text in texts.items():
            names = [sorted(set(re.findall(r"\{\w*\}", each))) for each in (text, english[key])]
            assert names[0] == names[1], key
            assert text.strip(), key


def test_what_the_experiments_say_of_themselves_is_translated():
    """Not a row or a suite of somebody's own."""
    korean, files = catalogue.load_catalogue("ko"), row_files()
    suites = [Suite.read(EXPERIMENTS / f"{name}.yaml") for name in ("demo", "ladder", "multi30k-cpu", "multi30k")]
    notes = (resolve(files[row], row=row).about.note for row in suites[1].rows)
    said = [*(suite.question for suite in suites), *filter(None, notes)]
    assert len(said) > 8
    assert [text for text in said if korean.recorded(text) == text] == []


def test_a_korean_report_is_korean(store: Store, tmp_path: Path):
    context = gather_runs.gather(store, "later", language="ko", compare_with="earlier")
    write.all_forms(context, tmp_path)
    tree = html5lib.parse((tmp_path / "report.html").read_text(), namespaceHTMLElements=False)
    assert tree.get("lang") == "ko"
    titles = ("h1", "h2", "caption", "figcaption", "summary")
    for element in (element for name in titles for element in tree.iter(name)):
        assert re.search("[가-힣]", "".join(element.itertext())), "".join(element.itertext())
    for form in ("report.md", "report.tex"):
        text = (tmp_path / form).read_text()
        english = [
            value for value in catalogue.load_catalogue("en").texts.values() if len(value) > 25 and "{" not in value
        ]
        assert [value for value in english if value in text] == []


def test_korean_particles_do_not_hang_on_what_is_put_in():
    """Their form depends on the last sound of the word before them, which a template does not know."""
    for key, text in catalogue.load_catalogue("ko").texts.items():
        assert not re.search(r"\}(은|는|이|가|을|를|과|와|으로|로)(?![가-힣])", text), key


def test_recorded_text_is_translated_piece_by_piece():
    korean = catalogue.load_catalogue("ko")
    assert korean.recorded("closed form, real tokens; mean of 3 seeds") == "닫힌 식, 실제 토큰; 시드 3개의 평균"
    assert (
        korean.recorded("batch 1; reference's length; beam 5; NVIDIA H200")
        == "배치 1; 참조문과 같은 길이; 빔 5; NVIDIA H200"
    )
    assert korean.recorded("sacreBLEU nrefs:1; no such phrase") == "sacreBLEU nrefs:1; no such phrase"
    assert catalogue.load_catalogue("en").recorded("closed form") == "closed form"
