"""What do a run's pictures cost it? The loop with the process that draws beside it, against the loop alone.

The training of a small net, timed by epochs in turn with a process that draws and with one that rests. The first
rounds have that process's start and its import of matplotlib in them, the rest its drawings, which are at
least 15 s apart and at most 0.5 % of the time. Give it one core and two:

    taskset -c 0 python benchmarks/drawing.py [--rounds 9] [--seconds 4]
    taskset -c 0,1 python benchmarks/drawing.py

    python benchmarks/drawing.py --command       a whole short run, plots=true against plots=false
"""

from __future__ import annotations

import os
import signal
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
WORDS += ["model=mlp", "model.hidden_sizes=[64,64]", "data.size=2000"]
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
        drawing = run.session.drawing
        assert drawing is not None
        began = time.monotonic()
        drawing.start()
        process = drawing.process
        assert process is not None
        cases = {f"plots={word}": _epochs(run, drawing, on, args.seconds) for word, on in (("false", 0), ("true", 1))}
        seconds = interleaved(cases, args.rounds, warmup=0)
        lasted = time.monotonic() - began
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        drawer = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        process.send_signal(signal.SIGCONT)
        drawing.process = process
        drawing.end(lambda: True)
        run.close()
    rows = [(name, 1e3 * statistics.median(taken)) for name, taken in seconds.items()]
    totals = {name: sum(taken) for name, taken in seconds.items()}
    facts = {"ratio": ratio(seconds, "plots=true", "plots=false"), "seconds": lasted, "drawer_cpu_seconds": drawer}
    facts["ratio_of_means"] = totals["plots=true"] / totals["plots=false"]
    report("drawing", ("loop", "ms/epoch"), rows, rounds=args.rounds, cores=len(os.sched_getaffinity(0)), **facts)


def _epochs(run: Dlrun, drawing: Drawing, on: int, seconds: float) -> Callable[[], float]:
    """Median time of an epoch's training; the process that draws rests, and is told nothing, while it isn't `on`."""
    process = drawing.process
    assert process is not None

    def measured() -> float:
        drawing.process = process if on else None
        process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
        began, trained = time.monotonic(), []
        while time.monotonic() - began < seconds:
            trained.append(run.epoch())
        return statistics.median(trained)

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
