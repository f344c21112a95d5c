"""Hyper-parameters a checkpoint does not hold: records of them, and those published, by name. Builds nothing."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffood.errors import ExportError, UsageError
from diffood.export.sources.unets.scheduler import read_config
from diffood.runtime.records import Record, explain_invalid

Width = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]  # group norms have 32 groups
Size = Annotated[int, Field(ge=4, le=4096)]
Blocks = Annotated[int, Field(ge=1, le=16)]
Heads = Annotated[int, Field(ge=1, le=256)]
Levels = Annotated[tuple[Annotated[float, Field(gt=0, le=32)], ...], Field(min_length=1, max_length=10)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=10)]


class OpenAIConfig(Record):
    """Flags of improved-diffusion, guided-diffusion and consistency models, by their names; defaults are guided's.

    attention_resolutions are image sizes, as in the flags. noise_schedule "edm" and "consistency" are those of Karras
    et al. 2022 and Song et al. 2023 with OpenAI's numbers. Whether there are labels is read from the checkpoint.
    """

    layout: Literal["openai"] = "openai"
    name: str = "own hyper-parameters"
    image_size: Size
    in_channels: Literal[1, 3] = 3
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
    diffusion_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000
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


class DDIMConfig(Record):
    """The `Model` and `Schedule` of a DiffOOD configuration of struc DDIM, by their names (after Song et al. 2021)."""

    layout: Literal["ddim"]
    name: str = "own hyper-parameters"
    image_size: Size
    in_channels: Literal[1, 3] = 3
    ch: Width = 128
    ch_mult: Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(min_length=1, max_length=10)]
    num_res_blocks: Blocks = 2
    attn_resolutions: Sizes = (16,)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    diffusion_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000

    @model_validator(mode="after")
    def _fits(self) -> "DDIMConfig":
        if self.image_size % 2 ** (len(self.ch_mult) - 1):
            raise ValueError(f"an image of {self.image_size} cannot be halved {len(self.ch_mult) - 1} times")
        return self


CheckpointConfig = OpenAIConfig | DDIMConfig
_LAYOUTS: dict[str, type[OpenAIConfig] | type[DDIMConfig]] = {"openai": OpenAIConfig, "ddim": DDIMConfig}

_GUIDED = {  # openai/guided-diffusion, README: the MODEL_FLAGS that all its ImageNet models share
    "layout": "openai",
    "attention_resolutions": (32, 16, 8),
    "learn_sigma": True,
    "resblock_updown": True,
}
_IMPROVED = {"layout": "openai", "num_res_blocks": 3, "learn_sigma": True, "noise_schedule": "cosine"}
_GUIDED64 = _GUIDED | {
    "image_size": 64,
    "num_channels": 192,
    "num_res_blocks": 3,
    "channel_mult": (1, 2, 3, 4),
    "num_head_channels": 64,
    "use_new_attention_order": True,
}
# openai/consistency_models, scripts/launch.sh: the same network; its flash attention has the new order
_KARRAS64 = _GUIDED64 | {"learn_sigma": False}

PRESETS: dict[str, dict[str, Any]] = {
    "guided-imagenet64": _GUIDED64 | {"noise_schedule": "cosine"},
    "guided-imagenet128": _GUIDED | {"image_size": 128, "num_channels": 256, "channel_mult": (1, 1, 2, 3, 4)},
    "guided-imagenet256": _GUIDED
    | {"image_size": 256, "num_channels": 256, "channel_mult": (1, 1, 2, 2, 4, 4), "num_head_channels": 64},
    "guided-imagenet512": _GUIDED
    | {"image_size": 512, "num_channels": 256, "channel_mult": (0.5, 1, 1, 2, 2, 4, 4), "num_head_channels": 64},
    # openai/improved-diffusion, README: the conditional model was trained without rescaled timesteps
    "improved-imagenet64": _IMPROVED
    | {"image_size": 64, "num_channels": 192, "channel_mult": (1, 2, 3, 4), "diffusion_steps": 4000},
    "improved-imagenet64-uncond": _IMPROVED
    | {"image_size": 64, "channel_mult": (1, 2, 3, 4), "diffusion_steps": 4000, "rescale_timesteps": True},
    "improved-cifar10": _IMPROVED
    | {"image_size": 32, "channel_mult": (1, 2, 2, 2), "diffusion_steps": 4000, "rescale_timesteps": True},
    # luping-liu/DiffOOD, config/*.yml: ddim_cifar10*, ddim_cifar100*, iddpm_cifar10*
    "diffood-ddim": {"layout": "ddim", "image_size": 32, "ch_mult": (1, 2, 2, 2)},
    "diffood-iddpm": _IMPROVED | {"image_size": 32, "channel_mult": (1, 2, 2, 2)},
    "edm-imagenet64": _KARRAS64 | {"noise_schedule": "edm"},
    "consistency-imagenet64": _KARRAS64 | {"noise_schedule": "consistency", "diffusion_steps": 40},
}


def load_checkpoint_config(spec: str | None, checkpoint: Path) -> CheckpointConfig:
    """The preset of this name, or the hyper-parameters in this .json file, which may start from a `preset`.

    Raises UsageError where there is neither, and ExportError for a file that is invalid.
    """
    known = f"Presets: {', '.join(PRESETS)}; or a FILE.json with hyper-parameters (docs/models.md)."
    if spec is None:
        raise UsageError(f"{checkpoint.name} does not say what network it holds: add --unet-config. {known}")
    if spec in PRESETS:
        return _LAYOUTS[PRESETS[spec]["layout"]](**PRESETS[spec], name=spec)
    path = Path(spec)
    if not path.is_file():
        raise UsageError(f"--unet-config {spec!r} is no preset and no file. {known}")
    given = read_config(path)
    if "preset" in given:
        name = given.pop("preset")
        if not isinstance(name, str) or name not in PRESETS:
            raise ExportError(f"{path} starts from {str(name)[:80]!r}, which is no preset. {known}")
        given = PRESETS[name] | given
    layout = given.get("layout")
    if not isinstance(layout, str) or layout not in _LAYOUTS:
        raise ExportError(f"{path} has the layout {str(layout)[:80]!r}; openai and ddim are known. {known}")
    with explain_invalid(str(path), "correct the file", ExportError):
        return _LAYOUTS[layout].model_validate(given | {"name": path.name})
