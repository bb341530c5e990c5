"""How fast is the training of the CIFAR-10 speed records, against a bare loop and against what they cost?

The run of `experiment=cifar10_speedrun` on pictures of CIFAR's shape, with all that it does (augmentation, metrics,
files). "bare" is the record's own way to do it: the set on the device, an epoch's pictures augmented at once, nothing
counted or saved. Both have the recipe's model, optimizer, precision and layout; nothing is frozen, which would make the
later rounds other ones. "record" is what was published: the samples that were trained on per second of all its time,
its evaluation included, on one A100 and compiled beforehand.

    python benchmarks/speedrun.py --compile max-autotune         on a GPU
    python benchmarks/speedrun.py --smoke                        anywhere: tiny, and says nothing about speed

Without a GPU it is always the smoke test.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import arguments, interleaved, ratio, report
from subjects import Dlrun, temporary
from torch import Tensor, nn

from dlrun.data.prepare import preparation
from dlrun.data.source import ArraySplit
from dlrun.registry import optimizers

# recipe → samples that the record trains on, its seconds on one A100, its source's file, the pixels of its shifts
RECORDS: dict[str, tuple[int, float, str, int]] = {
    "cifar10_speedrun": (8 * 25 * 2000, 2.59, "airbench94_muon.py", 2),
    "cifar10_speedrun_96": (40 * 48 * 1024, 46.3, "airbench96.py as first published", 4),
}
SMOKE = ["model.widths=[4,8,8]", "data.batch_size=16", "precision=fp32", "data.size=500", "trainer.num_threads=1"]


def words(args: argparse.Namespace, smoke: bool) -> list[str]:
    """What is typed."""
    chosen = [f"experiment={args.recipe}", "data=fake", "data.shape=[3,32,32]", "trainer.freeze=null"]
    chosen += SMOKE if smoke else ["data.size=50000", "device=cuda", f"trainer.compile={args.compile}"]
    return [*chosen, "tracking.wandb.mode=offline", *args.words]


def bare(run: Dlrun, compile: str, shift: int, smoothing: float) -> Callable[[], float]:
    """A loop over the same data with a copy of the same model: what somebody would write for this alone."""
    trainer, spec = run.trainer, run.session.run.spec
    device = trainer.parameters[0].device
    model = copy.deepcopy(trainer.weights)
    optimizer = _optimizer(run, model)
    called: nn.Module = model if compile == "false" else torch.compile(model, mode=_mode(compile))  # type: ignore[assignment]
    split, size = trainer.train_batches.split, trainer.train_batches.batch_size
    assert isinstance(split, ArraySplit)
    images = preparation(spec, device, channels_last=True)(split.inputs)
    targets = split.targets.to(device)
    flipped = torch.rand(len(images), 1, 1, 1, device=device) < 0.5
    padded = F.pad(torch.where(flipped, images.flip(-1), images), (shift,) * 4, "reflect")

    def epoch() -> float:
        model.train()
        began = time.perf_counter()
        pictures = cropped(padded, shift).flip(-1).contiguous(memory_format=torch.channels_last)
        order = torch.randperm(len(targets), device=device)
        for chosen in order[: len(order) // size * size].split(size):  # as there: what is left over is left out
            with trainer.precision.autocast():
                logits = called(pictures[chosen])
                loss = F.cross_entropy(logits, targets[chosen], label_smoothing=smoothing)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return epoch


def cropped(padded: Tensor, shift: int) -> Tensor:
    """Each picture from a place of its own: (N, C, H + 2 · shift, …) → (N, C, H, W)."""
    count, _, height, width = padded.shape
    height, width = height - 2 * shift, width - 2 * shift
    result = padded.new_empty(count, padded.shape[1], height, width)
    places = torch.randint(0, 2 * shift + 1, (count, 2), device=padded.device)
    for y in range(2 * shift + 1):
        for x in range(2 * shift + 1):
            here = (places[:, 0] == y) & (places[:, 1] == x)
            result[here] = padded[here, :, y : y + height, x : x + width]
    return result


def _optimizer(run: Dlrun, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's, for a copy of its model."""
    options = run.config["optimizer"]
    shared = ("name", "l1", "bias_lr_scale", "bias_weight_decay")
    optimizer: torch.optim.Optimizer = optimizers.build(
        options["name"], {key: value for key, value in options.items() if key not in shared}, model
    )
    return optimizer


def _mode(compile: str) -> str | None:
    return None if compile == "true" else compile


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--recipe", choices=RECORDS, default="cifar10_speedrun")
    parser.add_argument("--compile", default="false", help="as trainer.compile, for both loops")
    parser.add_argument("--smoke", action="store_true", help="a tiny net and few pictures")
    parser.add_argument("words", nargs="*", help="more of what dlrun takes, such as precision=fp16")
    args = parser.parse_args()
    smoke = args.smoke or not torch.cuda.is_available()
    samples, seconds, source, shift = RECORDS[args.recipe]
    with temporary() as folder:
        run = Dlrun(words(args, smoke), Path(folder))
        torch.set_num_threads(args.threads)
        batches = run.trainer.train_batches
        cases = {"dlrun": run.epoch, "bare": bare(run, args.compile, shift, run.config["task"]["label_smoothing"])}
        whole = len(batches.split) // batches.batch_size * batches.batch_size
        each = {"dlrun": batches.samples(0, run.per_epoch), "bare": whole}
        taken = interleaved(cases, args.rounds, warmup=1 if smoke else 3)
        run.close()
    per_sample = {case: [s / each[case] for s in found] for case, found in taken.items()}
    record = samples / seconds
    rows: list[tuple[Any, ...]] = []
    for case, found in per_sample.items():
        rate = 1 / statistics.median(found)
        rows.append((case, rate, ratio(per_sample, "bare", case), None if smoke else rate / record))
    rows.append((f"record, A100 ({source})", record, None, 1.0))
    loops = "tiny, says nothing about speed" if smoke else "full size"
    print(f"sizes: {loops}; «of bare» is the median over the rounds, not the quotient of the medians")
    report("speedrun", ("loop", "images/s", "of bare", "of the record"), rows, recipe=args.recipe, sizes=loops)


if __name__ == "__main__":
    main()
