"""The reference segmenters: a pretrained mobile encoder and a slim U-Net decoder (Ronneberger et al., MICCAI 2015)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from edgeseg.converters.models.blocks import UpBlock
from edgeseg.converters.models.efficientnet_lite0 import EfficientNetLite0Encoder
from edgeseg.converters.models.mobilenetv2 import MobileNetV2Encoder
from edgeseg.errors import BadInput

Encoder = MobileNetV2Encoder | EfficientNetLite0Encoder

ENCODERS: dict[str, Callable[[int, float, bool], Encoder]] = {
    "efficientnet-lite0-unet": EfficientNetLite0Encoder,
    "mobilenetv2-unet": MobileNetV2Encoder,
}


@dataclass(frozen=True, slots=True)
class UNetOptions:
    """What a reference segmenter can vary in.

    Attributes:
        in_channels: 1 (gray) or 3 (RGB).
        classes: number of classes with the background; two classes give one logit, more give one logit each.
        width: factor on the encoder's channels; pretrained weights exist for 1.0.
        decoder: channels of the decoder stages, coarsest first; n stages end at stride 32 / 2^n.
        join: "concat" is the true U-Net, "add" the edge variant.
        upsample: "bilinear" or "nearest" between decoder stages.
        full_resolution: bring the logits to the input's size in the graph (bilinear). Off, they leave at the
            decoder's own stride and the resize to the frame does it all at once: that last upsampling is 15 % of
            the int8 time (docs/decisions.md) and adds nothing that the second resize would keep.
        packed_stem: one layer to stride 4 instead of the encoder's first ones, which are half of its time and little
            of its knowledge; the decoder then has no skip at stride 2.
    """

    in_channels: int = 1
    classes: int = 2
    width: float = 1.0
    decoder: tuple[int, ...] = (96, 48, 32, 16)
    join: str = "concat"
    upsample: str = "bilinear"
    full_resolution: bool = False
    packed_stem: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", tuple(self.decoder))
        checks = (
            (self.in_channels in (1, 3), f"in_channels is {self.in_channels}, expected 1 or 3"),
            (2 <= self.classes <= 255, f"classes is {self.classes}, expected 2 (with the background) to 255"),
            (0.1 <= self.width <= 4, f"width is {self.width}, expected 0.1 to 4"),
            (
                1 <= len(self.decoder) <= 5 and all(c > 0 for c in self.decoder),
                f"decoder is {self.decoder}, expected 1 to 5 positive channel counts",
            ),
            (self.join in ("concat", "add"), f"join is {self.join!r}, expected 'concat' or 'add'"),
            (self.upsample in ("bilinear", "nearest"), f"upsample is {self.upsample!r}, expected bilinear or nearest"),
        )
        for good, message in checks:
            if not good:
                raise BadInput(message)


# Fewer and cheaper operators for int8 kernels, logits at stride 4.
EDGE: dict[str, Any] = {"decoder": (96, 48, 32), "join": "add", "upsample": "nearest"}


class UNet(nn.Module):
    """An encoder of strides 2 to 32 and a decoder of separable convolutions.

    Maps [N, in_channels, H, W] float32, normalised, H and W divisible by 32, to logits [N, L, H / s, W / s] with s the
    decoder's stride (2 by default; 1 with full_resolution); L is 1 for two classes, else the number of classes.
    """

    def __init__(self, name: str, options: UNetOptions) -> None:
        super().__init__()
        self.name = name
        self.options = options
        self.encoder = ENCODERS[name](options.in_channels, options.width, options.packed_stem)
        *skips, current = self.encoder.channels
        joined: list[int] = [*skips[::-1], 0]
        stages = []
        for outputs, skip in zip(options.decoder, joined, strict=False):
            stages.append(UpBlock(current, skip, outputs, options.join, options.upsample))
            current = outputs
        self.decoder = nn.ModuleList(stages)
        self.decoder_stride = 32 >> len(stages)
        self.head = nn.Conv2d(current, 1 if options.classes == 2 else options.classes, 1)
        self.divisor = 32
        self.logit_stride = 1 if options.full_resolution else self.decoder_stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32 to logits [N, L, H / s, W / s] float32."""
        *skips, x = self.encoder(x)
        for index, stage in enumerate(self.decoder):
            x = stage(x, skips[-1 - index] if index < len(skips) else None)
        x = self.head(x)
        if self.logit_stride < self.decoder_stride:
            x = F.interpolate(x, scale_factor=float(self.decoder_stride), mode="bilinear", align_corners=False)
        return x
