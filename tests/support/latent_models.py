"""Small latent diffusion pipelines with random weights of a fixed seed, as diffusers saves them, for several tests.

They take the zoo's images, 1x28x28; latents are 14x14. 25 steps: an export proves every one.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STEPS, CLASSES, LATENT = 25, 5, 14
CLASSIFIER = '''\
"""A classifier of small grey images with random weights."""

import torch


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = torch.nn.Linear(28 * 28, 24), torch.nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.tanh(self.hidden(x.flatten(1)))
        return self.head(features), features


def small() -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small()
'''
HALVES = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def kl_autoencoder(**changes: Any) -> Any:
    """An AutoencoderKL with latents of four channels, scaled and shifted; its decoder overflows in half precision."""
    import diffusers
    import torch

    torch.manual_seed(0)
    settings = {"latent_channels": 4, "scaling_factor": 1.5, "shift_factor": 0.1}
    model = diffusers.AutoencoderKL(**{**HALVES, **settings, **changes})
    with torch.no_grad():
        model.decoder.conv_in.weight *= 1e5  # the last normalisation takes it back
    return model


def vq_autoencoder() -> Any:
    """A VQModel with latents of three channels and 32 codes."""
    import diffusers
    import torch

    torch.manual_seed(0)
    model = diffusers.VQModel(**HALVES, latent_channels=3, num_vq_embeddings=32, scaling_factor=0.8)
    with torch.no_grad():
        model.quantize.embedding.weight.normal_()
    return model


def transformer(**changes: Any) -> Any:
    """A DiT of one block with learned sigma."""
    import diffusers
    import torch

    torch.manual_seed(1)
    return diffusers.DiTTransformer2DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 1,
            "sample_size": LATENT,
            "patch_size": 2,
            "num_embeds_ada_norm": CLASSES,
            **changes,
        }
    )


def latent_unet(**changes: Any) -> Any:
    """A UNet2DModel without labels, for the latents of `vq_autoencoder`."""
    import diffusers
    import torch

    torch.manual_seed(1)
    return diffusers.UNet2DModel(
        **{
            "sample_size": LATENT,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (8, 8),
            "down_block_types": ("DownBlock2D",) * 2,
            "up_block_types": ("UpBlock2D",) * 2,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            **changes,
        }
    )


def save_pipeline(folder: Path, **parts: Any) -> Path:
    """Save models by the names of their folders, a scheduler and the code of a classifier next to them."""
    import diffusers

    for name, model in parts.items():
        model.save_pretrained(folder / name, safe_serialization=True)
    diffusers.DDPMScheduler(num_train_timesteps=STEPS).save_pretrained(folder / "scheduler")
    (folder / "small.py").write_text(CLASSIFIER)
    return folder


def classifier_of(pipeline: Path) -> str:
    """The classifier next to a pipeline, as `export` takes it."""
    return f"{pipeline / 'small.py'}:small"


def export(pipeline: Path, output: Path, precision: str) -> list[str]:
    """Export a pipeline and its classifier by the command line; returns the lines it said."""
    words = ["export", "--unet", pipeline, "--classifier", classifier_of(pipeline)]
    command = [sys.executable, "-m", "diffood", *words, "--precision", precision, "--output", output]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def need_export() -> None:
    """Skip where the extra is not installed."""
    for package in ("torch", "diffusers", "onnx", "onnxscript", "safetensors"):
        pytest.importorskip(package, reason="needs the extra: export")
