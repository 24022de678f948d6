"""`bench verify sizes`: compares the parameters of the paper presets with published numbers or with sums derived here.

A published number is rounded and often given without its vocabulary, so each has its own tolerance. Where no paper
gives a number, the sum of the matrices in the paper's equations is written out here, independently of the code. These
numbers must be met exactly.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.system import terminal


@dataclass(frozen=True)
class Size:
    """The expected number of parameters of a row at its paper's size.

    Attributes:
        row: Row id.
        vocabulary: Vocabulary size of source and target.
        parameters: The expected number, published or derived.
        source: Who published the number; or "derived", and from what.
        tolerance: Largest allowed difference, relative to `parameters`.
        preset: Preset of the row.
        flags: Settings that differ from the preset.
    """

    row: str
    vocabulary: tuple[int, int]
    parameters: float
    source: str
    tolerance: float = 0.0
    preset: str = "paper"
    flags: tuple[str, ...] = ()

    @property
    def experiment(self) -> Experiment:
        return _resolved(self.row, self.preset, self.flags)

    def count_parameters(self) -> int:
        """Builds the model on the meta device and returns its number of parameters."""
        with torch.device("meta"):
            return self.experiment.build(*self.vocabulary).parameter_counts()[0]


@functools.cache
def _resolved(row: str, preset: str, flags: tuple[str, ...]) -> Experiment:
    return resolve(row_files()[row], preset=preset, row=row, flags=flags)


def _gated(gates: int, inputs: int, width: int) -> int:
    """W and U of a recurrent layer without biases: 1 matrix of each in Elman's cell, 3 in the GRU, 4 in the LSTM."""
    return gates * (inputs * width + width * width)


def _fused_gru(inputs: int, width: int) -> int:
    """A GRU layer with torch's two biases for each gate."""
    return _gated(3, inputs, width) + 2 * 3 * width


def _perceptron() -> int:
    units, words = 4096, 37_000
    return units * words + words


def _feedforward() -> int:
    embedding, hidden, words, slots = 512, 4096, 37_000, 5 + 1 + 2
    layers = slots * embedding * hidden + hidden + 2 * (hidden * hidden + hidden)
    return 2 * words * embedding + layers + hidden * words + words


def _cnn() -> int:
    n, words = 256, 30_000
    convolutions = sum(kernel * n * n + n for kernel in (2, 3, 4, 5))
    return 2 * words * n + convolutions + n * n + n * n + n * n + n * words  # S, I and R


def _elman() -> int:
    n, words = 1000, 80_000
    return 2 * words * n + 2 * 4 * _gated(1, n, n) + n * words


def _cho() -> int:
    n, rank, maxout, words = 1000, 100, 500, 15_000
    encoder, decoder = _fused_gru(rank, n), _fused_gru(rank + n, n)
    readout = 2 * maxout * (n + rank + n) + 2 * maxout + maxout * rank + rank * words + words
    return 2 * words * rank + encoder + decoder + 2 * (n * n + n) + readout  # V and V'


def _bahdanau() -> int:
    n, m, maxout, words = 1000, 620, 500, 30_000
    encoder, decoder = 2 * _fused_gru(m, n), _gated(3, m + 2 * n, n) + 3 * n
    alignment, first = n * n + 2 * n * n + n, n * n + n  # W_a, U_a and v_a; W_s
    readout = 2 * maxout * (n + m + 2 * n) + 2 * maxout + maxout * words + words
    return encoder + decoder + alignment + first + readout + 2 * words * m


def _luong() -> int:
    n, words = 1000, 50_000
    encoder, decoder = 4 * _gated(4, n, n), _gated(4, 2 * n, n) + 3 * _gated(4, n, n)
    return encoder + decoder + n * n + 2 * n * n + 3 * words * n  # W_a and W_c


def _bytenet() -> int:
    d, characters = 800, 400
    block = 7 * d * d + 4 * d + 2 * (2 * d + d + d)  # 2d x d, 3d x d and d x 2d with biases, three layer norms
    return 60 * block + 2 * 2 * d + 3 * characters * 2 * d + characters


def _deep_att() -> int:
    n, embedding, annotation, source, target = 512, 256, 1280, 160_000, 80_000
    block = (2 * n + n) * 4 * n + n * 4 * n  # W of [Half(f), h], and U
    encoder = 2 * (embedding * 4 * n + n * 4 * n + 8 * block) + 2 * (n + 4 * n) * annotation
    decoder = (embedding + annotation) * 4 * n + n * 4 * n + 6 * block
    attention = n * annotation + annotation * annotation + annotation
    return encoder + decoder + attention + (source + target) * embedding + target * 3 * n


def _convs2s(*stack: tuple[int, int, int]) -> int:
    words, positions, embedding, out = 40_000, 1024, 768, 512

    def layer(inputs: int, outputs: int) -> int:
        return inputs * outputs + 2 * outputs  # direction v, length g, bias

    first, last = stack[0][1], stack[-1][1]
    total, inputs = 2 * layer(embedding, first) + layer(last, embedding) + layer(last, out) + layer(out, words), first
    for blocks, width, kernel in stack:
        for _ in range(blocks):
            total += 2 * (layer(kernel * inputs, 2 * width) + (layer(inputs, width) if inputs != width else 0))
            total += layer(width, embedding) + layer(embedding, width)  # attention
            inputs = width
    return total + 2 * (words + positions) * embedding


def _transformer(layers: int = 6, width: int = 512, inner: int = 2048) -> int:
    """One matrix of 37,000 words for source, target and softmax; attention without biases, as in tensor2tensor."""
    attention, norm, words = 4 * width * width, 2 * width, 37_000
    feed_forward = 2 * width * inner + inner + width
    return words * width + layers * (3 * attention + 2 * feed_forward + 5 * norm)


_BASE = _transformer()
_GNMT, _DERIVED = "published by Shazeer et al. 2017: 278M", "derived"
_TABLE_3 = "published, Vaswani et al. 2017, Table 3"
_CONVS2S = _convs2s((10, 512, 3), (3, 768, 3), (2, 2048, 1))
_CODE = _convs2s((9, 512, 3), (4, 1024, 3), (2, 2048, 1))
_EN_FR = _convs2s((5, 512, 3), (4, 768, 3), (3, 1024, 3), (1, 2048, 1), (1, 4096, 1))
_CODE_EN_FR = _convs2s((6, 512, 3), (4, 768, 3), (3, 1024, 3), (1, 2048, 1), (1, 4096, 1))


def _variant(flag: str, published: float) -> Size:
    """A line of Vaswani's Table 3 minus the 1.95M by which base differs from its own: no vocabulary fits all lines."""
    parameters = published - (65e6 - _BASE)
    source = f"{_TABLE_3}: {published / 1e6:.0f}M, less the {(65e6 - _BASE) / 1e6:.2f}M that base lacks"
    return Size("transformer-base", (37_000, 37_000), parameters, source, 0.6e6 / parameters, flags=(flag,))


SIZES = (
    Size("perceptron", (37_000, 37_000), _perceptron(), f"{_DERIVED}; no paper's size"),
    Size("mlp", (37_000, 37_000), _feedforward(), f"{_DERIVED}; no paper's size"),
    Size("mlp-relu", (37_000, 37_000), _feedforward(), f"{_DERIVED}; no paper's size"),
    Size("cnn", (30_000, 30_000), _cnn(), _DERIVED),
    Size("rnn", (80_000, 80_000), _elman(), f"{_DERIVED}; no paper's size"),
    Size("gru", (15_000, 15_000), _cho(), _DERIVED),
    Size("lstm", (160_000, 80_000), 384e6, "published, Sutskever et al. 2014: 384M", 0.001),
    Size("bahdanau", (30_000, 30_000), _bahdanau(), _DERIVED),
    Size("luong", (50_000, 50_000), _luong(), _DERIVED),
    Size("bytenet", (400, 400), _bytenet(), _DERIVED),
    Size("deep-att", (160_000, 80_000), _deep_att(), _DERIVED),
    Size("deep-att-ensemble", (160_000, 80_000), 8 * _deep_att(), f"{_DERIVED}; 8 members"),
    Size("gnmt", (32_000, 32_000), 278e6, _GNMT, 0.02),
    Size("gnmt-ensemble", (32_000, 32_000), 8 * 278e6, f"{_GNMT}; 8 members", 0.02),
    Size("convs2s", (40_000, 40_000), _CONVS2S, f"{_DERIVED}; the paper's English-German"),
    Size("convs2s", (40_000, 40_000), _CODE, f"{_DERIVED}; fconv_wmt_en_de as released", preset="paper-code"),
    Size("convs2s", (40_000, 40_000), _EN_FR, f"{_DERIVED}; the paper's English-French", preset="paper-en-fr"),
    Size(
        "convs2s", (40_000, 40_000), _CODE_EN_FR, f"{_DERIVED}; fconv_wmt_en_fr as released", preset="paper-code-en-fr"
    ),
    Size("convs2s-ensemble", (40_000, 40_000), 8 * _CONVS2S, f"{_DERIVED}; 8 members"),
    Size("moe", (32_000, 32_000), 8.7e9, "published, Shazeer et al. 2017: 8.7B with 2048 experts", 0.02),
    Size("self-attention", (37_000, 37_000), 65e6, f"{_TABLE_3}: 65M, base", 0.04),
    Size("transformer-base", (37_000, 37_000), 65e6, f"{_TABLE_3}: 65M", 0.04),
    _variant("--model.layers=2", 36e6),
    _variant("--model.layers=4", 50e6),
    _variant("--model.layers=8", 80e6),
    _variant("--model.inner=1024", 53e6),
    _variant("--model.inner=4096", 90e6),
    Size("transformer-big", (37_000, 37_000), 213e6, f"{_TABLE_3}: 213M", 0.01),
)


def show() -> bool:
    """Prints the table. Returns True if every count is within its tolerance."""
    lines, all_within = [], True
    for size in SIZES:
        count = size.count_parameters()
        difference = count / size.parameters - 1
        within = abs(difference) <= size.tolerance
        all_within &= within
        which = " ".join((size.preset, *(flag.removeprefix("--model.") for flag in size.flags)))
        numbers = [f"{size.vocabulary[0]:,} + {size.vocabulary[1]:,}", f"{count:,}", f"{size.parameters:,.0f}"]
        numbers += [f"{difference:+.2%}", f"{size.tolerance:.1%}" if size.tolerance else "exact"]
        lines.append([size.row, which, *numbers, "" if within else "BEYOND", size.source])
    columns = [("row", "left"), ("preset", "left"), ("vocabulary", "right"), ("parameters", "right")]
    columns += [("expected", "right"), ("difference", "right"), ("tolerance", "right"), ("", "left")]
    terminal.table([*columns, ("source", "left")], lines)
    return all_within
