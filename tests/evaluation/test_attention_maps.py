"""Attention weights of every architecture that has attention, and the heat map."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from bench.data.vocabulary import JOINER, Vocabularies, Words
from bench.evaluation.attention_maps import (
    KINDS,
    Attention,
    SentenceAttention,
    attention_weights,
    labels,
    sentence_attention,
)
from bench.evaluation.trained_model import TrainedTranslator
from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from models.parts.batch import BOS, EOS, Tokens
from models.parts.translator import Translator
from reports.plots import attention_heatmap
from reports.plots.svg_rendering import Drawing
from tests.helpers import tiny_job

WITH = ["bahdanau", "luong", "gnmt", "deep_att", "convs2s", "moe", "transformer"]
WITHOUT = ["perceptron", "feedforward", "cnn", "seq2seq", "bytenet"]
SOURCE, TARGET = [5, 6, 7, 8], [9, 4, 9]


def built(name: str) -> tuple[Experiment, Translator]:
    torch.manual_seed(1)
    experiment = resolve(tiny_job.FILE.with_name(f"{name}.yaml"), preset="demo", row=None, flags=[])
    return experiment, experiment.build(12, 12).eval()


@pytest.mark.parametrize("name", WITH)
def test_attention_over_the_source_is_what_step_returns(name: str) -> None:
    """Rows sum to 1, and the attention that `step` returns is the head mean of one layer, or the mean over layers."""
    _, model = built(name)
    maps_LHQK = attention_weights(model, SOURCE, TARGET)["cross"]
    assert maps_LHQK.shape[2:] == (len(TARGET) + 1, len(SOURCE) + 1)
    assert maps_LHQK.sum(-1) == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        state = model.start(model.encode(Tokens(torch.tensor([[*SOURCE, EOS]]), (len(SOURCE) + 1,))))
        for position, token in enumerate((BOS, *TARGET)):
            _, state, attention_BS = model.step(torch.tensor([token]), state)
            assert attention_BS is not None
            layers_LK = maps_LHQK[:, :, position].mean(axis=1)
            candidates = [*layers_LK, layers_LK.mean(axis=0)]
            assert any(np.allclose(one, attention_BS[0].numpy(), atol=1e-5) for one in candidates)


def test_self_attention_of_the_transformer() -> None:
    experiment, model = built("transformer")
    found = attention_weights(model, SOURCE, TARGET)
    assert list(found) == ["cross", "encoder", "decoder"]
    layers, heads = len(found["cross"]), found["cross"].shape[1]
    assert (layers, heads) == (experiment.settings["model"]["layers"], experiment.settings["model"]["heads"])
    assert found["encoder"].shape == (layers, heads, len(SOURCE) + 1, len(SOURCE) + 1)
    past_QK = found["decoder"].reshape(-1, len(TARGET) + 1, len(TARGET) + 1)
    assert (np.triu(past_QK, 1) == 0).all()  # no position attends to a later one
    assert past_QK.sum(-1) == pytest.approx(1, abs=1e-5)


def test_a_source_of_one_word_is_not_mistaken_for_decoder_self_attention() -> None:
    _, model = built("transformer")
    assert {kind: maps.shape[2:] for kind, maps in attention_weights(model, [5], []).items()} == {
        "encoder": (2, 2),
        "decoder": (1, 1),
        "cross": (1, 2),
    }


@pytest.mark.parametrize("name", WITHOUT)
def test_models_without_attention(name: str) -> None:
    experiment, model = built(name)
    assert attention_weights(model, SOURCE, TARGET) == {}
    words = Words(Words.learn(["a b c d e f g h"], 12).data)
    loaded = TrainedTranslator(experiment, Vocabularies(words, words), model, None)
    with pytest.raises(ValueError, match="has no attention weights"):
        sentence_attention(loaded, "a b")


def test_all_hooks_are_removed() -> None:
    _, model = built("transformer")
    attention_weights(model, SOURCE, TARGET)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.fixture(scope="module")
def attention() -> SentenceAttention:
    experiment, model = built("transformer")
    words = Words(Words.learn(["a b c d e f g h"], 12).data)
    search = replace(experiment.decoding, beam=2, extra_length=2)
    return sentence_attention(
        TrainedTranslator(replace(experiment, decoding=search), Vocabularies(words, words), model, None), "a new b"
    )


def test_rows_and_columns_are_labelled_with_their_tokens(attention: SentenceAttention) -> None:
    cross, encoder, decoder = (attention.attentions[kind] for kind in KINDS)
    assert cross.columns == encoder.rows == encoder.columns == ("a", "new", "b", "</s>")  # unknown words as written
    assert cross.rows[-1] == "</s>"
    assert decoder.columns == ("<s>", *cross.rows[:-1])
    for one in attention.attentions.values():
        assert one.maps_LHQK.shape[2:] == (len(one.rows), len(one.columns))


def test_the_file_name_of_a_sentence_is_short_enough_for_a_file() -> None:
    assert re.fullmatch("a-new-b-[0-9a-f]{8}", SentenceAttention("A new b.", "", {}).name)
    assert re.fullmatch("a{80}-[0-9a-f]{8}", SentenceAttention("a" * 300, "", {}).name)
    assert re.fullmatch("[0-9a-f]{8}", SentenceAttention("책", "", {}).name)


def test_selecting_kind_layer_and_head(attention: SentenceAttention) -> None:
    assert [one.title for one in attention.select(None, None, None)] == [
        "decoder over source, layer 2 of 2, mean over 4 heads",
        "encoder self-attention, layer 2 of 2, mean over 4 heads",
    ]
    (one,) = attention.select(["decoder"], 1, 3)
    assert one.title == "decoder self-attention, layer 1 of 2, head 3 of 4"
    assert np.array_equal(one.map_QK, attention.attentions["decoder"].maps_LHQK[0, 2])
    with pytest.raises(ValueError, match="--layer: 3 is not between 1 and 2, the layers of decoder over source"):
        attention.select(["cross"], 3, None)
    with pytest.raises(ValueError, match="--head: 0 is not between 1 and 4"):
        attention.select(["cross"], None, 0)
    only = replace(attention, attentions={"cross": attention.attentions["cross"]})
    with pytest.raises(ValueError, match="--kind: this model has no encoder self-attention; it has: cross"):
        only.select(["encoder"], None, None)


def test_labels() -> None:
    assert labels(["▁She", "▁pour", "ed", "▁", "."]) == ["She", "pour", "·ed", "␣", "."]
    assert labels(["cup", f"{JOINER}.", ""]) == ["cup", ".", "␣"]
    assert labels(list("a b")) == ["a", "␣", "b"]


def test_the_heat_map_escapes_tokens_and_is_written_completely(tmp_path: Path) -> None:
    """Tokens with markup, quotes and braces of the drawing language, other scripts or control characters are safe."""
    evil = ('<script>"', "\\'}]+x", "מים", "猫", "\x1b[31m\x00", "\ufffe\u202e", "\ud800", "😀")
    hostile = Attention("cross", evil, evil, np.eye(len(evil), dtype=np.float32)[None, None])
    sentence = SentenceAttention("<b>&\x02", "مرحبا\x00", {"cross": hostile})
    data, picture = attention_heatmap.write(sentence, sentence.select(None, None, None), tmp_path / "new")
    stored = json.loads(data.read_text(encoding="utf-8"))
    assert stored["attention"][0]["rows"] == list(evil)
    assert stored["attention"][0]["maps"] == [[np.eye(len(evil)).tolist()]]
    svg = picture.read_text(encoding="utf-8")
    assert "<script" not in svg
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
    for token in ('<script>"', "\\'}]+x", "מים", "猫", "␛[31m␀", "\ufffd\ufffd", "\ufffd", "😀"):
        assert texts.count(token) == 2, token
    assert "100" in texts
    assert "prefers-color-scheme:dark" in svg
    assert re.fullmatch(r"[a-z0-9-]+\.svg", picture.name)
    again = attention_heatmap.write(sentence, sentence.select(None, None, None), tmp_path / "new")
    assert again == [data, picture]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted([data.name, picture.name])


def test_maps_that_cannot_be_drawn_are_stored_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [Drawing(failure="the drawing library ended its process")]
    monkeypatch.setattr(attention_heatmap.svg_rendering, "render_one_by_one", lambda requests: failed)
    one = Attention("cross", ("a",), ("b",), np.ones((1, 1, 1, 1), dtype=np.float32))
    sentence = SentenceAttention("b", "a", {"cross": one})
    with pytest.raises(
        ValueError, match=r"not drawn: the drawing library ended its process; their weights are in .*json"
    ):
        attention_heatmap.write(sentence, sentence.select(None, None, None), tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_sentence_is_normalized_as_the_training_text_was() -> None:
    """Decomposed text, and half a surrogate pair of a served request, give the translation of the composed text."""
    experiment, model = built("transformer")
    words = Words(Words.learn(["größe b c d e f g h"], 12).data)
    loaded = TrainedTranslator(experiment, Vocabularies(words, words), model, None)
    composed, decomposed = "größe b", "gro\u0308ße b"
    assert loaded.ids([decomposed, " \t"]) == loaded.ids([composed, ""])
    assert loaded.translate([decomposed]) == loaded.translate([composed])
    found, expected = (sentence_attention(loaded, text) for text in (decomposed, composed))
    assert (found.source, found.name) == (expected.source, expected.name)
    assert loaded.prepare(["a\ud800"]) == ["a\ufffd"]
    unnormalized = replace(experiment, text=replace(experiment.text, normalization="none"))
    other = replace(loaded, experiment=unnormalized)
    assert other.ids([decomposed]) != other.ids([composed])
