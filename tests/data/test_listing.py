from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from dlrun.data.listing import Unreadable, files, listed_on_stdin, shown
from dlrun.errors import UserError

KINDS = {".png", ".jpg"}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures, and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "notes.txt", "in/c.png", "in/deep/d.jpg", ".hidden/e.png", "in/._c.png", "x[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def found(*named: str) -> list[str]:
    return [f"{f.name}: {f.reason}" if isinstance(f, Unreadable) else f.as_posix() for f in files(named, KINDS)]


ALL = ["a.JPG", "b.png", "x[1].png", "in/c.png", "in/deep/d.jpg"]


def test_files_folders_and_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("b.png", "notes.txt") == ["b.png", "notes.txt"]
    assert found(".") == ALL
    assert found("in", "in") == ["in/c.png", "in/deep/d.jpg"] * 2
    assert found("*.png") == ["b.png", "x[1].png"]
    assert found("x[1].png") == ["x[1].png"]  # a file before a pattern
    assert found("in/**") == ["in/c.png", "in/deep/d.jpg"]
    assert found("i*") == ["in/c.png", "in/deep/d.jpg"]
    monkeypatch.setenv("HOME", str(tree))
    assert found("~/b.png") == [f"{tree}/b.png"]


def test_what_is_not_there_is_told(tree: Path) -> None:
    os.mkfifo("pipe.png")
    assert found("b.pgn", "empty", "*.gif", "pipe.png") == [
        "b.pgn: there is no such file or folder; did you mean 'b.png'?",
        "empty: holds nothing to read (looked for .jpg, .png)",
        "*.gif: matches nothing",
        "pipe.png: is neither a file nor a folder",
    ]
    assert found(".") == ALL  # and no pipe, which would never end
    long = "x" * 300
    assert found(long, "~no-such-user/x.png") == [
        f"{long}: there is no such file or folder",
        "~no-such-user/x.png: there is no such file or folder",
    ]
    assert found("nowhere/x.png") == ["nowhere/x.png: there is no such file or folder"]


def test_links_are_followed_but_not_in_circles(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "z.png").touch()
    (tree / "link").symlink_to(other)
    (other / "back").symlink_to(tree)
    (tree / "in/up").symlink_to(tree / "in")
    assert found(".") == [*ALL, "link/z.png"]
    (other / "lost.png").symlink_to("nowhere")
    assert found(".") == [*ALL, "link/lost.png: is a link to what isn't there", "link/z.png"]


def test_names_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "a b.png\r\n\nü.png\n".encode() + b"\xff.png"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    names = list(listed_on_stdin())
    assert names == ["a b.png", "ü.png", "\udcff.png"]
    assert shown(names[2]) == "\\xff.png"
    literal = [item for item in files(["*.png", "a\0*.png"], KINDS, literal=True) if isinstance(item, Unreadable)]
    assert [item.reason for item in literal] == ["there is no such file or folder"] * 2
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="nothing on stdin"):
        list(listed_on_stdin())
