"""Published UNets written once more, as plain functions over a state dict with the published names and shapes.

From openai/improved-diffusion, openai/guided-diffusion, openai/consistency_models (MIT) and luping-liu/DiffOOD
(Apache-2.0), read and written anew; no module of diffood or diffusers is used.
"""

import math
from dataclasses import dataclass, field

import torch
from torch.nn import functional as f

Tensor = torch.Tensor


@dataclass
class Draw:
    """A state dict that comes into being while a network runs: each weight is drawn when it is first asked for."""

    device: str = "cpu"
    state: dict[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(7))

    def __call__(self, name: str, *shape: int) -> Tensor:
        if name not in self.state:
            if self.device == "meta":
                self.state[name] = torch.empty(shape, device="meta")
            else:
                spread = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.5
                self.state[name] = torch.randn(shape, generator=self.generator) * spread
        assert self.state[name].shape == shape, name
        return self.state[name]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        weight, bias = self(f"{name}.weight", x.shape[1]), self(f"{name}.bias", x.shape[1])
        grouped = x.reshape(len(x), 32, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, unbiased=False)
        normal = ((grouped - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
        return normal * weight[:, None, None] + bias[:, None, None]

    def conv(self, name: str, x: Tensor, outputs: int, kernel: int = 3, **options: int) -> Tensor:
        weight = self(f"{name}.weight", outputs, x.shape[1], kernel, kernel)
        return f.conv2d(x, weight, self(f"{name}.bias", outputs), **{"padding": kernel // 2} | options)

    def linear(self, name: str, x: Tensor, outputs: int) -> Tensor:
        return x @ self(f"{name}.weight", outputs, x.shape[1]).T + self(f"{name}.bias", outputs)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head: q, k, v [B, C, T] -> [B, C, T]."""
    weight = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=2)
    return (weight @ v.transpose(1, 2)).transpose(1, 2)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def half(x: Tensor) -> Tensor:
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


@dataclass(frozen=True)
class OpenAI:
    """UNetModel of OpenAI's repositories; attention at rates of downsampling, as its constructor takes them."""

    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_rates: tuple[int, ...]
    channel_mult: tuple[float, ...]
    num_classes: int = 0
    num_heads: int = 1
    num_head_channels: int = -1
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    attention_dims: int = 1  # of the 1x1 convolutions: 2 in consistency models

    def __call__(self, w: Draw, x: Tensor, time: Tensor, y: Tensor | None = None) -> Tensor:  # noqa: PLR0912
        channels, wide = self.model_channels, 4 * self.model_channels
        rates = torch.tensor([10000 ** (-i / (channels // 2)) for i in range(channels // 2)], dtype=torch.float64)
        angle = time.double()[:, None] * rates.to(time.device)
        embedding = torch.cat([torch.cos(angle), torch.sin(angle)], dim=1).float()
        embedding = w.linear("time_embed.2", swish(w.linear("time_embed.0", embedding, wide)), wide)
        if self.num_classes:
            embedding = embedding + w("label_emb.weight", self.num_classes, wide)[y]
        widths = [int(m * channels) for m in self.channel_mult]
        h = w.conv("input_blocks.0.0", x, widths[0])
        stack, rate, number = [h], 1, 1
        for level, width in enumerate(widths):
            for _ in range(self.num_res_blocks):
                h = self.block(w, f"input_blocks.{number}.0", h, embedding, width)
                if rate in self.attention_rates:
                    h = self.attention(w, f"input_blocks.{number}.1", h, self.num_heads)
                stack.append(h)
                number += 1
            if level + 1 < len(widths):
                if self.resblock_updown:
                    h = self.block(w, f"input_blocks.{number}.0", h, embedding, width, half)
                else:
                    h = w.conv(f"input_blocks.{number}.0.op", h, width, stride=2)
                stack.append(h)
                number, rate = number + 1, rate * 2
        h = self.block(w, "middle_block.0", h, embedding, widths[-1])
        h = self.attention(w, "middle_block.1", h, self.num_heads)
        h = self.block(w, "middle_block.2", h, embedding, widths[-1])
        number = 0
        for level in range(len(widths) - 1, -1, -1):
            for i in range(self.num_res_blocks + 1):
                part = 1
                h = self.block(w, f"output_blocks.{number}.0", torch.cat([h, stack.pop()], 1), embedding, widths[level])
                if rate in self.attention_rates:
                    heads = self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample
                    h = self.attention(w, f"output_blocks.{number}.1", h, heads)
                    part = 2
                if level > 0 and i == self.num_res_blocks:
                    if self.resblock_updown:
                        h = self.block(w, f"output_blocks.{number}.{part}", h, embedding, widths[level], twice)
                    else:
                        h = w.conv(f"output_blocks.{number}.{part}.conv", twice(h), widths[level])
                    rate //= 2
                number += 1
        return w.conv("out.2", swish(w.norm("out.0", h, 1e-5)), self.out_channels)

    def block(self, w: Draw, name: str, x: Tensor, embedding: Tensor, width: int, resize=lambda x: x) -> Tensor:  # noqa: ANN001
        h = w.conv(f"{name}.in_layers.2", resize(swish(w.norm(f"{name}.in_layers.0", x, 1e-5))), width)
        added = w.linear(f"{name}.emb_layers.1", swish(embedding), width * (2 if self.use_scale_shift_norm else 1))
        added = added[:, :, None, None]
        if self.use_scale_shift_norm:
            h = w.norm(f"{name}.out_layers.0", h, 1e-5) * (1 + added[:, :width]) + added[:, width:]
        else:
            h = w.norm(f"{name}.out_layers.0", h + added, 1e-5)
        h = w.conv(f"{name}.out_layers.3", swish(h), width)
        x = resize(x)
        return h + (x if x.shape[1] == width else w.conv(f"{name}.skip_connection", x, width, 1))

    def attention(self, w: Draw, name: str, x: Tensor, heads: int) -> Tensor:
        width = x.shape[1]
        if self.num_head_channels != -1:
            heads = width // self.num_head_channels
        each, ones = width // heads, (1,) * self.attention_dims
        flat = w.norm(f"{name}.norm", x, 1e-5).flatten(2)
        qkv = w(f"{name}.qkv.weight", 3 * width, width, *ones).flatten(1) @ flat
        qkv = qkv + w(f"{name}.qkv.bias", 3 * width)[:, None]
        mixed = []
        for head in range(heads):
            if self.use_new_attention_order:
                starts = [part * width + head * each for part in range(3)]
            else:
                starts = [(3 * head + part) * each for part in range(3)]
            mixed.append(attend(*(qkv[:, start : start + each] for start in starts)))
        out = w(f"{name}.proj_out.weight", width, width, *ones).flatten(1) @ torch.cat(mixed, 1)
        return x + (out + w(f"{name}.proj_out.bias", width)[:, None]).reshape(x.shape)


@dataclass(frozen=True)
class DDIM:
    """Model of DiffOOD's network/ddim; num_classes without the null class, as its configuration counts."""

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    channels: int = 3
    num_classes: int = 0

    def __call__(self, w: Draw, x: Tensor, time: Tensor, y: Tensor | None = None) -> Tensor:
        count = self.ch // 2
        rates = torch.tensor([10000 ** (-i / (count - 1)) for i in range(count)], dtype=torch.float64)
        angle = time.double()[:, None] * rates.to(time.device)
        temb = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1).float()
        temb = w.linear("temb.dense.1", swish(w.linear("temb.dense.0", temb, 4 * self.ch)), 4 * self.ch)
        if self.num_classes:
            temb = temb + w("label_emb.weight", self.num_classes + 1, 4 * self.ch)[y]
        stack = [w.conv("conv_in", x, self.ch)]
        last = len(self.ch_mult) - 1
        for level, mult in enumerate(self.ch_mult):
            for i in range(self.num_res_blocks):
                h = self.block(w, f"down.{level}.block.{i}", stack[-1], temb, mult * self.ch)
                stack.append(self.attention(w, f"down.{level}.attn.{i}", h))
            if level < last:
                padded = f.pad(stack[-1], (0, 1, 0, 1))
                stack.append(w.conv(f"down.{level}.downsample.conv", padded, mult * self.ch, stride=2, padding=0))
        h = self.block(w, "mid.block_1", stack[-1], temb, self.ch_mult[-1] * self.ch)
        h = self.attention(w, "mid.attn_1", h, everywhere=True)
        h = self.block(w, "mid.block_2", h, temb, self.ch_mult[-1] * self.ch)
        for level in range(last, -1, -1):
            width = self.ch_mult[level] * self.ch
            for i in range(self.num_res_blocks + 1):
                h = self.block(w, f"up.{level}.block.{i}", torch.cat([h, stack.pop()], 1), temb, width)
                h = self.attention(w, f"up.{level}.attn.{i}", h)
            if level:
                h = w.conv(f"up.{level}.upsample.conv", twice(h), width)
        return w.conv("conv_out", swish(w.norm("norm_out", h, 1e-6)), self.channels)

    def block(self, w: Draw, name: str, x: Tensor, temb: Tensor, width: int) -> Tensor:
        h = w.conv(f"{name}.conv1", swish(w.norm(f"{name}.norm1", x, 1e-6)), width)
        h = h + w.linear(f"{name}.temb_proj", swish(temb), width)[:, :, None, None]
        h = w.conv(f"{name}.conv2", swish(w.norm(f"{name}.norm2", h, 1e-6)), width)
        return h + (x if x.shape[1] == width else w.conv(f"{name}.nin_shortcut", x, width, 1))

    def attention(self, w: Draw, name: str, x: Tensor, everywhere: bool = False) -> Tensor:
        if x.shape[-1] not in self.attn_resolutions and not everywhere:
            return x
        h = w.norm(f"{name}.norm", x, 1e-6)
        q, k, v = (w.conv(f"{name}.{part}", h, x.shape[1], 1).flatten(2) for part in "qkv")
        return x + w.conv(f"{name}.proj_out", attend(q, k, v).reshape(x.shape), x.shape[1], 1)
