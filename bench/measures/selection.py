"""Which score decides between weights, trials and runs, and the tokenizer of BLEU that fits the target language.

BLEU counts n-grams of up to four tokens. With tokens between spaces (13a) it is 0 for every output in a language that
is written without spaces, and for targets of two words. Everything that it selects is then selected by chance. So the
tokenizer is chosen by the language and the script, and the score by the length of the references. All selections
compare by one function, `rank`: a tie goes to the lower validation loss.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import regex
from sacrebleu.metrics.bleu import BLEU

from bench.measures import metric_registry

DEFAULT_TOKENIZER = "13a"

LANGUAGE_TOKENIZERS = {
    "zh": ("zh", "zho", "chi", "cmn", "yue", "wuu", "lzh"),
    "ja-mecab": ("ja", "jpn"),
    "ko-mecab": ("ko", "kor"),
    "char": ("th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bur", "bo", "bod", "tib", "dz", "dzo"),
}
"""sacreBLEU's tokenizer -> the ISO 639 codes of the languages whose words it finds."""

EXTRAS = {"ja-mecab": "japanese", "ko-mecab": "korean"}
"""Tokenizer -> the extra of this package that installs it."""

WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Yi")
WITHOUT_SPACES += ("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Javanese", "Balinese")
"""Unicode scripts that are written without spaces between words."""

_LETTER = regex.compile(r"\p{L}")
_LETTER_WITHOUT_SPACES = regex.compile("|".join(rf"\p{{Script={script}}}" for script in WITHOUT_SPACES))

LONGEST_NGRAM = 4
"""BLEU needs an n-gram of this many tokens."""

ENOUGH = 0.5
"""A score is used only if at least this share of the references is long enough for it."""

Score = Literal["bleu", "chrf", "loss"]

CONSTANT_SCORE_TAG = "validation_score.constant"
"""Tag of a run or study whose validation score was the same at every validation, or in every trial: that value."""

LABELS: dict[Score, str] = {"bleu": "BLEU", "chrf": "chrF2", "loss": "loss"}


@dataclass(frozen=True)
class Selection:
    """What selects weights and trials of a job, and the tokenizer of all its BLEU scores.

    Attributes:
        score: The validation score that selects: bleu or chrf (higher is better), or loss (lower is better).
        tokenizer: sacreBLEU's name of the tokenizer.
        reason: Why this score, in words.
    """

    score: Score = "bleu"
    tokenizer: str = DEFAULT_TOKENIZER
    reason: str = ""

    @property
    def metric(self) -> str:
        """The metric of a run that has the score: validation_bleu, validation_chrf or validation_loss."""
        return f"validation_{self.score}"

    @property
    def label(self) -> str:
        return LABELS[self.score]

    def text(self, value: float) -> str:
        """A value of the score with its name, such as 12.3 BLEU."""
        return f"{value:.{3 if self.score == 'loss' else 1}f} {self.label}"

    def rank(self, value: float, loss: float | None) -> tuple[float, ...]:
        """The `rank` of a validation with this value of the score and this loss."""
        return rank(loss, oriented(self.metric, value))

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a run by which `Selection.of_tags` finds the selection again."""
        return {"validation_score": self.metric, "bleu_tokenizer": self.tokenizer}

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Selection:
        """The selection of a run or study. Runs of earlier versions have no tags; BLEU with 13a selected theirs."""
        metric: Mapping[str, Score] = {cls(score).metric: score for score in LABELS}
        score = metric.get(tags.get("validation_score", ""), "bleu")
        return cls(score, tags.get("bleu_tokenizer", DEFAULT_TOKENIZER))


def rank(loss: float | None, *scores: float) -> tuple[float, ...]:
    """The sort key of a validation, trial or run; a higher key is better. The first score counts first.

    A tie goes to the lower loss. If a score or the loss is not finite, everything finite is better.

    Args:
        loss: Validation loss; None if it was not measured, which loses a tie.
        scores: Scores, each `oriented` so that higher is better.
    """
    if not all(map(math.isfinite, (*scores, 0.0 if loss is None else loss))):
        return (0.0,)
    return (1.0, *scores, -math.inf if loss is None else -loss)


def oriented(metric: str, value: float) -> float:
    """The value with the sign that makes higher values better."""
    return -value if metric_registry.metric(metric).better == "lower" else value


def choose(setting: str, language: str, references: Sequence[str]) -> Selection:
    """The tokenizer of BLEU and the validation score for these references.

    Args:
        setting: The setting `text.bleu_tokenizer`.
        language: The target language of the corpus.
        references: The target side of the validation set.

    Raises:
        ValueError: the tokenizer needs a package that is not installed.
    """
    name = tokenizer_of(setting, language)
    if name is None:
        name = "char" if written_without_spaces(references) else DEFAULT_TOKENIZER
    tokenize, total = installed_tokenizer(name, language), len(references)
    long_enough = sum(len(tokenize(line).split()) >= LONGEST_NGRAM for line in references)
    if total and long_enough >= ENOUGH * total:
        counted = f"{long_enough} of {total} validation references have {LONGEST_NGRAM} tokens or more"
        return Selection("bleu", name, f"BLEU with the tokenizer {name}, because {counted}")
    with_text = sum(not line.isspace() and line != "" for line in references)
    if total and with_text >= ENOUGH * total:
        counted = f"only {long_enough} of {total} validation references have the {LONGEST_NGRAM} tokens that BLEU needs"
        return Selection("chrf", name, f"chrF2, because {counted}")
    return Selection("loss", name, f"the loss, because only {with_text} of {total} validation references have text")


def tokenizer_of(setting: str, language: str) -> str | None:
    """The tokenizer as far as setting and language decide it; None if the script of the text decides."""
    if setting != "auto":
        return setting
    code = primary_subtag(language)
    return next((name for name, codes in LANGUAGE_TOKENIZERS.items() if code in codes), None)


def primary_subtag(language: str) -> str:
    """Returns the language of a tag without its script or region, in small letters: ko of ko-KR."""
    return regex.split("[-_]", language.lower())[0]


def written_without_spaces(lines: Sequence[str]) -> bool:
    """Whether more than half of the letters are of scripts that are written without spaces between words."""
    letters = _LETTER.findall("".join(lines))
    return 2 * sum(_LETTER_WITHOUT_SPACES.match(letter) is not None for letter in letters) > len(letters)


@functools.cache
def tokenizer(name: str) -> Callable[[str], str]:
    """The tokenizer that sacreBLEU knows by this name: it separates the tokens of a line by spaces."""
    return BLEU(tokenize=name).tokenizer


def installed_tokenizer(name: str, language: str) -> Callable[[str], str]:
    """As `tokenizer`. Raises ValueError, one line, if the tokenizer needs a package that is not installed."""
    try:
        return tokenizer(name)
    except (ImportError, RuntimeError, AssertionError) as error:  # the last for another dictionary than sacreBLEU's
        missing = " ".join(str(error).split()).partition(". ")[0]
        extra = EXTRAS.get(name, "")
        raise ValueError(
            f"text.bleu_tokenizer: BLEU of targets in {language!r} needs the tokenizer {name}, which is not installed "
            f"({missing}); install it: .venv/bin/pip install --editable '.[{extra}]', or set --text.bleu_tokenizer char"
        ) from error


def is_constant(values: Sequence[float]) -> bool:
    """Whether a score had the same value at all of several validations or trials, so that it could not select."""
    return len(values) > 1 and len(set(values)) == 1
