"""How long does a command take until it does something? Against programs that do the same and import nothing else.

Each is a process of its own, on a file cache that is warm. The commands that only read are beside a bare `hydra.main`
program, with two lines of config and with dlrun's. A training is measured until its first optimizer step is done: it
then ends there and then, by an optimizer of a plugin; so do the bare script and Lightning's.

The bare script and Lightning's import the whole of `torch._dynamo` before their first step, as every program does that
uses `torch.optim` as it is; dlrun doesn't (dlrun/eager.py).

    python benchmarks/startup.py [--rounds 9] [--threads 1] [--no-lightning]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import arguments, interleaved, ratio, report

ROOT = Path(__file__).resolve().parent.parent
HYDRA = """
import hydra
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("run_id", lambda: "")

@hydra.main(version_base="1.3", config_path={folder!r}, config_name="config")
def main(config):
    pass

main()
"""
BARE = """
import os
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)
"""
STEP = """
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
loss = nn.functional.cross_entropy(model(torch.randn(64, 1, 8, 8)), torch.randint(10, (64,)))
loss.backward()
optimizer.step()
os._exit(0)
"""
LIGHTNING = """
import lightning
from torch.utils.data import DataLoader, TensorDataset

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def optimizer_step(self, *args):
        super().optimizer_step(*args)
        os._exit(0)

off = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
data = TensorDataset(torch.randn(640, 1, 8, 8), torch.randint(10, (640,)))
lightning.Trainer(max_epochs=1, accelerator="cpu", **off).fit(Module(), DataLoader(data, 64, shuffle=True))
"""
PLUGIN = """
import os
from dlrun.registry import optimizers

@optimizers.register("one_step")
def one_step(model):
    '''The default, and the end of the process after its first step.'''
    optimizer = optimizers["adamw"](model)
    step = optimizer.step
    optimizer.step = lambda: (step(), os._exit(0))
    return optimizer
"""


class Command:
    """A process: called, it is run to its end and gives its seconds; its processor time is kept beside them."""

    def __init__(self, folder: Path, threads: int, words: list[str], line: str | None = None):
        self.words, self.folder, self.cpu = [sys.executable, *words], folder, list[float]()
        path = os.pathsep.join([str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")])
        self.environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        if line is not None:  # as bash says what is to be completed
            self.environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}

    def __call__(self) -> float:
        log = self.folder / "printed"  # a pipe would stay open as long as W&B's own process
        with log.open("wb") as file:
            began = time.perf_counter()
            process = subprocess.Popen(
                self.words, cwd=self.folder, env=self.environment, stdout=file, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{self.words} ended with {process.returncode}:\n{log.read_text()}")
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        return seconds


def commands(folder: Path, args: argparse.Namespace) -> dict[str, tuple[str, Command]]:
    """Case → its reference, and what runs it."""
    files = {
        "conf/config.yaml": "seed: 0\nlr: 0.1\n",
        "mine/optimizer/one_step.yaml": "name: one_step\n",
        "small.py": HYDRA.format(folder="conf"),
        "same.py": HYDRA.format(folder=str(ROOT / "conf")),
        "first_step.py": PLUGIN,
        "bare.py": BARE + STEP,
        "peer.py": BARE + LIGHTNING,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def command(*words: str, line: str | None = None) -> Command:
        return Command(folder, args.threads, list(words), line)

    dlrun = ("-m", "dlrun")
    step = (*dlrun, "--config-dir", "mine", "plugins=[first_step]", "optimizer=one_step", "device=cpu")
    complete = ("-sc", "query=bash")
    small, same = "hydra.main, two lines: --cfg job", "hydra.main, dlrun's config: --cfg job"
    completes, bare = "hydra.main, dlrun's config: completion", "bare script: first step"
    cases = {
        small: (small, command("small.py", "--cfg", "job")),
        same: (small, command("same.py", "--cfg", "job")),
        completes: (completes, command("same.py", *complete, line="same.py model=c")),
        "dlrun --help": (small, command(*dlrun, "--help")),
        "dlrun --version": (small, command(*dlrun, "--version")),
        "dlrun list": (small, command(*dlrun, "list")),
        "dlrun --cfg job": (small, command(*dlrun, "--cfg", "job")),
        "dlrun completion": (completes, command(*dlrun, *complete, line="dlrun model=c")),
        bare: (bare, command("bare.py")),
        "dlrun augment=none tracking=none": (bare, command(*step, "augment=none", "tracking=none")),
        "dlrun tracking=none": (bare, command(*step, "tracking=none")),
        "dlrun, W&B offline": (bare, command(*step, "tracking.wandb.mode=offline")),
    }
    if args.lightning:
        cases["Lightning, all off: first step"] = (bare, command("peer.py"))
    return cases


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--lightning", action=argparse.BooleanOptionalAction, default=True)
    args = words.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        cases = commands(Path(path), args)
        runs: dict[str, Callable[[], float]] = {name: command for name, (_, command) in cases.items()}
        seconds = interleaved(runs, args.rounds)
    rows = []
    for name, (reference, command) in cases.items():
        more = statistics.median(a - b for a, b in zip(seconds[name], seconds[reference], strict=True))
        cpu = statistics.median(command.cpu[-args.rounds :])
        rows.append((name, statistics.median(seconds[name]), cpu, ratio(seconds, name, reference), more))
    import torch  # for the line about the machine

    torch.set_num_threads(args.threads)
    header = ("command", "seconds", "of CPU", "ratio to its reference", "seconds more")
    report("startup", header, rows, rounds=args.rounds, threads=args.threads)


if __name__ == "__main__":
    main()
