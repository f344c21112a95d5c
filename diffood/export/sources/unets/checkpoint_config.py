"""Hyper-parameters that a checkpoint does not hold: what every layout says of its network."""

from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from diffood.export.sources.unets.scheduler import NoiseSchedule, make_schedule
from diffood.runtime.records import Record

Width = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]  # group norms have 32 groups
Side = Annotated[int, Field(ge=4, le=4096)]
Blocks = Annotated[int, Field(ge=1, le=16)]
Heads = Annotated[int, Field(ge=1, le=256)]
Levels = Annotated[tuple[Annotated[float, Field(gt=0, le=32)], ...], Field(min_length=1, max_length=10)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=10)]


class CheckpointConfig(Record):
    """Hyper-parameters of one network. A layout of checkpoints is a subclass, listed in `presets.LAYOUTS`.

    Attributes:
        name: Of the preset or the file they come from.
        image_size: Height and width.
        in_channels: Of its images.
        noise_schedule: As the repository of the layout names it.
        diffusion_steps: Of the schedule it was trained on.

    """

    name: str = "own hyper-parameters"
    image_size: Side
    in_channels: Literal[1, 3] = 3
    noise_schedule: str = "linear"
    diffusion_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000

    @abstractmethod
    def build(self, labels: int) -> torch.nn.Module:
        """The network on the meta device: names and shapes, no memory. labels: how many it embeds, 0 for none."""

    def checkpoint_name(self, name: str) -> str:
        """From a tensor's name in the module to the one in the checkpoint."""
        return name

    def schedule(self) -> NoiseSchedule:
        """The schedule the network was trained on: linear or cosine."""
        config: dict[str, Any] = {"num_train_timesteps": self.diffusion_steps}
        if self.noise_schedule == "cosine":
            config["beta_schedule"] = "squaredcos_cap_v2"
        return make_schedule(config | self.scheduler_config(), self.schedule_origin)

    @property
    def schedule_origin(self) -> str:
        """Where the schedule is from, for the user."""
        return f"{self.noise_schedule}, of {self.name}"

    @abstractmethod
    def scheduler_config(self) -> dict[str, Any]:
        """Entries of a diffusers scheduler config, without the number of steps."""
