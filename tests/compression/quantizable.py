"""Small nets of every family on every kind of data that it takes, and batches for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.registry import models
from dlrun.spec import DataSpec

NAMES = ("a", "b", "c")
SPECS = {
    "image": DataSpec("image", (3, 24, 24), NAMES, (0.5,) * 3, (0.25,) * 3),
    "text": DataSpec("text", (12,), NAMES, vocab_size=60),
    "tabular": DataSpec("tabular", (7,), NAMES),
}
OPTIONS = {
    "mlp": {"hidden_sizes": [24, 16], "batch_norm": True},
    "cnn": {"channels": [8, 16], "hidden_size": 24},
    "speednet": {"widths": [8, 16]},
    "rnn": {"embedding_dim": 8, "hidden_size": 16},
    "lstm": {"embedding_dim": 8, "hidden_size": 16},
    "transformer": {"d_model": 16, "num_heads": 2, "d_ff": 24, "num_layers": 1},
    "torchvision": {"arch": "squeezenet1_1"},
    "timm": {"arch": "test_resnet"},
}
MODALITIES = {
    "perceptron": ("image", "text", "tabular"),
    "mlp": ("image", "text", "tabular"),
    "cnn": ("image", "text"),
    "rnn": ("image", "text"),
    "lstm": ("image", "text"),
    "transformer": ("image", "text"),
    "speednet": ("image",),
    "torchvision": ("image",),
    "timm": ("image",),
}
PAIRS = [(name, modality) for name, modalities in MODALITIES.items() for modality in modalities]


def batch(spec: DataSpec, size: int, seed: int = 0) -> Tensor:
    """Inputs as a model gets them; texts end in padding, each somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    if spec.modality != "text":
        return torch.randn(size, *spec.shape, generator=generator)
    tokens = torch.randint(1, spec.vocab_size, (size, *spec.shape), generator=generator)
    lengths = torch.randint(3, spec.shape[0] + 1, (size, 1), generator=generator)
    return tokens * (torch.arange(spec.shape[0]) < lengths)


def net(name: str, spec: DataSpec) -> nn.Module:
    """A fresh one whose batch norms have seen something, and whose words differ from each other."""
    torch.manual_seed(0)
    model: nn.Module = models.build(name, OPTIONS.get(name, {}), spec).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and len(parameter) == spec.vocab_size:
                parameter *= 30
        for seed in range(20):
            model(batch(spec, 16, seed))
    return model.eval()
