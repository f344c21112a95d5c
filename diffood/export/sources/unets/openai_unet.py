"""The UNet of OpenAI's diffusion repositories: hyper-parameters, and a module with their names.

One writing for improved-diffusion, guided-diffusion, consistency models and DiffOOD's iDDPM (Nichol & Dhariwal 2021;
Dhariwal & Nichol 2021): diffusers' UNet2DModel cannot say how many heads an attention has where that is one number for
all levels.
"""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from diffood.export.sources.unets.checkpoint_config import Blocks, CheckpointConfig, Heads, Levels, Sizes, Width
from diffood.export.sources.unets.edm import CONSISTENCY_TIME, Preconditioning
from diffood.export.sources.unets.scheduler import NoiseSchedule, precondition

GROUPS = 32  # of every group norm
MAX_PERIOD = 10_000  # of the sinusoids of time, Vaswani et al. 2017


class OpenAIConfig(CheckpointConfig):
    """Flags of improved-diffusion, guided-diffusion and consistency models, by their names; defaults are guided's.

    attention_resolutions are image sizes, as in the flags. noise_schedule "edm" and "consistency" are those of Karras
    et al. 2022 and Song et al. 2023 with OpenAI's numbers. Whether there are labels is read from the checkpoint.
    """

    layout: Literal["openai"] = "openai"
    num_channels: Width = 128
    num_res_blocks: Blocks = 2
    channel_mult: Levels
    attention_resolutions: Sizes = (16, 8)
    num_heads: Heads = 4
    num_head_channels: Annotated[int, Field(ge=1, le=4096)] | None = None
    num_heads_upsample: Heads | None = None
    learn_sigma: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    noise_schedule: Literal["linear", "cosine", "edm", "consistency"] = "linear"
    rescale_timesteps: bool = False
    predict_xstart: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "OpenAIConfig":
        widths = [factor * self.num_channels for factor in self.channel_mult]
        if any(width % 32 for width in widths):
            raise ValueError(f"channel_mult makes widths of {widths}; group norms need multiples of 32")
        if self.image_size % 2 ** (len(widths) - 1):
            raise ValueError(f"an image of {self.image_size} cannot be halved {len(widths) - 1} times")
        for heads in (self.num_heads, self.num_heads_upsample or self.num_heads):
            for width in [widths[-1], *(widths[level] for level in self.attention_levels)]:
                each = self.num_head_channels or width / heads
                if width % each or each != int(each):
                    raise ValueError(f"{width:g} channels cannot be split into heads of {each:g}")
        return self

    @property
    def attention_levels(self) -> frozenset[int]:
        """Levels with attention, by halvings from the full size."""
        rates = {self.image_size // size for size in self.attention_resolutions}
        return frozenset(level for level in range(len(self.channel_mult)) if 2**level in rates)

    def build(self, labels: int) -> nn.Module:
        """See CheckpointConfig."""
        with torch.device("meta"):
            return OpenAIUNet(self, labels)

    def schedule(self) -> NoiseSchedule:
        """Of a network with Karras' preconditioning, or as for every other."""
        if self.noise_schedule == "edm":
            how = Preconditioning(self.diffusion_steps, time_scale=CONSISTENCY_TIME)
        elif self.noise_schedule == "consistency":
            how = Preconditioning(self.diffusion_steps, time_scale=CONSISTENCY_TIME, boundary=True, clip=True)
        else:
            return super().schedule()
        return precondition(how, self.schedule_origin)

    def scheduler_config(self) -> dict[str, Any]:
        """Ho et al.'s betas, scaled to the number of steps (improved_diffusion/gaussian_diffusion.py)."""
        scale = 1000 / self.diffusion_steps
        prediction = "sample" if self.predict_xstart else "epsilon"
        return {"beta_start": 1e-4 * scale, "beta_end": 0.02 * scale, "prediction_type": prediction}


class Residual(nn.Module):
    """Two convolutions around the embedding of time and label; resample halves or doubles the image on the way."""

    def __init__(self, config: OpenAIConfig, inputs: int, outputs: int, resample: str = "none") -> None:
        super().__init__()
        self.scale_shift, self.resample = config.use_scale_shift_norm, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(4 * config.num_channels, 2 * outputs if self.scale_shift else outputs)
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

    def __init__(self, config: OpenAIConfig, labels: int) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        heads, heads_upsample = config.num_heads, config.num_heads_upsample or config.num_heads
        widths = [int(factor * config.num_channels) for factor in config.channel_mult]
        wide = 4 * config.num_channels
        self.time_embed = nn.Sequential(nn.Linear(config.num_channels, wide), nn.SiLU(), nn.Linear(wide, wide))
        if labels:
            self.label_emb = nn.Embedding(labels, wide)
        blocks = [Layers(nn.Conv2d(config.in_channels, widths[0], 3, padding=1))]
        width, skipped = widths[0], [widths[0]]
        for level, outputs in enumerate(widths):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [Residual(config, width, outputs)]
                width = outputs
                layers += self.attention(width, level, heads)
                blocks.append(Layers(*layers))
                skipped.append(width)
            if level < len(widths) - 1:
                down = Residual(config, width, width, "down") if config.resblock_updown else Downsample(width)
                blocks.append(Layers(down))
                skipped.append(width)
        self.input_blocks = nn.ModuleList(blocks)
        middle = Attention(width, self.heads(width, heads), config.use_new_attention_order)
        self.middle_block = Layers(Residual(config, width, width), middle, Residual(config, width, width))
        blocks = []
        for level, outputs in reversed(list(enumerate(widths))):
            for number in range(config.num_res_blocks + 1):
                layers = [Residual(config, width + skipped.pop(), outputs)]
                width = outputs
                layers += self.attention(width, level, heads_upsample)
                if level and number == config.num_res_blocks:
                    layers.append(Residual(config, width, width, "up") if config.resblock_updown else Upsample(width))
                blocks.append(Layers(*layers))
        self.output_blocks = nn.ModuleList(blocks)
        outputs = config.in_channels * (2 if config.learn_sigma else 1)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(widths[0], outputs, 3, padding=1),
        )

    def heads(self, width: int, number: int) -> int:
        """Heads of an attention of `width` channels, where `number` is asked for unless their channels are fixed."""
        each = self.config.num_head_channels
        return number if each is None else width // each

    def attention(self, width: int, level: int, number: int) -> list[nn.Module]:
        """An attention where this level has one."""
        if level not in self.config.attention_levels:
            return []
        return [Attention(width, self.heads(width, number), self.config.use_new_attention_order)]

    def embed_time(self, time: torch.Tensor) -> torch.Tensor:
        """Cosines, then sines of time [B] float32 [B, num_channels]; float32 whatever the weights are."""
        half = self.config.num_channels // 2
        rate = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
        scale = 1000 / self.config.diffusion_steps if self.config.rescale_timesteps else 1.0
        angle = (time.float() * scale)[:, None] * rate[None]
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
        if self.labels:
            embedding = embedding + self.label_emb(class_labels)
        seen = []
        for block in self.input_blocks:
            x = block(x, embedding)
            seen.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, seen.pop()], dim=1), embedding)
        return (self.out(x),)
