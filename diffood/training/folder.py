"""Writes a trained UNet as diffusers does, with its noise schedule, class names and model card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffood import __version__
from diffood.errors import UsageError
from diffood.export.sources.libraries import import_diffusers
from diffood.export.sources.unets.diffusers_model import WEIGHTS
from diffood.export.sources.unets.folder import CLASS_NAMES
from diffood.export.sources.unets.scheduler import CONFIG as SCHEDULER
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.trained import TRAINED, pack_trained, shorten
from diffood.runtime.printable import escape_markdown
from diffood.training.checkpoint import CHECKPOINT, TrainingProgress
from diffood.training.images import TrainingImages
from diffood.training.labels import Labels
from diffood.training.loop import AVERAGE_DECAY, FALLING, NULL_SHARE, TIMES, WARM_UP
from diffood.training.request import TrainingRequest

CONFIG, CARD, CURVE, PICTURE = "config.json", "README.md", "curve.jsonl", "samples.png"
WRITTEN = (CONFIG, WEIGHTS, SCHEDULER, CLASS_NAMES, TRAINED, CARD, CURVE, PICTURE, CHECKPOINT)
LINES_OF_CURVE, CLASSES_SHOWN, NOTES = 12, 20, 8  # in the model card


@dataclass(frozen=True)
class TrainedOn:
    """What a model card says of a training, besides its progress."""

    request: TrainingRequest
    images: TrainingImages
    labels: Labels
    held_out: int
    threads: int


def check_folder(folder: Path, *, overwrite: bool) -> bool:
    """Whether a training is there to continue; makes the folder where it is missing.

    Raises UsageError where something else is there, or a finished training and overwrite is False.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --output.")
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if overwrite and held <= {*WRITTEN, *(f".{name}.tmp" for name in WRITTEN)}:
        for name in held:
            (folder / name).unlink()
        held = set()
    if CHECKPOINT in held:
        return True
    if WEIGHTS in held and not overwrite:
        raise UsageError(
            f"{folder} holds a UNet already; choose another --output, or replace what `diffood train-unet` wrote there "
            "with --overwrite."
        )
    if held:
        raise UsageError(
            f"{folder} holds {min(held)!r}, which `diffood train-unet` did not write; choose another --output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return False


def write_unet(folder: Path, network: Any, weights: dict[str, torch.Tensor], labels: Labels) -> None:
    """Write what `diffood export --unet` takes: configuration, weights, noise schedule, class names."""
    from safetensors.torch import save

    config = {
        "_class_name": type(network).__name__,
        **{k: v for k, v in network.config.items() if not k.startswith("_")},
    }
    scheduler = import_diffusers("DDPMScheduler")(
        num_train_timesteps=TIMES, beta_schedule="linear", beta_start=1e-4, beta_end=0.02
    )
    held = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_durably(folder / WEIGHTS, save(held, {"format": "pt"}))
    write_durably(folder / CONFIG, (json.dumps(config, indent=2, default=list) + "\n").encode())
    write_durably(folder / SCHEDULER, scheduler.to_json_string().encode())
    if labels.names:
        write_durably(folder / CLASS_NAMES, ("\n".join(labels.names) + "\n").encode())


def write_card(folder: Path, progress: TrainingProgress, about: TrainedOn, parameters: int) -> None:
    """Write the model card, the hashes of the images, and the curve as JSON lines."""
    write_durably(folder / CARD, ("\n".join(describe_model(progress, about, parameters)) + "\n").encode())
    write_durably(folder / TRAINED, pack_trained(shorten(about.images.sha256)))
    curve = "".join(look.model_dump_json() + "\n" for look in progress.curve)
    write_durably(folder / CURVE, curve.encode())


def describe_model(progress: TrainingProgress, about: TrainedOn, parameters: int) -> list[str]:
    """The lines of the model card."""
    identity, images, labels = progress.identity, about.images, about.labels
    size = "x".join(map(str, identity.shape))
    facts = {
        "parameters": f"{parameters:,}, size `{identity.size}`",
        "images": f"{len(images.ids) - about.held_out:,} trained on, {about.held_out:,} held out, {images.repeated} "
        f"repeated, {len(images.set_aside)} set aside",
        "their hash": images.digest,
        "changed to fit": escape_markdown(
            "; ".join(f"{note}: {n}" for note, n in sorted(images.converted.items())[:NOTES])
        )
        or "none",
        "classes": _describe_classes(labels.names),
        "labels": labels.source,
        "noise": f"linear betas 1e-4 to 0.02, {TIMES} steps; the network predicts it (epsilon)",
        "steps": f"{progress.step:,} of {identity.batch} images; the weights are those of step {progress.best or 0:,}",
        "optimiser": f"AdamW, rate {identity.rate:g} after {WARM_UP} steps, linear to zero over the last {FALLING:.0%}",
        "weights": f"moving average, decay {AVERAGE_DECAY}; labels dropped in {NULL_SHARE:.0%} of samples",
        "ended": why_ended(progress, about.request.minutes),
        "ran": f"{progress.seconds / 60:.1f} minutes, {identity.precision} on {identity.device}, threads: "
        f"{about.threads}, seed {identity.seed}, torch {torch.__version__}, diffood {__version__}",
    }
    return [
        "---",
        "library_name: diffusers",
        "tags: [unconditional-image-generation, out-of-distribution, diffood]",
        "---",
        f"# UNet of {size} images",
        "",
        "A diffusers `UNet2DModel` for `diffood export --unet`. It denoises images like those it was trained on;",
        "what it makes of others shows that they are others.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "| step | minutes | loss | held-out loss |",
        "|---|---|---|---|",
        *_describe_curve(progress),
        "",
        f"`{PICTURE}`: held-out images; noised as for a verdict; denoised; samples of their classes.",
        "",
        "Calibrate on images that are not among these: no model may have been trained on them, and those held out",
        "chose the weights. How well it detects is not known before `diffood evaluate`.",
    ]


def _describe_classes(names: tuple[str, ...]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - CLASSES_SHOWN} more" if names[CLASSES_SHOWN:] else ""
    return f"{len(names)} in this order, the null class last: {escape_markdown(', '.join(names[:CLASSES_SHOWN]))}{more}"


def _describe_curve(progress: TrainingProgress) -> list[str]:
    """About LINES_OF_CURVE lines of the table, the last look among them."""
    every = max(1, len(progress.curve) // LINES_OF_CURVE)
    return [
        f"| {look.step} | {look.seconds / 60:.1f} | {look.training:.5f} | {look.held_out:.5f} |"
        for look in sorted({*progress.curve[::every], *progress.curve[-1:]}, key=lambda look: look.step)
    ]


def why_ended(progress: TrainingProgress, minutes: float | None) -> str:
    """Why the training ended, or that it has not."""
    if progress.step < progress.end:
        return "not yet"
    if progress.stalled:
        return "since the held-out loss had stopped falling"
    if minutes is not None and progress.step < progress.steps:
        return f"after the {minutes:g} minutes asked for"
    return "after the steps asked for"
