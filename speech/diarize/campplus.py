"""CAM++: the speaker-embedding network of the packaged weights, written after the paper, in PyTorch for GPUs.

Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking",
Interspeech 2023. Module names follow the published state dict (`campplus_cn_en_common.pt`), so that it loads strictly.

The trunk is separate from the pooling: one pass over a chunk serves every speaker in it, each with its own weights.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from speech.diarize.graphs import SEGMENT_FRAMES

EMBEDDING_DIMENSION = 192


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut; `stride` halves the frequency axis only."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class FrontEnd(nn.Module):
    """2-D convolutions over (mel, time): (batch, mel, frames) → (batch, 32 × mel / 8, frames)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.layer2 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x.unsqueeze(1))))
        out = self.layer2(self.layer1(out))
        out = functional.relu(self.bn2(self.conv2(out)))
        return out.flatten(1, 2)


def _nonlinear(channels: int, *, relu: bool = True, affine: bool = True) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [("batchnorm", nn.BatchNorm1d(channels, affine=affine))]
    if relu:
        layers.append(("relu", nn.ReLU()))
    return nn.Sequential(OrderedDict(layers))


class ContextMask(nn.Module):
    """A convolution whose output is scaled by a mask made from the global and the segment's mean."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(channels_in, channels_in // 2, 1)
        self.linear2 = nn.Conv1d(channels_in // 2, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = x.mean(-1, keepdim=True) + self._segment_means(x)
        mask = torch.sigmoid(self.linear2(functional.relu(self.linear1(context))))
        out: Tensor = self.linear_local(x) * mask
        return out

    @staticmethod
    def _segment_means(x: Tensor) -> Tensor:
        # Not avg_pool1d(ceil_mode=True): ONNX runtimes divide the last, shorter segment by the full length.
        frames = int(x.shape[-1])
        segments = -(-frames // SEGMENT_FRAMES)
        padded = functional.pad(x, (0, segments * SEGMENT_FRAMES - frames))
        sums = padded.reshape(*x.shape[:-1], segments, SEGMENT_FRAMES).sum(-1)
        lengths = torch.full((segments,), float(SEGMENT_FRAMES), device=x.device)
        lengths[-1] = frames - (segments - 1) * SEGMENT_FRAMES
        means = (sums / lengths).unsqueeze(-1).expand(-1, -1, -1, SEGMENT_FRAMES)
        out: Tensor = means.flatten(-2)[..., :frames]
        return out


class DenseLayer(nn.Module):
    def __init__(self, channels_in: int, growth: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _nonlinear(channels_in)
        self.linear1 = nn.Conv1d(channels_in, bottleneck, 1, bias=False)
        self.nonlinear2 = _nonlinear(bottleneck)
        self.cam_layer = ContextMask(bottleneck, growth, dilation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))
        return out


class DenseBlock(nn.ModuleDict):
    """Each layer sees all before it, concatenated."""

    def __init__(self, layers: int, channels_in: int, growth: int, dilation: int) -> None:
        super().__init__(
            {f"tdnnd{i + 1}": DenseLayer(channels_in + i * growth, growth, 4 * growth, dilation) for i in range(layers)}
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class TimeDelay(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels_in, channels_out, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _nonlinear(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlinear(self.linear(x))
        return out


class Transition(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.nonlinear = _nonlinear(channels_in)
        self.linear = nn.Conv1d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.nonlinear(x))
        return out


class Projection(nn.Module):
    """Statistics to embedding: (batch, 1024) → (batch, 192)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels_in, channels_out, 1, bias=False)
        self.nonlinear = _nonlinear(channels_out, relu=False, affine=False)

    def forward(self, statistics: Tensor) -> Tensor:
        out: Tensor = self.nonlinear(self.linear(statistics.unsqueeze(-1)).squeeze(-1))
        return out


class CamPlusPlus(nn.Module):
    """The whole network; `trunk` and `head` are used apart."""

    def __init__(self, growth: int = 32, channels: int = 128) -> None:
        super().__init__()
        self.head = FrontEnd()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["tdnn"] = TimeDelay(320, channels)
        for i, (layers, dilation) in enumerate(((12, 1), (24, 2), (16, 2)), start=1):
            parts[f"block{i}"] = DenseBlock(layers, channels, growth, dilation)
            channels += layers * growth
            parts[f"transit{i}"] = Transition(channels, channels // 2)
            channels //= 2
        parts["out_nonlinear"] = _nonlinear(channels)
        parts["dense"] = Projection(2 * channels, EMBEDDING_DIMENSION)
        self.xvector = nn.ModuleDict(parts)

    def trunk(self, features: Tensor) -> Tensor:
        """(batch, frames, 80) mean-normalised log-mel → (batch, 512, frames / 2)."""
        x: Tensor = self.head(features.transpose(1, 2))
        for name, part in self.xvector.items():
            if name != "dense":
                x = part(x)
        return x

    def project(self, statistics: Tensor) -> Tensor:
        """(batch, 1024) mean and standard deviation over time → (batch, 192)."""
        out: Tensor = self.xvector["dense"](statistics)
        return out

    def forward(self, features: Tensor) -> Tensor:
        x = self.trunk(features)
        return self.project(torch.cat([x.mean(-1), x.std(-1, unbiased=True)], dim=-1))


def load_campplus(path: Path) -> CamPlusPlus:
    """The network with the weights of `path` (`campplus_cn_en_common.pt`), in evaluation mode."""
    network = CamPlusPlus()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()
