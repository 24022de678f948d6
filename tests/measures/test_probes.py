"""Probes of a fake model whose decisions are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.corpus import Split
from bench.data.learn_vocabularies import build
from bench.data.vocabulary import TextSettings, Vocabularies
from bench.measures import alignment, probes, quality
from bench.measures.probes import Contrast, TargetOnly
from models.parts.batch import EOS, Batch, Tokens
from models.parts.translator import State, Step
from tests.helpers.partial_translator import Partial

TEXT = ["der Krug ist voll", "die Tasse ist leer", "das Glas ist voll", "er ist leer", "sie ist voll", "es ist voll"]


@pytest.fixture(scope="module")
def vocabularies() -> Vocabularies:
    return build(TextSettings(kind="words", vocabulary_size=16), Split(TEXT, TEXT))


class CopyModel(Partial):
    """Gives a target word probability e^-1 if the source has the same word at the same position, otherwise e^-3.

    Its attention is on that position, and on EOS after the end of the source.
    """

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(1, 1)

    def token_losses(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        width = batch.target.ids_BS.shape[1]
        source_BT = functional.pad(batch.source.ids_BS, (0, max(0, width - batch.source.ids_BS.shape[1])))[:, :width]
        losses_BT = torch.where(source_BT == batch.target.ids_BS, 1.0, 3.0)
        return losses_BT.flatten()[batch.target.real_index_N]

    def encode(self, source: Tokens) -> Tokens:
        return source

    def start(self, memory: Tokens) -> State:
        last_B = torch.tensor(memory.lengths_B) - 1
        return State((last_B, memory.ids_BS), torch.zeros_like(last_B))

    def step(self, previous_B: Tensor, state: State) -> Step:
        last_B, ids_BS = state.source
        attention_BS = functional.one_hot(torch.minimum(state.past, last_B), ids_BS.shape[1]).float()
        return Step(state.past[:, None].float(), State(state.source, state.past + 1), attention_BS)


# --- contrasts --------------------------------------------------------------------------------------------------------


def test_log_probabilities_are_sums_over_a_sentence(vocabularies: Vocabularies) -> None:
    sources = vocabularies.source.encode(["der Krug ist voll", "er ist leer", "es"])
    targets = vocabularies.target.encode(["der Krug ist leer", "er ist leer", "es ist voll"])
    for batch in (1, 2, 64):  # at every batch size
        found = probes.of_model(CopyModel(), batch)(sources, targets)
        # EOS matches EOS in the first two; in the third it is three words later, where the source is padding.
        assert found.tolist() == [-(1 + 1 + 1 + 3 + 1), -(1 + 1 + 1 + 1), -(1 + 3 + 3 + 3)]


def test_decisions(vocabularies: Vocabularies) -> None:
    contrasts = [
        Contrast("er ist leer", "er ist leer", ("es ist leer",), "pronoun", 3),
        Contrast("er ist leer", "es ist leer", ("er ist leer",), "pronoun", 20),
        Contrast("er ist leer", "er ist leer", ("es ist leer", "er ist voll"), "three"),
        Contrast("er ist leer", "Xaver ist leer", ("Yvonne ist leer",), "unknown"),
        Contrast("das", "der", ("die",), "blind"),
    ]
    decisions = probes.decide(contrasts, vocabularies, probes.of_model(CopyModel()))
    # Unknown words have the same ids and cannot be told apart. Equal scores of different ids are not counted as right.
    assert [decision.credit for decision in decisions] == [1, 0, 1, 0.5, 0]
    assert [decision.chance for decision in decisions] == [1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 2]
    found = {measure.metric: measure for measure in probes.accuracies(decisions)}
    assert found["contrastive"].value == pytest.approx(50)
    assert found["contrastive/pronoun"].value == pytest.approx(50)
    assert [metric for metric in found if metric.count("/") > 1] == []  # too few for a separate score
    assert [(one.value, one.count) for one in probes.accuracies([])] == [(None, 0)]
    many = probes.accuracies(decisions[:2] * 20, "target_only")
    assert [(measure.metric, measure.value) for measure in many] == [
        ("target_only", 50),
        ("target_only/pronoun", 50),
        ("target_only/pronoun/3-4", 100),
        ("target_only/pronoun/over-15", 0),
    ]
    assert found["contrastive/three"].provenance == "1 contrasts, chance 33.3%, Wilson's 95 % interval"
    assert [(measure.count, measure.chance) for measure in many] == [(40, 50), (40, 50), (20, 50), (20, 50)]
    assert found["contrastive/three"].chance == pytest.approx(100 / 3)


def test_groups_of_distances() -> None:
    assert [probes.distance_group(n) for n in (0, 2, 3, 8, 9, 15, 16)] == [
        "0",
        "2",
        "3-4",
        "5-8",
        "9-15",
        "9-15",
        "over-15",
    ]


def test_wilson_by_hand() -> None:
    """81 of 263, an example with a published interval: 0.2553 to 0.3662 (Newcombe 1998, Statistics in Medicine)."""
    assert probes.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert probes.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert probes.wilson(20, 20)[1] == 1.0


def test_a_target_only_model_is_a_distribution_and_equals_a_manual_calculation() -> None:
    words = [[5, 6], [5, 7], [5, 6]]
    model = TargetOnly(words, vocabulary=10, order=2)
    # Unigrams: 9 tokens (with ends) of 4 kinds; 5 three times. P(5) = (3 + 4 * 1/10) / 13.
    first = (3 + 4 / 10) / 13
    # All three begin with 5: P(5 | begin) = (3 + 1 * P(5)) / 4. After 5: 6 twice, 7 once, 2 kinds.
    begin = (3 + first) / 4
    after = (2 + 2 * ((2 + 4 / 10) / 13)) / 5
    end = (2 + 1 * ((3 + 4 / 10) / 13)) / 3
    assert model([[9]], [[5, 6]])[0] == pytest.approx(math.log(begin * after * end))
    everything = [model.probability((5, word), 1) for word in [-2, *range(1, 10)]]
    assert sum(everything) == pytest.approx(1)
    assert model([[1]], [[5, 6]]) == model([[2, 3]], [[5, 6]])


def test_a_target_only_model_decides_contrasts_that_need_no_source(vocabularies: Vocabularies) -> None:
    baseline = TargetOnly(vocabularies.target.encode(TEXT), len(vocabularies.target))
    contrasts = [
        Contrast("", "die Tasse ist leer", ("der Tasse ist leer",), "gender"),
        Contrast("", "das Glas ist leer", ("das Glas ist voll",), "state"),
    ]
    assert [decision.credit for decision in probes.decide(contrasts, vocabularies, baseline)] == [1, 0]


# --- files ------------------------------------------------------------------------------------------------------------


def test_lingeval_files(tmp_path: Path) -> None:
    entry = {
        "source": "the cats sleep",
        "reference": "die Katzen schlafen",
        "errors": [
            {"contrastive": "die Katzen schläft", "type": "subj_verb_agreement", "distance": 1, "frequency": 3},
            {"contrastive": "der Katzen schlafen", "type": "np_agreement"},
        ],
    }
    path = tmp_path / "lingeval97.json"
    path.write_text(json.dumps([entry]))
    assert probes.read(path) == [
        Contrast("the cats sleep", "die Katzen schlafen", ("die Katzen schläft",), "subj_verb_agreement", 1),
        Contrast("the cats sleep", "die Katzen schlafen", ("der Katzen schlafen",), "np_agreement"),
    ]


def test_contrapro_files(tmp_path: Path) -> None:
    entry = {
        "src segment": "It is full.",
        "ref segment": "Er ist voll.",
        "src pronoun": "It",
        "ref pronoun": "Er",
        "ante distance": 2,
        "errors": [{"contrastive": "Sie ist voll."}, {"contrastive": "Es ist voll."}],
    }
    path = tmp_path / "contrapro.json"
    path.write_text(json.dumps([entry]))
    assert probes.read(path) == [Contrast("It is full.", "Er ist voll.", ("Sie ist voll.", "Es ist voll."), "it:er", 2)]


def entry(**changed: object) -> str:
    error = {"contrastive": "c", "type": "kind", "distance": changed.pop("distance", 1)}
    return json.dumps([{"source": "a", "reference": "b", "errors": [error]} | changed])


def test_tab_separated_files(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text("a\tb\tc\tkind\r\na\tb\tc\tkind\t4\n", newline="")
    assert probes.read(path) == [Contrast("a", "b", ("c",), "kind"), Contrast("a", "b", ("c",), "kind", 4)]
    path.write_text("a\u2028a\tb\tc\tkind\n")  # a line separator in Unicode, but an ordinary character here
    assert probes.read(path) == [Contrast("a\u2028a", "b", ("c",), "kind")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a\tb\tc\td\na\tb\n", "line 2: expected source, right, wrong"),
        ("a\tb\tc\td\tfar\n", "line 1: expected"),
        ('[{"source": "a"}]', "entry 0: lacks 'errors'"),
        ('[{"source": "a", "reference": "b", "errors": []}, 3]', "entry 1: expected an object"),
        ('[\n{"source"', "line 2: not JSON"),
        (entry(source=5), "entry 0: a sentence or category is not a string"),
        (entry(distance="3"), "entry 0: the distance '3' is not a whole number"),
        ("[]", "there are no contrasts"),
        ("", "there are no contrasts"),
        (entry(source="\ud800"), r"entry 0 contains \\ud800, half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"src segment": "", "ref segment": "", "src pronoun": "", "ref pronoun": "", "errors": []}]', "no wrong"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        probes.read(path)


def test_a_line_that_is_not_utf_8_has_its_number(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\tb\tc\td\n\xff\tb\tc\td\n")
    with pytest.raises(ValueError, match=r"file: line 2 is not valid UTF-8"):
        probes.read(tmp_path / "file")


# --- groups -----------------------------------------------------------------------------------------------------------


def test_bleu_by_length() -> None:
    sources = ["a b"] * 30 + ["a b c d e f"] * 30 + ["a " * 40] * 5
    references = ["u v w x y"] * 30 + ["u v w x z"] * 30 + ["t"] * 5
    hypotheses = ["u v w x y"] * 60 + ["t"] * 5
    groups = probes.length_groups(sources)
    assert sorted(set(groups)) == ["1-5", "6-10", "over-30"]
    assert probes.length_groups(["", "a " * 5, "a " * 30, "a " * 31]) == ["1-5", "1-5", "26-30", "over-30"]
    found = probes.by_group(quality.statistics(hypotheses, references), groups)
    assert found["1-5"].value == pytest.approx(100)
    assert found["6-10"].value == pytest.approx(quality.bleu(hypotheses[30:60], references[30:60]))
    assert found["over-30"].value is None
    assert "5 sentences, fewer than 20" in found["over-30"].provenance
    assert {group: measure.count for group, measure in found.items()} == {"1-5": 30, "6-10": 30, "over-30": 5}


# --- alignment --------------------------------------------------------------------------------------------------------


def test_alignment_error_rate_by_hand() -> None:
    """A = 3 links, S = 2, P adds one: |A and S| = 1, |A and P| = 2: 1 - 3/5."""
    found, sure, possible = [{(0, 0), (1, 1), (5, 2)}], [{(0, 0), (2, 2)}], [{(1, 1)}]
    assert alignment.alignment_error_rate(found, sure, possible).value == pytest.approx(40)
    assert alignment.alignment_error_rate(sure, sure).value == pytest.approx(0)
    measure = alignment.alignment_error_rate(found * 10 + sure * 10, sure * 20)
    assert measure.low is not None
    assert measure.high is not None
    assert measure.value is not None
    assert measure.low < measure.value < measure.high
    assert alignment.alignment_error_rate([set()], [set()]).value is None


def test_error_rate_with_one_link_per_word() -> None:
    """`zur` is aligned with two words, and one link can find only one; the comma is aligned with none."""
    gold = [{(0, 0), (1, 2), (2, 2)}]
    assert alignment.one_link_error_rate([{(0, 0), (0, 1), (2, 2)}], gold).value == pytest.approx(0)
    # A = 2, S = 1, A and S = 0, A and P = 1.
    assert alignment.one_link_error_rate([{(1, 0), (0, 1), (2, 2)}], gold).value == pytest.approx(100 * (1 - 1 / 3))
    assert alignment.diagonal(4, 2) == {(0, 0), (2, 1)}
    assert alignment.diagonal(1, 3) == {(0, 0), (0, 1), (0, 2)}


def test_pieces_belong_to_words() -> None:
    pieces = ["▁She", "▁pour", "ed", "▁", "it", "."]
    assert alignment.words_of(pieces, ["She", "poured", "it", "."]) == [0, 1, 1, 2, 2, 3]
    assert alignment.words_of(list("a bc"), ["a", "bc"]) == [0, 1, 1, 1]
    assert alignment.words_of(["A", "cup", "￭."], ["a", "cup", "."]) == [0, 1, 2]
    with pytest.raises(ValueError, match="does not continue"):
        alignment.words_of(["x"], ["a"])
    with pytest.raises(ValueError, match="end before 'b'"):
        alignment.words_of(["a"], ["ab"])


def test_links_are_between_words() -> None:
    """Three source pieces of two words, and EOS; two target pieces of one word, and EOS."""
    attention_TS = np.array([[0.2, 0.3, 0.4, 0.1], [0.1, 0.1, 0.0, 0.8], [1, 0, 0, 0]])
    # Word 0: 0.5 + 0.2, word 1: 0.4 + 0. The largest single weight is on word 1.
    assert alignment.links(attention_TS, [0, 0, 1], [0, 0]) == {(0, 0)}


def test_attention_while_the_reference_is_forced() -> None:
    found = alignment.forced_attention(CopyModel(), [[7, 8, 9], [7]], [[7, 8], [7, 8, 9, 9]], batch_sentences=1)
    assert found is not None
    assert [attention_TS.shape for attention_TS in found] == [(3, 4), (5, 2)]
    assert found[0].argmax(axis=1).tolist() == [0, 1, 2]
    assert found[1].argmax(axis=1).tolist() == [0, 1, 1, 1, 1]
    in_one_batch = alignment.forced_attention(CopyModel(), [[7, 8, 9], [7]], [[7, 8], [7, 8, 9, 9]])
    assert in_one_batch is not None
    assert all(np.array_equal(a, b) for a, b in zip(found, in_one_batch, strict=True))


def test_a_model_without_attention_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    step = CopyModel.step

    def without_attention(self: CopyModel, *args: Any) -> Step:
        return step(self, *args)._replace(attention_BS=None)

    monkeypatch.setattr(CopyModel, "step", without_attention)
    assert alignment.forced_attention(CopyModel(), [[7]], [[EOS + 5]]) is None
