"""Layouts of checkpoints, and published hyper-parameters by name."""

from pathlib import Path
from typing import Any

from diffood.errors import ExportError, UsageError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.unets.checkpoint_config import CheckpointConfig
from diffood.export.sources.unets.ddim_unet import DDIMConfig
from diffood.export.sources.unets.openai_unet import OpenAIConfig
from diffood.runtime.records import explain_invalid

LAYOUTS: dict[str, type[CheckpointConfig]] = {"openai": OpenAIConfig, "ddim": DDIMConfig}

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
        return LAYOUTS[PRESETS[spec]["layout"]](**PRESETS[spec], name=spec)
    path = Path(spec)
    if not path.is_file():
        raise UsageError(f"--unet-config {spec!r} is neither a preset nor a file. {known}")
    given = read_config(path)
    if "preset" in given:
        name = given.pop("preset")
        if not isinstance(name, str) or name not in PRESETS:
            raise ExportError(f"{path} starts from {str(name)[:80]!r}, which is not a preset. {known}")
        given = PRESETS[name] | given
    layout = given.get("layout")
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ExportError(f"{path} has the layout {str(layout)[:80]!r}; {' and '.join(LAYOUTS)} are known. {known}")
    with explain_invalid(str(path), "correct the file", ExportError):
        return LAYOUTS[layout].model_validate(given | {"name": path.name})
