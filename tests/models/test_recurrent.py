"""Recurrent nets against torch's own cells run on one unpadded text at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.recurrent import AttentionPooling
from dlrun.registry import models
from dlrun.spec import DataSpec

CLASSES = ("a", "b", "c", "d", "e")
SMALL = {"embedding_dim": 6, "hidden_size": 5}
LENGTHS = [9, 1, 4, 7]


def padded_texts() -> Tensor:
    tokens = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.int64)
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[:length] = torch.randint(1, 20, (length,))
    return tokens


def pooled_by_numpy(steps: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zhou et al. 2016, equations 9 to 11, in float64: steps (L, H) → weights (L,), their mean (H,)."""
    scores = np.tanh(steps) @ weight + bias
    exponentials = np.exp(scores - scores.max())
    weights = exponentials / exponentials.sum()
    return weights, weights @ steps


def test_parameter_count() -> None:
    options = {"embedding_dim": 128, "hidden_size": 256, "bidirectional": True, "attention": True}
    model = models.build("lstm", options, DataSpec("text", (256,), CLASSES, vocab_size=10_000))
    # 1,280,000 (embedding) + 790,528 (two directions of 4·256·(128 + 256 + 2)) + 513 (attention) + 2,565 (head)
    assert sum(p.numel() for p in model.parameters()) == 2_073_606


def test_attention_pooling_equals_the_paper_in_float64() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(6)
    nn.init.normal_(pooling.score.weight)
    steps = torch.randn(4, 9, 6)
    valid = torch.arange(9) < torch.tensor(LENGTHS).unsqueeze(1)
    pooled, weights = pooling(steps, valid), pooling.weights(steps, valid)
    weight, bias = pooling.score.weight.detach().double().numpy()[0], pooling.score.bias.item()
    for row, length in enumerate(LENGTHS):
        expected_weights, expected = pooled_by_numpy(steps[row, :length].double().numpy(), weight, bias)
        np.testing.assert_allclose(weights[row, :length].detach(), expected_weights, rtol=1e-5)
        assert not weights[row, length:].any()
        np.testing.assert_allclose(pooled[row].detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lstm", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_without_attention_torchs_last_hidden_state_decides(name: str, bidirectional: bool, num_layers: int) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "bidirectional": bidirectional, "num_layers": num_layers, "attention": False}
    model = models.build(name, options, DataSpec("text", (9,), CLASSES, vocab_size=20)).eval()
    cell = {"lstm": nn.LSTM, "rnn": nn.RNN}[name](6, 5, num_layers, batch_first=True, bidirectional=bidirectional)
    cell.load_state_dict(model.recurrent.state_dict())
    tokens = padded_texts()
    logits = model(tokens)
    for row, length in enumerate(LENGTHS):
        hidden = cell(model.embedding(tokens[row : row + 1, :length]))[1]
        hidden = hidden[0] if name == "lstm" else hidden  # (layers · directions, 1, H)
        last = torch.cat(list(hidden[-2:] if bidirectional else hidden[-1:]), dim=1)
        torch.testing.assert_close(logits[row], model.head(last)[0])


@pytest.mark.parametrize("name", ["lstm", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_with_attention_all_valid_steps_decide(name: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "bidirectional": bidirectional, "num_layers": 2, "attention": True}
    model = models.build(name, options, DataSpec("text", (9,), CLASSES, vocab_size=20)).eval().double()
    score = model.attention.score
    nn.init.normal_(score.weight)
    tokens = padded_texts()
    logits, weights = model(tokens), model.attention_weights(tokens)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4, dtype=torch.float64))
    for row, length in enumerate(LENGTHS):
        steps = model.recurrent(model.embedding(tokens[row : row + 1, :length]))[0][0]
        expected_weights, pooled = pooled_by_numpy(
            steps.detach().numpy(), score.weight.detach().numpy()[0], score.bias.item()
        )
        np.testing.assert_allclose(weights[row].detach(), np.pad(expected_weights, (0, 9 - length)), atol=1e-12)
        torch.testing.assert_close(logits[row], model.head(torch.from_numpy(pooled)))


@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_an_image_is_a_sequence_of_its_rows(name: str) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "bidirectional": False, "attention": False}
    model = models.build(name, options, DataSpec("image", (3, 4, 7), CLASSES)).eval()
    images = torch.randn(2, 3, 4, 7)
    for image, logits in zip(images, model(images), strict=True):
        rows = torch.stack([torch.cat([image[c, y] for c in range(3)]) for y in range(4)])  # (4, 3 · 7)
        hidden = model.recurrent(model.embedding(rows).unsqueeze(0))[0][0, -1]
        torch.testing.assert_close(logits, model.head(hidden))


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    options = {**SMALL, "dropout": 0.5, "num_layers": 2}
    model = models.build("lstm", options, DataSpec("text", (9,), CLASSES, vocab_size=20))
    tokens = padded_texts()
    assert model.recurrent.dropout == 0.5
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("name", ["lstm", "rnn"])
@pytest.mark.parametrize("attention", [False, True])
def test_a_text_without_a_word_has_finite_logits_and_gradients(name: str, attention: bool) -> None:
    model = models.build(name, {**SMALL, "attention": attention}, DataSpec("text", (9,), CLASSES, vocab_size=20))
    logits = model(torch.zeros(2, 9, dtype=torch.int64))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_no_attention_no_weights() -> None:
    model = models.build("rnn", SMALL, DataSpec("text", (9,), CLASSES, vocab_size=20))
    with pytest.raises(ValueError, match="no attention weights"):
        model.attention_weights(padded_texts())


@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_a_table_is_refused_with_what_would_do(name: str) -> None:
    with pytest.raises(UserError, match=f"model '{name}' takes sequences.*choose perceptron or mlp"):
        models.build(name, {}, DataSpec("tabular", (8,), CLASSES))


@pytest.mark.parametrize("name", ["lstm", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_over_the_padding_equals_packed(
    name: str, bidirectional: bool, num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "bidirectional": bidirectional, "num_layers": num_layers, "attention": True, "dropout": 0.0}
    model = models.build(name, options, DataSpec("text", (9,), CLASSES, vocab_size=20))
    tokens = padded_texts()
    found = []
    for unpacked in (True, False):
        monkeypatch.setattr(model, "_unpacked", lambda embedded, chosen=unpacked: chosen)
        model.zero_grad()
        steps, valid = model.steps(tokens)
        logits = model(tokens)
        nn.functional.cross_entropy(logits, torch.arange(4)).backward()
        found.append([steps, logits, *(p.grad.clone() for p in model.parameters())])
        assert not steps[~valid].any()
    for padded, packed in zip(*found, strict=True):
        torch.testing.assert_close(padded, packed, rtol=1e-5, atol=1e-6)


def test_a_cpu_runs_over_the_padding_and_compiled_code_is_packed() -> None:
    model = models.build("lstm", SMALL, DataSpec("text", (9,), CLASSES, vocab_size=20))
    assert model._unpacked(torch.zeros(1))
    assert not model._unpacked(torch.zeros(1, device="meta"))


def test_dropout_between_layers_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "dropout": 0.5, "num_layers": 2}
    model = models.build("lstm", options, DataSpec("text", (9,), CLASSES, vocab_size=20))
    nn.init.normal_(model.embedding.weight)
    model.dropout.p = 0.0  # the one on words
    tokens = padded_texts()
    drawn = []
    for unpacked in (True, False):
        monkeypatch.setattr(model, "_unpacked", lambda embedded, chosen=unpacked: chosen)
        drawn.append(torch.stack([model.steps(tokens)[0].detach() for _ in range(1000)]))
    for ours, torchs in zip(drawn[0].mean(0).flatten(), drawn[1].mean(0).flatten(), strict=True):
        assert abs(ours - torchs) < 0.01
    assert drawn[1].std(0).max() > 0.03
    torch.testing.assert_close(drawn[0].std(0), drawn[1].std(0), rtol=0.1, atol=0.005)
