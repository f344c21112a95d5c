"""Everything a training needs to continue, in one safetensors file that is whole or absent."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from diffood.errors import ExportError, TrainingError, UsageError
from diffood.export.sources.weights_heads import require_plain_header
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.json_reader import parse_json
from diffood.runtime.records import Record, explain_invalid, one_line

CHECKPOINT = "checkpoint.safetensors"
_KEY = "diffood"  # of the file's metadata
_RECOMMENDED = "train anew with --overwrite"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # as torch's AdamW calls them


class TrainingIdentity(Record):
    """What fixes the weights after a number of steps; a training continues only where all of it is the same.

    Attributes:
        images: Hash of all images and their ids.
        labels: Where labels come from, and their hash.
        classes: Names of the classes.
        shape: Channels, height and width of images.
        size: Name of the UNet's size.
        batch: Images per step.
        rate: Learning rate.
        seed: Of weights and draws.
        precision: fp32 or bf16.
        device: cpu or cuda.
        evaluate_every: Steps between two looks at the held-out images.
    """

    images: str
    labels: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    size: str
    batch: int
    rate: float
    seed: int
    precision: str
    device: str
    evaluate_every: int


class HeldOutLoss(Record):
    """The loss at a step: of the last training steps, and of the averaged weights on the held-out images."""

    step: Annotated[int, Field(ge=0)]
    training: float
    held_out: float
    seconds: Annotated[float, Field(ge=0)]


class TrainingProgress(Record):
    """How far a training came.

    Attributes:
        identity: What it is a training of.
        step: Steps done.
        end: Steps after which it ends, as planned by now.
        steps: Most steps, as asked for.
        stalled: Whether `end` was drawn near since the held-out loss stopped falling.
        seconds: Time spent.
        running: Sum of the training loss since the last look at the held-out images.
        best: Step of the weights that are kept; None before the first look.
        curve: All looks at the held-out images.
    """

    identity: TrainingIdentity
    step: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    stalled: bool
    seconds: Annotated[float, Field(ge=0)]
    running: float
    best: int | None
    curve: tuple[HeldOutLoss, ...]


def save_checkpoint(
    folder: Path, progress: TrainingProgress, networks: dict[str, Any], optimiser: torch.optim.Optimizer
) -> None:
    """Write the checkpoint of a folder in place of the one before.

    Args:
        folder: Of the training.
        progress: How far it came.
        networks: Modules or their state dicts, by name.
        optimiser: AdamW.
    """
    from safetensors.torch import save

    tensors = {f"{name}.{key}": value for name, state in networks.items() for key, value in state.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{moment}.{index}": state[moment] for moment in _MOMENTS}
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_durably(folder / CHECKPOINT, save(held, {_KEY: progress.model_dump_json()}))


def read_progress(folder: Path) -> TrainingProgress:
    """How far the training of a folder came. Raises TrainingError where the checkpoint is damaged."""
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT
    try:
        require_plain_header(path)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY, "")
    except (OSError, SafetensorError, ExportError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); {_RECOMMENDED}.") from None
    with explain_invalid(str(path), _RECOMMENDED, TrainingError):
        return TrainingProgress.model_validate(parse_json(text.encode()))


def require_same(found: TrainingIdentity, wanted: TrainingIdentity, folder: Path) -> None:
    """Raise UsageError naming what another training in this folder has else."""
    for name, value in wanted:
        if getattr(found, name) != value:
            raise UsageError(
                f"{folder} holds a training with other {name}: {_short(getattr(found, name))} there, {_short(value)} "
                "now. Give the same images and options to continue it, another --output, or --overwrite."
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "…"


def load_tensors(folder: Path, networks: dict[str, Any], optimiser: torch.optim.Optimizer, step: int) -> None:
    """Give networks and optimiser the tensors of a checkpoint.

    Raises TrainingError where they do not fit: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / CHECKPOINT)
        for name, state in networks.items():
            for key, value in state.items():
                value.copy_(tensors[f"{name}.{key}"])
        saved = optimiser.state_dict()
        indices = saved["param_groups"][0]["params"] if step else []
        saved["state"] = {
            index: {"step": torch.tensor(float(step))} | {moment: tensors[f"{moment}.{index}"] for moment in _MOMENTS}
            for index in indices
        }
        optimiser.load_state_dict(saved)
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        reason = one_line(error)[:200]
        raise TrainingError(f"{folder / CHECKPOINT} does not fit this training ({reason}); {_RECOMMENDED}.") from None
