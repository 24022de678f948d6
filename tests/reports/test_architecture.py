"""What the page of a row says of its architecture."""

from __future__ import annotations

import re
from pathlib import Path

import models
from bench.experiment.loading import row_files
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs.suite import Suite
from reports.text import architecture
from reports.text.catalogue import languages, load_catalogue


def test_citations_and_equations_stand_literally_in_the_code():
    code = " ".join(path.read_text(encoding="utf-8") for path in sorted(Path(models.__file__).parent.rglob("*.py")))
    code = re.sub(r"\s+", " ", code)
    for row, entry in architecture.architectures().items():
        assert (Path(models.__file__).parents[1] / str(entry["file"])).is_file()
        for text in [entry["paper"], *entry["equations"]]:
            assert re.sub(r"\s+", " ", text) in code, row


def test_rows_of_the_ladder_are_described_in_every_language():
    rows = Suite.read(EXPERIMENTS / "ladder.yaml").rows
    assert [row for row in rows if architecture.architecture(row) is None] == []
    assert set(architecture.architectures()) <= set(row_files())
    for language in languages():
        assert [row for row in rows if f"row.{row}" not in load_catalogue(language).texts] == []


def test_an_ensemble_has_the_entry_of_its_member():
    of = architecture.architecture("gnmt-ensemble")
    assert of is not None
    assert of.member == "gnmt"
    assert of.file == "models/gnmt.py"
    assert of.notes[0].startswith("GNMT. Wu et al. 2016")
    assert not any("Letters" in note for note in of.notes)


def test_an_unknown_row_is_not_described():
    assert architecture.architecture("../nobody") is None
    assert architecture.sizes("../nobody") == []


def test_sizes_are_those_of_the_presets():
    sizes = {size.preset: size for size in architecture.sizes("bahdanau")}
    assert list(sizes) == ["demo", "multi30k-cpu", "multi30k", "paper"]
    paper = sizes["paper"]  # its parameters are those that bench.checks.model_sizes derives from the paper's equations
    assert (paper.parameters, paper.vocabulary, paper.kind) == (80_448_000, (30_000,), "words")
    assert paper.without_embeddings < paper.parameters


def test_indices_of_equations_become_markup_and_everything_else_is_escaped():
    shown = architecture.equation_html
    assert shown("e_ij = v_a^T tanh(W_a s_{i-1})") == (
        "e<sub>ij</sub> = v<sub>a</sub><sup>T</sup> tanh(W<sub>a</sub> s<sub>i-1</sub>)"
    )
    assert shown("sum_s p_t,s x_s, h_1, h_2") == (
        "∑<sub>s</sub> p<sub>t,s</sub> x<sub>s</sub>, h<sub>1</sub>, h<sub>2</sub>"
    )
    assert shown("10000^(2i / d_model)") == "10000<sup>2i / d<sub>model</sub></sup>"
    assert shown("sum over slots, sigma(x) >= theta") == "sum over slots, σ(x) ≥ θ"
    assert shown("s~_i, |t^|") == "s\N{COMBINING TILDE}<sub>i</sub>, |t\N{COMBINING CIRCUMFLEX ACCENT}|"
    assert shown("<b>_{<i>}") == "&lt;b&gt;<sub>&lt;i&gt;</sub>"
