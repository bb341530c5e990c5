"""Recurrent networks: the plain one (Elman 1990) and the LSTM (Hochreiter & Schmidhuber 1997)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlrun.models.embedding import word_embedding
from dlrun.models.refusal import refuse
from dlrun.registry import Count, Depth, Fraction, models
from dlrun.spec import PAD, DataSpec


@models.register("lstm")
def lstm(
    spec: DataSpec,
    *,
    embedding_dim: Count = 128,
    hidden_size: Count = 256,
    num_layers: Depth = 1,
    bidirectional: bool = True,
    attention: bool = True,
    dropout: Fraction = 0.3,
) -> nn.Module:
    """Long short-term memory, one or both directions, with attention pooling over the valid steps.

    Takes texts (B, L), or images (B, C, H, W) as a sequence of rows, each mapped to `embedding_dim` numbers; gives
    logits (B, outputs). Without attention the last valid step decides.
    """
    return Recurrent(nn.LSTM, spec, "lstm", embedding_dim, hidden_size, num_layers, bidirectional, attention, dropout)


@models.register("rnn")
def rnn(
    spec: DataSpec,
    *,
    embedding_dim: Count = 128,
    hidden_size: Count = 256,
    num_layers: Depth = 1,
    bidirectional: bool = False,
    attention: bool = False,
    dropout: Fraction = 0.3,
) -> nn.Module:
    """Plain recurrent network (tanh), whose last valid step decides: the LSTM's simpler sibling."""
    return Recurrent(nn.RNN, spec, "rnn", embedding_dim, hidden_size, num_layers, bidirectional, attention, dropout)


class Recurrent(nn.Module):
    """B batch, L steps, E embedding, H hidden size times directions."""

    def __init__(
        self,
        cell: type[nn.LSTM] | type[nn.RNN],
        spec: DataSpec,
        name: str,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        attention: bool,
        dropout: float,
    ):
        super().__init__()
        if spec.modality == "tabular":
            raise refuse(spec, name, "sequences (text, or an image's rows)", "perceptron or mlp")
        self.embedding: nn.Module
        if spec.modality == "text":
            self.embedding = word_embedding(spec.vocab_size, embedding_dim)
        else:
            channels, _, width = spec.shape
            self.embedding = nn.Linear(channels * width, embedding_dim)
        self.recurrent = cell(
            embedding_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,  # torch's is the one between layers
        )
        features = hidden_size * (2 if bidirectional else 1)
        self.attention = AttentionPooling(features) if attention else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, spec.num_outputs)

    @property
    def hidden_size(self) -> int:
        """Of one direction; pruning makes it smaller."""
        return self.recurrent.hidden_size

    def forward(self, x: Tensor) -> Tensor:  # (B, L) or (B, C, H, W) → (B, outputs)
        steps, valid = self.steps(x)
        pooled = self._last(steps, valid) if self.attention is None else self.attention(steps, valid)
        return self.head(self.dropout(pooled))

    def attention_weights(self, x: Tensor) -> Tensor:
        """How much each step counts: (B, L), rows sum to 1. Raises ValueError without attention."""
        if self.attention is None:
            raise ValueError("this model pools the last step: it has no attention weights")
        return self.attention.weights(*self.steps(x))

    def steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The recurrent layer's output (B, L, H), zero where it isn't valid, and which steps are valid (B, L)."""
        if x.ndim == 4:
            rows = x.transpose(1, 2).flatten(2)  # (B, rows, C * width)
            return self.recurrent(self.dropout(self.embedding(rows)))[0], rows.new_ones(
                rows.shape[:2], dtype=torch.bool
            )
        valid = x != PAD
        embedded = self.dropout(self.embedding(x))  # (B, L, E)
        if self._unpacked(embedded):
            return self._padded(embedded, valid).masked_fill(~valid.unsqueeze(-1), 0.0), valid
        # Packed, the backward direction starts at each text's last word and not in its padding.
        lengths = valid.sum(dim=1).clamp_min(1).cpu()
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=x.shape[1])[0], valid

    def _unpacked(self, embedded: Tensor) -> bool:
        """Whether to run over the padding, which gives the same numbers.

        On a CPU it is 2 to 3 times as fast: oneDNN's LSTM takes no packed sequences. torch.compile would unroll it, a
        step of the text at a time; a packed one it leaves alone. No exported graph can hold a packed one.
        """
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return True
        return embedded.device.type == "cpu" and not torch.compiler.is_dynamo_compiling()

    def _padded(self, x: Tensor, valid: Tensor) -> Tensor:
        """The recurrent layer over the padding, where its output means nothing: (B, L, E) → (B, L, H)."""
        cell = self.recurrent
        if not cell.bidirectional:  # the padding comes after all that counts
            return cell(x)[0]
        rows, length = x.shape[:2]
        steps = torch.arange(length, device=x.device)
        last = valid.sum(dim=1, keepdim=True) - 1  # (B, 1)
        # Each text's words from the last to the first, its padding where it was: its own inverse.
        turned = torch.where(steps <= last, last - steps, steps)  # (B, L)
        turned = (turned + length * torch.arange(rows, device=x.device).unsqueeze(1)).flatten()
        for layer in range(cell.num_layers):
            if layer > 0:
                x = F.dropout(x, cell.dropout, self.training)
            onward = self._direction(x, f"_l{layer}")
            backward = self._direction(x.flatten(0, 1)[turned].view_as(x), f"_l{layer}_reverse")
            x = torch.cat([onward, backward.flatten(0, 1)[turned].view_as(backward)], dim=2)
        return x

    def _direction(self, x: Tensor, suffix: str) -> Tensor:
        """One direction of one layer, from the first step to the last."""
        # Not len(x): a traced graph would keep this batch's size for ever.
        cell, state = self.recurrent, x.new_zeros(1, x.shape[0], self.hidden_size)
        weights = [getattr(cell, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        how = (weights, True, 1, 0.0, self.training, False, True)  # biases, layers, dropout, …, both ways, batch first
        if isinstance(cell, nn.LSTM):
            return torch.lstm(x, (state, state), *how)[0]
        return torch.rnn_tanh(x, state, *how)[0]

    def _last(self, steps: Tensor, valid: Tensor) -> Tensor:
        """The last valid step of the forward direction, and the first of the backward one: (B, H)."""
        last = (valid.sum(dim=1) - 1).clamp_min(0)
        forward = steps[torch.arange(steps.shape[0], device=steps.device), last, : self.hidden_size]
        return torch.cat([forward, steps[:, 0, self.hidden_size :]], dim=1)


class AttentionPooling(nn.Module):
    """Additive attention over the valid steps: score = w · tanh(h) + b (Zhou et al. 2016, section 3.3)."""

    def __init__(self, features: int):
        super().__init__()
        self.score = nn.Linear(features, 1)

    def forward(self, steps: Tensor, valid: Tensor) -> Tensor:  # (B, L, H), (B, L) → (B, H)
        return (self.weights(steps, valid).unsqueeze(1) @ steps).squeeze(1)

    def weights(self, steps: Tensor, valid: Tensor) -> Tensor:
        scores = self.score(torch.tanh(steps)).squeeze(-1)  # (B, L)
        # The lowest finite number, not -inf: a text without a valid step gets even weights instead of NaN.
        return scores.masked_fill(~valid, torch.finfo(scores.dtype).min).softmax(dim=1)
