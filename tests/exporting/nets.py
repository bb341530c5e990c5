"""Small nets of every family on every modality that it takes, and batches for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import PAD, DataSpec

LONGEST, WORDS = 12, 30
SPECS = {
    "image": DataSpec("image", (3, 32, 32), ("cat", "dog", "ß"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
    "text": DataSpec("text", (LONGEST,), ("cat", "dog", "ß"), vocab_size=WORDS, tokenizer='{"model": "ä"}'),
    "tabular": DataSpec(
        "tabular", (5,), ("cat", "dog", "ß"), (1.0, 20.0, -3.0, 0.0, 1e-3), (1.0, 5.0, 2.0, 1e-12, 1e-4)
    ),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_sizes": [16], "batch_norm": True},
    "cnn": {"channels": [4, 8], "hidden_size": 16},
    "speednet": {"widths": [4, 8, 8]},
    "rnn": {"embedding_dim": 8, "hidden_size": 8, "num_layers": 2, "bidirectional": True},
    "lstm": {"embedding_dim": 8, "hidden_size": 8, "num_layers": 2},
    "transformer": {"d_model": 16, "num_heads": 2, "d_ff": 16, "pooling": "cls"},
    "torchvision": {"arch": "resnet18"},
    "timm": {"arch": "resnet18"},
}


def net(name: str, modality: str, **options: Any) -> nn.Module:
    """In eval mode, with batch norms that have seen data. Raises UserError if the model doesn't take the modality."""
    torch.manual_seed(0)
    model: nn.Module = models.build(name, OPTIONS.get(name, {}) | options, SPECS[modality])
    model.train()
    with torch.no_grad():
        model(batch(modality, 8))
    return model.eval()


def batch(modality: str, size: int, length: int = LONGEST) -> Tensor:
    """As a model takes it; texts have different lengths, up to `length`."""
    random = torch.Generator().manual_seed(size * 100 + length)
    if modality != "text":
        return torch.randn(size, *SPECS[modality].shape, generator=random)
    tokens = torch.randint(PAD + 1, WORDS, (size, length), generator=random)
    ends = torch.randint(1, length + 1, (size, 1), generator=random)
    ends[0] = length
    return tokens.masked_fill(torch.arange(length) >= ends, PAD)


def batches(modality: str) -> list[Tensor]:
    """Of several sizes, and of texts of several lengths, one word too; none is what a graph is made with."""
    lengths = (LONGEST, 1, 5, 10) if modality == "text" else (LONGEST,) * 4
    return [batch(modality, size, length) for size, length in zip((1, 3, 7, 33), lengths, strict=True)]


@cache
def pairs() -> list[tuple[str, str]]:
    """Every model with every modality that it takes."""
    found = []
    for name in models.names():
        for modality in SPECS:
            try:
                net(name, modality)
            except UserError:
                continue
            found.append((name, modality))
    return found
