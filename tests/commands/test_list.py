"""`dlrun list`."""

from __future__ import annotations

import json

from command_line import CommandLine


def test_list_shows_all_registries_and_recipes(dlrun: CommandLine) -> None:
    listed = json.loads(dlrun("list", "format=json").out)
    assert {group: len(names) for group, names in listed.items() if group in ("model", "data", "optimizer")} == {
        "model": 9,
        "data": 11,
        "optimizer": 10,
    }
    assert all(summary for names in listed.values() for summary in names.values()), "everything is described"
    assert "digits_cnn" in dlrun("list", "experiment").out
