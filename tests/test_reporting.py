"""JSON that a program and a person can read."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dlrun.reporting import readable

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_it_is_json_of_the_same(value: object) -> None:
    assert json.loads(readable(value)) == value


def test_a_matrix_has_a_line_per_row_and_a_short_mapping_one() -> None:
    matrix = [[0] * 200, [1] * 200]
    lines = readable({"matrix": matrix, "best": {"epoch": 1, "acc": 0.5}, "long": ["x" * 100, "y" * 100]}).splitlines()
    assert len(lines) == 11
    assert json.loads(lines[2].rstrip(",")) == matrix[0]
    assert lines[5] == '  "best": {"epoch": 1, "acc": 0.5},'
