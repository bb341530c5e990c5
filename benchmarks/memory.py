"""How much memory does a training take, and does it grow?

Each way is a process of its own, the whole command; its peak is what the kernel counted (ru_maxrss). The model has 8.3
million parameters, so that its state with AdamW (99 MB) can be told from what the imports take. dlrun may take one copy
of the state more than the bare loop, for the checkpoint.

    python benchmarks/memory.py [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import arguments, report

STEPS, BATCH, FEATURES, WIDTHS = 60, 128, 784, [2048, 2048, 1200]
SIZE = STEPS * BATCH
MEGABYTE = 2**20
GROWTH = 10_000  # steps

BARE = f"""
import torch
from torch import nn
torch.set_num_threads(THREADS)
widths = {[FEATURES, *WIDTHS]}
layers = [part for a, b in zip(widths, widths[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
model = nn.Sequential(*layers, nn.Linear(widths[-1], 10))
inputs, targets = torch.randn({SIZE}, {FEATURES}), torch.randint(10, ({SIZE},))
"""
LOOP = f"""
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
for epoch in range(2):
    for chosen in torch.randperm({SIZE}).split({BATCH}):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
    if SAVE:
        torch.save({{"model": model.state_dict(), "optimizer": optimizer.state_dict()}}, "last.pt")
"""
LIGHTNING = f"""
import lightning as L
from torch.utils.data import DataLoader, TensorDataset
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model
    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=True)
trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False)
trainer.fit(Module(), DataLoader(TensorDataset(inputs, targets), {BATCH}, shuffle=True))
"""


def dlrun(threads: int) -> list[str]:
    words = ["data=fake", "data.modality=tabular", f"data.shape=[{FEATURES}]", f"data.size={SIZE * 10 // 9 + 1}"]
    words += [f"data.batch_size={BATCH}", "model=mlp", f"model.hidden_sizes={WIDTHS}", "model.dropout=0.0"]
    words += ["optimizer.lr=1e-4", "trainer.max_epochs=2", f"trainer.num_threads={threads}", "tracking=none"]
    return [sys.executable, "-m", "dlrun", *(word.replace(" ", "") for word in words)]


def peak(command: list[str]) -> float:
    """The most memory that the process had, in MB; raises RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            command, cwd=folder, stdout=nowhere, stderr=nowhere, env={**os.environ, "PYTHONPATH": path}
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)[:200]} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


def growth(threads: int) -> tuple[float, float]:
    """Memory after a tenth of GROWTH steps and after all of them, in MB, of dlrun's trainer on a tiny net."""
    import torch
    from step_overhead import BATCH as batch
    from step_overhead import STEPS as steps
    from step_overhead import WORDS
    from subjects import Dlrun, temporary

    with temporary() as folder:
        size = f"data.size={steps * batch * 10 // 9 + 1}"
        run = Dlrun([*WORDS, size, f"trainer.num_threads={threads}", "tracking=none"], Path(folder))
        torch.set_num_threads(threads)
        marks = []
        for epoch in range(1, GROWTH // run.per_epoch + 1):
            run.whole_epoch()
            if epoch in (GROWTH // run.per_epoch // 10, GROWTH // run.per_epoch):
                resident = int(Path("/proc/self/statm").read_text().split()[1])
                marks.append(resident * os.sysconf("SC_PAGE_SIZE") / MEGABYTE)
        run.close()
    return marks[0], marks[1]


def main() -> None:
    args = arguments(__doc__, rounds=3).parse_args()
    begin = BARE.replace("THREADS", str(args.threads))
    commands = {
        "bare loop": [sys.executable, "-c", begin + LOOP.replace("SAVE", "False")],
        "bare loop that saves": [sys.executable, "-c", begin + LOOP.replace("SAVE", "True")],
        "dlrun": dlrun(args.threads),
        "Lightning": [sys.executable, "-c", begin + LIGHTNING],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            peaks[name].append(peak(command))
    rows: list[tuple[Any, ...]] = []
    for name, taken in peaks.items():
        rows.append((name, statistics.median(taken), statistics.median(taken) - statistics.median(peaks["bare loop"])))
    facts: dict[str, Any] = {"state_mb": 99, "threads": args.threads}
    if sys.platform == "linux":
        early, late = growth(args.threads)
        rows.append((f"dlrun, tiny net, after {GROWTH // 10:,} steps", early, None))
        rows.append((f"dlrun, tiny net, after {GROWTH:,} steps", late, None))
        facts["growth_mb"] = late - early
    report("memory", ("process", "peak MB", "above the bare loop"), rows, **facts)


if __name__ == "__main__":
    main()
