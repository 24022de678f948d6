"""Checks that the names of files and columns, and the text itself, do not contradict the languages of a corpus.

A corpus named files-de-en whose files are [train.en,train.de] would be trained in the wrong direction under the right
label, without any error. So tags that contradict the name are refused. Where names say nothing, the text itself is
compared (`swapped_sides`), and the result is a warning.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.data.corpus import Corpus

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""Endings of compressed files; the ending before them is the language."""

PLAIN = {"txt", "text", "tok", "snt", "raw", "clean", "tc", "lc", "bpe", "sp", "spm"}
"""Endings that say how a text was processed; the ending before them is the language: train.en.txt, train.de.tok."""

ISO_639 = """
aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis bm:bam
bn:ben bo:bod:tib br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces:cze cu:chu cv:chv cy:cym:wel da:dan
de:deu:ger dv:div dz:dzo ee:ewe el:ell:gre en:eng eo:epo es:spa et:est eu:eus:baq fa:fas:per ff:ful fi:fin fj:fij
fo:fao fr:fra:fre fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun
hy:hye:arm hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl:ice it:ita iu:iku ja:jpn jv:jav ka:kat:geo
kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug
li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri:mao mk:mkd:mac ml:mal mn:mon mr:mar ms:msa:may mt:mlt
my:mya:bur na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld:dut nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori
os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron:rum ru:rus rw:kin sa:san sc:srd sd:snd se:sme
sg:sag si:sin sk:slk:slo sl:slv sm:smo sn:sna so:som sq:sqi:alb sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel
tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven
vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha zh:zho:chi:cmn zu:zul
"""
"""The two-letter codes of ISO 639-1 with their three-letter codes of ISO 639-2 (T, then B), and cmn for Mandarin."""

ALIASES = {"iw": "he", "in": "id", "ji": "yi", "nb": "no", "nn": "no", "cn": "zh", "jp": "ja", "kr": "ko", "cz": "cs"}
ALIASES |= {"dk": "da", "gr": "el", "ua": "uk", "se": "sv"}
"""Former codes, the two forms of Norwegian, and codes of countries that files use in place of the language."""

CODES: dict[str, set[str]] = {}
for entry in ISO_639.split():
    for code in entry.split(":"):
        CODES.setdefault(code, set()).add(entry.partition(":")[0])
for code, language in ALIASES.items():
    CODES.setdefault(code, set()).add(language)


def ending(path: str) -> str:
    """The last ending of a file's name that does not only say how the text is stored: en for data/train.en.txt.gz."""
    parts = _stored_name(path).split(".")
    while len(parts) > 1 and parts[-1].lower() in PLAIN:
        del parts[-1]
    return parts[-1] if len(parts) > 1 else ""


def _stored_name(path: str) -> str:
    name = re.split(r"[/\\]", path)[-1]
    return next((name[: -len(end)] for end in PACKED if name.lower().endswith(end)), name)


def languages_of(tag: str) -> set[str]:
    """The ISO 639-1 codes that a tag can stand for: {de} for de, deu, DE, de_AT or deu_Latn; empty if it is none."""
    return CODES.get(_primary(tag), set())


def _primary(tag: str) -> str:
    return re.split(r"[-_]", tag.lower())[0]


def tag_in_name(tag: str) -> str:
    """A tag as part of a corpus's name, whose parts are separated by hyphens: zh_cn for zh-CN, others as they are."""
    return tag.lower().replace("-", "_") if languages_of(tag) else tag


def same_language(tag: str, language: str) -> bool:
    """Whether two tags can stand for the same language: de and deu_Latn. Regions count only where both are given."""
    ours, theirs = (re.split(r"[-_]", each.lower()) for each in (tag, language))
    if len(ours) > 1 and len(theirs) > 1 and ours[1:] != theirs[1:] and len(ours[1]) == len(theirs[1]):
        return False  # pt_BR is not pt_PT; zh_CN may be zh_Hans
    return ours[0] == theirs[0] or bool(languages_of(tag) & languages_of(language))


def check_files(source_file: str, target_file: str, source: str, target: str) -> None:
    """Checks that the names of two files do not contradict the languages of the corpus.

    They do if the ending of a file is the tag of another language than its side's, or if the parts in which the two
    paths differ name the languages in the other order (de/train.txt, en/train.txt).

    Raises:
        ValueError: a contradiction; the message has the names of the file and of both languages.
    """
    if not source or not target or same_language(source, target):
        return
    own, others = (set(re.split(r"[\W_]+", file.lower())) for file in (source_file, target_file))
    exchanged = any(same_language(part, target) for part in own - others) and any(
        same_language(part, source) for part in others - own
    )
    for file, side, language, other in (
        (source_file, "source", source, target),
        (target_file, "target", target, source),
    ):
        tag = ending(file)
        is_other = same_language(tag, other) or (languages_of(tag) and languages_of(language))
        if exchanged or (is_other and not same_language(tag, language)):
            raise ValueError(
                f"{file}: is the {side} file of a corpus {source}-{target}, but its name says "
                f"{other if exchanged else tag}, not {language}; expected the source file first in every split; "
                "exchange the files, or correct corpus.name"
            )


def check_columns(file: str, source: str, target: str) -> None:
    """Checks that the name of a table, such as train.de-en.tsv, does not give the columns another order.

    Raises:
        ValueError: it does; the message names both orders.
    """
    for part in _stored_name(file).split("."):
        tags = re.split(r"[-_]", part)
        if len(tags) == 2 and same_language(tags[0], target) and same_language(tags[1], source):
            if same_language(source, target):
                continue
            raise ValueError(
                f"{file}: the name says {part}, and corpus.name says {source}-{target}; expected the source in the "
                "first column; exchange the columns and rename the file, or correct corpus.name"
            )


def check_header(file: str, cells: Sequence[str], source: str, target: str) -> bool:
    """Whether the first line of a table is a heading: its first two cells are tags, at least one of this corpus.

    Raises:
        ValueError: it is a heading and names other languages than the corpus, or another order.
    """
    tags = [cell.strip() for cell in cells[:2]]
    if len(tags) < 2 or not all(re.fullmatch(r"[A-Za-z]{2,3}([-_]\w+)*", tag) for tag in tags):
        return False
    matches = [[same_language(tag, language) for language in (source, target)] for tag in tags]
    known = [any(match) or bool(languages_of(tag)) for tag, match in zip(tags, matches, strict=True)]
    if not all(known) or not any(map(any, matches)):
        return False
    if not (matches[0][0] and matches[1][1]):
        raise ValueError(
            f"{file}: the heading says {tags[0]}, {tags[1]}, and corpus.name says {source}-{target}; expected the "
            "source in the first column; exchange the columns or correct corpus.name"
        )
    return True


# --- the text itself --------------------------------------------------------------------------------------------------

SENTENCES = 1000
"""Number of sentences of a split, evenly spaced, whose characters are compared."""

MARGIN = 0.1
"""A side is reported if it resembles the other side of the training text more than its own by at least this much."""

FEWEST_LETTERS = 50
"""A side with fewer letters, or fewer character trigrams, says nothing about its language."""

FEW = 0.1
"""Largest share of letters in the script of the language at which the text is taken to be of another language."""

SCRIPTS: dict[str, tuple[str, ...]] = {
    "am": ("ETHIOPIC",),
    "ar": ("ARABIC",),
    "be": ("CYRILLIC",),
    "bg": ("CYRILLIC",),
    "bn": ("BENGALI",),
    "el": ("GREEK",),
    "fa": ("ARABIC",),
    "gu": ("GUJARATI",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "hy": ("ARMENIAN",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"),
    "ka": ("GEORGIAN",),
    "km": ("KHMER",),
    "kn": ("KANNADA",),
    "ko": ("HANGUL", "CJK"),
    "lo": ("LAO",),
    "mk": ("CYRILLIC",),
    "ml": ("MALAYALAM",),
    "mr": ("DEVANAGARI",),
    "my": ("MYANMAR",),
    "ne": ("DEVANAGARI",),
    "ru": ("CYRILLIC",),
    "si": ("SINHALA",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "th": ("THAI",),
    "uk": ("CYRILLIC",),
    "ur": ("ARABIC",),
    "yi": ("HEBREW",),
    "zh": ("CJK",),
}
LATIN = "cs da de en es et fi fr hr hu id is it lt lv nl no pl pt ro sk sl sv sw tr vi"
SCRIPTS |= dict.fromkeys(LATIN.split(), ("LATIN",))
"""Language -> the first word of the Unicode names of its letters, for languages that are written in one way."""


@dataclass(frozen=True)
class OtherLanguage:
    """A side of a split that does not look like its language.

    Attributes:
        split: train, validation, or the name of a test set.
        language: The language of the side.
        reason: The numbers, as text that follows "the LANGUAGE side of SPLIT".
    """

    split: str
    language: str
    reason: str

    def __str__(self) -> str:
        return (
            f"the {self.language} side of {self.split} {self.reason}; expected {self.language} on that side of every "
            "split; check the order of the files and corpus.name"
        )


def swapped_sides(corpus: Corpus) -> list[OtherLanguage]:
    """The sides of the splits whose characters do not look like their language.

    Either a side of the training text has hardly a letter of the script of its language, or a side of another split
    resembles the other side of the training text more than its own. The resemblance is the cosine of the counts of
    character trigrams. Takes some 0.1 s. Two languages with the same script that are exchanged in every split are not
    noticed.
    """
    languages = (corpus.source_language, corpus.target_language)
    training = (corpus.train.sources, corpus.train.targets)
    found = [
        OtherLanguage("train", language, f"has {share:.0%} of its letters in the script of {language}")
        for language, sentences in zip(languages, training, strict=True)
        if (share := script_share(sentences, language)) is not None and share < FEW
    ]
    profiles = [_profile(sentences) for sentences in training]
    for name, split in {"validation": corpus.validation, **corpus.tests}.items():
        for number, sentences in enumerate((split.sources, split.targets)):
            profile = _profile(sentences)
            if min(sum(each.values()) for each in (profile, *profiles)) < FEWEST_LETTERS:
                continue
            own, crossed = (_cosine(profile, profiles[side]) for side in (number, 1 - number))
            if crossed > own + MARGIN:
                reason = f"resembles the {languages[1 - number]} side of train ({crossed:.2f}) more than its own"
                found.append(OtherLanguage(name, languages[number], f"{reason} ({own:.2f})"))
    return found


def script_share(sentences: Sequence[str], language: str) -> float | None:
    """Share of the letters that are in the script of a language, 0 to 1; None if unknown or there are few letters."""
    scripts = scripts_of(language)
    letters = Counter(character for sentence in _sample(sentences) for character in sentence if character.isalpha())
    if not scripts or letters.total() < FEWEST_LETTERS:
        return None
    own = sum(n for letter, n in letters.items() if script_of(letter) in scripts)
    return own / letters.total()


def scripts_of(language: str) -> set[str]:
    """The scripts in which a language is written; empty if they are not known."""
    return {script for code in languages_of(language) for script in SCRIPTS.get(code, ())}


@functools.cache
def script_of(letter: str) -> str:
    """The script of a letter: the first word of its Unicode name."""
    return unicodedata.name(letter, "").partition(" ")[0]


def _sample(sentences: Sequence[str]) -> Sequence[str]:
    return sentences[:: max(1, len(sentences) // SENTENCES)]


def _profile(sentences: Sequence[str]) -> Mapping[str, int]:
    """Character trigrams with their counts. Digits say nothing about a language, so they count as one character."""
    counts: Counter[str] = Counter()
    for sentence in _sample(sentences):
        text = re.sub(r"\d+", "0", f" {sentence.lower()[:1000]} ")
        counts.update(text[begin : begin + 3] for begin in range(len(text) - 2))
    return counts


def _cosine(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    product = sum(count * other.get(trigram, 0) for trigram, count in one.items())
    norms = sum(count**2 for count in one.values()) * sum(count**2 for count in other.values())
    return product / norms**0.5 if norms else 0.0
