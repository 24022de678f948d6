"""Text into token ids and back: subwords (SentencePiece), words, characters.

Every kind is one file with a hash that goes with each run, gives the special tokens the ids of the models' contract,
and turns ids back into plain text, so that measures of quality never see a tokeniser.
"""

from __future__ import annotations

import abc
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import sentencepiece

from bench.data.corpus import Split
from bench.system.files import write_file
from models.parts.batch import BOS, EOS, PAD, UNK

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""The pieces with the ids PAD, BOS, EOS and UNK."""

JOINER = "￭"
"""Marks the side of a punctuation mark on which no space stands."""

WORD_OR_MARK = re.compile(r"\w+|[^\w ]")


@dataclass
class TextSettings:
    """How sentences become tokens.

    Attributes:
        kind: subwords: byte-pair pieces that SentencePiece learns; words: words and punctuation marks; characters.
        vocabulary_size: Pieces of one vocabulary, the 4 special ones included. For characters a ceiling: a text with
            fewer characters has a smaller vocabulary.
        source_vocabulary_size: The same of the source side, where the sides have two vocabularies of different size.
        joint: One vocabulary learnt on both languages together, instead of one for each.
        max_length: Longest sentence in tokens, end of sentence not counted. Training pairs with a longer side are
            left out, longer sentences to translate are cut; both are counted.
        max_source_length: Where sentences to translate are cut instead, as where a paper trains on short sentences and
            translates all; null: at max_length.
    """

    kind: Literal["subwords", "words", "characters"] = "subwords"
    vocabulary_size: int = 8000
    source_vocabulary_size: int | None = None
    joint: bool = True
    max_length: int = 100
    max_source_length: int | None = None

    @property
    def source_length_limit(self) -> int:
        """Tokens of the longest source that is translated whole."""
        if self.max_source_length is None:
            return self.max_length
        if self.max_source_length < 1:
            raise ValueError(f"text.max_source_length: {self.max_source_length} is too small; at least 1")
        return self.max_source_length

    @property
    def sizes(self) -> tuple[int, int]:
        """Pieces of the source and of the target."""
        if self.source_vocabulary_size is None:
            return self.vocabulary_size, self.vocabulary_size
        if self.joint:
            raise ValueError(
                "text.source_vocabulary_size: both sides share one vocabulary; leave it out, or set text.joint to false"
            )
        return self.source_vocabulary_size, self.vocabulary_size


class Vocabulary(abc.ABC):
    """Pieces of text and their ids. A subclass says how a sentence splits into pieces, and how they join again.

    `data` are the bytes of the saved file; `hash` is their SHA-256. Vocabularies with the same file are equal.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.hash = hashlib.sha256(data).hexdigest()
        self.path: Path | None = None  # where `save_to_cache` puts it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many pieces there are."""

    @abc.abstractmethod
    def piece(self, token: int) -> str:
        """The piece with this id, for pictures and examples."""

    @abc.abstractmethod
    def split(self, sentence: str) -> list[str]:
        """The pieces of a sentence before they are looked up: as many as `encode` gives ids."""

    @abc.abstractmethod
    def join(self, pieces: Iterable[str]) -> str:
        """The sentence that `split` took apart."""

    @abc.abstractmethod
    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Ids of each sentence, without EOS."""

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """Plain sentences. Stops at EOS, passes over PAD and BOS, and writes UNK as <unk>."""
        return [self.join(map(self.piece, text_only(sentence))) for sentence in ids]

    def save(self, path: Path) -> None:
        """Write the vocabulary to one file, atomically."""
        write_file(path, self.data)


def text_only(ids: Sequence[int]) -> list[int]:
    """The ids before the first EOS that stand for text."""
    ids = list(ids)
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [token for token in ids[:end] if token not in (PAD, BOS)]


class Subwords(Vocabulary):
    """Byte-pair encoding by SentencePiece (Kudo and Richardson 2018).

    It changes no text (no normalisation, no case), except that its own mark for a space, U+2581, becomes one. BPE and
    not its unigram model: on Multi30k seven times faster to learn, and 3 % fewer pieces a sentence.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.model = sentencepiece.SentencePieceProcessor(model_proto=data)

    @classmethod
    def learn(cls, sentences: Sequence[str], size: int) -> Subwords:
        """Single-threaded, so that one text and size give one file, byte for byte."""
        model, needed = io.BytesIO(), len(SPECIAL) + 1
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type="bpe",
                vocab_size=max(size, needed),
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                unk_surface=SPECIAL[UNK],
                character_coverage=1.0,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                max_sentence_length=2**30,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
                raise too_small(size, int(smallest[1])) from error
            if largest := re.search(r"value <= (\d+)", str(error)):
                raise too_large(size, int(largest[1])) from error
            raise ValueError(f"text: no subwords can be learnt from this training text ({error})") from error
        if size < needed:
            raise too_small(size, needed)
        return cls(model.getvalue())

    def __len__(self) -> int:
        return self.model.get_piece_size()

    def piece(self, token: int) -> str:
        return self.model.id_to_piece(token)

    def split(self, sentence: str) -> list[str]:
        return self.model.encode(sentence, out_type=str)

    def join(self, pieces: Iterable[str]) -> str:
        return self.model.decode_pieces(list(pieces))

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        return self.model.encode(list(sentences), num_threads=1)

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        return self.model.decode([text_only(sentence) for sentence in ids], num_threads=1)


class FrequencyVocabulary(Vocabulary):
    """Pieces in a list, most frequent first; ties in alphabetical order. The file is JSON."""

    kind: str

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.pieces: list[str] = json.loads(data)["pieces"]
        self.ids = {piece: token for token, piece in enumerate(self.pieces) if token >= len(SPECIAL)}

    @staticmethod
    @abc.abstractmethod
    def split_text(sentence: str) -> list[str]:
        """The pieces of a sentence."""

    @classmethod
    def of(cls, pieces: Iterable[str]) -> FrequencyVocabulary:
        content = {"kind": cls.kind, "pieces": [*SPECIAL, *pieces]}
        return cls(json.dumps(content, ensure_ascii=False, indent=0).encode("utf-8", "surrogatepass"))

    @classmethod
    def pieces_by_frequency(cls, sentences: Iterable[str]) -> list[str]:
        counts = Counter(chain.from_iterable(map(cls.split_text, sentences)))
        return [piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    def __len__(self) -> int:
        return len(self.pieces)

    def piece(self, token: int) -> str:
        return self.pieces[token]

    def split(self, sentence: str) -> list[str]:
        return self.split_text(sentence)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        return [[self.ids.get(piece, UNK) for piece in self.split(sentence)] for sentence in sentences]


class Words(FrequencyVocabulary):
    """Words and punctuation marks. A mark bears a joiner on each side where no space stands: `cup.` is `cup` `￭.`

    Text that holds the joiner itself loses it (it is an unknown word). A second space in a row is an empty piece.
    """

    kind = "words"

    @classmethod
    def learn(cls, sentences: Sequence[str], size: int) -> FrequencyVocabulary:
        pieces = [piece for piece in cls.pieces_by_frequency(sentences) if not piece or piece.strip(JOINER)]
        if size > len(SPECIAL) + len(pieces):
            raise too_large(size, len(SPECIAL) + len(pieces))
        if size <= len(SPECIAL):
            raise too_small(size, len(SPECIAL) + 1)
        return cls.of(pieces[: size - len(SPECIAL)])

    @staticmethod
    def split_text(sentence: str) -> list[str]:
        if not sentence:
            return []
        pieces = []
        for stretch in sentence.split(" "):
            found = WORD_OR_MARK.findall(stretch)
            marks = [not (piece[0].isalnum() or piece[0] == "_") for piece in found]
            # Between two neighbours the joiner stands on the mark, and on the right one of two marks.
            for place, piece in enumerate(found):
                left = place > 0 and marks[place]
                right = place + 1 < len(found) and marks[place] and not marks[place + 1]
                pieces.append(JOINER * left + piece + JOINER * right)
            if not found:
                pieces.append("")
        return pieces

    def join(self, pieces: Iterable[str]) -> str:
        return " ".join(pieces).replace(f" {JOINER}", "").replace(f"{JOINER} ", "").strip(JOINER)


class Characters(FrequencyVocabulary):
    """Unicode code points."""

    kind = "characters"

    @classmethod
    def learn(cls, sentences: Sequence[str], size: int) -> FrequencyVocabulary:
        if size <= len(SPECIAL):
            raise too_small(size, len(SPECIAL) + 1)
        return cls.of(cls.pieces_by_frequency(sentences)[: size - len(SPECIAL)])

    @staticmethod
    def split_text(sentence: str) -> list[str]:
        return list(sentence)

    def join(self, pieces: Iterable[str]) -> str:
        return "".join(pieces)


KINDS = {"subwords": Subwords, "words": Words, "characters": Characters}


class VocabularySizeError(ValueError):
    """So many pieces cannot be learnt from this text."""


def too_large(size: int, largest: int) -> VocabularySizeError:
    return VocabularySizeError(f"{size} is more than the training text allows; at most {largest}")


def too_small(size: int, smallest: int) -> VocabularySizeError:
    return VocabularySizeError(f"{size} is too few for the training text; at least {smallest}")


def load(path: Path) -> Vocabulary:
    """The vocabulary that `save` wrote.

    Raises:
        ValueError: the file is not a vocabulary.
    """
    data = path.read_bytes()
    try:
        if data.startswith(b"{"):
            return KINDS[json.loads(data)["kind"]](data)
        return Subwords(data)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a vocabulary, or damaged; delete it and it is made again") from error


class Vocabularies(NamedTuple):
    """One vocabulary for each side: the same object twice when they share one."""

    source: Vocabulary
    target: Vocabulary


def build(settings: TextSettings, train: Split, cache: Path | None = None) -> Vocabularies:
    """Learn the vocabularies of a training text, or take them from the folder `cache`, where `save_to_cache` puts them.

    A cached file is named by the hash of the settings it depends on and of the text it was learnt on.

    Raises:
        ValueError: the text does not allow a vocabulary of this size (says which does), or a cached file is damaged.
    """
    if not any(train.sources) or not any(train.targets):
        raise ValueError("text: a side of the training text holds nothing but empty lines")
    source, target = settings.sizes
    if settings.joint:
        joint = learn_or_load(settings.kind, target, [*train.sources, *train.targets], cache)
        return Vocabularies(joint, joint)
    of_source = "vocabulary_size" if settings.source_vocabulary_size is None else "source_vocabulary_size"
    return Vocabularies(
        learn_or_load(settings.kind, source, train.sources, cache, key=of_source),
        learn_or_load(settings.kind, target, train.targets, cache),
    )


def learn_or_load(
    kind: str, size: int, sentences: Sequence[str], cache: Path | None, *, key: str = "vocabulary_size"
) -> Vocabulary:
    """One vocabulary, from `cache` if it is there; `key` is the setting that an unfit size is blamed on."""
    path = None
    if cache is not None:
        digest = hashlib.sha256(json.dumps({"kind": kind, "vocabulary_size": size}).encode())
        for sentence in sentences:
            digest.update(f"{sentence}\n".encode())
        path = cache / f"{kind}-{size}-{digest.hexdigest()[:24]}.vocabulary"
    try:
        vocabulary = load(path) if path and path.exists() else KINDS[kind].learn(sentences, size)
    except VocabularySizeError as error:
        raise ValueError(f"text.{key}: {error}") from error
    vocabulary.path = path
    return vocabulary


def save_to_cache(vocabularies: Vocabularies) -> None:
    """Writes what `build` learnt into its cache. Apart, so that settings which fail leave nothing behind."""
    for vocabulary in vocabularies:
        if vocabulary.path and not vocabulary.path.exists():
            vocabulary.path.parent.mkdir(parents=True, exist_ok=True)
            vocabulary.save(vocabulary.path)
