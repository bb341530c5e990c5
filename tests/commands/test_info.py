"""`dlrun info`: its counts against counts by hand."""

from __future__ import annotations

import json

from command_line import CommandLine


def test_info_counts_without_any_data(dlrun: CommandLine) -> None:
    words = ["info", "model=cnn", "data=mnist", "data.root=nowhere", "format=json"]
    info = json.loads(dlrun(*words).out)
    assert info["parameters"] == 688_586
    # By hand: three convolutions at 28², 14² and 7², two linear layers; a multiply-add is two.
    convolutions = 32 * 9 * 28**2 + 64 * 32 * 9 * 14**2 + 128 * 64 * 9 * 7**2
    assert info["flops_per_sample"] == 2 * (convolutions + 1152 * 512 + 512 * 10)
    assert sum(layer["parameters"] for layer in info["layers"]) == 688_586
    assert list(dlrun.folder.iterdir()) == []


def test_info_counts_recurrent_and_attention_layers(dlrun: CommandLine) -> None:
    text = ["data=fake", "data.modality=text", "data.sequence_length=16", "data.vocab_size=50", "format=json"]
    lstm = json.loads(dlrun("info", "model=lstm", "model.embedding_dim=8", "model.hidden_size=4", *text).out)
    steps = 16 * 2 * 4 * 4 * (8 + 4)  # length, directions, gates, hidden, inputs
    attention = 16 * 8 + 16 * 8  # scores, weighted sum
    assert lstm["flops_per_sample"] == 2 * (steps + attention + 8 * 10)
    net = ["model=transformer", "model.d_model=8", "model.num_heads=2", "model.d_ff=12", "model.num_layers=1"]
    transformer = json.loads(dlrun("info", *net, *text).out)
    layer = 16 * 8 * 32 + 2 * 16 * 16 * 8 + 2 * 16 * 8 * 12  # q, k, v, out; scores and mixing; feed-forward
    assert transformer["flops_per_sample"] == 2 * (layer + 8 * 10)
