"""Unknown-word replacement: the dictionary learnt from sentence pairs, and the replaced words of a translation."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data.corpus import Split
from bench.data.vocabulary import Vocabularies, Words
from bench.decoding import unk_replacement
from bench.decoding.beam_search import DecodingSettings, Hypothesis, translate
from bench.decoding.unk_replacement import Lexicon, hypothesis_texts, learn_dictionary, translation_probabilities
from bench.evaluation import trained_model
from bench.experiment.loading import resolve, row_files
from bench.measures.alignment import forced_attention
from bench.runs.job import run
from bench.tracking.store import Store, TrackingSettings
from models.parts.batch import UNK
from tests.helpers import quick_evaluation, tiny_job, tracking_folder

BOOKS = [("the house", "das Haus"), ("the book", "das Buch"), ("a book", "ein Buch")]


def model_1_in_plain_python(pairs: list[tuple[list[str], list[str]]]) -> dict[tuple[str, str], float]:
    """t(w|g) by IBM Model 1, word by word as in Brown et al. 1993; the empty word is ""."""
    t: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    for _ in range(unk_replacement.ITERATIONS):
        counts: dict[tuple[str, str], float] = defaultdict(float)
        totals: dict[str, float] = defaultdict(float)
        for given, words in pairs:
            for word in words:
                total = sum(t[word, other] for other in ["", *given])
                for other in ["", *given]:
                    counts[word, other] += t[word, other] / total
                    totals[other] += t[word, other] / total
        t = defaultdict(float, {pair: count / totals[pair[1]] for pair, count in counts.items()})
    return t


def test_model_1_equals_the_equations_of_brown() -> None:
    """The pairs have unequal lengths, and one word occurs twice in its sentence."""
    given = ["the house", "the book of the house", "a book", "the"]
    words = ["das Haus", "das Buch des Hauses", "ein Buch", "das"]
    pairs = [(g.split(), w.split()) for g, w in zip(given, words, strict=True)]
    givens, written_ = (sorted({word for pair in pairs for word in pair[side]}) for side in (0, 1))
    keys: list[tuple[int, int]] = []
    links, word_P = [], [written_.index(word) for _, ws in pairs for word in ws]
    begin = 0
    for gs, ws in pairs:
        for g in gs:
            for place, w in enumerate(ws):
                key = givens.index(g), written_.index(w)
                keys += [key] if key not in keys else []
                links.append((keys.index(key), begin + place))
        begin += len(ws)
    pair_L, place_L = np.array(links).T
    found_K = translation_probabilities(pair_L, place_L, np.array(word_P), np.array([g for g, _ in keys]))
    wanted = model_1_in_plain_python(pairs)
    assert found_K.tolist() == pytest.approx([wanted[written_[w], givens[g]] for g, w in keys], abs=1e-12)


def test_the_dictionary_of_three_books() -> None:
    sources, targets = ([pair[side].split() for pair in BOOKS] for side in (0, 1))
    assert learn_dictionary(sources, targets) == {"the": "das", "house": "Haus", "book": "Buch", "a": "ein"}
    assert learn_dictionary([*sources, []], [*targets, ["Leer"]]) == learn_dictionary(sources, targets)
    assert learn_dictionary([["man"], []], [["Mann"], []]) == {"man": "Mann"}


def test_one_long_word_does_not_make_all_words_long() -> None:
    sources = [[f"w{number}", "the"] for number in range(3000)] + [["x" * 10_000]]
    tracemalloc.start()
    try:
        assert len(learn_dictionary(sources, sources)) == 3002
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6, "an array of 6,001 words with 10,000 letters has 240 MB"


def test_a_damaged_lexicon_is_named(tmp_path: Path) -> None:
    for content in ('{"a": ', "[1]"):
        (tmp_path / "lexicon.json").write_text(content)
        with pytest.raises(ValueError, match=r"lexicon\.json: not a lexicon"):
            Lexicon.load(tmp_path / "lexicon.json")


def test_words_that_are_not_in_the_vocabulary_are_learnt(tmp_path: Path) -> None:
    """The vocabularies are the smallest possible: one word each."""
    pairs = tiny_job.pairs(400, seed=1)
    split = Split([source for source, _ in pairs], [target for _, target in pairs])
    vocabularies = Vocabularies(Words.learn(split.sources, 5), Words.learn(split.targets, 5))
    learnt = Lexicon.learn(split, vocabularies)
    assert {word: learnt.translation(word) for word in tiny_job.WORDS} == tiny_job.WORDS
    assert learnt.translation("sees") == "sieht"
    assert learnt.translation("Zoë") == "Zoë"
    learnt.save(tmp_path / "lexicon.json")
    assert Lexicon.load(tmp_path / "lexicon.json") == learnt


def attention_to(*positions: int, columns: int) -> np.ndarray:
    """attention_TS with most of the weight of token t on position t of `positions`."""
    attention_TS = np.full((len(positions), columns), 0.1 / columns)
    attention_TS[np.arange(len(positions)), positions] += 0.9
    return attention_TS


def test_unknown_words_are_replaced_by_the_source_word_with_most_attention() -> None:
    source, target = Words.of(["sees", "the", "￭."]), Words.of(["sieht", "den", "￭."])
    both = Vocabularies(source, target)
    sentence = "Zoë sees the cat."
    assert source.encode([sentence]) == [[UNK, 4, 5, UNK, 6]]
    # Rows: Zoë sieht den Katze . and EOS. Columns: the source words and EOS.
    ids = [UNK, 4, 5, UNK, 6]
    found = Hypothesis(ids, 0.0, 0.0, attention_to(0, 1, 2, 3, 4, 5, columns=6))
    cats = Lexicon({"cat": "Kater", "sees": "guckt"})
    assert hypothesis_texts([found], [sentence], both, None) == ["<unk> sieht den <unk>."]
    assert hypothesis_texts([found], [sentence], both, Lexicon({})) == ["Zoë sieht den cat."]
    assert hypothesis_texts([found], [sentence], both, cats) == ["Zoë sieht den Kater."]
    # If EOS has most of the weight, the word with most of the rest is taken: here the full stop, joined to its left.
    attention_TS = attention_to(5, 1, 2, 5, 4, 5, columns=6)
    attention_TS[0, 3] += 0.01
    attention_TS[3, 4] += 0.01
    assert hypothesis_texts([Hypothesis(ids, 0.0, 0.0, attention_TS)], [sentence], both, cats) == ["Kater sieht den.."]
    # The source was truncated to two tokens, so there is attention to these two only.
    cut = Hypothesis([UNK, UNK], 0.0, 0.0, attention_to(0, 1, 2, columns=3))
    assert hypothesis_texts([cut], [sentence], both, cats) == ["Zoë guckt"]
    assert hypothesis_texts([Hypothesis([], 0.0, 0.0), Hypothesis([4], 0.0, 0.0)], ["", "x"], both, cats) == [
        "",
        "sieht",
    ]


ATTENTIVE: dict[str, list[str]] = {
    "bahdanau": [],
    "deep-att": [],
    "gnmt": [],
    "luong": ["--model.reach", "local-p", "--model.window", "2"],
    "convs2s": [],
    "transformer-base": [],
}


@pytest.mark.parametrize("row", ATTENTIVE)
def test_row_t_of_the_attention_belongs_to_token_t(row: str) -> None:
    """With real models: the attention that the search reports equals that of forced decoding of the same tokens."""
    torch.manual_seed(1)
    model = resolve(row_files()[row], row=row, flags=ATTENTIVE[row]).build(23, 23).eval().double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype)
    sources = [[5, 9, 4, 7, 8, 6], [4, 6, 5], [8]]
    for source, hypotheses in zip(
        sources, translate(model, sources, DecodingSettings(beam=3, extra_length=3, pos_unk="copy")), strict=True
    ):
        for ids, _, _, attention_TS in hypotheses:
            forced = forced_attention(model, [source], [ids])
            assert attention_TS is not None
            assert forced is not None
            assert attention_TS.shape == (len(ids) + 1, len(source) + 1)
            np.testing.assert_allclose(attention_TS, forced[0], atol=1e-6)


@pytest.fixture
def quick() -> Iterator[None]:
    with quick_evaluation.without_timings(), tracking_folder.fast_writes():
        yield


@pytest.mark.usefixtures("quick")
def test_a_logged_model_translates_as_in_its_evaluation(tmp_path: Path) -> None:
    """A model with a vocabulary of one word writes mostly unknown words; the dictionary replaces all of them."""
    tiny_job.write_corpus(tmp_path)
    words = {"text__kind": "words", "text__joint": "false", "text__vocabulary_size": 5, "training__max_updates": 40}
    store = Store(TrackingSettings(None, str(tracking_folder.create(tmp_path / "runs"))))
    tables = {}
    for pos_unk in ("keep", "dictionary"):
        outcome = run(
            resolve(tiny_job.FILE, flags=tiny_job.flags(tmp_path, **words, decoding__pos_unk=pos_unk)), store, "runs"
        )
        assert outcome.run
        table = tables[pos_unk] = store.hypotheses(outcome.run, "test")
        found, _ = trained_model.load(store, outcome.run.id).translate(list(table["source"]))
        assert [best.text for best, *_ in found] == list(table["hypothesis"])
    assert tables["keep"]["hypothesis"].str.contains("<unk>").all()
    assert not tables["dictionary"]["hypothesis"].str.contains("<unk>").any()
    bleu = next(measure for measure in outcome.measures if measure.metric == "test/bleu")
    assert bleu.provenance.endswith("; beam 2, alpha 1.0, unknown words: dictionary")
