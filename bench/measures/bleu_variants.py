"""BLEU by the protocols of the papers. These scores are labelled and never compared with the standard one.

Published scores before 2018 are mostly `multi-bleu.perl` on tokenised text, which cannot be compared with sacreBLEU's
13a (Post 2018, WMT, "A Call for Clarity in Reporting BLEU Scores"). Those of "Attention Is All You Need" in addition
split compounds at their hyphens, so that more n-grams match.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex
from sacrebleu.metrics.bleu import BLEU

from bench.data.words import FOLLOWER
from bench.measures.measure import Measure
from bench.measures.quality import Statistics, mean_with_interval, statistics_by
from bench.measures.selection import DEFAULT_TOKENIZER, LANGUAGE_TOKENIZERS, primary_subtag

_LETTER = r"[\p{L}\p{Nl}\p{No}]"
_LETTER_BEFORE = rf"{_LETTER}{FOLLOWER}*"
_MARK = rf"(?=[^\p{{L}}\p{{N}}\s.'`,\-])(?!{FOLLOWER})\X"
"""A sign that is always a word of its own. An accent that is a character of its own belongs to its letter."""

_KEEP_PERIOD = {
    # Abbreviations after which a period does not end a sentence: the frequent ones of Moses's lists.
    "en": "Mr Mrs Ms Dr Prof St Jr Sr Gen Col Maj Capt Lt Sen Rep Gov vs etc Inc Ltd Co Corp No Jan Feb Mar Apr Aug "
    "Sept Oct Nov Dec Rev i.e e.g",
    "de": "Mr Mrs Dr Prof Hr Fr Frl St Str Nr bzw ca etc evtl ggf inkl usw vgl Jan Feb Mär Apr Aug Sep Okt Nov "
    "Dez d.h z.B u.a",
    "fr": "M MM Mme Mlle Dr Pr St Ste etc av apr chap env",
}


def tokenise(line: str, language: str) -> str:
    """Separates words and punctuation as Moses's tokenizer.perl does (Koehn et al. 2007), without aggressive hyphens.

    Unlike there, combining marks belong to their letter (bench/data/words.py), so that a word of decomposed German, of
    Hindi or of Arabic with vowel signs stays one word.

    The lists of abbreviations are shorter, and characters are not escaped, which changes no score. On 90,000 lines of
    Multi30k fewer than 1 in 1,000 differ from sacremoses, all of them in whether a period belongs to an abbreviation.
    """
    text = f" {' '.join(line.split())} "
    text = regex.sub(_MARK, r" \g<0> ", text)
    text = regex.sub(r"\.\.+", r" \g<0> ", text)
    text = regex.sub(r"(?<!\d),|,(?!\d)", " , ", text)
    if language == "en":  # we 're, Smith 's, 1990 's
        text = regex.sub(rf"(?<!{_LETTER_BEFORE})(?<!\d)'|'(?!{_LETTER})", " ' ", text)
        text = regex.sub(rf"(?<={_LETTER_BEFORE})'(?={_LETTER})|(?<=\d)'(?=s)", " '", text)
    elif language in ("fr", "it"):  # l' eau
        text = regex.sub(rf"(?<!{_LETTER_BEFORE})'|'(?!{_LETTER})", " ' ", text)
        text = regex.sub(rf"(?<={_LETTER_BEFORE})'(?={_LETTER})", "' ", text)
    else:
        text = text.replace("'", " ' ")
    words = text.split()
    keep = set(_KEEP_PERIOD.get(language, "").split())
    for index, word in enumerate(words):
        stem = word[:-1]
        if not word.endswith(".") or not stem or set(word) == {"."}:
            continue
        follows = words[index + 1][0] if index + 1 < len(words) else ""
        inner = "." in stem and regex.search(_LETTER, stem) is not None
        initial = len(stem) == 1 and stem.isupper()
        ordinal = language == "de" and stem.isdecimal() and len(stem) <= 2
        if not (inner or initial or ordinal or stem in keep or follows.islower()):
            words[index] = f"{stem} ."
    return " ".join(words)


def split_compounds(line: str) -> str:
    """Changes `U-Bahn` to `U ##AT##-##AT## Bahn`, as tensor2tensor's get_ende_bleu.sh does."""
    return regex.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", line)


def _multi_bleu(metric: str, hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """Statistics of text that is already tokenised, without smoothing, as in multi-bleu.perl."""
    return statistics_by(BLEU(tokenize="none", smooth_method="none", force=True), metric, hypotheses, references)


def variants(
    hypotheses: Sequence[str], references: Sequence[str], language: str, tokenizer: str = DEFAULT_TOKENIZER
) -> list[Measure]:
    """Returns BLEU lowercased, tokenised and compound-split; for Korean by morphemes and by characters.

    Tokenised and compound-split BLEU divide words at spaces, so a language with another tokenizer has none.

    Args:
        language: The target language, such as de; it decides how apostrophes and abbreviations are tokenised.
        tokenizer: The tokenizer of BLEU that fits the targets.
    """
    language = primary_subtag(language)
    lowercase = BLEU(lowercase=True, tokenize=tokenizer)
    found = [mean_with_interval([statistics_by(lowercase, "bleu_lowercase", hypotheses, references)])]
    if language in LANGUAGE_TOKENIZERS["ko-mecab"]:
        return [*found, *_korean(hypotheses, references)]
    if tokenizer != DEFAULT_TOKENIZER:
        return found
    ours, theirs = ([tokenise(line, language) for line in lines] for lines in (hypotheses, references))
    tokenised = _multi_bleu("bleu_tokenised", ours, theirs)
    ours, theirs = ([split_compounds(line) for line in lines] for lines in (ours, theirs))
    split = _multi_bleu("bleu_compound_split", ours, theirs)
    return [*found, mean_with_interval([tokenised]), mean_with_interval([split])]


def _korean(hypotheses: Sequence[str], references: Sequence[str]) -> list[Measure]:
    """BLEU by characters and by morphemes. Korean particles are part of the word, so 13a's words rarely match."""
    characters = mean_with_interval([statistics_by(BLEU(tokenize="char"), "bleu_characters", hypotheses, references)])
    try:
        scorer = BLEU(tokenize="ko-mecab")
    except (ImportError, RuntimeError) as error:
        missing = str(error).strip().splitlines()[0]
        reason = f"not measured: {missing}; needs the extra `korean`: .venv/bin/pip install --editable '.[korean]'"
        return [characters, Measure("bleu_ko_mecab", None, "percent", provenance=reason)]
    return [characters, mean_with_interval([statistics_by(scorer, "bleu_ko_mecab", hypotheses, references)])]
