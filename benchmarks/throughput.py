"""How many samples a second, against the loops people write and Lightning? MLP, CNN, LSTM and transformer.

"bare" indexes a set in memory and knows of fused optimizers and of channels_last; "usual" is what most people write: a
DataLoader, AdamW as it comes, tqdm with the loss behind it at every step. Lightning has everything off.

    python benchmarks/throughput.py [--rounds 5] [--threads 1] [--only mlp]
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import arguments, interleaved, ratio, report
from subjects import Dlrun, indexing, lightning, temporary, usual
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

# name → what is typed, batch size, batches of an epoch
SUBJECTS: dict[str, tuple[list[str], int, int]] = {
    "mlp": (["data.shape=[1,28,28]", "model=mlp", "model.hidden_sizes=[512,256,128]", "model.dropout=0.0"], 128, 150),
    "cnn": (["data.shape=[3,32,32]", "model=cnn", "model.channels=[32,64,128]"], 128, 12),
    "lstm": (["data.modality=text", "data.sequence_length=32", "model=lstm", "model.hidden_size=128"], 64, 20),
    "transformer": (["data.modality=text", "data.sequence_length=32", "model=transformer"], 64, 20),
}


def cases(name: str, threads: int, folder: str) -> tuple[Dlrun, dict[str, Callable[[], float]], dict[str, int]]:
    """dlrun's run, an epoch of each way to train its model, and the samples in each."""
    words, batch, steps = SUBJECTS[name]
    size = batch * steps
    words = ["data=fake", f"data.size={size * 10 // 9 + 1}", "augment=none", f"data.batch_size={batch}", *words]
    words += [f"trainer.num_threads={threads}", "tracking.wandb.mode=offline", "scheduler=cosine", "optimizer.lr=1e-4"]
    run = Dlrun(words, Path(folder))
    split = run.trainer.train_batches.split
    inputs, targets = split.inputs[:size], split.targets[:size]  # type: ignore[attr-defined]
    image = name in ("mlp", "cnn")

    def prepare(pixels: Tensor) -> Tensor:  # uint8 (B, H, W, C) → (B, C, H, W), channels last in memory
        return pixels.float().mul_(1 / 255 / 0.29).sub_(0.5 / 0.29).permute(0, 3, 1, 2)

    def subject(fused: bool, layout: torch.memory_format) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = copy.deepcopy(run.trainer.weights).to(memory_format=layout)  # type: ignore[call-overload]
        return model, torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=fused)

    ready = prepare(inputs).contiguous() if image else inputs.long()
    loader = DataLoader(TensorDataset(ready, targets), batch, shuffle=True)
    plain, last = torch.contiguous_format, torch.channels_last if name == "cnn" else torch.contiguous_format
    bare, common = subject(True, last), subject(False, plain)
    made: dict[str, Callable[[], float]] = {
        "dlrun": run.epoch,
        "bare": indexing(*bare, (inputs, targets), batch, prepare if image else Tensor.long),
        "usual": usual(*common, loader),
        "Lightning": lightning(subject(True, last)[0], (ready, targets), batch, threads, folder, quiet=True),
    }
    samples: dict[str, int] = dict.fromkeys(made, size) | {"dlrun": run.trainer.train_batches.samples(0, run.per_epoch)}
    return run, made, samples


def main() -> None:
    words = arguments(__doc__, rounds=5)
    words.add_argument("--only", choices=SUBJECTS, action="append")
    args = words.parse_args()
    rows: list[tuple[Any, ...]] = []
    for name in args.only or SUBJECTS:
        torch.manual_seed(0)
        with temporary() as folder:
            run, made, samples = cases(name, args.threads, folder)
            seconds = interleaved(made, args.rounds)
            run.close()
        each = {case: [s / samples[case] for s in taken] for case, taken in seconds.items()}
        for case, taken in each.items():
            rate = 1 / statistics.median(taken)
            rows.append((name, case, rate, ratio(each, "bare", case), ratio(each, "usual", case)))
    report("throughput", ("model", "loop", "samples/s", "of bare", "of usual"), rows, rounds=args.rounds)


if __name__ == "__main__":
    main()
