"""What malloc does with freed memory, as the kernel counts it, in processes of their own."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")

# Takes and frees 20 MB fifty times; prints whether memory is kept, and the page faults of the last forty.
PROGRAM = """
import ctypes, resource, sys
from dlrun.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
for i in range(50):
    if i == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(5 * 2**20) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 5 * 2**20)
    for block in blocks:
        libc.free(block)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
ALL = 40 * 20 * 2**20 // os.sysconf("SC_PAGE_SIZE")


def faults(word: str, **environment: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, word],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", **environment}
        if word == "system"
        else {**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = done.stdout.split()
    return kept == "1", int(count)


def test_what_was_freed_is_used_again_without_a_page_fault() -> None:
    assert faults("system")[1] > ALL / 2
    kept, count = faults("keep")
    assert kept
    assert count < ALL / 100


@pytest.mark.parametrize(
    "environment",
    [{"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}, {"MALLOC_MMAP_THRESHOLD_": "131072"}],
    ids=str,
)
def test_what_the_user_has_set_stands(environment: dict[str, str]) -> None:
    kept, count = faults("keep", **environment)
    assert not kept
    assert count > ALL / 2


def test_another_allocator_is_left_alone(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "other.c", tmp_path / "libother.so"
    source.write_text(
        "#include <stddef.h>\nvoid *__libc_malloc(size_t);\nvoid *malloc(size_t n) { return __libc_malloc(n); }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    assert not faults("keep", LD_PRELOAD=str(library))[0]
