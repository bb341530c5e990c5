"""`dlrun export`: what it writes, what it finds out, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import CommandLine

import dlrun as package
from dlrun.exporting.runtime import open_artifact

QUICK = ["tracking=none", "augment=none", "trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
CNN = ["model=cnn", "model.channels=[4,8]", "model.hidden_size=16", "data=digits"]
TEXT = ["model=lstm", "model.embedding_dim=8", "model.hidden_size=8", "data=text_csv", "data.root=data"]
TEXT += ["data.file=reviews.csv", "data.max_length=10"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs to be copied: `cnn` on digits, `lstm` on a CSV that can go away."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "data").mkdir()
    rows = [f"{word} number {i} is a word,{'even' if i % 2 == 0 else 'odd'}" for i, word in enumerate("abcdefghij" * 8)]
    (folder / "data/reviews.csv").write_text("\n".join(["text,label", *rows]))
    from dlrun.cli import main

    for name, words in (("cnn", CNN), ("lstm", TEXT)):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr("sys.argv", ["dlrun", *QUICK, *words, f"hydra.run.dir={name}"])
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 0
    return folder


@pytest.fixture
def runs(trained: Path, dlrun: CommandLine) -> CommandLine:
    shutil.copytree(trained, dlrun.folder, dirs_exist_ok=True)
    return dlrun


def told(name: str) -> dict[str, Any]:
    return dict(json.loads(Path(name).read_text()))


def test_an_onnx_of_a_run(runs: CommandLine) -> None:
    result = runs("export", "run=cnn", "format=onnx")
    assert result.code == 0, result.err
    assert [line.split()[0] for line in result.out.splitlines()] == ["takes", "equal", "test", "file"]
    assert sorted(path.name for path in Path("cnn/export").iterdir()) == ["onnx.json", "onnx.onnx"]
    said, file = told("cnn/export/onnx.json"), Path("cnn/export/onnx.onnx")
    assert (said["file"], said["bytes"]) == (file.name, file.stat().st_size)
    assert said["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert said["parity"]["passed"]
    assert said["parity"]["batch_sizes"] == [1, 2, 7, 64]
    summary = told("cnn/summary.json")
    assert said["test"]["acc"] == summary["test"]["test/acc"]
    assert said["test"]["loss"] == pytest.approx(summary["test"]["test/loss"], abs=1e-5)

    run, session = package.load_run("cnn", device="cpu"), onnxruntime.InferenceSession(file)
    inputs, _ = next(run.batches("test").epoch(0))
    with torch.no_grad():
        wanted = run.network(inputs).numpy()
    np.testing.assert_allclose(session.run(None, {"input": inputs.numpy()})[0], wanted, rtol=0, atol=1e-5)
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["class_names"]) == list(run.class_names)
    assert (texts["run_id"], texts["dlrun_version"]) == (run.run_id, package.__version__)


@pytest.mark.parametrize(
    ("words", "file", "dtype"),
    [
        (["format=onnx", "half=true", "preprocess=true"], "onnx-half-uint8.onnx", torch.uint8),
        (["format=pt2", "preprocess=true"], "pt2-uint8.pt2", torch.uint8),
        (["format=torchscript", "half=true"], "torchscript-half.pt", torch.float32),
    ],
)
def test_options_are_in_the_name_and_in_the_graph(
    words: list[str], file: str, dtype: torch.dtype, runs: CommandLine
) -> None:
    result = runs("export", "run=cnn", *words)
    assert result.code == 0, result.err
    artifact = open_artifact(Path("cnn/export", file))  # known, since it was made here
    assert artifact.metadata["input_dtype"] == str(dtype).partition(".")[2]
    shape = (3, 8, 8, 1) if dtype == torch.uint8 else (3, 1, 8, 8)
    assert artifact(torch.ones(shape, dtype=dtype)).shape == (3, 10)
    assert (
        abs(told(f"cnn/export/{Path(file).stem}.json")["test"]["acc"] - told("cnn/summary.json")["test"]["test/acc"])
        < 0.02
    )
    assert ("deprecated by PyTorch: format=pt2 replaces it" in result.out + result.err) == (
        words[0] == "format=torchscript"
    )


def test_a_file_out_of_tolerance_is_marked(runs: CommandLine) -> None:
    assert runs("export", "run=cnn", "format=onnx").code == 0
    result = runs("export", "run=cnn", "format=onnx", "tolerance=1e-12")
    assert result.code == 1
    assert "failed: the error is above the tolerance, 1e-12" in result.out + result.err
    assert sorted(path.name for path in Path("cnn/export").iterdir()) == ["onnx.failed.onnx", "onnx.json"]
    said = told("cnn/export/onnx.json")
    assert (said["file"], said["parity"]["passed"]) == ("onnx.failed.onnx", False)
    assert runs("export", "run=cnn", "format=onnx").code == 0
    assert sorted(path.name for path in Path("cnn/export").iterdir()) == ["onnx.json", "onnx.onnx"]


def test_a_text_run_whose_data_is_gone(runs: CommandLine) -> None:
    with_data = runs("export", "run=lstm", "format=onnx")
    assert with_data.code == 0, with_data.err
    assert len(told("lstm/export/onnx.json")["parity"]["lengths"]) >= 3
    shutil.rmtree("data")
    result = runs("export", "run=lstm", "format=onnx")
    assert result.code == 0
    assert "checked on random inputs" in result.out + result.err
    said = told("lstm/export/onnx.json")
    assert (said["test"], said["parity"]["inputs"], said["parity"]["passed"]) == (None, "random", True)
    texts = open_artifact(Path("lstm/export/onnx.onnx")).metadata
    from tokenizers import Tokenizer

    assert Tokenizer.from_str(texts["tokenizer"]).get_vocab_size() == package.load_run("lstm").spec.vocab_size


def test_int8_goes_along_and_is_held_against_this_run(runs: CommandLine) -> None:
    """As `dlrun compress` leaves it: a run folder that names its parent, with checkpoints/int8.onnx."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    assert runs("export", "run=cnn", "format=onnx").code == 0
    small, run_id = Path("cnn/compress/small"), told("cnn/summary.json")["run_id"]
    (small / "checkpoints").mkdir(parents=True)
    (small / "summary.json").write_text(json.dumps({"run_id": "small", "parent": {"run_id": run_id, "path": "../.."}}))
    quantize_dynamic("cnn/export/onnx.onnx", small / "checkpoints/int8.onnx", weight_type=QuantType.QUInt8)
    result = runs("export", "run=cnn", "format=onnx", f"quantized={small}")
    assert result.code == 0, result.err
    said = told("cnn/export/onnx-int8.json")
    assert said["parity"]["measure"] == "disagreement"
    assert said["parity"]["agreement"] >= 0.95
    assert said["parity"]["max_error"] > 1e-4
    assert open_artifact(Path("cnn/export/onnx-int8.onnx")).metadata["precision"] == "int8"
    for words, why in (
        (["format=pt2"], "quantized: an int8 net is ONNX Runtime's"),
        (["format=onnx", "half=true"], "half: the int8 file is copied as it was calibrated"),
    ):
        refused = runs("export", "run=cnn", *words, f"quantized={small}")
        assert (refused.code, why in refused.err) == (2, True), refused.err
    other = runs("export", "run=lstm", "format=onnx", f"quantized={small}")
    assert other.code == 2
    assert "wasn't made from run" in other.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["run=cnn"], "format: is missing; see dlrun export --help"),
        (["run=cnn", "format=onx"], "format: unknown format 'onx'; did you mean 'onnx'?"),
        (["run=cnn", "format=onnx", "haf=true"], "haf: unknown option of export; did you mean 'half'?"),
        (["run=cnn", "format=onnx", "half=3"], "half: expected true or false"),
        (["run=cnn", "format=onnx", "tolerance=0"], "tolerance: expected a number > 0"),
        (["run=cnn", "format=pt2", "checkpoint=lst"], "checkpoint: expected one of 'best', 'last'"),
        (["run=data", "format=onnx"], "no run in data"),
        (["run=nowhere", "format=onnx"], "no folder 'nowhere'"),
        (["run=lstm", "format=onnx", "preprocess=true"], "preprocess: a graph takes token ids"),
        (["run=lstm", "format=onnx", "data.file=reviws.csv"], "data.file: can't read data/reviws.csv"),
        (["run=cnn", "format=onnx", "quantized=lstm"], "quantized: lstm wasn't made from run"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words: list[str], why: str, runs: CommandLine) -> None:
    result = runs("export", *words)
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert why in result.err
    assert not list(Path().glob("*/export/*"))


def test_without_a_compiler_or_a_library(runs: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = runs("export", "run=cnn", "format=aoti")
    assert (result.code, result.err) == (
        2,
        "dlrun: format=aoti needs a C++ compiler, and there is no no-such-compiler: install g++, or take pt2\n",
    )
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = runs("export", "run=cnn", "format=onnx")
    assert result.code == 2
    assert "pip install 'dlrun[export]'" in result.err


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_a_disk_that_is_full(form: str, runs: CommandLine) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        result = runs("export", "run=cnn", f"format={form}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("dlrun: can't write cnn/export/")
    assert "File too large" in result.err
    assert list(Path("cnn/export").iterdir()) == []


def test_what_another_process_exports_stays_and_what_a_killed_one_left_goes(runs: CommandLine) -> None:
    for name in ("busy", "left"):
        Path("cnn/export/.onnx." + name).mkdir(parents=True)
    hold = "import sys; from pathlib import Path; from dlrun.locks import hold; hold(Path(sys.argv[1])); print()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; sys.stdout.flush(); sys.stdin.read()", "cnn/export/.onnx.busy/.lock"],
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert runs("export", "run=cnn", "format=onnx").code == 0
    assert sorted(path.name for path in Path("cnn/export").iterdir()) == [".onnx.busy", "onnx.json", "onnx.onnx"]
    process.communicate()
    assert runs("export", "run=cnn", "format=onnx").code == 0
    assert sorted(path.name for path in Path("cnn/export").iterdir()) == ["onnx.json", "onnx.onnx"]


def test_a_damaged_checkpoint(runs: CommandLine) -> None:
    file = Path("cnn/checkpoints/best.pt")
    file.write_bytes(file.read_bytes()[:2000])
    result = runs("export", "run=cnn", "format=onnx")
    assert (result.code, "is damaged" in result.err) == (2, True)
    file.unlink()
    result = runs("export", "run=cnn", "format=onnx")
    assert (result.code, "checkpoint=last is there" in result.err) == (2, True)
    assert not Path("cnn/export").exists()


def test_a_cache_that_is_closed_to_us(runs: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a note of it the file couldn't be opened again to be checked."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    result = runs("export", "run=cnn", "format=torchscript")
    assert (result.code, len(result.err.splitlines())) == (2, 2), result.err  # the first is on TorchScript's end
    assert "can't note there what was exported (Not a directory)" in result.err
    assert list(Path("cnn/export").iterdir()) == []


@pytest.mark.slow
def test_a_signal_leaves_nothing_half_written(runs: CommandLine) -> None:
    command = [sys.executable, "-m", "dlrun", "export", "run=cnn", "format=aoti"]
    root = Path(package.__file__).parent.parent
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE)
    while not list(Path("cnn").glob("export/.aoti.*")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)  # within the compilation
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert list(Path("cnn/export").iterdir()) == []
