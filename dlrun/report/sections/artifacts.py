"""What became of the run: smaller runs, files for other programs, and how they measure up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dlrun.report import wording
from dlrun.report.page import fragment
from dlrun.report.record import Record, mapping, read_json
from dlrun.wording import is_number

Row = list[Any]


def body(record: Record) -> Markup | None:
    bench = record.json("bench", "bench.json")
    sizes = [str(size) for size in bench.get("batch_sizes") or []] if bench.get("rows") else []
    tables = {
        "measured": _bench(bench, sizes),
        "compressed": _compressed(record),
        "exported": [_export(name, found) for name, found in record.jsons("export").items()],
    }
    if not any(tables.values()):
        return None
    left_out = [f"{row.get('name')}: {row.get('reason')}" for row in bench.get("rows") or [] if row.get("reason")]
    return fragment(
        "run/artifacts.html.j2",
        **tables,
        sizes=sizes,
        left_out=left_out,
        threads=bench.get("threads"),
        machine=mapping(bench.get("machine")).get("cpu"),
    )


def _bench(bench: Mapping[str, Any], sizes: list[str]) -> list[Row]:
    rows = []
    for row in bench.get("rows") or []:
        if row.get("status") == "left out":
            continue
        latency = mapping(row.get("latency"))
        times = [mapping(latency.get(size)).get("p50_ms") for size in sizes]
        speedup = mapping(latency.get(sizes[0])).get("speedup") if sizes else None
        rows.append(
            [
                str(row.get("name")),
                _cell(row.get("accuracy"), wording.percent),
                _cell(row.get("bytes"), wording.size),
                _cell(row.get("parameters"), wording.magnitude),
                _cell(row.get("flops_per_sample"), wording.magnitude),
                _cell(row.get("memory_bytes"), wording.size),
                *(_cell(value, lambda v: wording.number(v, 3)) for value in times),
                _cell(speedup, lambda v: f"{wording.number(v, 3)}×"),
            ]
        )
    return rows


def _compressed(record: Record) -> list[Row]:
    """Of the runs in compress/, what they came to, beside what they come from."""
    rows = []
    for path in sorted(record.folder.path.glob("compress/*/summary.json")):
        summary = read_json(path, record.damaged, record.folder.path)
        facts, test = mapping(summary.get("compression")), mapping(summary.get("test"))
        if not summary:
            continue
        before = mapping(facts.get("test_before")).get("test/acc")
        amount = facts.get("amount")
        rows.append(
            [
                str(facts.get("method") or path.parent.name) + (f" {amount:g}" if is_number(amount) else ""),
                str(summary.get("status")),
                _cell(facts.get("parameters"), wording.magnitude),
                _cell(facts.get("bytes"), wording.size),
                _ratio(facts.get("bytes"), facts.get("bytes_before")),
                _cell(facts.get("sparsity"), lambda v: wording.percent(v, 1)),
                _cell(before, wording.percent),
                _cell(test.get("test/acc"), wording.percent),
            ]
        )
    return rows


def _export(name: str, found: Mapping[str, Any]) -> Row:
    parity, test = mapping(found.get("parity")), mapping(found.get("test"))
    passed = parity.get("passed")
    return [
        name,
        str(found.get("file", wording.NOTHING)),
        _cell(found.get("bytes"), wording.size),
        {
            "text": "equal" if passed else "failed" if passed is False else wording.NOTHING,
            "class": "" if passed else "bad",
        },
        _cell(parity.get("max_error"), lambda v: f"{v:.1e}"),
        _cell(parity.get("agreement"), lambda v: wording.percent(v, 2)),
        _cell(test.get("acc"), wording.percent),
    ]


def _cell(value: Any, write: Any) -> dict[str, Any]:
    return {"text": write(value), "sort": value} if is_number(value) else {"text": wording.NOTHING}


def _ratio(after: Any, before: Any) -> dict[str, Any]:
    if not is_number(after) or not is_number(before) or not before:
        return {"text": wording.NOTHING}
    return {"text": f"× {after / before:.3g}", "sort": after / before}
