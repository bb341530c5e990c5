from __future__ import annotations

import os

from dlrun.data.memory import _upwards, available_memory


def test_not_more_than_the_machine_has():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 10 * 2**20 < available_memory() <= total


def test_what_a_group_and_those_around_it_leave(tmp_path):
    """Files as Linux writes them for a job of 1 GB in a user's 3 GB; what files' contents hold can be had."""
    for folder, limit, used, files in (("user", 3 * 2**30, 2**31, 2**20), ("user/job", 2**30, 2**29, 2**28)):
        group = tmp_path / folder
        group.mkdir()
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\nactive_file {files}\ninactive_file 4096\n")
    expected = [2**30 - (2**29 - 2**28 - 4096), 3 * 2**30 - (2**31 - 2**20 - 4096)]
    words = ("memory.max", "memory.current", "")
    assert _upwards(tmp_path, "/user/job", *words) == expected
    assert _upwards(tmp_path, "/user/job/not seen from inside", *words) == expected
    (tmp_path / "user/job/memory.max").write_text("max\n")
    assert _upwards(tmp_path, "/user/job", *words) == expected[1:]
    (tmp_path / "user/memory.current").write_text(f"{2**40}\n")
    assert _upwards(tmp_path, "/user", *words) == [0]
