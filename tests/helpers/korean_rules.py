"""Korean grammar as in a school book, independent of the data of the corpus, which is tested against it.

A syllable is an initial consonant, a vowel and perhaps a final consonant, and its code point counts them.
"""

from __future__ import annotations

from tests.helpers.german_rules import word_list as word_list

VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
FINALS = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]
FIRST = ord("가")

# Particle after a consonant -> after a vowel.
PARTICLES = {"은": "는", "이": "가", "을": "를", "으로": "로"}
PERSONS = word_list("""
남자 여자 아이 친구 어머니 선생님 아버지 소년 의사 소녀 여동생 학생 이웃 남동생 농부 할머니 경찰관 삼촌 이모 요리사
예술가 간호사 가수 할아버지 손님 변호사 코치 사촌 해적 제빵사 왕자 왕 여왕 기자 정원사 종업원 군인""")
ANIMALS = word_list("""
개 고양이 새 말 박쥐 물범 두루미 소 물고기 염소 곰 쥐 돼지 코끼리 토끼 오리 개구리 늑대 원숭이 뱀 사자 당나귀""")
# Stem of an irregular verb or adjective -> its past.
_IRREGULAR = """
듣/들었 돕/도왔 줍/주웠 짓/지었 미소_짓/미소_지었 붓/부었 베/베었 쥐/쥐었 나르/날랐 부르/불렀
휘두르/휘둘렀 게으르/게을렀
빨갛/빨갰 하얗/하얬 파랗/파랬 노랗/노랬 아름답/아름다웠 무겁/무거웠 더럽/더러웠 흥미롭/흥미로웠 어둡/어두웠 어렵/어려웠
가볍/가벼웠 외롭/외로웠 부드럽/부드러웠 차갑/차가웠 춥/추웠 새것이/새것이었 초록색이/초록색이었 갈색이/갈색이었
현대적이/현대적이었 이/이었
"""
IRREGULAR = dict(pair.replace("_", " ").split("/") for pair in word_list(_IRREGULAR))


def split(syllable: str) -> tuple[int, str, str]:
    """The number of the initial consonant, the vowel, and the final consonant or ''."""
    number = ord(syllable) - FIRST
    return number // 588, VOWELS[number % 588 // 28], FINALS[number % 28]


def join(initial: int, vowel: str, final: str) -> str:
    """The syllable with these letters."""
    return chr(FIRST + initial * 588 + VOWELS.index(vowel) * 28 + FINALS.index(final))


def final(word: str) -> str:
    """The final consonant of the last syllable, or ''."""
    return split(word[-1])[2]


def particle(word: str, after_consonant: str) -> str:
    """The form of a particle after a word."""
    short = not final(word) or (after_consonant == "으로" and final(word) == "ㄹ")
    return PARTICLES[after_consonant] if short else after_consonant


def past(stem: str) -> str:
    """The past stem of a regular verb or adjective: 먹었 of 먹, 갔 of 가; of an irregular one by the table."""
    if stem in IRREGULAR:
        return IRREGULAR[stem]
    head, (initial, vowel, end) = stem[:-1], split(stem[-1])
    if stem.endswith("하"):
        return head + "했"
    if end:
        return stem + ("았" if vowel in "ㅏㅑㅗ" else "었")
    if vowel == "ㅡ":
        before = split(head[-1])[1] if head else "ㅓ"
        return head + join(initial, "ㅏ" if before in "ㅏㅗ" else "ㅓ", "ㅆ")
    contracted = {"ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ"}.get(vowel)
    if contracted or vowel in "ㅏㅓㅐㅔㅕ":
        return head + join(initial, contracted or vowel, "ㅆ")
    return stem + "었"


def present(stem: str) -> str:
    """The plain present of a verb: 간다, 먹는다, and 연다 of 열."""
    initial, vowel, end = split(stem[-1])
    return f"{stem[:-1]}{join(initial, vowel, 'ㄴ')}다" if end in ("", "ㄹ") else f"{stem}는다"


def units(text: str, words: tuple[str, ...]) -> list[list[str]]:
    """The words of a sentence, grouped by what is written together."""
    found: list[list[str]] = []
    position = 0
    for word in words:
        start = text.index(word, position)
        if start > position or not found:
            found.append([])
        found[-1].append(word)
        position = start + len(word)
    return found
