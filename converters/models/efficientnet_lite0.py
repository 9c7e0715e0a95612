"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variants have ReLU6 and no squeeze-excite) as an encoder.

Key names are those of timm's `efficientnet_lite0` and `tf_efficientnet_lite0`. Padding is symmetric; weights trained
with TensorFlow's asymmetric SAME padding see the same function on an image shifted by one pixel a stride, up to the
border, which fine-tuning absorbs.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.converters.models.blocks import PackedStem, scaled

# kernel, stride of the first, expansion, channels, repeats
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_SKIPS = (0, 1, 2, 4)  # the last stage of each stride 2, 4, 8, 16
_EPS = 1e-3  # TensorFlow's batch norm, which these weights were trained with


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class DepthwiseSeparable(nn.Module):
    """The first block: depthwise, then pointwise without activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(inputs, inputs, kernel, stride, inputs)
        self.bn1 = nn.BatchNorm2d(inputs, eps=_EPS)
        self.act = nn.ReLU6(inplace=True)
        self.conv_pw = _conv(inputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, h / stride, w / stride]."""
        y: Tensor = self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))
        return x + y if self.shortcut else y


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1, with a shortcut where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv_pw = _conv(inputs, hidden)
        self.bn1 = nn.BatchNorm2d(hidden, eps=_EPS)
        self.conv_dw = _conv(hidden, hidden, kernel, stride, hidden)
        self.bn2 = nn.BatchNorm2d(hidden, eps=_EPS)
        self.conv_pwl = _conv(hidden, outputs)
        self.bn3 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.act = nn.ReLU6(inplace=True)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, h / stride, w / stride]."""
        y: Tensor = self.act(self.bn1(self.conv_pw(x)))
        y = self.act(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.shortcut else y


class EfficientNetLite0Encoder(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32, or from stride 4 on with a packed stem.

    The head convolution and classifier are left out. A packed stem stands in the place of everything up to the first
    block of stride 4; the others keep their names and their weights.

    Attributes:
        channels: of the features, finest first.
    """

    def __init__(self, in_channels: int = 3, width: float = 1.0, packed_stem: bool = False) -> None:
        super().__init__()
        current = scaled(32, width)
        if not packed_stem:
            self.conv_stem = _conv(in_channels, current, 3, 2)
            self.bn1 = nn.BatchNorm2d(current, eps=_EPS)
        self.act = nn.ReLU6(inplace=True)
        stages = []
        sizes = []
        for kernel, stride, expansion, channels, repeats in _STAGES:
            outputs = scaled(channels, width)
            blocks: list[nn.Module] = []
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(
                    DepthwiseSeparable(current, outputs, kernel, step)
                    if expansion == 1
                    else InvertedResidual(current, outputs, kernel, step, expansion)
                )
                current = outputs
            stages.append(nn.Sequential(*blocks))
            sizes.append(current)
        self.skips: tuple[int, ...] = _SKIPS
        self.packed_stem = packed_stem
        if packed_stem:
            stages[0] = nn.Sequential()
            stages[1][0] = PackedStem(in_channels, sizes[1], 8)
            self.skips = _SKIPS[1:]
        self.blocks = nn.ModuleList(stages)
        self.channels = (*(sizes[i] for i in self.skips), current)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] to maps of strides 2 (without a packed stem), 4, 8, 16, 32."""
        if not self.packed_stem:
            x = self.act(self.bn1(self.conv_stem(x)))
        skips = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self.skips:
                skips.append(x)
        return (*skips, x)
