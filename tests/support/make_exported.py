"""Makes the exported bundles of the tests: python tests/support/make_exported.py [NAME …], half a minute each.

To be run where tests/export/test_exported.py says that export writes something else today. The models have random
weights of fixed seeds; they are committed too, since another torch may draw other ones.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import latent_models
import torch
from exported import BUNDLE, DIT, EXPORTED, HALF, LINES, MODELS, VQ
from small_unets import small_unet
from unet_kinds import MOST_AT_ONCE, export_kind, save_kind

from diffood.export.build import export_bundle
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import DETECTOR_FILES, DETECTORS, Precision

HALF_STEPS = 40  # of its schedule
HALF_CLASSIFIER = '''\
"""A classifier of small grey images, for a test."""

import torch


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(1, 6, 3), torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(x).mean((2, 3))
        return self.head(features), features


def small() -> Small:
    torch.manual_seed(0)
    return Small()
'''


def save_dit(folder: Path) -> None:
    """A DiT with its AutoencoderKL, as DiTPipeline saves them."""
    latent_models.save_pipeline(folder, transformer=latent_models.transformer(), vae=latent_models.kl_autoencoder())


def save_vq(folder: Path) -> None:
    """A UNet2DModel without labels and its VQModel, as LDMPipeline saves them."""
    latent_models.save_pipeline(folder, unet=latent_models.latent_unet(), vqvae=latent_models.vq_autoencoder())


def save_half(folder: Path) -> None:
    """A UNet of 1x8x8 images and three classes, and a classifier."""
    small_unet().save_pretrained(folder / "unet", safe_serialization=True)
    diffusers.DDPMScheduler(num_train_timesteps=HALF_STEPS).save_pretrained(folder / "scheduler")
    (folder / "small.py").write_text(HALF_CLASSIFIER)


def export(models: Path, unet: Path, output: Path, *precisions: Precision) -> list[str]:
    """Export a UNet and the classifier in small.py; returns what was reported."""
    lines: list[str] = []
    sources = ModelSources(unet, ClassifierSource(f"{models / 'small.py'}:small"))
    export_bundle(ExportRequest(output, sources, precisions=precisions), lines.append)
    return lines


def export_most_at_once(models: Path, output: Path) -> list[str]:
    """Export the kind of UNet that has most of what there is."""
    lines: list[str] = []
    export_kind(MOST_AT_ONCE, models, output, lines.append)
    return lines


# Of each name: what saves its models, and what exports saved ones.
MAKERS: dict[str, tuple[Callable[[Path], None], Callable[[Path, Path], list[str]]]] = {
    DIT: (save_dit, lambda models, output: latent_models.export(models, output, "fp32,fp16")),
    VQ: (save_vq, lambda models, output: export(models, models, output, "fp32")),
    HALF: (save_half, lambda models, output: export(models, models / "unet", output, "fp32", "fp16")),
    MOST_AT_ONCE.name: (lambda folder: save_kind(MOST_AT_ONCE, folder), export_most_at_once),
}


def export_again(name: str, output: Path) -> list[str]:
    """Export the committed models of a name; returns what was reported, without the lines that name the folder."""
    lines = MAKERS[name][1](EXPORTED / name / MODELS, output)
    return [line for line in lines if not line.startswith(("wrote", "next"))]


def main() -> None:
    """Save and export the models of each name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; all where none is given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.names or MAKERS:
        folder = EXPORTED / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / MODELS).mkdir(parents=True)
        MAKERS[name][0](folder / MODELS)
        lines = export_again(name, folder / BUNDLE)
        for file in (*DETECTOR_FILES.values(), DETECTORS):
            (folder / BUNDLE / file).unlink(missing_ok=True)
        (folder / LINES).write_text("\n".join(lines) + "\n")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
