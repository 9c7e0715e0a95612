"""The few layers the reference segmenters are made of: only operators that every edge engine runs in int8."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

PACKED = 4


class ConvBnRelu6(nn.Sequential):
    """Convolution, batch norm, ReLU6. Keys `0.weight`, `1.*` as torchvision's Conv2dNormActivation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 and pointwise 1x1, each with batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(ConvBnRelu6(inputs, inputs, 3, groups=inputs), ConvBnRelu6(inputs, outputs, 1))


class UpBlock(nn.Module):
    """Reduce channels, double the size, join the skip connection, mix.

    The reduction comes before the upsampling: a 1x1 convolution and a bilinear resize commute, and it costs a quarter
    on the smaller map.

    Args:
        inputs: channels of the coarser map.
        skip: channels of the skip connection; 0 where there is none.
        outputs: channels of the result.
        join: "concat" (U-Net) or "add" (after a 1x1 projection; cheaper, prunes cleanly).
        upsample: "bilinear" or "nearest".
    """

    def __init__(self, inputs: int, skip: int, outputs: int, join: str, upsample: str) -> None:
        super().__init__()
        self.upsample = upsample
        self.reduce = ConvBnRelu6(inputs, outputs, 1)
        self.project = (
            nn.Sequential(nn.Conv2d(skip, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
            if join == "add" and skip
            else None
        )
        self.mix = SeparableConv(outputs + (skip if join == "concat" else 0), outputs)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """[N, inputs, h, w] and [N, skip, 2h, 2w] to [N, outputs, 2h, 2w]."""
        x = upsample2(self.reduce(x), self.upsample)
        if skip is None:
            return self.mix(x)  # type: ignore[no-any-return]
        joined = torch.cat((x, skip), 1) if self.project is None else x + self.project(skip)
        return self.mix(joined)  # type: ignore[no-any-return]


class PackedStem(nn.Module):
    """Stride 4 in one layer: four pixels of a row become channels, then a convolution of stride (4, 1).

    For one channel the packing is a view of the same memory, channels last; int8 kernels multiply four input channels
    at a time, and leave three quarters of their units idle on one.

    Args:
        inputs: 1 or 3.
        outputs: channels of the result.
        rows: height of the window: 4 (cells do not overlap), or 8 or 12 (and three cells wide).
    """

    def __init__(self, inputs: int, outputs: int, rows: int) -> None:
        super().__init__()
        self.inputs = inputs
        columns = 1 if rows == PACKED else 3
        padding = ((rows - PACKED) // 2, columns // 2)
        self.conv = nn.Conv2d(PACKED * inputs, outputs, (rows, columns), (PACKED, 1), padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / 4, W / 4]; H and W divisible by 4."""
        c = self.inputs
        n, _, h, w = x.shape
        if c == 1:
            packed = x.reshape(n, h, w // PACKED, PACKED).permute(0, 3, 1, 2)
        else:
            cells = x.reshape(n, c, h, w // PACKED, PACKED).permute(0, 1, 4, 2, 3)
            packed = cells.reshape(n, c * PACKED, h, w // PACKED)
        return self.relu(self.bn(self.conv(packed)))  # type: ignore[no-any-return]


def upsample2(x: Tensor, mode: str) -> Tensor:
    """Double height and width; half-pixel centres for bilinear, as cv2.resize has them."""
    if mode == "nearest":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.interpolate(x, scale_factor=2.0, mode=mode, align_corners=False)


def scaled(channels: int, width: float) -> int:
    """Channels times a width factor, rounded to a multiple of 8 and never under 90 % (Sandler et al. 2018)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded
