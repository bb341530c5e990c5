"""An exported file, opened: a module that is called like the model it was made from."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.exporting import metadata, own_packages
from dlrun.exporting.quiet import quiet


class Runner(nn.Module):
    """What an exported file computes: inputs → logits (B, K), and `metadata`, the texts that it carries."""

    metadata: dict[str, str]

    def __init__(self, path: Path, texts: dict[str, str]):
        super().__init__()
        self.path, self.metadata = path, texts


class OnnxRunner(Runner):
    """ONNX Runtime on the CPU, by `threads` threads (as many as torch has), which don't spin once a call is done."""

    def __init__(self, path: Path, threads: int | None = None):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"running {path.name} needs onnxruntime: pip install 'dlrun[export]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; they are raised besides
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of a dozen classes of its own
            raise _unreadable(path, error) from error
        super().__init__(path, dict(session.get_modelmeta().custom_metadata_map))
        self.session = session
        self.input, self.output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: list[Any] = self.session.run([self.output], {self.input: inputs.detach().cpu().contiguous().numpy()})
        return torch.from_numpy(outputs[0]).to(inputs.device)


class TorchRunner(Runner):
    """What torch itself runs: `called` is TorchScript, torch.export's graph or AOTInductor's package."""

    def __init__(self, path: Path, texts: dict[str, str], called: Any):
        super().__init__(path, texts)
        self.called = called

    def train(self, mode: bool = True) -> TorchRunner:
        """A file is as it was made, in eval mode; torch.export's modules raise when they are told so."""
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.called(_in_order(inputs))
        return logits


def _in_order(inputs: Tensor) -> Tensor:
    """With the strides of a new tensor: compiled code takes its example's for granted, and says nothing.

    `contiguous()` isn't enough: it leaves pictures of one channel that are channels_last, since their bytes lie the
    same, and the convolution then gives what follows it the other order.
    """
    strides = [1]
    for size in reversed(inputs.shape[1:]):
        strides.append(strides[-1] * size)
    if inputs.stride() == tuple(reversed(strides)):
        return inputs
    return torch.empty(inputs.shape, dtype=inputs.dtype, device=inputs.device).copy_(inputs)


def open_artifact(path: Path, *, threads: int | None = None, trusted: bool = False) -> Runner:
    """Open an exported file: .onnx, TorchScript's .pt, and .pt2 of torch.export or AOTInductor.

    `threads` are ONNX Runtime's own, or else torch's, of the whole process. Raises UserError if the file can't be read;
    and if it could run code, and was neither exported by this user on this machine nor is `trusted`.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == ".onnx":
        return OnnxRunner(path, threads).eval()
    if path.suffix not in (".pt", ".pt2"):
        raise UserError(f"{path}: expected a file that ends in .onnx, .pt or .pt2")
    if not trusted and not own_packages.known(path):
        raise UserError(f"{path} is refused: such a file can run code when it is opened, and it wasn't exported here")
    texts = metadata.read(path)
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    try:
        with quiet():
            called = _load(path)
    except Exception as error:  # torch raises all sorts of them on a file that isn't its own
        raise _unreadable(path, error) from error
    return TorchRunner(path, texts, called)


def _load(path: Path) -> Any:
    if path.suffix == ".pt":
        return torch.jit.load(path).eval()
    with zipfile.ZipFile(path) as archive:
        package = metadata.is_package(archive)
    return torch._inductor.aoti_load_package(path) if package else torch.export.load(path).module()


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} can't be read: {str(error).partition(chr(10))[0]}")
