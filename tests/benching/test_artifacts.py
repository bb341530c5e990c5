"""What is found in a made-up run folder, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlrun.benching.artifacts import choose, find
from dlrun.errors import UserError
from dlrun.exporting.formats import FORMATS


def make_run(folder: Path, status: str = "finished", **compression: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/best.pt").write_bytes(b"weights")
    summary = {"run_id": folder.name[-8:], "status": status, "compression": compression or None}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def make_export(run: Path, name: str, passed: bool = True, **changes: Any) -> Path:
    (run / "export").mkdir(exist_ok=True)
    form = name.partition("-")[0]
    file = run / "export" / f"{name}{'' if passed else '.failed'}{FORMATS[form].suffix}"
    file.write_bytes(b"graph")
    parity = {"passed": passed, "max_error": 0.5}
    record = {"format": form, "file": file.name, "bytes": 5, "parity": parity, **changes}
    (run / "export" / f"{name}.json").write_text(json.dumps(record))
    return file


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A run with exports, compressed runs below it, one of them compressed again; damage all over."""
    top = make_run(tmp_path / "run")
    make_export(top, "onnx")
    make_export(top, "torchscript-half", half=True)
    make_export(top, "pt2", passed=False)
    make_export(top, "aoti").unlink()
    make_export(top, "onnx-uint8").write_bytes(b"half of it has gone")
    (top / "export/onnx-half.json").write_text("{")
    (top / "export/stray.onnx").write_bytes(b"")
    compressed = top / "compress"
    pruned = make_run(compressed / "prune_structured-aaaaaaaa", method="prune_structured", amount=0.5)
    make_export(pruned, "onnx")
    make_run(pruned / "compress/quantize_static-bbbbbbbb", method="quantize_static", amount=None)
    make_run(compressed / "prune_unstructured-cccccccc", method="prune_unstructured", amount=0.9)
    make_run(compressed / "prune_unstructured-dddddddd", method="prune_unstructured", amount=0.9)
    make_run(compressed / "qat-eeeeeeee", status="running", method="qat")
    (make_run(compressed / "qat-ffffffff", method="qat", amount=None) / "checkpoints/best.pt").unlink()
    (compressed / "quantize_dynamic-gggggggg").mkdir()
    (compressed / ".hidden").mkdir()
    (compressed / "loop").symlink_to(top, target_is_directory=True)
    return top


def test_everything_is_found_and_what_is_wrong_has_a_reason(tree: Path) -> None:
    found = {artifact.name: artifact for artifact in find(tree)}
    reasons = {name: artifact.reason for name, artifact in found.items()}
    assert next(iter(found)) == "pytorch"
    whole = {name for name, reason in reasons.items() if reason is None}
    again = "prune_structured-0.5/quantize_static"
    twins = {"prune_unstructured-cccccccc", "prune_unstructured-dddddddd"}
    assert whole == {
        "pytorch",
        "onnx",
        "torchscript-half",
        "prune_structured-0.5",
        "prune_structured-0.5/onnx",
        again,
        *twins,
    }
    broken = {name: reason for name, reason in reasons.items() if reason is not None}
    assert broken.keys() == {
        *("pt2", "aoti", "onnx-uint8", "onnx-half"),
        *("qat-eeeeeeee", "qat-ffffffff", "quantize_dynamic-gggggggg"),
    }
    assert "max error 0.5" in broken["pt2"]
    assert "missing" in broken["aoti"]
    assert "isn't as large" in broken["onnx-uint8"]
    assert "can't be read" in broken["onnx-half"]
    assert "'running'" in broken["qat-eeeeeeee"]
    assert "best.pt" in broken["qat-ffffffff"]
    assert "summary.json" in broken["quantize_dynamic-gggggggg"]
    assert found[again].run == tree / "compress/prune_structured-aaaaaaaa/compress/quantize_static-bbbbbbbb"
    assert found["prune_structured-0.5/onnx"].run == found["prune_structured-0.5"].run


def test_an_export_that_lies_about_its_place_is_looked_for_beside_its_record(tree: Path) -> None:
    make_export(tree, "onnx", file="../../../etc/passwd")
    found = {artifact.name: artifact for artifact in find(tree)}
    assert found["onnx"].path == tree / "export/passwd"


def test_a_quantised_run_is_called_int8_in_its_own_report(tmp_path: Path) -> None:
    for method, name in (("quantize_static", "int8"), ("qat", "int8"), ("prune_structured", "pytorch")):
        [itself] = find(make_run(tmp_path / method, method=method))
        assert itself.name == name
        assert itself.is_run


def test_choosing(tree: Path) -> None:
    found = find(tree)
    assert choose(found, ["all"]) == found
    names = [artifact.name for artifact in choose(found, ["prune_structured-0.5/onnx", "onnx"])]
    assert names == ["pytorch", "onnx", "prune_structured-0.5/onnx"], "the run itself is what they are compared with"
    [_, chosen] = choose(found, ["prune_structured-aaaaaaaa"])
    assert chosen.name == "prune_structured-0.5"
    with pytest.raises(UserError, match=r"there is no 'onx'; did you mean 'onnx'\? \(choose from all, aoti"):
        choose(found, ["onx"])
    with pytest.raises(UserError, match="there is no 'all'"):
        choose(found, ["all", "onnx"])


def test_a_file_that_isnt_what_its_record_says_is_left_out(tmp_path: Path) -> None:
    """A stranger's TorchScript under the name of an ONNX, of the run itself, or of "all", would be run by that name."""
    run = make_run(tmp_path / "run")
    (run / "export").mkdir()
    for name, form in (("all", "torchscript"), ("onnx", "onnx"), ("pytorch", "pytorch"), ("all-half", "all")):
        (run / "export" / f"{name}.pt").write_bytes(b"code")
        record = {"format": form, "file": f"{name}.pt", "bytes": 4, "parity": {"passed": True}}
        (run / "export" / f"{name}.json").write_text(json.dumps(record))
    assert [artifact.reason for artifact in find(run)[1:]] == [
        "damaged: all.json says that all.pt is torchscript",
        "damaged: all-half.json says that all-half.pt is all",
        "damaged: onnx.json says that onnx.pt is onnx",
        "damaged: pytorch.json says that pytorch.pt is pytorch",
    ]


def test_a_link_that_leads_back_up_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    child = make_run(run / "compress/qat-aaaaaaaa", method="qat")
    (child / "compress").symlink_to(run / "compress", target_is_directory=True)
    assert [artifact.name for artifact in find(run)] == ["pytorch", "qat"]
