"""How large is a comparison of many runs, how long does it take to make, and how soon can one use it?

Run folders as training leaves them, of 100 epochs each, are made, `dlrun report runs=…` is called, and the page is
opened in a headless Chromium. build: the command's wall clock. open: until the table is there and answers. curves:
from scrolling there until both charts are drawn. sort, filter: from the click or the key until the next frame is
painted. All in seconds, medians of the rounds; the sizes in turn, and each time a browser context of its own.

python benchmarks/reports.py [--runs 200 1000] [--epochs 100] [--keep FOLDER]
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from measure import arguments, interleaved, report

MODELS = {"mlp": 198_794, "cnn": 164_298, "lstm": 102_251, "transformer": 68_810}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DROPOUTS = (0.0, 0.1, 0.2, 0.3, 0.5)
HEADER = (
    "epoch",
    "step",
    "lr",
    "train/loss",
    "train/acc",
    "val/loss",
    "val/acc",
    "samples_per_second",
    "seconds",
    "data_wait",
)
FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def make(folder: Path, runs: int, epochs: int) -> None:
    """Run folders below `folder`: a grid of models, learning rates, dropouts and seeds; one in forty failed."""
    words = [sys.executable, "-m", "dlrun", "tracking=none", "--cfg", "job", "--resolve"]
    plain = yaml.safe_load(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    plain.pop("sweep", None)
    grid = [*product(MODELS, RATES, DROPOUTS)]
    draw = random.Random(0)
    for number in range(runs):
        model, rate, dropout = grid[number % len(grid)]
        config = json.loads(json.dumps(plain)) | {"seed": number // len(grid)}
        config["model"] |= {"name": model, "dropout": dropout}
        config["optimizer"] |= {"lr": rate}
        config["trainer"] |= {"max_epochs": epochs}
        place = folder / f"{number // 100 + 1:02}-{number % 100:02}-00-{draw.getrandbits(40):010x}"
        place.mkdir(parents=True)
        (place / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        rows = curve(draw, model, rate, dropout, epochs if number % 40 else epochs // 3)
        with (place / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
        (place / "summary.json").write_text(json.dumps(summary(number, model, rows, failed=not number % 40)))


def curve(draw: random.Random, model: str, rate: float, dropout: float, epochs: int) -> list[list[str]]:
    """Learning that is slow with a small rate and noisy with a large one."""
    speed = 3 * (rate / 1e-4) ** 0.5 / 60
    ceiling = 0.99 - 0.03 * abs(math.log10(rate / 2e-3)) - 0.05 * abs(dropout - 0.2) - 0.01 * [*MODELS].index(model)
    ceiling += draw.gauss(0, 0.004)
    rows = []
    for epoch in range(1, epochs + 1):
        acc = 0.1 + (ceiling - 0.1) * (1 - math.exp(-speed * epoch)) + draw.gauss(0, 0.02 * rate**0.3)
        train = min(1.0, acc + 0.01 * (1 - dropout))
        seconds = epoch * (0.05 + 0.02 * [*MODELS].index(model))
        losses = [-math.log(max(1e-3, min(0.999, share))) for share in (train, acc)]
        row = (rate, losses[0], train, losses[1], min(acc, 1.0), draw.gauss(2e4, 500), seconds, draw.random() / 10)
        rows.append([str(epoch), str(21 * epoch), *(f"{value:.6g}" for value in row)])
    return rows


def summary(number: int, model: str, rows: list[list[str]], failed: bool) -> dict[str, Any]:
    best = dict(zip(HEADER, map(float, max(rows, key=lambda row: float(row[6]))), strict=True))
    said: dict[str, Any] = {"format": 1, "run_id": f"run{number:05}", "status": "failed" if failed else "finished"}
    said |= {"error": "ValueError: loss is NaN in step 700" if failed else None, "exit_code": int(failed)}
    said |= {"parameters": MODELS[model], "epochs": len(rows), "steps": 21 * len(rows), "best": best}
    said |= {"seconds": float(rows[-1][8]) + 2, "samples_per_second": 2e4, "started": "2026-11-24T01:20:13.586+00:00"}
    return said | {
        "test": None if failed else {"test/acc": best["val/acc"] - 0.01, "test/loss": best["val/loss"] + 0.02}
    }


def build(folder: Path, out: Path) -> float:
    began = time.monotonic()
    words = [sys.executable, "-m", "dlrun", "report", f"runs={folder}", f"out={out}"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def visit(chrome: Any, path: Path) -> dict[str, float]:
    """Seconds until each thing is done."""
    page = chrome.new_context(viewport={"width": 1280, "height": 800}).new_page()

    def took(action: str) -> float:
        """In the page's own clock, until the frame after the next begins: then the next one is painted."""
        return (
            page.evaluate(
                f"async () => {{ const t = performance.now(); {action}; await {FRAME}; return performance.now() - t; }}"
            )
            / 1000
        )

    began = time.monotonic()
    page.goto(path.resolve().as_uri())
    page.evaluate(FRAME)
    found = {"open": time.monotonic() - began}
    began = time.monotonic()
    page.evaluate("document.getElementById('curves').scrollIntoView()")
    for chart in ("curves-1", "curves-2"):  # the page's policy lets nobody evaluate a condition in it
        page.wait_for_selector(f"#{chart} .scatterlayer path", state="attached")
    page.evaluate(FRAME)
    found["curves"] = time.monotonic() - began
    found["sort"] = took("document.querySelector('#comparison-table th.metric').click()")
    typed = "box.value = 'model=cnn lr>=0.001'; box.dispatchEvent(new Event('input'))"
    found["filter"] = took(f"const box = document.getElementById('filter'); {typed}")
    page.context.close()
    return found


def main() -> None:
    words = arguments(__doc__, rounds=5)
    words.add_argument("--runs", type=int, nargs="+", default=[200, 1000])
    words.add_argument("--epochs", type=int, default=100)
    words.add_argument("--keep", type=Path, help="leave folders and pages there")
    args = words.parse_args()
    with tempfile.TemporaryDirectory() as temporary, browser() as chrome:
        top = args.keep or Path(temporary)
        pages = {str(runs): top / f"{runs}.html" for runs in args.runs}
        for runs in args.runs:
            if not (top / str(runs)).exists():
                make(top / str(runs), runs, args.epochs)
        built = interleaved({n: lambda n=n: build(top / n, pages[n]) for n in pages}, args.rounds)
        seen: dict[str, list[dict[str, float]]] = {n: [] for n in pages}
        interleaved({n: lambda n=n: seen[n].append(visit(chrome, pages[n])) or 0.0 for n in pages}, args.rounds)
        rows = []
        for n, path in pages.items():
            figures = [
                statistics.median(one[what] for one in seen[n][1:]) for what in ("open", "curves", "sort", "filter")
            ]
            rows.append((int(n), path.stat().st_size / 1e6, statistics.median(built[n]), *figures))
    header = ("runs", "MB", "build (s)", "open (s)", "curves (s)", "sort (s)", "filter (s)")
    report("reports", header, rows, epochs=args.epochs, rounds=args.rounds)


if __name__ == "__main__":
    main()
