"""MobileNetV2 (Sandler et al., CVPR 2018) as an encoder, with the key names of torchvision's `mobilenet_v2`."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.converters.models.blocks import ConvBnRelu6, PackedStem, scaled

# expansion, channels, repeats, stride of the first: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_SKIPS = (1, 3, 6, 13)  # the last feature of each stride 2, 4, 8, 16


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1, with a shortcut where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [ConvBnRelu6(inputs, hidden, 1)]
        self.conv = nn.Sequential(
            *expand,
            ConvBnRelu6(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, h / stride, w / stride]."""
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2Encoder(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32, or from stride 4 on with a packed stem.

    The classifier and its 1x1 convolution to 1280 channels (`features.18`) are left out: no skip uses them. A packed
    stem stands in the place of the first three features; the others keep their names and their weights.

    Attributes:
        channels: of the features, finest first.
    """

    def __init__(self, in_channels: int = 3, width: float = 1.0, packed_stem: bool = False) -> None:
        super().__init__()
        current = scaled(32, width)
        layers: list[nn.Module] = [ConvBnRelu6(in_channels, current, 3, 2)]
        sizes = [current]
        for expansion, channels, repeats, stride in _STAGES:
            for index in range(repeats):
                outputs = scaled(channels, width)
                layers.append(InvertedResidual(current, outputs, stride if index == 0 else 1, expansion))
                current = outputs
                sizes.append(current)
        self.skips: tuple[int, ...] = _SKIPS
        if packed_stem:
            layers[:3] = [nn.Identity(), nn.Identity(), PackedStem(in_channels, sizes[2], 8)]
            self.skips = _SKIPS[1:]
        self.features = nn.ModuleList(layers)
        self.channels = (*(sizes[i] for i in self.skips), current)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] to maps of strides 2 (without a packed stem), 4, 8, 16, 32."""
        skips = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.skips:
                skips.append(x)
        return (*skips, x)
