"""`dlrun info`: its counts against counts by hand."""

from __future__ import annotations

import json
import shlex

from command_line import CommandLine

from dlrun.commands import info as command
from dlrun.compose import compose, parse_arguments


def test_info_counts_without_any_data(dlrun: CommandLine) -> None:
    words = ["info", "model=cnn", "data=mnist", "data.root=nowhere", "format=json"]
    info = json.loads(dlrun(*words).out)
    assert info["parameters"] == 688_586
    # By hand: three convolutions at 28², 14² and 7², two linear layers; a multiply-add is two.
    convolutions = 32 * 9 * 28**2 + 64 * 32 * 9 * 14**2 + 128 * 64 * 9 * 7**2
    assert info["flops_per_sample"] == 2 * (convolutions + 1152 * 512 + 512 * 10)
    assert sum(layer["parameters"] for layer in info["layers"]) == 688_586
    # Convolution, batch norm and ReLU, the pooling after them; then the linear layers.
    handed_on = sum(c * (3 * side**2 + (side // 2) ** 2) for c, side in ((32, 28), (64, 14), (128, 7)))
    assert info["activation_bytes_per_sample"] == 4 * (handed_on + 512 + 512 + 10)
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


def test_info_as_text_is_the_tree_without_colour_when_it_goes_into_a_file(dlrun: CommandLine) -> None:
    told = dlrun("info", "model=cnn", "data=mnist", "data.root=nowhere")
    lines = told.out.splitlines()
    assert told.code == 0
    assert "\x1b" not in told.out
    assert lines[0] == "cnn on mnist: image (1×28×28), 10 classes"
    assert lines[3].split() == ["Sequential", "10", "688,586", "100", "2.63", "MiB", "16.1", "M", "100", "560", "KiB"]
    assert all(line == line.rstrip() for line in lines)
    flat = dlrun("info", "model=cnn", "data=mnist", "data.root=nowhere", "depth=1").out.splitlines()
    assert [line.split()[1] for line in flat[4:7]] == ["0", "1", "2"]
    assert flat[-1] == "1 of 2 levels of layers within layers; depth=2 shows all"


def test_infos_json_has_the_tree_and_its_sums(dlrun: CommandLine) -> None:
    info = json.loads(dlrun("info", "model=transformer", "data=pydocs", "format=json").out)
    for sums, total in (
        *[("parameters", "parameters"), ("flops", "flops_per_sample"), ("parameter_bytes", "parameter_bytes")],
        *[("activation_bytes", "activation_bytes_per_sample"), ("trainable_parameters", "trainable_parameters")],
    ):
        assert sum(layer[sums] for layer in info["layers"]) == info["tree"][sums] == info[total]
    assert [child["name"] for child in info["tree"]["children"]][:3] == ["positions", "embedding", "dropout"]


def test_what_info_refuses(dlrun: CommandLine) -> None:
    for words, said in (
        (["depth=0"], "depth: expected a whole number >= 1 or null, got 0"),
        (["format=yaml"], "format: expected one of 'text', 'json', got 'yaml'"),
        (["run=nowhere"], "run: no folder 'nowhere'"),
        (["dept=1"], "unknown option 'dept'"),
        (["-m"], "info takes no --cfg, --info or --multirun"),
    ):
        told = dlrun("info", *words)
        assert told.code == 2
        assert said in told.err


def test_the_examples_of_its_help_are_commands() -> None:
    examples = [
        shlex.split(line)[2:] for line in (command.__doc__ or "").splitlines() if line.startswith("  dlrun info ")
    ]
    examples = [[word for word in words if "=" in word] for words in examples]
    assert len(examples) == 3
    for words in examples[:2]:
        compose(parse_arguments([word for word in words if not word.startswith("depth=")]))
