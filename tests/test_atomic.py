from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from dlrun.atomic import atomic_write, create


def test_old_file_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new" * 10_000)
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" * 10_000
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"])
def test_nothing_is_left_of_a_block_that_raises(tmp_path, error, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def write():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({} if before is None else {"file": before})


def test_killed_in_the_middle(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = """if True:
        import os, pathlib, signal, sys
        from dlrun.atomic import atomic_write, create
        with atomic_write(pathlib.Path(sys.argv[1])) as file:
            file.write(b"half"); file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_killed_between_keeping_the_old_file_and_the_rename(tmp_path):
    """Both names are of one file then, and rename(2) does nothing between two of those: it leaves the source too."""
    path, keep = tmp_path / "file", tmp_path / "before"
    path.write_bytes(b"old")
    os.link(path, keep)
    with atomic_write(path, keep) as file:
        file.write(b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"new", "before": b"old"}


def test_on_disk_before_the_rename_and_the_rename_too(tmp_path, monkeypatch):
    path, calls = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        state = os.fstat(descriptor)
        calls.append(("fsync", state.st_ino, state.st_size))
        fsync(descriptor)

    def recorded_replace(source, target):
        calls.append(("replace", os.stat(source).st_ino, target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with atomic_write(path) as file:
        file.write(b"12345")
    inode, folder = path.stat().st_ino, tmp_path.stat()
    # All five bytes when it is flushed to disk, none left in Python's buffer.
    assert calls == [("fsync", inode, 5), ("replace", inode, path), ("fsync", folder.st_ino, folder.st_size)]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_once_and_whole(tmp_path, monkeypatch, links):
    path, link = tmp_path / "file", os.link

    def linked(partial, name):
        assert not path.exists() or path.read_bytes() == b"first"
        if not links:
            raise OSError(errno.EPERM, "Operation not permitted")
        link(partial, name)

    monkeypatch.setattr("os.link", linked)
    create(path, b"first")
    with pytest.raises(FileExistsError):
        create(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]
