"""Reads a diffusers scheduler config into a table of noise levels. Knows no network."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.errors import ExportError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.unets.edm import (
    CONSISTENCY_SCHEDULER,
    EDM_SCHEDULERS,
    Preconditioning,
    read_preconditioning,
)
from diffood.runtime.bundle.arrays import MAX_STEPS
from diffood.runtime.method.schedule import Prediction

CONFIG = "scheduler_config.json"
_MAX_BETA = 0.999  # squaredcos_cap_v2, Nichol & Dhariwal 2021


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels a UNet was trained on.

    Attributes:
        alpha_bar: float64 [T], decreasing.
        prediction: What the UNet predicts.
        origin: Where both were read, for the user.
        preconditioning: What makes the network a denoiser, for networks of EDM's kind.
    """

    alpha_bar: npt.NDArray[np.float64]
    prediction: Prediction
    origin: str
    preconditioning: Preconditioning | None = None


def load_schedule(unet: Path, scheduler: Path | None) -> NoiseSchedule:
    """Read the scheduler config from `scheduler`, next to the weights, or in ../scheduler; else the paper's linear one.

    Raises ExportError for a config that is unreadable or asks for what is not supported.
    """
    places = [scheduler] if scheduler else [unet, unet.parent / "scheduler"]
    for place in places:
        path = place / CONFIG if place.is_dir() else place
        if path.is_file():
            return make_schedule(read_config(path), str(path.name))
    if scheduler:
        raise ExportError(f"No {CONFIG} in {scheduler}; give the folder or the file that diffusers saved.")
    return PAPER


def make_schedule(config: dict[str, Any], origin: str) -> NoiseSchedule:
    """The schedule of a diffusers scheduler config; ExportError for one that is not supported or impossible."""
    preconditioning = read_preconditioning(config, MAX_STEPS)
    if preconditioning is not None:
        return precondition(preconditioning, origin)
    if "_class_name" in config and not config.keys() & {"beta_schedule", "beta_start", "beta_end", "trained_betas"}:
        raise ExportError(
            f"{str(config['_class_name'])[:80]!r} has no betas: schedules of betas, {', '.join(EDM_SCHEDULERS)} and "
            f"{CONSISTENCY_SCHEDULER} are supported. Give the one the UNet was trained with by --scheduler."
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "sample", "v_prediction"):
        raise ExportError(f"prediction_type {prediction!r} is not supported: epsilon, sample and v_prediction are.")
    if config.get("rescale_betas_zero_snr"):
        raise ExportError("rescale_betas_zero_snr makes the last noise level infinite; start from a plain schedule.")
    return NoiseSchedule(np.cumprod(1 - betas(config), dtype=np.float64), prediction, origin)


def precondition(how: Preconditioning, origin: str) -> NoiseSchedule:
    """The schedule of a preconditioned network, which predicts x0."""
    return NoiseSchedule(how.alpha_bar(), "sample", origin, how)


def betas(config: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Betas float64 [T] as diffusers' schedulers make them; ExportError for an unknown kind or impossible values."""
    kind = config.get("beta_schedule", "linear")
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 2 <= steps <= MAX_STEPS:
        raise ExportError(f"num_train_timesteps is {steps!r}; 2 to {MAX_STEPS} are possible.")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (start, end)):
        raise ExportError(f"beta_start and beta_end are {start!r} and {end!r}; both must be numbers.")
    if config.get("trained_betas") is not None:
        try:
            values = np.asarray(config["trained_betas"], np.float64)
        except (TypeError, ValueError) as error:
            raise ExportError(
                f"trained_betas is not a list of numbers ({error}); check the scheduler config."
            ) from None
    elif kind == "linear":
        values = np.linspace(start, end, steps)
    elif kind == "scaled_linear" and min(start, end) >= 0:
        values = np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    elif kind == "squaredcos_cap_v2":
        position = np.arange(steps + 1) / steps
        level = np.cos((position + 0.008) / 1.008 * math.pi / 2) ** 2
        values = np.minimum(1 - level[1:] / level[:-1], _MAX_BETA)
    else:
        raise ExportError(f"beta_schedule {kind!r} is not supported: linear, scaled_linear, squaredcos_cap_v2 are.")
    if values.ndim != 1 or not 2 <= len(values) <= MAX_STEPS or not bool(np.all((values > 0) & (values < 1))):
        raise ExportError(f"The betas of {kind!r} from {start} to {end} leave (0, 1); check the scheduler config.")
    return values


PAPER = make_schedule(
    {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000},
    f"no {CONFIG} found: the paper's linear schedule was assumed",
)
