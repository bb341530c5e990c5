"""A report with figures that can be told from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlrun.benching import machine

DEEP = "prune_structured-0.5/quantize_static-a1b2c3d4"
NAMES = [
    *("pytorch", "onnx", "onnx-half", "onnx-uint8", "torchscript", "pt2", "aoti", "prune_structured-0.5"),
    *("prune_structured-0.5/onnx", DEEP, f"{DEEP}/onnx-uint8-half", "prune_unstructured-0.9"),
    *("quantize_static", "quantize_dynamic", "qat"),
]
RUNTIMES = ["PyTorch", "ONNX Runtime", "TorchScript", "torch.export", "AOTInductor"]


def made_up(names: Sequence[str], batch_sizes: Sequence[int] = (1, 8, 64), accuracy: bool = True) -> dict[str, Any]:
    """The artifact of place i is 0.2 i per cent worse, and as fast and as large as 1 + i / 10 says."""
    rows = []
    for place, name in enumerate(names):
        slower = 1 + place / 10
        rows.append(
            {
                "name": name,
                "status": "measured",
                "reason": None,
                "runtime": RUNTIMES[place % len(RUNTIMES)],
                "accuracy": 0.991 - 0.002 * place if accuracy else None,
                "accuracy_change": -0.002 * place if accuracy else None,
                "bytes": int(666_666 * slower),
                "parameters": 164_298,
                "nonzero_parameters": 164_298,
                "flops_per_sample": 1_360_000,
                "memory_bytes": 27_000_000,
                "latency": {
                    str(size): {
                        "p50_ms": size * slower,
                        "p99_ms": 2 * size * slower,
                        "samples_per_second": 1000 / slower,
                    }
                    for size in batch_sizes
                },
            }
        )
    return {
        "title": "cnn on digits, run 3fa9c1xz",
        "time": "2026-11-23T10:00:00+00:00",
        "rows": rows,
        "batch_sizes": list(batch_sizes),
        "threads": 2,
        "device": "cpu",
        "machine": machine.description(),
        "notes": ["what is counted"],
    }
