"""Runs every benchmark, one after the other, and writes what they found into RESULTS.md beside this file.

make bench                                  (or: python benchmarks/run.py [NAME …])
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import machine, shown

HERE = Path(__file__).resolve().parent
TOOLS = {"measure", "subjects", "run"}


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if path.stem not in TOOLS)
    results, failed = [], []
    for name in names:
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        process = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.PIPE, text=True, check=False)
        print(process.stdout, flush=True)
        lines = [line for line in process.stdout.splitlines() if line.startswith('{"benchmark"')]
        if process.returncode or not lines:
            failed.append(name)
        results += [(name, json.loads(line), time.monotonic() - began) for line in lines]
        if len(names) > 1:
            (HERE / "RESULTS.md").write_text(page(results))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def page(results: list[tuple[str, dict[str, Any], float]]) -> str:
    """The last table of every benchmark, and the machine they were taken on."""
    here = machine()
    lines = [
        "# Results",
        "",
        "Written by `make bench`. What each row means is said at the top of the benchmark's file.",
        "",
    ]
    lines += [", ".join(f"{key}: {value}" for key, value in here.items() if key != "threads" and value) + ".", ""]
    for name, result, seconds in results:
        question = (HERE / f"{name}.py").read_text().partition('"""')[2].partition("\n")[0].rstrip('"')
        lines += [f"## {name}", "", question, ""]
        header = list(result["rows"][0])
        lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(shown(value) for value in row.values())} |" for row in result["rows"]]
        facts = {key: value for key, value in result.items() if key not in ("benchmark", "rows", "machine")}
        facts.setdefault("threads", result["machine"]["threads"])
        told = ", ".join(f"{key} {shown(value)}" for key, value in facts.items())
        lines += ["", f"{told}; took {seconds:.0f} s", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
