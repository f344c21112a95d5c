"""Networks that Karras' preconditioning turns into denoisers: EDM and consistency models. Knows no files.

Such a network was trained on x = x0 + sigma·noise. A bundle asks at x / sqrt(1 + sigma²), which is the noising of a
schedule with alpha_bar = 1 / (1 + sigma²), and takes the denoiser as a prediction of x0: from there on the steps are
linear as ever.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from diffood.errors import ExportError

EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
CONSISTENCY_SCHEDULER = "CMStochasticIterativeScheduler"
CONSISTENCY_TIME = 1000.0  # OpenAI's networks are asked at 1000·log(sigma)/4


@dataclass(frozen=True)
class Preconditioning:
    """How a network F becomes a denoiser D(x, sigma) = c_skip·x + c_out·F(c_in·x, c_noise) on `steps` levels of sigma.

    Attributes:
        steps: Levels of sigma.
        sigma_min: The lowest.
        sigma_max: The highest.
        sigma_data: Standard deviation of the training data.
        rho: Exponent of Karras' spacing.
        spacing: Karras et al. 2022, eq. 5, or equal steps of the logarithm.
        time_scale: Factor of c_noise = log(sigma)/4.
        sign: Of c_out.
        boundary: c_skip and c_out of Song et al. 2023, appendix C, with which D(x, sigma_min) = x; else of Karras et
            al. 2022, table 1.
        clip: Whether D is clamped to [-1, 1].
    """

    steps: int = 1000
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    rho: float = 7.0
    spacing: Literal["karras", "exponential"] = "karras"
    time_scale: float = 1.0
    sign: float = 1.0
    boundary: bool = False
    clip: bool = False

    def sigmas(self) -> npt.NDArray[np.float64]:
        """Ascending levels float64 [steps]: Karras et al. 2022, eq. 5, or equal steps of the logarithm."""
        if self.spacing == "exponential":
            return np.geomspace(self.sigma_min, self.sigma_max, self.steps)
        ramp = np.linspace(0, 1, self.steps)
        least, most = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        levels: npt.NDArray[np.float64] = (least + ramp * (most - least)) ** self.rho
        return levels

    def alpha_bar(self) -> npt.NDArray[np.float64]:
        """The schedule a bundle noises by, float64 [steps], decreasing."""
        levels: npt.NDArray[np.float64] = 1 / (1 + self.sigmas() ** 2)
        return levels

    def table(self) -> npt.NDArray[np.float64]:
        """Rows (c_in, c_skip, c_out, c_noise) for every level, float64 [steps, 4]; the first two of x at unit scale."""
        sigma = self.sigmas()
        total = sigma**2 + self.sigma_data**2
        scale = np.sqrt(1 + sigma**2)  # from a bundle's x to the network's
        shifted = sigma - self.sigma_min if self.boundary else sigma
        c_skip = self.sigma_data**2 / (shifted**2 + self.sigma_data**2)
        c_out = self.sign * shifted * self.sigma_data / np.sqrt(total)
        return np.stack([scale / np.sqrt(total), scale * c_skip, c_out, self.time_scale * np.log(sigma) / 4], axis=1)


class Preconditioned(nn.Module):
    """The denoiser around a network, asked as a UNet is: x [B, C, H, W] at unit scale, time [B] indices of levels."""

    def __init__(self, network: nn.Module, how: Preconditioning, channels: int) -> None:
        super().__init__()
        self.network, self.channels, self.clip = network, channels, how.clip
        # No buffer: it stays float32 where the network is halved.
        self.table = torch.from_numpy(how.table()).float()

    def forward(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """The prediction of x0; a time between two levels takes the lower one, as a schedule's grid does."""
        index = time.long().clamp(0, len(self.table) - 1)
        c_in, c_skip, c_out, c_noise = self.table.to(x.device)[index].unbind(1)
        asked = (c_in[:, None, None, None] * x).to(x.dtype)
        output = self.network(asked, c_noise, class_labels=class_labels, return_dict=False)[0][:, : self.channels]
        clean = c_skip[:, None, None, None] * x + c_out[:, None, None, None] * output
        return (clean.clamp(-1, 1) if self.clip else clean,)


def read_preconditioning(config: dict[str, Any], max_steps: int) -> Preconditioning | None:
    """What a diffusers scheduler config says, by its defaults; None where the scheduler is of another kind.

    Raises ExportError for values that are impossible.
    """
    kind = config.get("_class_name")
    consistency = kind == CONSISTENCY_SCHEDULER
    if not consistency and kind not in EDM_SCHEDULERS:
        return None
    values = {
        name: config.get(name, default)
        for name, default in (("sigma_min", 0.002), ("sigma_max", 80.0), ("sigma_data", 0.5), ("rho", 7.0))
    }
    steps = config.get("num_train_timesteps", 40 if consistency else 1000)
    if not isinstance(steps, int) or not 2 <= steps <= max_steps:
        raise ExportError(f"num_train_timesteps is {steps!r}; 2 to {max_steps} are possible.")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-6 <= value <= 1e6:
            raise ExportError(f"{name} of the {kind} is {value!r}; it must be a number from 1e-6 to 1e6.")
    if values["sigma_min"] >= values["sigma_max"]:
        raise ExportError(f"sigma_min {values['sigma_min']} is not below sigma_max {values['sigma_max']}.")
    if consistency:
        clip = bool(config.get("clip_denoised", True))
        return Preconditioning(steps, **values, time_scale=CONSISTENCY_TIME, boundary=True, clip=clip)
    spacing, prediction = config.get("sigma_schedule", "karras"), config.get("prediction_type", "epsilon")
    if spacing not in ("karras", "exponential"):
        raise ExportError(f"sigma_schedule {spacing!r} is not supported: karras and exponential are.")
    if prediction not in ("epsilon", "v_prediction"):
        raise ExportError(f"prediction_type {prediction!r} of the {kind} is not supported: epsilon, v_prediction are.")
    return Preconditioning(steps, **values, spacing=spacing, sign=-1.0 if prediction == "v_prediction" else 1.0)
