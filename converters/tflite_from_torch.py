"""fp32 TFLite from the torch source, by litert-torch, with channels last from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeseg.converters.onnx_from_torch import unsupported
from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.types import Format, Precision


@dataclass(frozen=True, slots=True)
class TfliteFromTorch:
    """Convert with NHWC inputs and outputs, so that not one TRANSPOSE is left in the graph."""

    makes: ClassVar[Kind] = (Format.TFLITE, Precision.FP32)
    needs: ClassVar[Kind | None] = None

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.fp32.tflite."""
        out = work.folder / "model.fp32.tflite"
        with quiet():
            import litert_torch

            try:
                network = litert_torch.to_channel_last_io(work.source.network, args=[0], outputs=[0]).train(False)
                example = work.source.example.permute(0, 2, 3, 1).contiguous()
                litert_torch.convert(network, (example,)).export(str(out))
            except Exception as error:
                raise unsupported(error, "TFLite") from error
        return (out,)
