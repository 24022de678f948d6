"""Names of files that show another order of languages than the corpus, and text whose sides are exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.data.corpus import Corpus, Split
from bench.data.languages import check_files, ending, languages_of, same_language, script_share, swapped_sides
from tests.helpers import tiny_job


@pytest.mark.parametrize(
    ("files", "languages"),
    [
        (("train.en", "train.de"), "en-de"),
        (("train.EN.gz", "train.De.bz2"), "en-de"),
        (("train.en.txt", "train.de.tok.txt"), "en-de"),
        (("train.en-de.en", "train.en-de.de"), "en-de"),
        (("a.en_US", "a.zh-CN"), "en-zh"),
        (("a.eng_Latn", "a.deu_Latn"), "en-de"),
        (("a.ger", "a.kr"), "de-ko"),  # ISO 639-2 B, and the country in place of the language
        (("a.pt_BR", "a.pt_PT"), "pt_BR-pt_PT"),
        (("en/train.txt", "de/train.txt"), "en-de"),
        (("de_data/train.src", "de_data/train.tgt"), "en-de"),
        (("a.src", "a.tgt"), "en-de"),
        (("a.en", "a.de"), "src-tgt"),
        (("a.x", "a.y"), "-"),
    ],
)
def test_names_that_agree_with_the_languages(files: tuple[str, str], languages: str) -> None:
    check_files(*files, *languages.split("-"))
    source, target = languages.split("-")
    if source and source != "src" and "src" not in files[0]:
        with pytest.raises(ValueError, match=f" {target}-{source}, but its name says "):
            check_files(*files, target, source)


def test_the_error_has_the_names_of_the_file_and_of_the_languages() -> None:
    with pytest.raises(ValueError, match="train") as raised:
        check_files("train.en", "train.de", "de", "en")
    assert str(raised.value) == (
        "train.en: is the source file of a corpus de-en, but its name says en, not de; expected the source file first "
        "in every split; exchange the files, or correct corpus.name"
    )
    for files in (("a.en", "a.en"), ("a.en", "a.fr")):  # the target file alone is wrong
        with pytest.raises(ValueError, match=r"^a\.\w+: is the target file of a corpus en-de, but its name says"):
            check_files(*files, "en", "de")


def test_tags_of_languages() -> None:
    assert [ending(path) for path in ("x/train.en.gz", "a.b/train", "train.de.tok.txt", "en.txt")] == [
        "en",
        "",
        "de",
        "",
    ]
    assert languages_of("DEU_Latn") == languages_of("de-AT") == {"de"}
    assert languages_of("txt") == languages_of("tgt") == set()  # codes of ISO 639-3 that are usual endings
    assert same_language("zh_CN", "zh_Hans")
    assert not same_language("pt_BR", "pt_PT")


def corpus(languages: tuple[str, str] = ("en", "de"), **splits: Any) -> Corpus:
    def split(seed: int) -> Split:
        pairs = tiny_job.pairs(50, seed)
        return Split([source for source, _ in pairs], [target for _, target in pairs])

    whole = Corpus("files-en-de", *languages, split(0), split(1), {"test": split(2)})
    return replace(whole, **splits)


def test_a_split_in_the_other_order_is_noticed() -> None:
    usual = corpus()
    assert swapped_sides(usual) == []
    exchanged = Split(usual.validation.targets, usual.validation.sources)
    both = swapped_sides(replace(usual, validation=exchanged))
    assert [(side.split, side.language) for side in both] == [("validation", "en"), ("validation", "de")]
    assert str(both[0]).startswith("the en side of validation resembles the de side of train (0.9")
    one = Split(usual.validation.sources, usual.validation.sources)
    assert [side.language for side in swapped_sides(replace(usual, validation=one))] == ["de"]
    same = Split(usual.train.sources, usual.train.sources)  # a corpus in one language, such as of corrections
    assert swapped_sides(replace(usual, train=same, validation=one, tests={})) == []
    tiny = Split(["Der Mann."], ["The man."])
    assert swapped_sides(replace(usual, validation=tiny)) == []  # too few letters to say


def test_a_side_in_another_script_is_noticed() -> None:
    korean = ["남자가 개를 본다.", "개가 새를 듣는다."] * 25
    train = Split(corpus().train.sources, korean)
    found = swapped_sides(corpus(("ko", "en"), train=train, validation=train, tests={}))
    assert [(side.split, side.language) for side in found] == [("train", "ko"), ("train", "en")]
    assert "has 0% of its letters in the script of ko" in str(found[0])
    assert swapped_sides(corpus(("en", "ko"), train=train, validation=train, tests={})) == []
    assert script_share(korean, "ko") == 1.0
    assert script_share(korean, "tlh") is None
    assert script_share(["개"], "en") is None
