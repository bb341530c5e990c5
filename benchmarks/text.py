"""What do padding and tokenising cost? An epoch of pydocs, batched and padded in three ways, and a start of it with and
without the cache.

Each model trains with dlrun's batches by length, with random batches padded to their longest, and with all padded to
max_length; the reference is the loop that most people write, torch's own modules on random batches padded to their
longest (packed for the LSTM). Models and optimizer are those of the recipes pydocs_lstm and pydocs_transformer.

    python benchmarks/text.py [--rounds 5] [--threads 1] [--batch-size 64]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import arguments, interleaved, ratio, report
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlrun.data.loader import Batches
from dlrun.data.source import DataOptions, TokenSplit
from dlrun.registry import datasets, models
from dlrun.spec import DataSpec

CPU = torch.device("cpu")
COMMON = DataOptions(Path("data"), val_fraction=0.1, split_seed=0)
SIZES = {
    "lstm": {"embedding_dim": 64, "hidden_size": 64, "dropout": 0.5},
    "transformer": {"d_model": 64, "d_ff": 128, "num_layers": 1, "dropout": 0.3},
}
START = """
import sys, time
import torch
from pathlib import Path
from dlrun.data.source import DataOptions
from dlrun.registry import datasets
began = time.perf_counter()
datasets.build("pydocs", {}, DataOptions(Path("data"), 0.1, 0)).load()
print(time.perf_counter() - began)
"""


class BareLSTM(nn.Module):
    """Embedding, packed bidirectional LSTM, attention pooling: torch's modules and nothing else."""

    def __init__(self, spec: DataSpec):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(spec.vocab_size, 64, padding_idx=0), nn.Dropout(0.5)
        self.lstm = nn.LSTM(64, 64, batch_first=True, bidirectional=True)
        self.score, self.head = nn.Linear(128, 1), nn.Linear(128, spec.num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        valid = tokens != 0
        packed = pack_padded_sequence(
            self.dropout(self.embedding(tokens)), valid.sum(1), batch_first=True, enforce_sorted=False
        )
        steps = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        scores = self.score(torch.tanh(steps)).squeeze(-1).masked_fill(~valid, -1e9)
        return self.head(self.dropout((scores.softmax(1).unsqueeze(1) @ steps).squeeze(1)))


class BareTransformer(nn.Module):
    """Embedding, learned positions, torch.nn.TransformerEncoder, the mean of what isn't padding."""

    def __init__(self, spec: DataSpec):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(spec.vocab_size, 64, padding_idx=0), nn.Dropout(0.3)
        self.positions = nn.Parameter(torch.randn(spec.shape[0], 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.3, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(64), enable_nested_tensor=False)
        self.head = nn.Linear(64, spec.num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        embedded = self.dropout(self.embedding(tokens) + self.positions[: tokens.shape[1]])
        steps = self.encoder(embedded, src_key_padding_mask=padding)
        valid = (~padding).unsqueeze(-1).float()
        return self.head((steps * valid).sum(1) / valid.sum(1))


class Whole(TokenSplit):
    """Padded to max_length, whatever the batch has."""

    def fetch(self, indices: Tensor) -> Tensor:
        return self.inputs[indices]


def training(model: nn.Module, batches: Batches) -> Callable[[], float]:
    """Returns a function that trains one more epoch and gives its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def epochs() -> Iterator[float]:
        epoch = 0
        while True:
            began = time.perf_counter()
            for inputs, targets in batches.epoch(epoch):
                F.cross_entropy(model(inputs), targets).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            epoch += 1
            yield time.perf_counter() - began

    return epochs().__next__


def padding(batches: Batches) -> float:
    """The share of padding among the steps of an epoch."""
    steps = torch.tensor([[(inputs != 0).sum(), inputs.numel()] for inputs, _ in batches.epoch(0)]).sum(dim=0)
    return 1 - (steps[0] / steps[1]).item()


def start(cache: str) -> float:
    """Seconds from torch's import to the splits, in a process of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    command = [sys.executable, "-c", START]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def main() -> None:
    words = arguments(__doc__, rounds=5)
    words.add_argument("--batch-size", type=int, default=64)
    words.add_argument("--only", choices=["training", "start"])
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    if args.only != "start":
        measure_training(args.rounds, args.batch_size)
    if args.only != "training":
        measure_start(args.rounds)


def measure_training(rounds: int, batch_size: int) -> None:
    source = datasets.build("pydocs", {}, COMMON)
    split, spec = source.load().train, source.spec
    assert isinstance(split, TokenSplit)
    at_random = replace(split, bucketing=False)
    ways = {
        "by length": split,
        "batch's longest": at_random,
        "max_length": Whole(split.inputs, split.targets),
    }
    batches = {name: Batches(way, batch_size, lambda b: b.long(), CPU, shuffle_seed=0) for name, way in ways.items()}
    for name, bare in (("lstm", BareLSTM), ("transformer", BareTransformer)):
        cases = {"bare loop": training(bare(spec), batches["batch's longest"])}
        cases["bare loop, by length"] = training(bare(spec), batches["by length"])
        cases |= {way: training(models.build(name, SIZES[name], spec), batches[way]) for way in ways}
        taken = interleaved(cases, rounds)
        rows = [
            (
                f"{name}, {case}",
                len(split) / statistics.median(taken[case]),
                1 / ratio(taken, case, "bare loop"),
                padding(batches[case.removeprefix("bare loop, ") if case != "bare loop" else "batch's longest"]),
            )
            for case in cases
        ]
        report("text", ("training", "samples/s", "times the bare loop", "padding"), rows, batch_size=batch_size)


def measure_start(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as warm:

        def cold() -> float:
            with tempfile.TemporaryDirectory() as folder:
                return start(folder)

        taken = interleaved({"cold": cold, "warm": lambda: start(warm)}, rounds)
    rows = [(name, statistics.median(taken[name]), ratio(taken, name, "cold")) for name in taken]
    report("text_start", ("pydocs from the cache", "seconds", "of cold"), rows)


if __name__ == "__main__":
    main()
