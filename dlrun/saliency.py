"""Which words of a text speak for an answer: gradient × input of the embedding.

The score of a class is taken to first order in each word's vector (Simonyan et al. 2014, "Deep inside convolutional
networks", section 3): the product of the gradient and the vector is the word's part in it. B texts, L tokens, E numbers
per vector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Vectors = list[tuple[Tensor, Tensor]]  # of each embedding in the net: what came out, as a leaf, and (B, L, E) or (B, E)


def word_relevance(model: nn.Module, tokens: Tensor, classes: Tensor) -> Tensor | None:
    """How much each token speaks for a class, and where negative against it: (B, L) float32 on the CPU.

    tokens (B, L) as `model` takes them, in eval mode; classes (B,). None for a model without word vectors.
    """
    found: Vectors = []

    def watch(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        vectors = output.detach().requires_grad_()
        # A bag has added the words up: each has its own vector in it, and they share the gradient.
        words = module.weight.detach()[arguments[0]] if isinstance(module, nn.EmbeddingBag) else vectors.detach()  # type: ignore[operator]
        found.append((vectors, words))
        return vectors

    hooks = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    try:
        # cuDNN's recurrent layers have no gradient in eval mode, and compiled code would be compiled once more.
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=False),
            torch.compiler.set_stance("force_eager"),
        ):
            logits = model(tokens)
            scores = logits.gather(1, classes.to(logits.device).unsqueeze(1)).sum()
            there = [(leaf, words) for leaf, words in found if words.shape[:2] == tokens.shape]
            if not there:
                return None
            gradients = torch.autograd.grad(scores, [leaf for leaf, _ in there], allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    parts = [
        ((gradient.unsqueeze(1) if gradient.ndim == 2 else gradient) * words).sum(dim=2)
        for gradient, (_, words) in zip(gradients, there, strict=True)
        if gradient is not None
    ]
    return torch.stack(parts).sum(dim=0).float().cpu() if parts else None
