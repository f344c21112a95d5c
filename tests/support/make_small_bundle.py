"""Makes the small bundle of the tests: python tests/support/make_small_bundle.py.

A UNet of 8 thousand parameters and a classifier of 3 thousand, trained for two minutes of one core on the zoo's
validation images (without the first 500, which tests calibrate on) and exported as any other models are. Images and
classes are those of the zoo, so that tests exchange one bundle for the other. Seeds are fixed, and another run on the
same machine gives the same weights; another torch version or processor may round differently, so the files are
committed.
"""

import argparse
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, DATA, FACTORY
from torch.nn import functional

from diffood.export.build import export_bundle
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.images.pixels import from_pixels
from diffood.zoo import CLASS_NAMES
from diffood.zoo.images import load_set

MODELS, BUNDLE = "small_models", "small_bundle"  # folders there: what is exported, and what comes of it
CLASSES = 10
HELD_OUT = 500  # of the validation images
UNET_STEPS, CLASSIFIER_STEPS, BATCH = 2000, 1000, 32


def load_training() -> tuple[torch.Tensor, torch.Tensor]:
    """Training images, float32 [N, 1, 28, 28] in [-1, 1], and labels, int64 [N]."""
    training = load_set("fashion-validation")
    assert training.labels is not None
    images = from_pixels(training.images[HELD_OUT:, None])
    return torch.from_numpy(images), torch.from_numpy(training.labels[HELD_OUT:].astype(np.int64))


def train(model: torch.nn.Module, loss_of: Callable[[torch.Generator], torch.Tensor], steps: int, rate: float) -> None:
    """One cycle of AdamW on the losses of `steps` random batches."""
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        loss = loss_of(torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
        if step % 250 == 249:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)


def train_unet(folder: Path) -> None:
    """Train the UNet with a null class in a tenth of the samples, and save it with its scheduler."""
    images, labels = load_training()
    torch.manual_seed(0)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    model = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(6, 6),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        norm_num_groups=3,
        num_class_embeds=CLASSES + 1,
    )
    print(f"unet: {sum(value.numel() for value in model.parameters())} parameters")

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(0, len(images), (BATCH,), generator=generator)
        times = torch.randint(0, 1000, (BATCH,), generator=generator)
        noise = torch.randn(BATCH, 1, 28, 28, generator=generator)
        null = torch.rand(BATCH, generator=generator) < 0.1
        noisy = scheduler.add_noise(images[chosen], noise, times)
        predicted = model(noisy, times, class_labels=labels[chosen].masked_fill(null, CLASSES)).sample
        return functional.mse_loss(predicted, noise)

    train(model, loss_of, UNET_STEPS, 4e-3)
    model.save_pretrained(folder / "unet", safe_serialization=True)
    scheduler.save_pretrained(folder / "scheduler")


def train_classifier(folder: Path) -> None:
    """Train the classifier on images in [0, 1], and save its code and weights."""
    code = folder / CLASSIFIER.name
    if not code.exists():
        shutil.copy(CLASSIFIER, code)
    images, labels = load_training()
    torch.manual_seed(0)
    model = runpy.run_path(str(code))[FACTORY]()
    print(f"classifier: {sum(value.numel() for value in model.parameters())} parameters")

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(0, len(images), (BATCH,), generator=generator)
        return functional.cross_entropy(model((images[chosen] + 1) / 2)[0], labels[chosen])

    train(model, loss_of, CLASSIFIER_STEPS, 1e-2)
    save_file(model.state_dict(), folder / CLASSIFIER_WEIGHTS.name)


def main() -> None:
    """Train both models and export them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models, bundle = arguments.output / MODELS, arguments.output / BUNDLE
    models.mkdir(parents=True, exist_ok=True)
    train_unet(models)
    train_classifier(models)
    sources = ModelSources(
        models / "unet",
        ClassifierSource(f"{models / CLASSIFIER.name}:{FACTORY}", models / CLASSIFIER_WEIGHTS.name),
        scheduler=models / "scheduler",
        class_names=tuple(CLASS_NAMES.read_text().splitlines()),
    )
    export_bundle(ExportRequest(bundle, sources, overwrite=True), print)


if __name__ == "__main__":
    main()
