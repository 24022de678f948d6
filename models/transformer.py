"""Transformer. Vaswani et al. 2017, "Attention Is All You Need".

The architecture follows Figure 1: embeddings times sqrt(d_model) plus sinusoidal positions; an encoder of N layers
(self-attention, feed-forward); a decoder of N layers (causal self-attention, attention over the encoder, feed-forward);
a softmax that shares its weights with the embeddings (section 3.4). Every sub-layer is LayerNorm(x +
Dropout(Sublayer(x))), "post-norm", as published. With `pre_norm` it is x + Dropout(Sublayer(LayerNorm(x))), with one
more LayerNorm on top of each stack.

With heads = 1 this is the row "self-attention": one scaled dot-product attention of full width, all else equal.

Letters: B batch  S source length  T target length  D width (d_model)  F inner width (d_ff)  H heads  C width of a head
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.attention import MultiHeadAttention
from models.parts.batch import Tokens
from models.parts.dropout import Dropout
from models.parts.flops import Flops, matmul_flops
from models.parts.stack import Stack
from models.parts.translator import State, Step, Translator


def sinusoids(begin: int, end: int, width: int, like: Tensor) -> Tensor:
    """Return (end - begin, D): PE(pos, 2i) = sin(pos / 10000^(2i / d_model)), PE(pos, 2i + 1) = cos(same); section 3.5.

    The rows are those of the positions `begin` to `end` - 1, in the precision and on the device of `like`.
    """
    table_PD = sinusoid_table(1 << (end - 1).bit_length(), width, like.device)
    return table_PD[begin:end].to(like.dtype, copy=True)


@functools.cache
def sinusoid_table(length: int, width: int, device: torch.device) -> Tensor:
    """Return the first `length` positions in fp64. Cached, because every decoding step needs the next position.

    There are few lengths, all powers of two. None may be dropped: CUDA graphs read them where they are.
    """
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        position_P = torch.arange(length, device=device, dtype=torch.float64)
        rate_I = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float64) * (-math.log(1e4) / width))
        angle_PI = position_P[:, None] * rate_I
        return torch.stack((angle_PI.sin(), angle_PI.cos()), dim=-1).flatten(1)[:, :width]


class FeedForward(nn.Sequential):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2; equation 2, with dropout on the inner layer as in tensor2tensor."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, inner), nn.ReLU(), Dropout(dropout), nn.Linear(inner, width))


class Residual(nn.Module):
    """The residual connection and layer normalization of one sub-layer; section 3.1.

    A layer calls `before` on x, the sub-layer on the result, and `after` on x and the sub-layer's output.
    """

    def __init__(self, width: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.pre_norm = nn.LayerNorm(width), Dropout(dropout), pre_norm

    def before(self, x: Tensor) -> Tensor:
        """Return the input of the sub-layer: LayerNorm(x) with pre-norm, x with post-norm."""
        return self.norm(x) if self.pre_norm else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the result for the sub-layer's output y: x + Dropout(y), with post-norm LayerNorm of it."""
        x = x + self.dropout(y)
        return x if self.pre_norm else self.norm(x)


class EncoderLayer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config.width, config.inner, config.inner_dropout)
        self.residuals = Stack[Residual](Residual(config.width, config.dropout, config.pre_norm) for _ in range(2))

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        attention_residual, feed_forward_residual = self.residuals
        y_BSD = attention_residual.before(x_BSD)
        y_BSD = self.self_attention(y_BSD, self.self_attention.keys_values(y_BSD), mask_BS[:, None, None])
        x_BSD = attention_residual.after(x_BSD, y_BSD)
        y_BSD = self.feed_forward(feed_forward_residual.before(x_BSD))
        return feed_forward_residual.after(x_BSD, y_BSD)


class DecoderLayer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config.width, config.heads, config.attention_dropout)
        self.source_attention = MultiHeadAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config.width, config.inner, config.inner_dropout)
        self.residuals = Stack[Residual](Residual(config.width, config.dropout, config.pre_norm) for _ in range(3))

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        self_residual, source_residual, feed_forward_residual = self.residuals
        y_BTD = self_residual.before(x_BTD)
        y_BTD = self.self_attention(y_BTD, self.self_attention.keys_values(y_BTD), None, causal=True)
        x_BTD = self_residual.after(x_BTD, y_BTD)
        y_BTD = source_residual.before(x_BTD)
        source = self.source_attention.keys_values(memory_BSD)
        y_BTD = self.source_attention(y_BTD, source, mask_BS[:, None, None])
        x_BTD = source_residual.after(x_BTD, y_BTD)
        y_BTD = self.feed_forward(feed_forward_residual.before(x_BTD))
        return feed_forward_residual.after(x_BTD, y_BTD)

    def step(
        self,
        x_BD: Tensor,
        source: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor],
        mask_BS: Tensor,
        with_weights: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """Process one position with cached keys and values.

        Args:
            x_BD: Input of the layer at this position.
            source: Keys and values of the source.
            past: Keys and values of the earlier target positions.
            mask_BS: True at real source positions.
            with_weights: Whether to return the attention; without it, a fused kernel is faster.

        Returns:
            (x_BD, the past with this position appended, attention_BS over the source or None).
        """
        self_residual, source_residual, feed_forward_residual = self.residuals
        y_B1D = self_residual.before(x_BD)[:, None]
        key_BH1C, value_BH1C = self.self_attention.keys_values(y_B1D)
        past = torch.cat((past[0], key_BH1C), dim=2), torch.cat((past[1], value_BH1C), dim=2)
        x_BD = self_residual.after(x_BD, self.self_attention(y_B1D, past, None)[:, 0])
        y_BD, attention_BS = source_residual.before(x_BD), None
        if with_weights:
            y_BD, attention_BS = self.source_attention.forward_with_weights(y_BD, source, mask_BS)
        else:
            y_BD = self.source_attention(y_BD[:, None], source, mask_BS[:, None, None])[:, 0]
        x_BD = source_residual.after(x_BD, y_BD)
        y_BD = self.feed_forward(feed_forward_residual.before(x_BD))
        return feed_forward_residual.after(x_BD, y_BD), past, attention_BS


@dataclass
class Config:
    """Sizes of a Transformer; the defaults are the paper's base model (Table 3).

    Attributes:
        layers: Layers of the encoder, and of the decoder (N).
        width: Width of every sub-layer's output (d_model).
        inner: Inner width of the feed-forward layers (d_ff).
        heads: Attention heads (h); each is width / heads wide.
        dropout: Rate after every sub-layer and on embeddings plus positions (P_drop).
        attention_dropout: Rate on attention weights (tensor2tensor; not in the paper).
        inner_dropout: Rate inside the feed-forward layers (tensor2tensor; not in the paper).
        pre_norm: Normalize before each sub-layer instead of after it.
        shared_embeddings: One matrix for source, target and softmax (section 3.4); needs a joint vocabulary.
    """

    layers: int = 6
    width: int = 512
    inner: int = 2048
    heads: int = 8
    dropout: float = 0.1
    attention_dropout: float = 0.0
    inner_dropout: float = 0.0
    pre_norm: bool = False
    shared_embeddings: bool = True


class Memory(NamedTuple):
    memory_BSD: Tensor
    mask_BS: Tensor


class Model(Translator):
    """The Transformer of Figure 1."""

    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        if config.shared_embeddings and source_vocabulary != target_vocabulary:
            raise ValueError(
                f"model.shared_embeddings: the vocabularies have {source_vocabulary} and {target_vocabulary} words; "
                "expected one vocabulary for both sides. Set text.joint to true or model.shared_embeddings to false."
            )
        self.config = config
        self.output = nn.Linear(config.width, target_vocabulary, bias=False)
        self.target_embedding = nn.Embedding(target_vocabulary, config.width)
        self.source_embedding = nn.Embedding(source_vocabulary, config.width)
        self.dropout = Dropout(config.dropout)
        self.encoder = Stack[EncoderLayer](EncoderLayer(config) for _ in range(config.layers))
        self.decoder = Stack[DecoderLayer](DecoderLayer(config) for _ in range(config.layers))
        self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(config.width) if config.pre_norm else nn.Identity() for _ in range(2)
        )
        self.initialize()

    def initialize(self) -> None:
        """Xavier uniform for matrices, N(0, 1 / d_model) for embeddings, as in tensor2tensor; the paper is silent.

        Two things are as in PyTorch instead: biases of the feed-forward layers are uniform, and a softmax of its own
        (`shared_embeddings` false) is initialized as a matrix.

        The matrix of keys and values together is 2D x D, with the bound sqrt(6 / (D + 2D)) = sqrt(2 / D); those of
        queries and of outputs are D x D, with the bound sqrt(6 / (D + D)) = sqrt(3 / D).
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and "embedding" not in name:
                nn.init.xavier_uniform_(parameter)
        for embedding in (self.target_embedding, self.source_embedding):
            nn.init.normal_(embedding.weight, std=self.config.width**-0.5)
        if self.config.shared_embeddings:
            self.source_embedding.weight = self.target_embedding.weight = self.output.weight
            nn.init.normal_(self.output.weight, std=self.config.width**-0.5)

    def embed(self, embedding: nn.Embedding, ids_BT: Tensor, begin: int = 0) -> Tensor:
        """Return x_BTD, words plus positions; `begin` is the position of the first word, counted from 0."""
        x_BTD = embedding(ids_BT) * math.sqrt(self.config.width)
        return self.dropout(x_BTD + sinusoids(begin, begin + ids_BT.shape[1], self.config.width, like=x_BTD))

    def encode(self, source: Tokens) -> Memory:
        x_BSD, mask_BS = self.embed(self.source_embedding, source.ids_BS), source.mask_BS
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask_BS)
        return Memory(self.encoder_norm(x_BSD), mask_BS)

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        x_BTD = self.embed(self.target_embedding, target.ids_BS)
        for layer in self.decoder:
            x_BTD = layer(x_BTD, memory.memory_BSD, memory.mask_BS)
        return self.decoder_norm(x_BTD)

    def start(self, memory: Memory) -> State:
        """Return keys and values of the source for every layer, and an empty past of shape (B, H, 0, C)."""
        memory_BSD, mask_BS = memory
        source = tuple(layer.source_attention.keys_values(memory_BSD) for layer in self.decoder)
        past = tuple((key_BHSC[:, :, :0], value_BHSC[:, :, :0]) for key_BHSC, value_BHSC in source)
        return State((source, mask_BS), past)

    def step(self, previous_B: Tensor, state: State) -> Step:
        source, mask_BS = state.source
        position = state.past[0][0].shape[2]
        x_BD = self.embed(self.target_embedding, previous_B[:, None], begin=position)[:, 0]
        pasts, attention_BS = [], None
        for layer, layer_source, layer_past in zip(self.decoder, source, state.past, strict=True):
            is_last = len(pasts) == self.config.layers - 1  # its attention is the step's
            x_BD, past, attention_BS = layer.step(x_BD, layer_source, layer_past, mask_BS, with_weights=is_last)
            pasts.append(past)
        return Step(self.decoder_norm(x_BD), State(state.source, tuple(pasts)), attention_BS)

    # FLOPs of a layer: projections of D x D for queries, keys, values and output; scores and weighted sum, each queries
    # x D x keys over all heads; two products of D x F.

    def flops_attention(self, queries: int, keys: int, new_keys: int) -> Flops:
        width = self.config.width
        projections = matmul_flops(2 * queries, width, width) + matmul_flops(2 * new_keys, width, width)
        return projections + matmul_flops(queries, width, keys) * 2

    def flops_feed_forward(self, positions: int) -> Flops:
        return matmul_flops(positions, self.config.width, self.config.inner) * 2

    def flops_encode(self, source_length: int) -> Flops:
        layer = self.flops_attention(source_length, source_length, source_length)
        return (layer + self.flops_feed_forward(source_length)) * self.config.layers

    def flops_decode(self, source_length: int, target_length: int) -> Flops:
        own = self.flops_attention(target_length, target_length, target_length)
        other = self.flops_attention(target_length, source_length, source_length)
        return (own + other + self.flops_feed_forward(target_length)) * self.config.layers

    def flops_start(self, source_length: int) -> Flops:
        return matmul_flops(2 * source_length, self.config.width, self.config.width) * self.config.layers

    def flops_step(self, source_length: int, position: int) -> Flops:
        own = self.flops_attention(1, position + 1, 1)
        other = self.flops_attention(1, source_length, 0)
        return (own + other + self.flops_feed_forward(1)) * self.config.layers
