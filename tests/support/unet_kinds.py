"""Kinds of UNets of 8x8 images with random weights, and what surrounds them: saved and exported, for several tests."""

from dataclasses import dataclass
from pathlib import Path

from diffood.runtime.progress import Say

CLASSES = 4
SIDE = 8
CLASSIFIER = '''\
"""A classifier of {channels}x8x8 images, for a test."""

import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear({channels} * 64, 12), nn.Linear(12, 4)
        generator = torch.Generator().manual_seed(11)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x: torch.Tensor) -> {returns}:
        features = torch.tanh(self.hidden(x.flatten(1)))
        return {returned}


def tiny() -> Tiny:
    return Tiny()
'''


@dataclass(frozen=True)
class Kind:
    """A kind of UNet and what surrounds it: labels it knows, outputs a channel, schedule, prediction."""

    name: str
    channels: int
    labels: int | None
    outputs: int
    beta_schedule: str
    prediction: str
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def prepared(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation that images are prepared with."""
        return self.mean_std or ((0.0,), (1.0,))


MOST_AT_ONCE = Kind(
    "most-at-once", 3, CLASSES, 2, "squaredcos_cap_v2", "v_prediction", ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
)
KINDS = [
    Kind("unlabelled-sample", 1, None, 1, "scaled_linear", "sample"),
    Kind("no-null-class-v", 1, CLASSES, 1, "squaredcos_cap_v2", "v_prediction"),
    Kind("learned-sigma-rgb", 3, None, 2, "linear", "epsilon", ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))),
    MOST_AT_ONCE,
]


def save_kind(kind: Kind, folder: Path) -> None:
    """Save the UNet and its scheduler as diffusers does, and the code of a classifier next to them."""
    import diffusers
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unet = diffusers.UNet2DModel(
            sample_size=SIDE,
            in_channels=kind.channels,
            out_channels=kind.outputs * kind.channels,
            layers_per_block=1,
            block_out_channels=(16, 16),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            num_class_embeds=kind.labels,
            add_attention=False,  # the zoo's UNet has it; without, an export takes half the time
        )
    unet.save_pretrained(folder / "unet")
    scheduler = diffusers.DDPMScheduler(beta_schedule=kind.beta_schedule, prediction_type=kind.prediction)
    scheduler.save_pretrained(folder / "scheduler")
    alone = kind.mean_std is not None  # logits alone: the exporter finds the features itself
    logits, pair = "self.head(features)", "tuple[torch.Tensor, torch.Tensor]"
    returned, returns = (logits, "torch.Tensor") if alone else (f"{logits}, features", pair)
    code = CLASSIFIER.format(channels=kind.channels, returned=returned, returns=returns)
    (folder / "tiny.py").write_text(code)


def export_kind(kind: Kind, models: Path, output: Path, report: Say = print) -> None:
    """Export what `save_kind` saved."""
    from diffood.export.build import export_bundle
    from diffood.export.request import ExportRequest
    from diffood.export.sources.classifiers.preprocessing import Preprocessing
    from diffood.export.sources.classifiers.source import ClassifierSource
    from diffood.export.sources.model_sources import ModelSources

    mean, std = kind.prepared
    classifier = ClassifierSource(f"{models / 'tiny.py'}:tiny", preprocessing=Preprocessing(mean=mean, std=std))
    export_bundle(ExportRequest(output, ModelSources(models / "unet", classifier)), report)
