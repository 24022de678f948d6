"""Vocabularies convert text to token ids and back: subwords (SentencePiece), words, or characters.

A vocabulary of any kind is one file; its hash is recorded with each run. The special tokens have the ids that the
models expect. Ids are converted back to plain text, so quality metrics do not depend on the tokenization. Those of a
training text are learnt, or read from the cache, in learn_vocabularies.py.
"""

from __future__ import annotations

import abc
import hashlib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import sentencepiece

from bench.data.words import WORD_OR_MARK
from bench.system.files import write_file
from models.parts.batch import BOS, EOS, PAD, UNK

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""The pieces with the ids PAD, BOS, EOS and UNK."""

JOINER = "￭"
"""Marks a side of a punctuation mark that has no space."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class TextSettings:
    """How sentences are converted to tokens.

    Attributes:
        kind: subwords (byte-pair encoding by SentencePiece), words (words and punctuation marks; each character of a
            script without spaces is a word) or characters.
        vocabulary_size: Pieces of one vocabulary, including the 4 special ones. For characters it is an upper limit:
            a text with fewer characters has a smaller vocabulary.
        source_vocabulary_size: Pieces of the source vocabulary, if the two sides have vocabularies of different size.
        joint: Whether both languages share one vocabulary, learnt on both sides of the training text.
        max_length: Largest number of tokens of a sentence, without EOS. Training pairs with a longer side are dropped
            and longer sentences to translate are truncated; the number of both is reported.
        max_source_length: Limit for sentences to translate, for papers that train on short sentences and translate
            all of them; null: max_length.
        normalization: Unicode normalization of all text, also of text to translate. NFC: a letter with an accent is one
            character, however the file wrote it. none: as in the files; words that only look equal are different.
        bleu_tokenizer: Tokenizer of all BLEU scores, by sacreBLEU's name; it does not change the model's tokens. auto:
            the one that fits the target language (zh, ja-mecab, ko-mecab; char for Thai, Lao, Khmer, Burmese and
            Tibetan, and for text in a script without spaces between words), otherwise 13a.
    """

    kind: Literal["subwords", "words", "characters"] = "subwords"
    vocabulary_size: int = 8000
    source_vocabulary_size: int | None = None
    joint: bool = True
    max_length: int = 100
    max_source_length: int | None = None
    normalization: Literal["NFC", "none"] = "NFC"
    bleu_tokenizer: Literal["auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char"] = "auto"

    def normalized(self, sentence: str) -> str:
        """The sentence in the normalization of this text. Half a surrogate pair, which no file can hold, is U+FFFD."""
        sentence = LONE_SURROGATE.sub("\ufffd", sentence)
        return sentence if self.normalization == "none" else unicodedata.normalize(self.normalization, sentence)

    @property
    def source_length_limit(self) -> int:
        """Tokens to which a sentence to translate is truncated, without EOS."""
        if self.max_source_length is None:
            return self.max_length
        if self.max_source_length < 1:
            raise ValueError(f"text.max_source_length: {self.max_source_length} is too small; at least 1")
        return self.max_source_length

    @property
    def sizes(self) -> tuple[int, int]:
        """Sizes of the source and the target vocabulary."""
        if self.source_vocabulary_size is None:
            return self.vocabulary_size, self.vocabulary_size
        if self.joint:
            raise ValueError(
                "text.source_vocabulary_size: both sides share one vocabulary; remove it, or set text.joint to false"
            )
        return self.source_vocabulary_size, self.vocabulary_size


class Vocabulary(abc.ABC):
    """Pieces of text and their ids. A subclass defines how a sentence is split into pieces and joined again.

    Vocabularies with the same file content are equal.

    Attributes:
        data: Content of the saved file.
        hash: SHA-256 of `data`.
        path: The file in the cache; None without a cache.
        rule: How text is split, if an earlier version split it differently: its cached files are not for this one.
    """

    rule: ClassVar[dict[str, str]] = {}

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.hash = hashlib.sha256(data).hexdigest()
        self.path: Path | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of pieces, including the special ones."""

    @abc.abstractmethod
    def piece(self, token: int) -> str:
        """The piece with this id."""

    @abc.abstractmethod
    def split(self, sentence: str) -> list[str]:
        """The pieces of a sentence, one for each id that `encode` returns."""

    @abc.abstractmethod
    def join(self, pieces: Iterable[str]) -> str:
        """The sentence of these pieces; the inverse of `split`."""

    @abc.abstractmethod
    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """The ids of each sentence, without EOS."""

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """Plain sentences. Decoding stops at EOS, ignores PAD and BOS, and writes UNK as <unk>."""
        return [self.join(map(self.piece, text_only(sentence))) for sentence in ids]

    def save(self, path: Path) -> None:
        """Write the vocabulary to one file, atomically."""
        write_file(path, self.data)


def text_only(ids: Sequence[int]) -> list[int]:
    """The ids before the first EOS, without PAD and BOS."""
    ids = list(ids)
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [token for token in ids[:end] if token not in (PAD, BOS)]


class Subwords(Vocabulary):
    """Byte-pair encoding by SentencePiece (Kudo and Richardson 2018).

    Text keeps its case and the normalization that `TextSettings` gave it. The only change: U+2581, SentencePiece's mark
    for a space, is decoded as a space. BPE was chosen over SentencePiece's unigram model because on Multi30k it is
    learnt seven times faster and gives 3 % fewer pieces per sentence.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.model = sentencepiece.SentencePieceProcessor(model_proto=data)

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int) -> Subwords:
        """The subwords of a training text. Single-threaded, so that the same text and size give the same bytes.

        Raises:
            ValueError: no vocabulary of this size can be learnt from this text.
        """
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
            raise ValueError(
                f"text: SentencePiece cannot learn subwords from this training text ({error}); check the training files"
            ) from error
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
    """Pieces sorted by frequency, most frequent first; ties in alphabetical order. The file is JSON."""

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
        """The vocabulary of the special pieces, followed by these."""
        content = {"kind": cls.kind, "pieces": [*SPECIAL, *pieces]}
        return cls(json.dumps(content, ensure_ascii=False, indent=0).encode("utf-8", "surrogatepass"))

    @classmethod
    def pieces_by_frequency(cls, sentences: Iterable[str]) -> list[str]:
        """The different pieces of a text, most frequent first; ties in alphabetical order."""
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
    """Words and punctuation marks. A mark has a joiner on each side that has no space: `cup.` is `cup` `￭.`

    bench/data/words.py says what a word is. A character of a script without spaces gets joiners as a mark does. A
    joiner in the text itself is an unknown word and is lost. A second space in a row is an empty piece.
    """

    kind = "words"
    rule: ClassVar[dict[str, str]] = {"words": "Unicode Annex 29"}

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int) -> FrequencyVocabulary:
        """The `size` - 4 most frequent words and the special pieces.

        Raises:
            ValueError: `size` is larger or smaller than this text allows.
        """
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
        for chunk in sentence.split(" "):
            found = WORD_OR_MARK.findall(chunk)
            # Between a word and a mark the joiner is on the mark; between two marks it is on the second one.
            for position, (word, mark) in enumerate(found):
                left = position > 0 and mark
                right = position + 1 < len(found) and mark and not found[position + 1][1]
                pieces.append(word or JOINER * bool(left) + mark + JOINER * bool(right))
            if not found:
                pieces.append("")
        return pieces

    def join(self, pieces: Iterable[str]) -> str:
        return " ".join(pieces).replace(f" {JOINER}", "").replace(f"{JOINER} ", "").strip(JOINER)


class Characters(FrequencyVocabulary):
    """Unicode code points."""

    kind = "characters"

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int) -> FrequencyVocabulary:
        """The at most `size` - 4 most frequent characters and the special pieces.

        Raises:
            ValueError: `size` leaves no room for a character.
        """
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
    """A vocabulary of this size cannot be learnt from this text."""


def too_large(size: int, largest: int) -> VocabularySizeError:
    return VocabularySizeError(f"{size} is more than the training text allows; at most {largest}")


def too_small(size: int, smallest: int) -> VocabularySizeError:
    return VocabularySizeError(f"{size} is too few for the training text; at least {smallest}")


def load(path: Path) -> Vocabulary:
    """The vocabulary in a file that `save` wrote.

    Raises:
        ValueError: the file is not a vocabulary, or it is damaged.
    """
    data = path.read_bytes()
    try:
        return of_data(data)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a vocabulary, or damaged; restore the file, or run the job again") from error


def of_data(data: bytes) -> Vocabulary:
    """The vocabulary with this file content. Raises RuntimeError, ValueError or KeyError if it is damaged."""
    if not data:
        raise ValueError("the file is empty")
    if data.startswith(b"{"):
        return KINDS[json.loads(data)["kind"]](data)
    return Subwords(data)


class Vocabularies(NamedTuple):
    """The vocabularies of both sides; the same object twice if they share one."""

    source: Vocabulary
    target: Vocabulary
