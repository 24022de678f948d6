"""PyTorch's nn.Transformer as a translator: an independent implementation to compare models/transformer.py with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models import transformer
from models.parts.batch import Tokens
from models.parts.translator import State, Step, Translator
from models.transformer import Config, Memory, sinusoids


class Model(transformer.Model):
    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        Translator.__init__(self)
        self.config = config
        self.output = nn.Linear(config.width, target_vocabulary, bias=False)
        nn.init.normal_(self.output.weight, std=config.width**-0.5)
        self.embedding = nn.Embedding(target_vocabulary, config.width)
        self.embedding.weight = self.output.weight
        self.dropout = nn.Dropout(config.dropout)
        self.net = nn.Transformer(
            config.width, config.heads, config.layers, config.layers, config.inner, config.dropout, batch_first=True
        )
        encoder, decoder = self.net.encoder, self.net.decoder
        assert isinstance(encoder, nn.TransformerEncoder)
        assert isinstance(decoder, nn.TransformerDecoder)
        encoder.norm = decoder.norm = None  # with LayerNorm after every sub-layer, the paper has none on top
        encoder.enable_nested_tensor = False
        for module in self.net.modules():  # no dropout where models/transformer.py has none
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.add_module("dropout", nn.Identity())  # between the feed-forward layers

    def words(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(ids_BT) * math.sqrt(self.config.width)
        return self.dropout(x_BTD + sinusoids(0, ids_BT.shape[1], self.config.width, like=x_BTD))

    def encode(self, source: Tokens) -> Memory:
        padding_BS = ~source.mask_BS
        return Memory(self.net.encoder(self.words(source.ids_BS), src_key_padding_mask=padding_BS), source.mask_BS)

    def decoded(self, memory: Memory, ids_BT: Tensor) -> Tensor:
        later_TT = torch.ones(ids_BT.shape[1], ids_BT.shape[1], dtype=torch.bool, device=ids_BT.device).triu(1)
        return self.net.decoder(
            self.words(ids_BT), memory.memory_BSD, tgt_mask=later_TT, memory_key_padding_mask=~memory.mask_BS
        )

    def decode(self, memory: Memory, target: Tokens) -> Tensor:
        return self.decoded(memory, target.ids_BS)

    def start(self, memory: Memory) -> State:
        return State(memory, torch.zeros((len(memory.mask_BS), 0), dtype=torch.long))

    def step(self, previous_B: Tensor, state: State) -> Step:
        ids_BT = torch.cat((state.past, previous_B[:, None]), dim=1)
        hidden_BD = self.decoded(Memory(*state.source), ids_BT)[:, -1]
        return Step(hidden_BD, State(state.source, ids_BT), None)
