"""The report of a scaling study: page, Markdown and CSV, from simulated points whose laws are known."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import html5lib
import numpy as np
import pytest

from bench.checks.scaling_simulation import REFERENCE, SECOND, STARTS
from bench.scaling import direct_pairs
from bench.scaling.analysis import Analysis, analyse
from bench.scaling.points import read_points
from reports.scaling import tables, tidy, verdicts
from reports.scaling.figures import styles
from reports.scaling.panels import Figures, _mean_line
from reports.scaling.study import DirectPair, RateCheck, Study
from reports.scaling.write import write
from reports.text.catalogue import load_catalogue
from tests.helpers.scaling_study import LARGEST, points, study

LABELS = {"bahdanau": "Bahdanau", "transformer-base": "Transformer <b>", "few": "Few"}
CHECKS = tuple(
    RateCheck(row, LARGEST, 480_000, factor, loss)
    for row, losses in (("bahdanau", (1.52, 1.50, 1.42)), ("transformer-base", (1.52, 1.50, 1.60)))
    for factor, loss in zip((0.5, 1.0, 2.0), losses, strict=True)
)
SAY = load_catalogue("en")


@pytest.fixture(scope="module")
def small() -> Study:
    few = points("few", REFERENCE, 3, np.array([0.10, 0.26]) * 1e6, bleu=False)
    return study(LABELS, [*points("bahdanau", REFERENCE, 1), *points("transformer-base", SECOND, 2), *few], CHECKS)


@pytest.fixture(scope="module")
def analysis(small: Study) -> Analysis:
    return analyse(small.points, list(small.labels), 1.10, draws=60, starts=STARTS)


@pytest.fixture(scope="module")
def folder(small: Study, analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(small, analysis, tmp_path_factory.mktemp("study"))[0].parent


def text_of(page: Path) -> str:
    tree = html5lib.parse(page.read_text(encoding="utf-8"), namespaceHTMLElements=False)
    for svg in list(tree.iter()):
        for child in list(svg):
            if child.tag in ("script", "style"):
                svg.remove(child)
    return re.sub(r"\s+", " ", "".join(tree.itertext()))


def test_the_finding_is_the_verdict_on_transformer_and_bahdanau(small: Study, analysis: Analysis, folder: Path) -> None:
    finding = verdicts.finding(SAY, small, analysis)
    pair = next(pair for pair in analysis.pairs if pair.crossing)
    assert pair.crossing
    assert pair.crossing.at
    at = f"{pair.crossing.at.value:.1e}".split("e")[0]
    assert finding[0].startswith(f"Bahdanau and Transformer <b> cross at {at}")
    assert "at higher costs Bahdanau has the lower loss" in finding[0]
    assert finding[1].startswith("Of 3\u00a0pairs of rows")
    assert "1 cross, 0 do not cross, 0 are not resolved, 2 have no verdict" in finding[1]
    assert re.sub(r"\s+", " ", finding[0]) in text_of(folder / "report.html")


def test_each_verdict_has_its_sentence(small: Study, analysis: Analysis) -> None:
    pair = next(pair for pair in analysis.pairs if pair.crossing)
    assert pair.crossing
    ahead = replace(pair.crossing, verdict="none in range", at=None, ahead=1)
    d = pair.crossing.difference
    said = verdicts.verdict(
        SAY, small, replace(pair, crossing=replace(ahead, difference=replace(d, value=0.05, low=-0.002, high=0.1)))
    )
    assert "do not cross" in said
    assert "Transformer <b> has the lower loss, at the upper end by 0.050 [−0.002, 0.100] nats/token" in said
    level = replace(ahead, verdict="not resolved", ahead=None, difference=replace(d, value=-0.01, low=-0.03, high=0.02))
    said = verdicts.verdict(SAY, small, replace(pair, crossing=level))
    assert said.startswith("Not resolved")
    lower = verdicts._signed(pair.crossing.low_difference)
    assert f"minus that of Transformer <b> is {lower} nats/token at the lower end" in said
    assert said.endswith("and −0.010 [−0.030, +0.020] at the upper end.")
    same = replace(pair.crossing.low_difference, value=-0.02, low=-0.03, high=-0.01)
    twice = replace(level, difference=same, low_difference=same, changes=0.97)
    said = verdicts.verdict(SAY, small, replace(pair, crossing=twice))
    assert "its sign changes in 97.0\u00a0% of the simulated data sets" in said
    refused = next(pair for pair in analysis.pairs if pair.refused)
    assert "because the law of Few is refused" in verdicts.verdict(SAY, small, refused)
    apart = replace(pair, crossing=None, reasons=("the costs of the two rows do not overlap",))
    assert verdicts.verdict(SAY, small, apart).endswith("the costs of the two rows do not overlap.")


def test_the_csv_has_the_numbers_of_the_analysis(small: Study, analysis: Analysis, folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((folder / "report.csv").read_text(encoding="utf-8"))))
    assert list(lines[0]) == ["study", "row", "other", "quantity", "at", "value", "low", "high", "unit", "text"]
    found = {(line["row"], line["other"], line["quantity"], line["at"]): line for line in lines}
    for row in ("bahdanau", "transformer-base"):
        intervals = analysis.rows[row].intervals
        assert intervals
        for name, ends in intervals.items():
            line = found[row, "", name, ""]
            assert [float(line[key]) for key in ("value", "low", "high")] == [ends.value, ends.low, ends.high]
    crossing = next(pair.crossing for pair in analysis.pairs if pair.crossing)
    line = next(line for line in lines if line["quantity"] == "verdict" and line["text"] == "crosses")
    assert crossing.at
    assert float(line["value"]) == crossing.at.value
    refused = found["few", "", "refused", ""]
    assert "2 sizes; at least 3 are needed" in refused["text"]
    assert refused["value"] == ""
    assert len(lines) == len(tidy.numbers(small, analysis))
    assert read_points(folder / "points.csv") == list(small.points)


def test_a_refused_row_has_its_reason_and_no_parameters(small: Study, analysis: Analysis, folder: Path) -> None:
    page = text_of(folder / "report.html")
    assert "2 sizes; at least 3 are needed" in page
    table = tables.parameters(SAY, small, analysis)
    few = next(row for row in table.rows if row[0].text == "Few")
    assert few[1].details == ("refused",)
    assert all(entry.missing for entry in few[2:7])
    assert [row[0].text for row in tables.optima(SAY, small, analysis).rows].count("Few") == 0


def test_what_the_study_cannot_say_is_listed(small: Study, analysis: Analysis) -> None:
    said = " ".join(verdicts.limits(SAY, small, analysis))
    assert "grammar-en-de is synthetic" in said
    assert "8 of 12 sizes have one seed" in said
    assert "rates was not checked: Few" in said
    assert f"clearly lower loss, so the frontier of these rows may be too high: Bahdanau ({LARGEST}, 480,000" in said
    assert "BLEU was not measured at all points: Few" in said
    noise = analysis.rows["bahdanau"].noise
    assert noise
    less = replace(analysis.rows["bahdanau"], noise=replace(noise, run_sd=0.1, run_df=3, cell_sd=0.0, source="sizes"))
    said = " ".join(verdicts.limits(SAY, small, replace(analysis, rows=analysis.rows | {"bahdanau": less})))
    assert "fewer than 7 degrees of freedom, so it is itself uncertain, and intervals are wide: Bahdanau." in said
    assert "Their intervals contain this scatter: Bahdanau." in said
    assert re.search(r"noise between seeds differs between rows, from \S+\s% to 10.0\s% of the loss", said)
    assert "of one corpus, own" in verdicts.limits(SAY, replace(small, corpus="own"), analysis)[0]


@pytest.mark.parametrize(("number", "named"), [(5, "a, b, c, d, e."), (7, "a, b, c, d, e, and 2 more.")])
def test_some_missing_runs_are_named(small: Study, analysis: Analysis, number: int, named: str) -> None:
    (*_, warning) = verdicts.warnings(SAY, replace(small, failed=tuple("abcdefg"[:number])), analysis)
    assert warning == f"Failed or missing runs, {number}: {named}"


def test_a_crossing_is_confirmed_by_direct_pairs(small: Study, analysis: Analysis, tmp_path: Path) -> None:
    needed = direct_pairs.missing(analysis, [])
    (crossing,) = (pair.crossing for pair in analysis.pairs if pair.cost == "flops" and pair.crossing)
    assert crossing.at
    assert [list(sizes) for _, sizes in needed] == [["bahdanau", "transformer-base"]] * 2
    (low, first), (high, _) = needed
    assert crossing.low_cost < low < crossing.at.low
    assert crossing.at.high < high < crossing.high_cost
    by_size = {point.size: point for point in small.points if point.row == "bahdanau"}
    point = by_size[first["bahdanau"]]
    others = {
        size: analysis.rows["bahdanau"]
        .curve("flops")
        .surface.predict(  # pyright: ignore[reportOptionalMemberAccess]
            float(one.body_softmax), low * one.tokens / one.flops
        )
        for size, one in by_size.items()
    }
    assert min(others, key=lambda size: float(others[size])) == point.size

    def both(flops: float, ahead: float, seeds: int = 1) -> DirectPair:
        runs = [next(one for one in small.points if one.row == row) for row in ("bahdanau", "transformer-base")]
        first, second = (
            [replace(one, run=f"{one.row}{flops}{seed}", flops=flops, tokens=2e6, loss=2.0) for seed in range(seeds)]
            for one in runs
        )
        return DirectPair(flops, tuple(replace(run, loss=2.0 + ahead) for run in first), tuple(second))

    expected = direct_pairs.predict(analysis, both(low, 0.0).first, both(low, 0.0).second)
    assert expected
    assert expected.difference.low < expected.difference.value < expected.difference.high
    assert 0 < expected.noise < 0.1
    again = both(low, 0.0, seeds=4)
    four = direct_pairs.predict(analysis, again.first, again.second)
    assert four
    assert four.noise == pytest.approx(expected.noise / 2)
    assert four.difference.value == expected.difference.value
    above = 1.5 * expected.noise * (1 if expected.difference.value > 0 else -1)
    assert (expected.sign(above), four.sign(above)) == ("noise", "confirmed")
    sign = 0.5 if expected.difference.value > 0 else -0.5
    pairs = (both(low, sign, seeds=3), both(high, -sign), both(1e3, sign), both(low, 0.001))
    assert direct_pairs.missing(analysis, [("bahdanau", "transformer-base", low)]) == needed[1:]
    compared = replace(small, direct=pairs)
    rows = tables.direct(SAY, compared, analysis).rows
    assert ["3 seeds" in row[2].text for row in rows] == [True, False, False, False]
    signs = [row[-1].text for row in rows]
    assert signs == ["confirmed", "contradicted", "no curves there", "within the noise of the runs"]
    assert [row[4].text for row in rows] == [f"{each:+.3f}".replace("-", "−") for each in (sign, -sign, sign, 0.001)]
    page = text_of(write(compared, analysis, tmp_path)[0])
    assert "Direct pairs of runs with equal FLOPs" in page
    lines = [n for n in tidy.numbers(compared, analysis) if n.quantity == "difference of loss of a direct pair"]
    assert [line.value for line in lines] == pytest.approx([sign, -sign, sign, 0.001])


def test_names_are_escaped_in_every_form(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Transformer &lt;b&gt;" in page
    assert "Transformer <b>" not in page
    assert "Transformer <b>" not in (folder / "report.md").read_text(encoding="utf-8")


def test_the_page_needs_no_other_file_and_has_every_figure(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!#)', page)
    figures = re.findall(r'<figure id="(\w+)"', page)
    order = ["loss_flops", "bleu_flops", "loss_pairs", "loss_seconds", "slices", "held_out", "bleu_loss"]
    assert figures == [*order, "residuals", "profiles"]
    assert sorted(path.stem for path in folder.glob("plots/*.svg")) == sorted(figures)
    assert page.index("Crossings of the frontiers") < page.index('<figure id="bleu_flops"')


def test_a_row_has_one_colour_and_mark(small: Study, analysis: Analysis) -> None:
    found = styles(LABELS)
    assert len({style.colour for style in found.values()}) == len({style.shape for style in found.values()}) == 3
    for plot in Figures(SAY, small, analysis).all():
        assert {(name, colour) for _, colour, name in plot.legend} <= {(s.name, s.colour) for s in found.values()}


def test_a_study_in_progress_has_a_page(small: Study, tmp_path: Path) -> None:
    """One row, two sizes, three points."""
    few = tuple(point for point in small.points if point.row == "bahdanau")
    three = (*few[:2], next(point for point in few if point.size != few[0].size))
    begun = replace(small, labels={"bahdanau": "Bahdanau"}, points=three, sizes=(), rate_checks=())
    page = text_of(write(begun, analyse(three, ["bahdanau"]), tmp_path)[0])
    assert "No two rows can be compared yet" in page
    assert "3 points; at least 6 are needed" in page
    assert "The noise between runs is unknown" in page
    assert (tmp_path / "plots" / "loss_flops.svg").is_file()


def test_an_empty_study_has_a_page(small: Study, tmp_path: Path) -> None:
    empty = replace(small, points=(), rate_checks=())
    page = text_of(write(empty, analyse((), list(empty.labels)), tmp_path)[0])
    assert "0 points; at least 6 are needed" in page


def test_a_korean_report_is_korean(
    small: Study, analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Figures, "all", lambda _: []
    )  # drawings take seconds, and their texts are those of the catalogue
    page = write(small, analysis, tmp_path, "ko")[0]
    tree = html5lib.parse(page.read_text(encoding="utf-8"), namespaceHTMLElements=False)
    assert tree.get("lang") == "ko"
    for element in (element for name in ("h1", "h2", "h3", "caption") for element in tree.iter(name)):
        assert re.search("[가-힣]", "".join(element.itertext())), "".join(element.itertext())
    assert "크기 2개, 적어도 3개가 필요함" in text_of(page)
    english = [value for value in SAY.texts.values() if len(value) > 25 and "{" not in value]
    assert [value for value in english if value in (tmp_path / "report.md").read_text(encoding="utf-8")] == []


def test_thin_lines_go_through_the_means_of_budgets() -> None:
    """Seeds of one budget differ a little in FLOPs; a line from seed to seed would be a zigzag."""
    kind, corners = _mean_line([(200, 2.2, 1.0), (100, 1.0, 4.0), (100, 1.2, 2.0)])
    assert kind == "thin"
    assert corners == (pytest.approx((1.1, 3.0)), (2.2, 1.0))


def test_the_table_of_crossings_says_each_verdict_briefly(small: Study, analysis: Analysis) -> None:
    pair = next(pair for pair in analysis.pairs if pair.crossing)
    assert pair.crossing
    first, *details = verdicts.short_verdict(SAY, small, pair)
    assert re.fullmatch(r"cross at \S+\s×\s10\S+ \[.*\] FLOPs", first)
    assert details[0] == "above it, Bahdanau is lower"
    assert details[1].startswith("from ")
    none = replace(pair.crossing, verdict="none in range", at=None, ahead=1)
    assert verdicts.short_verdict(SAY, small, replace(pair, crossing=none))[0] == (
        "Transformer <b> is lower in the whole range"
    )
    level = replace(none, verdict="not resolved", ahead=None)
    assert verdicts.short_verdict(SAY, small, replace(pair, crossing=level))[0] == "not resolved"
    refused = next(pair for pair in analysis.pairs if pair.refused)
    assert verdicts.short_verdict(SAY, small, refused) == ["no verdict", "the law of Few is refused"]
    apart = replace(pair, crossing=None, reasons=("the costs of the two rows do not overlap",))
    assert verdicts.short_verdict(SAY, small, apart)[1] == "the costs of the two rows do not overlap"
