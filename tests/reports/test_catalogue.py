"""The texts of a report in each language."""

from __future__ import annotations

import re
from pathlib import Path

import html5lib
import pytest

from bench.experiment.loading import resolve, row_files
from bench.experiment.yaml_layers import EXPERIMENTS, read_yaml
from bench.runs.suite import Suite
from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs
from reports.text import catalogue
from tests.helpers import synthetic_runs

pytestmark = synthetic_runs.quiet_mlflow


SUITES = ("demo", "korean", "ladder", "ladder-seeds", "lstm-budget", "multi30k-cpu", "reference-multi30k", "scale")
SUITES += ("table2-multi30k", "table2-multi30k-gpu", "table2-wmt14")


def test_catalogues_have_the_same_keys_and_values():
    english = catalogue.load_catalogue("en").texts
    for name in catalogue.languages():
        texts = catalogue.load_catalogue(name).texts
        assert texts.keys() == english.keys()
        for key, text in texts.items():
            names = [sorted(set(re.findall(r"\{\w*\}", each))) for each in (text, english[key])]
            assert names[0] == names[1], key
            assert text.strip(), key


def test_notes_and_questions_of_the_experiments_are_translated():
    """Only those of the rows and suites in experiments/; users write their own in one language."""
    korean, files = catalogue.load_catalogue("ko"), row_files()
    questions = [read_yaml(EXPERIMENTS / f"{name}.yaml")["question"] for name in SUITES]
    rows = Suite.read(EXPERIMENTS / "ladder.yaml").rows
    texts = [*questions, *filter(None, (resolve(files[row], row=row).about.note for row in rows))]
    assert [text for text in texts if korean.recorded(text) == text] == []


@pytest.mark.usefixtures("compared")
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


def test_no_korean_particle_follows_an_inserted_value():
    """The form of a particle depends on the last sound of the word before it, which a template does not know."""
    for key, text in catalogue.load_catalogue("ko").texts.items():
        assert not re.search(r"\}(은|는|이|가|을|를|과|와|으로|로)(?![가-힣])", text), key


def test_stored_text_is_translated_piece_by_piece():
    korean = catalogue.load_catalogue("ko")
    assert korean.recorded("closed form, real tokens; mean of 3 seeds") == "닫힌 식, 실제 토큰; 시드 3개의 평균"
    assert (
        korean.recorded("batch 1; reference's length; beam 5; NVIDIA H200")
        == "배치 1; 참조문과 같은 길이; 빔 5; NVIDIA H200"
    )
    assert korean.recorded("sacreBLEU nrefs:1; no such phrase") == "sacreBLEU nrefs:1; no such phrase"
    assert catalogue.load_catalogue("en").recorded("closed form") == "closed form"
