"""What is opened, and what is refused since it could run code."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch
from nets import SPECS, batch, net

from dlrun.errors import UserError
from dlrun.exporting import own_packages, pt2, torchscript
from dlrun.exporting.onnx import write as write_onnx
from dlrun.exporting.runtime import open_artifact


class Writes(torch.nn.Module):
    """A TorchScript program that writes a file as it is loaded."""

    def __init__(self, target: str):
        super().__init__()
        self.target = target

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target, self.training = state[0], state[1]
        torch.save(torch.ones(1), self.target)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def hostile_pt2(path: Path, target: Path) -> None:
    """A .pt2 whose sizes are Python: torch.export.load evaluates them."""
    pt2.write(net("mlp", "tabular"), SPECS["tabular"], path, {})
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in content if name.endswith(".json") and "models/" in name)
    code = f"__import__('pathlib').Path('{target}').touch()"
    content[name] = re.sub(rb'"expr_str": "[^"]*"', f'"expr_str": "{code}"'.encode(), content[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_strangers_torchscript_is_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / "written"
    torch.jit.save(torch.jit.script(Writes(str(target))), tmp_path / "net.pt")
    target.unlink(missing_ok=True)
    with pytest.raises(UserError, match="can run code when it is opened, and it wasn't exported here"):
        open_artifact(tmp_path / "net.pt")
    assert not target.exists()
    torch.jit.load(tmp_path / "net.pt")
    assert target.exists()  # which is why


def test_a_strangers_pt2_is_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / "written"
    hostile_pt2(tmp_path / "net.pt2", target)
    with pytest.raises(UserError, match="can run code when it is opened, and it wasn't exported here"):
        open_artifact(tmp_path / "net.pt2")
    assert not target.exists()
    with pytest.raises(UserError, match="can't be read"):
        open_artifact(tmp_path / "net.pt2", trusted=True)
    assert target.exists()  # which is why


def test_what_was_exported_here_is_opened_as_long_as_no_byte_differs(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torchscript.write(net("mlp", "tabular"), SPECS["tabular"], path, {"run_id": "abc"})
    assert not own_packages.known(path)
    own_packages.remember(path)
    elsewhere = path.rename(tmp_path / "moved.pt")
    assert open_artifact(elsewhere).metadata == {"run_id": "abc"}
    content = bytearray(elsewhere.read_bytes())
    content[-1] ^= 1
    elsewhere.write_bytes(content)
    with pytest.raises(UserError, match="wasn't exported here"):
        open_artifact(elsewhere)


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".pt2"])
def test_a_damaged_file_is_one_line(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"net{suffix}").write_bytes(b"no net at all")
    with pytest.raises(UserError, match=r"net\.[a-z0-9]+ can't be read: "):
        open_artifact(tmp_path / f"net{suffix}", trusted=True)
    with pytest.raises(UserError, match=r"there is no file .*other"):
        open_artifact(tmp_path / f"other{suffix}")


def test_a_runner_is_a_module_that_stays_in_eval_mode(tmp_path: Path) -> None:
    model, inputs = net("mlp", "tabular"), batch("tabular", 4)
    write_onnx(model, SPECS["tabular"], tmp_path / "net.onnx", {})
    pt2.write(model, SPECS["tabular"], tmp_path / "net.pt2", {})
    for name in ("net.onnx", "net.pt2"):
        file = open_artifact(tmp_path / name, threads=1, trusted=True)
        with torch.no_grad():
            wanted = file(inputs)
            assert torch.allclose(wanted, model(inputs), atol=1e-6)
            file.train()
            file.eval()
            assert torch.equal(file(inputs), wanted)
            strided = inputs.t().contiguous().t()  # the same numbers in another order of memory
            assert torch.equal(file(strided), wanted)
