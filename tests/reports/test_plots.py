"""The plots of a report, and the placing of their axes and labels."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from bench.system.visible_text import visible
from bench.tracking.store import Store
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.plots import detail_plots, drawing, main_plots, placement, svg_rendering
from reports.plots.svg_rendering import Drawing, Request
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import HOSTILE, UNSAFE, UNSAFE_SHOWN, Synthetic

Tree = xml.etree.ElementTree.Element

pytestmark = synthetic_runs.quiet_mlflow


def test_drawings_made_in_parallel_are_the_same(level: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [plot for plot in main_plots.all_plots(level) if plot.id.endswith("en-de")]  # one plot of each kind
    alone = [drawing._drawing.__wrapped__(plot, form).svg for plot in found for form in drawing.FORMS]
    monkeypatch.setattr(drawing, "PARALLEL_FROM", 1)
    drawing.draw_ahead(found)
    monkeypatch.setattr(drawing.svg_rendering, "render_one_by_one", None)  # an error if something were still to draw
    assert [plot.svg(form) for plot in found for form in drawing.FORMS] == alone
    assert all(plot.pdf().startswith(b"%PDF") for plot in found)
    assert not drawing._drawn_ahead


def text_spec(text: str) -> str:
    encoding = {"text": {"field": "text", "type": "nominal"}}
    return json.dumps({"data": {"values": [{"text": text}]}, "mark": "text", "encoding": encoding})


GOOD, BAD, INVALID = text_spec("good"), text_spec("ab\x02"), '{"mark": 1}'


@pytest.mark.parametrize("render", [svg_rendering.render_one_by_one, svg_rendering.render_in_parallel])
def test_a_drawing_that_ends_its_process_costs_that_drawing_only(
    render: Callable[[Iterable[Request]], list[Drawing]], capfd: pytest.CaptureFixture[str]
) -> None:
    """A real U+0002 in the input of the library, which this library answers by abort(); 4 s, for 4 processes."""
    found = render(Request(each, pdf=True) for each in (GOOD, BAD, GOOD, INVALID))
    assert [bool(one.svg) for one in found] == [True, False, True, False]
    assert found[0].svg == found[2].svg
    assert found[2].pdf.startswith(b"%PDF")
    assert found[1].failure == "the drawing library ended its process"
    assert "\n" not in found[3].failure
    assert 0 < len(found[3].failure) <= 200
    assert capfd.readouterr().err == ""  # no page of native stack frames


def test_every_text_of_a_specification_is_made_safe() -> None:
    unsafe = [chr(code) for code in range(0x110000) if visible(chr(code)) != chr(code)]
    assert len(unsafe) > 2000
    assert all(drawing.MAYBE_UNSAFE.search(json.dumps(f"a{each}")) for each in unsafe)
    found = json.loads(drawing.specification_text({"a": [UNSAFE, {"b": (UNSAFE, 1.5, None)}], "c": True}))
    assert found == {"a": [UNSAFE_SHOWN, {"b": [UNSAFE_SHOWN, 1.5, None]}], "c": True}
    assert svg_rendering.render_one_by_one([Request(drawing.specification_text(json.loads(BAD)))])[0].failure == ""


def test_every_plot_is_valid_and_drawn_as_svg_and_pdf(odd: Context, odd_report: Path):
    found = main_plots.all_plots(odd)
    assert [plot.id for plot in found] == [
        "bleu-flops-en-de",
        "bleu-latency-en-de",
        "curves-updates-en-de",
        "curves-flops-en-de",
        "curves-seconds-en-de",
        "tuning-en-de",
        "length-en-de",
        "depth-en-de",
        "probes-en-de",
        "probes-1-en-de",
        "sources-en-de",
        "attention-best-en-de",
    ]
    for plot in found:
        plot.draw(drawing.Datasets(), 600).to_dict()  # Altair's own checks
        xml.etree.ElementTree.parse(odd_report / "plots" / f"{plot.id}.svg")
        assert (odd_report / "plots" / f"{plot.id}.pdf").read_bytes().startswith(b"%PDF")
        assert plot.text
        assert plot.caption


def test_points_have_a_label_and_link_to_their_run(odd: Context):
    drawn = xml.etree.ElementTree.fromstring(main_plots.all_plots(odd)[0].inline("wide"))
    links = [element for element in drawn.iter() if element.tag.endswith("}a")]
    assert len(links) == 3
    labels = {mark.get("aria-label") for link in links for mark in link}
    run = odd.row("twin").cells[odd.tracks[0]].runs[1].id
    assert any(str(line).startswith("Twin: BLEU ") and str(line).endswith(f"run {run[:8]}") for line in labels)
    assert any(HOSTILE in str(line) for line in labels)
    assert "var(--attention)" in main_plots.all_plots(odd)[0].inline("narrow")


def test_a_row_without_latency_is_not_in_the_latency_plot(odd: Context):
    assert "Plain" in main_plots.all_plots(odd)[0].text
    assert "Plain" not in main_plots.all_plots(odd)[1].text


def test_a_row_whose_interval_is_every_bleu_has_no_bar(store: Store):
    """Two seeds far apart: the interval would set the scale of the plot."""
    rows = [
        Synthetic("apart", "Apart", 2014, 1, 1e12, 1),
        Synthetic("apart", "Apart", 2014, 40, 1e12, 2),
        *(Synthetic("close", "Close", 2017, 20, 2e12, seed) for seed in (1, 2)),
    ]
    synthetic_runs.suite(store, "seeds-apart", rows, "apart,close", "close")
    context = gather(store, "seeds-apart")
    score = context.rows[0].cells[context.tracks[0]].number("bleu", context.tracks[0].test_set)
    assert score is not None
    assert (score.low, score.high) == (0, 100)
    plot, data = main_plots.all_plots(context)[0], drawing.Datasets()
    assert plot.caption.endswith(context.catalogue("cost.without_bar"))
    plot.draw(data, 700)
    points = {point["name"]: point for values in data.values.values() for point in values if "low" in point}
    assert points["Apart"]["low"] == points["Apart"]["high"] == points["Apart"]["y"]
    assert points["Close"]["low"] < points["Close"]["high"]


def test_labels_do_not_overlap_and_stay_inside():
    points = [(100.0, 50.0), (104.0, 52.0), (298.0, 50.0)]
    labels = placement.place_labels(["first", "second", "third"], points, [(45.0, 55.0)] * 3, [], (300, 100))
    boxes = []
    for label in labels:
        width = len(label.text) * drawing.LETTER
        left = label.x - {"left": 0, "right": width, "center": width / 2}[label.align]
        boxes.append((left, label.y - 7, left + width, label.y + 7))
    assert all(left >= 0 and right <= 300 for left, _, right, _ in boxes)
    assert all(
        one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    )


def test_no_leader_line_crosses_the_text_of_another_label():
    """The upper left corner of the committed ladder: seven rows whose costs and scores are close."""
    names = ["Bahdanau attention", "Deep-Att + PosUnk", "ConvS2S", "Luong attention", "Transformer, one head"]
    names += ["Transformer (base)", "GNMT + RL"]
    points = [(120.0, 410.0), (124.0, 390.0), (142.0, 419.0), (172.0, 408.0), (190.0, 391.0), (190.0, 398.0)]
    points += [(265.0, 374.0)]
    bars = [(y - 8, y + 8) for _, y in points]
    labels = placement.place_labels(names, points, bars, [points[0], points[2]], (870, 480))
    assert any(label.point for label in labels)
    for one, other in itertools.permutations(labels, 2):
        (x, y), width = one.point or (one.x, one.y), len(other.text) * drawing.LETTER
        left = other.x - (width if other.align == "right" else 0)
        for part in np.linspace(0, 1, 101):
            along_x, along_y = x + (one.x - x) * part, y + (one.y - y) * part
            crosses = left < along_x < left + width and abs(along_y - other.y) < 7
            assert not crosses, f"the line of {one.text} crosses {other.text}"


def test_labels_in_a_column_keep_their_order_and_do_not_overlap():
    points = [(10.0, 90.0), (20.0, 92.0), (15.0, 91.0), (30.0, 10.0)]
    labels = placement.labels_beside(["first", "second", "", "fourth"], points, (60, 100))
    assert [(label.text, label.point, label.x, label.align) for label in labels] == [
        ("first", points[0], 70, "left"),
        ("second", points[1], 70, "left"),
        ("fourth", points[3], 70, "left"),
    ]
    first, second, fourth = (label.y for label in labels)
    assert second - first >= drawing.FONT
    assert (fourth, second <= 100) == (10.0, True)


def test_spread_keeps_order_and_distance():
    assert placement.spread([10, 11, 50, 99], 10, 100) == [10, 20, 50, 99]
    assert placement.spread([95, 96, 97], 10, 100) == [80, 90, 100]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1e11, 1e14, [1e11, 1e12, 1e13, 1e14]), (6.0, 14.0, [6, 8, 10, 12, 14]), (3e12, 9e12, [4e12, 6e12, 8e12])],
)
def test_ticks_of_a_logarithmic_axis_are_round(low: float, high: float, ticks: list[float]):
    assert placement.Axis("x", low, high, log=True).ticks(400) == pytest.approx(ticks)


@pytest.mark.parametrize("parts", [3, 7])
def test_numbers_on_a_small_screen_have_room(parts: int):
    """With seven groups of sentence lengths beside the longest name, each 88.6 fits into its cell."""
    cells = {
        (row, f"{n}1-{n + 1}0"): (88.6, "tooltip")
        for row in ("Deep-Att + PosUnk Ensemble", "LSTM")
        for n in range(1, parts + 1)
    }
    chart = detail_plots._heat_chart(drawing.Datasets(), cells, "words", "bleu", drawing.NARROW).to_dict()
    assert chart["width"]["step"] >= 4 * drawing.LETTER
    assert chart["layer"][0]["encoding"]["x"]["axis"]["labelAngle"] == (0 if parts == 3 else -60)


def test_the_learning_curve_is_that_of_the_score_that_selects(chinese: Context, odd: Context):
    by_chrf, by_bleu = (
        next(plot for plot in main_plots.all_plots(context) if plot.id.startswith("curves-"))
        for context in (chinese, odd)
    )
    assert "High ends at 50.0 chrF2" in by_chrf.text
    assert by_chrf.caption.startswith("Greedy chrF2 (higher is better)")
    assert "Transformer (base) ends at 40.0 BLEU" in by_bleu.text
