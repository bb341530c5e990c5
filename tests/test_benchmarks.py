"""Benchmarks are never run here; but what they import of dlrun has to be there still."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def test_what_benchmarks_import_is_there() -> None:
    files = sorted(BENCHMARKS.glob("*.py"))
    assert len(files) >= 16
    checked = 0
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dlrun":
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    there = hasattr(module, alias.name) or _is_module(f"{node.module}.{alias.name}")
                    assert there, f"{file.name}: no {alias.name} in {node.module}"
                    checked += 1
    assert checked > 50


def _is_module(name: str) -> bool:
    """A room's file, which the room has only once it was imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_each_says_what_it_asks_and_how_it_is_run() -> None:
    for file in BENCHMARKS.glob("*.py"):
        said = ast.get_docstring(ast.parse(file.read_text())) or ""
        assert said, file.name
        if file.stem not in ("measure", "subjects", "run"):
            assert f"python benchmarks/{file.name}" in said, file.name
            assert "?" in said.partition("\n")[0], file.name
