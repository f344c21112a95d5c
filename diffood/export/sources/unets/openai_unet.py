"""The UNet of OpenAI's diffusion repositories as a torch module, with the names of their checkpoints.

One writing for improved-diffusion, guided-diffusion, consistency models and DiffOOD's iDDPM (Nichol & Dhariwal 2021;
Dhariwal & Nichol 2021): diffusers' UNet2DModel cannot say how many heads an attention has where that is one number for
all levels.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

GROUPS = 32  # of every group norm
MAX_PERIOD = 10_000  # of the sinusoids of time, Vaswani et al. 2017


@dataclass(frozen=True)
class Shape:
    """Hyper-parameters, as OpenAI's flags name them; attention_levels counts halvings from the full size, 0 first.

    heads: (number, channels of one); the number holds where channels is None. time_scale multiplies the time asked at.
    """

    channels: int
    outputs: int
    num_channels: int
    num_res_blocks: int
    channel_mult: tuple[float, ...]
    attention_levels: frozenset[int]
    heads: tuple[int, int | None]
    heads_upsample: int
    scale_shift: bool
    resblock_updown: bool
    new_attention_order: bool
    labels: int
    time_scale: float


class Residual(nn.Module):
    """Two convolutions around the embedding of time and label; resample halves or doubles the image on the way."""

    def __init__(self, shape: Shape, inputs: int, outputs: int, resample: str = "none") -> None:
        super().__init__()
        self.scale_shift, self.resample = shape.scale_shift, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(4 * shape.num_channels, 2 * outputs if shape.scale_shift else outputs)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Dropout(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def resize(self, x: torch.Tensor) -> torch.Tensor:
        """Halve by the mean of 2x2, double by repeating, or leave as it is."""
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Images [B, inputs, H, W] -> [B, outputs, H', W']."""
        norm, act, conv = self.in_layers
        hidden = conv(self.resize(act(norm(x))))
        added = self.emb_layers(embedding)[:, :, None, None]
        norm, act, dropout, conv = self.out_layers
        if self.scale_shift:
            scale, shift = added.chunk(2, dim=1)
            hidden = norm(hidden) * (1 + scale) + shift
        else:
            hidden = norm(hidden + added)
        out: torch.Tensor = self.skip_connection(self.resize(x)) + conv(dropout(act(hidden)))
        return out


class Attention(nn.Module):
    """Self-attention over all pixels. Among the channels of qkv, heads come first, or with new_order q, k and v.

    The 1x1 convolutions of the checkpoints are matrices here.
    """

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] -> the same shape."""
        channels, height, width = x.shape[1:]  # numbers; the batch's size is not
        qkv = self.qkv(self.norm(x).flatten(2).transpose(1, 2))
        each = channels // self.heads
        if self.new_order:
            q, k, v = qkv.unflatten(2, (3, self.heads, each)).unbind(2)
        else:
            q, k, v = qkv.unflatten(2, (self.heads, 3, each)).unbind(3)
        mixed = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        out: torch.Tensor = self.proj_out(mixed.transpose(1, 2).flatten(2))
        return x + out.transpose(1, 2).reshape(-1, channels, height, width)


class Downsample(nn.Module):
    """Halves the image by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] -> [B, C, H/2, W/2]."""
        out: torch.Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Doubles the image by repeating pixels, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] -> [B, C, 2H, 2W]."""
        out: torch.Tensor = self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class Layers(nn.Sequential):
    """Layers in turn; residual blocks get the embedding too."""

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Run them all."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, Residual) else layer(x)
        return x


class OpenAIUNet(nn.Module):
    """x [B, C, H, W], time [B], class_labels int64 [B] or None -> ([B, outputs, H, W],), as UNet2DModel gives it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths = [int(factor * shape.num_channels) for factor in shape.channel_mult]
        wide = 4 * shape.num_channels
        self.time_embed = nn.Sequential(nn.Linear(shape.num_channels, wide), nn.SiLU(), nn.Linear(wide, wide))
        if shape.labels:
            self.label_emb = nn.Embedding(shape.labels, wide)
        blocks = [Layers(nn.Conv2d(shape.channels, widths[0], 3, padding=1))]
        width, skipped = widths[0], [widths[0]]
        for level, outputs in enumerate(widths):
            for _ in range(shape.num_res_blocks):
                layers: list[nn.Module] = [Residual(shape, width, outputs)]
                width = outputs
                layers += self.attention(width, level, shape.heads[0])
                blocks.append(Layers(*layers))
                skipped.append(width)
            if level < len(widths) - 1:
                down = Residual(shape, width, width, "down") if shape.resblock_updown else Downsample(width)
                blocks.append(Layers(down))
                skipped.append(width)
        self.input_blocks = nn.ModuleList(blocks)
        middle = Attention(width, self.heads(width, shape.heads[0]), shape.new_attention_order)
        self.middle_block = Layers(Residual(shape, width, width), middle, Residual(shape, width, width))
        blocks = []
        for level, outputs in reversed(list(enumerate(widths))):
            for number in range(shape.num_res_blocks + 1):
                layers = [Residual(shape, width + skipped.pop(), outputs)]
                width = outputs
                layers += self.attention(width, level, shape.heads_upsample)
                if level and number == shape.num_res_blocks:
                    layers.append(Residual(shape, width, width, "up") if shape.resblock_updown else Upsample(width))
                blocks.append(Layers(*layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(widths[0], shape.outputs, 3, padding=1)
        )

    def heads(self, width: int, number: int) -> int:
        """Heads of an attention of `width` channels, where `number` is asked for unless their channels are fixed."""
        each = self.shape.heads[1]
        return number if each is None else width // each

    def attention(self, width: int, level: int, number: int) -> list[nn.Module]:
        """An attention where this level has one."""
        if level not in self.shape.attention_levels:
            return []
        return [Attention(width, self.heads(width, number), self.shape.new_attention_order)]

    def embed_time(self, time: torch.Tensor) -> torch.Tensor:
        """Cosines, then sines of time [B] float32 [B, num_channels]; float32 whatever the weights are."""
        half = self.shape.num_channels // 2
        rate = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
        angle = (time.float() * self.shape.time_scale)[:, None] * rate[None]
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    def forward(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """Evaluate the network."""
        embedding = self.time_embed(self.embed_time(time).to(x.dtype))
        if self.shape.labels:
            embedding = embedding + self.label_emb(class_labels)
        seen = []
        for block in self.input_blocks:
            x = block(x, embedding)
            seen.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, seen.pop()], dim=1), embedding)
        return (self.out(x),)
