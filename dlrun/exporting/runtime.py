"""An exported file, opened: a module that is called like the model it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import UserError


class Runner(nn.Module):
    """What an exported file computes: prepared inputs → logits (B, K), and `metadata`, the texts that it carries."""

    metadata: dict[str, str]

    def __init__(self, path: Path, metadata: dict[str, str]):
        super().__init__()
        self.path, self.metadata = path, metadata


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


def open_artifact(path: Path, *, threads: int | None = None) -> Runner:
    """Open an exported file. Raises UserError if it can't be read."""
    if not path.exists():
        raise UserError(f"there is no file {path}")
    return OnnxRunner(path, threads).eval()


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} can't be read: {str(error).partition(chr(10))[0]}")
