"""Loads a UNet from a checkpoint file of OpenAI's or DiffOOD's repositories and its hyper-parameters."""

import math
from pathlib import Path

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import FoundWeights, open_checkpoint
from diffood.export.sources.unets.presets import load_checkpoint_config
from diffood.export.sources.unets.unet import UNet
from diffood.export.sources.weights import find_state, fit_weights, hash_files

LABELS = "label_emb.weight"  # [labels, width] in all layouts


def load_checkpoint_unet(path: Path, spec: str | None) -> UNet:
    """Load the network of a checkpoint; spec: a preset's name or a .json file. Raises ExportError and UsageError."""
    config = load_checkpoint_config(spec, path)
    checkpoint = open_checkpoint(path)
    # Names do not depend on the number of labels, but on whether there are some.
    found = find_state(config.build(1), checkpoint, config.name, rename=config.checkpoint_name, optional=[LABELS])
    labels = _count_labels(found, path)
    model = config.build(labels)
    fit_weights(model, found, path.name, config.checkpoint_name)
    return UNet(
        model=model,
        channels=config.in_channels,
        height=config.image_size,
        width=config.image_size,
        label_count=labels,
        origin=f"{path.name} as {config.name}",
        sha256=hash_files(checkpoint.files),
        schedule=config.schedule(),
        notes=found.notes,
    )


def _count_labels(found: FoundWeights, path: Path) -> int:
    """Labels the checkpoint embeds; 0 where it has no embedding."""
    if LABELS not in found.tensors:
        return 0
    shape = found.tensors[LABELS].shape
    if len(shape) != 2 or math.prod(shape) == 0:
        raise ExportError(f"{LABELS!r} in {path.name} has the shape {list(shape)}; [labels, width] is expected.")
    return shape[0]
