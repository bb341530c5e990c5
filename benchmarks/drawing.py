"""What do a run's pictures cost it? The loop with the process that draws beside it, against the loop alone.

Epochs of a small net, timed in turn: of a trainer whose every epoch is told to a drawing process, and of one without.
The first rounds have that process's start and its import of matplotlib in them, the rest its drawings, which are at
least 15 s apart and at most 1 % of the time. Give it one core and two:

    taskset -c 0 python benchmarks/drawing.py [--rounds 9] [--seconds 4]
    taskset -c 0,1 python benchmarks/drawing.py

    python benchmarks/drawing.py --command       a whole short run, plots=true against plots=false
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measure import arguments, interleaved, ratio, report
from subjects import Dlrun, temporary

from dlrun.drawing import Drawing

WORDS = ["data=fake", "data.modality=tabular", "data.shape=[64]", "data.batch_size=32", "augment=none", "tracking=none"]
WORDS += ["model=mlp", "model.hidden_sizes=[64,64]", "data.size=2000", "plots=false"]
RUN = ["data=digits", "model=mlp", "trainer.max_epochs=5", "tracking=none", "trainer.enable_progress_bar=false"]


def main() -> None:
    words = arguments(__doc__)
    words.add_argument("--seconds", type=float, default=4.0, help="of epochs, in each round of a case")
    words.add_argument("--command", action="store_true", help="whole short runs instead")
    args = words.parse_args()
    with temporary() as path:
        folder = Path(path)
        if args.command:
            rounds = {str(on): _command(folder, on) for on in ("false", "true")}
            seconds = interleaved(rounds, args.rounds, warmup=0)
            rows = [(f"plots={name}", statistics.median(taken)) for name, taken in seconds.items()]
            report("drawing, whole command", ("run", "seconds"), rows, ratio=ratio(seconds, "true", "false"))
            return
        run = Dlrun([*WORDS, f"trainer.num_threads={args.threads}"], folder)
        (folder / "metrics.csv").write_text("epoch,step,lr,train/loss,val/acc\n")
        drawing = Drawing(folder, "val/acc", "max", "benchmark")
        cases = {"plots=false": _epochs(run, args.seconds, None), "plots=true": _epochs(run, args.seconds, drawing)}
        began = time.monotonic()
        drawing.start()
        seconds = interleaved(cases, args.rounds, warmup=0)
        lasted = time.monotonic() - began
        assert drawing.process is not None
        ticks = Path(f"/proc/{drawing.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        drawer = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        drawing.end(None, lambda: True)
        run.close()
    rows = [(name, 1e3 * statistics.median(taken)) for name, taken in seconds.items()]
    facts = {"ratio": ratio(seconds, "plots=true", "plots=false"), "seconds": lasted, "drawer_cpu_seconds": drawer}
    report("drawing", ("loop", "ms/epoch"), rows, rounds=args.rounds, cores=len(os.sched_getaffinity(0)), **facts)


def _epochs(run: Dlrun, seconds: float, drawing: Drawing | None) -> Callable[[], float]:
    """Mean time of an epoch; the other process rests while it isn't this case's turn."""

    def measured() -> float:
        process = None if drawing is None else drawing.process
        if process is not None:
            os.kill(process.pid, 18)  # SIGCONT
        began, epochs = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            run.epoch()
            epochs += 1
            if drawing is not None:
                with (run.folder / "metrics.csv").open("a") as file:
                    file.write(f"{epochs},{epochs},0.1,0.5,0.5\n")
                drawing.epoch({})
        taken = (time.monotonic() - began) / epochs
        if process is not None:
            os.kill(process.pid, 19)  # SIGSTOP
        return taken

    return measured


def _command(folder: Path, plots: str) -> Callable[[], float]:
    def measured() -> float:
        began = time.monotonic()
        words = [sys.executable, "-m", "dlrun", *RUN, f"plots={plots}", f"hydra.run.dir={folder}/{plots}{began}"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.monotonic() - began

    return measured


if __name__ == "__main__":
    main()
