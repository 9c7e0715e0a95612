"""The edge student: a plain U-Net of dense 3x3 convolutions, laid out for int8 kernels.

Depthwise and thin layers leave the int8 units of a CPU idle, and a convolution over one input channel leaves three
quarters of them idle. So: channels in multiples of 16, dense convolutions, skip connections that are added, four pixels
of a row as the input channels of the first layer (which costs nothing: they lie side by side in memory), and logits at
stride 4, which the resize to the frame interpolates anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from edgeseg.converters.models.blocks import PackedStem, upsample2
from edgeseg.errors import BadInput


@dataclass(frozen=True, slots=True)
class EdgeUNetOptions:
    """What an edge U-Net can vary in.

    Attributes:
        in_channels: 1 (gray) or 3 (RGB).
        classes: number of classes with the background; two classes give one logit, more give one logit each.
        widths: channels of the stages at strides 4, 8, 16, ...; multiples of 16 keep int8 kernels busy.
        blocks: residual blocks of each stage.
        mixes: 3x3 convolutions after each join of the decoder.
        decoder_stride: where the decoder ends. At 8 the head gives four logits a cell, which are spread to stride 4:
            cheaper than a decoder stage on the largest map.
        stem_rows: height of the first layer's window; 4 (no overlap), 8 or 12 (three cells wide as well).
    """

    in_channels: int = 1
    classes: int = 2
    widths: tuple[int, ...] = (16, 32, 64, 64)
    blocks: tuple[int, ...] = (0, 1, 1, 1)
    mixes: int = 1
    decoder_stride: int = 8
    stem_rows: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        checks = (
            (self.in_channels in (1, 3), f"in_channels is {self.in_channels}, expected 1 or 3"),
            (2 <= self.classes <= 255, f"classes is {self.classes}, expected 2 (with the background) to 255"),
            (
                3 <= len(self.widths) <= 5 and all(w > 0 for w in self.widths),
                f"widths is {self.widths}, expected 3 to 5 positive channel counts",
            ),
            (
                len(self.blocks) == len(self.widths) and all(b >= 0 for b in self.blocks),
                f"blocks is {self.blocks}, expected one count for each of the {len(self.widths)} widths",
            ),
            (0 <= self.mixes <= 4, f"mixes is {self.mixes}, expected 0 to 4"),
            (self.decoder_stride in (4, 8), f"decoder_stride is {self.decoder_stride}, expected 4 or 8"),
            (self.stem_rows in (4, 8, 12), f"stem_rows is {self.stem_rows}, expected 4, 8 or 12"),
        )
        for good, message in checks:
            if not good:
                raise BadInput(message)


class EdgeUNet(nn.Module):
    """Maps [N, in_channels, H, W] float32, normalised, H and W divisible by `divisor`, to logits [N, L, H / 4, W / 4].

    L is 1 for two classes, else the number of classes.
    """

    logit_stride = 4

    def __init__(self, name: str, options: EdgeUNetOptions) -> None:
        super().__init__()
        self.name = name
        self.options = options
        widths = options.widths
        self.divisor = 4 << (len(widths) - 1)
        self.stages = nn.ModuleList(
            nn.Sequential(self._entry(index), *(_Residual(width) for _ in range(options.blocks[index])))
            for index, width in enumerate(widths)
        )
        joins = range(len(widths) - 1, {4: 0, 8: 1}[options.decoder_stride], -1)
        self.reduce = nn.ModuleList(_conv_bn(widths[i], widths[i - 1], 1) for i in joins)
        self.mix = nn.ModuleList(
            nn.Sequential(*(_conv_bn_relu(widths[i - 1], widths[i - 1]) for _ in range(options.mixes))) for i in joins
        )
        self.join = nn.ReLU()
        self.spread = options.decoder_stride // self.logit_stride
        logits = 1 if options.classes == 2 else options.classes
        self.head = nn.Conv2d(widths[joins[-1] - 1], logits * self.spread**2, 1)

    def _entry(self, index: int) -> nn.Module:
        options = self.options
        if index == 0:
            return PackedStem(options.in_channels, options.widths[0], options.stem_rows)
        return _conv_bn_relu(options.widths[index - 1], options.widths[index], 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32 to logits [N, L, H / 4, W / 4] float32."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        for index, (reduce, mix) in enumerate(zip(self.reduce, self.mix, strict=True)):
            x = mix(self.join(upsample2(reduce(x), "nearest") + maps[-2 - index]))
        x = self.head(x)
        return F.pixel_shuffle(x, self.spread) if self.spread > 1 else x


class _Residual(nn.Module):
    """Two 3x3 convolutions and the identity (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv_bn_relu(width, width)
        self.second = _conv_bn(width, width, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.second(self.first(x)))  # type: ignore[no-any-return]


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def _conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_conv_bn(inputs, outputs, 3, stride), nn.ReLU(inplace=True))
