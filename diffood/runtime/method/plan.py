"""A plan: every choice that fixes a score, apart from the models. Validated, and kept in the manifest."""

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from diffood.errors import UsageError
from diffood.runtime.method.schedule import Convention, Grid, Prediction, Sampler, StepTable, build_table
from diffood.runtime.method.witnesses.definition import SNAPSHOT
from diffood.runtime.method.witnesses.registry import Witness, inner_vectors, measurable, need_bank
from diffood.runtime.records import explain_invalid

Combination = Literal["sum", "tail"]

MAX_STARTS, MAX_REPEATS = 32, 256


class Plan(BaseModel):
    """How an image is noised, denoised and compared.

    Attributes:
        schedule: "textbook", or "reference" for the conventions of the paper's code.
        sampler: How x̂ is denoised.
        start_times: Noising steps from which denoising starts, ascending; none where nothing is denoised.
        stride: Noising steps that one denoising step takes.
        repeats: Noise draws per image; 0 where nothing is denoised.
        guidance: The paper's beta: eps = (1 + beta)·eps(class) - beta·eps(null); diffusers' guidance_scale is 1 + beta.
        space: What of the classifier is compared.
        norm: Of the difference.
        compare: "origin" compares each x̂ with the image, "neighbour" with the x̂ of the next smaller start time (the
            paper's global and local scores).
        seed: Of the noise.
        witnesses: One alone is the score as it is, "jump" is the paper's; several are standardised by what `calibrate`
            fits, and combined.
        combine: How several witnesses become one score.
        stages: Numbers of repeats, 0 for the classifier alone, after which scoring of a clear image stops; `calibrate`
            fits the limits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Convention = "textbook"
    sampler: Sampler = "ddim"
    start_times: Annotated[tuple[int, ...], Field(max_length=MAX_STARTS)]
    stride: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=0, le=MAX_REPEATS)]
    guidance: Annotated[float, Field(ge=0, le=100)]
    space: Literal["logits", "features"] = "logits"
    norm: Literal["l1", "l2"] = "l1"
    compare: Literal["origin", "neighbour"] = "origin"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    witnesses: Annotated[tuple[Witness, ...], Field(min_length=1)] = ("jump",)
    combine: Combination = "tail"
    stages: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MAX_REPEATS)] = ()

    @field_validator("start_times")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"start times must ascend without repeating, got {list(value)}")
        return value

    @field_validator("witnesses")
    @classmethod
    def _distinct(cls, value: tuple[Witness, ...]) -> tuple[Witness, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"a witness counts once, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _denoises_or_not(self) -> "Plan":
        if bool(self.start_times) != bool(self.repeats):
            raise ValueError(
                f"start times and repeats go together, or neither is given: got {list(self.start_times)} and "
                f"{self.repeats} repeats"
            )
        if not self.denoises and len(measurable(self.witnesses, 0)) < len(self.witnesses):
            raise ValueError(f"nothing is denoised, so not all of {', '.join(self.witnesses)} can be measured")
        return self

    @model_validator(mode="after")
    def _one_evaluation_to_look_into(self) -> "Plan":
        if SNAPSHOT in inner_vectors(self.witnesses) and not self.of_one_step:
            raise ValueError(
                f"the witness {SNAPSHOT} looks into one UNet evaluation, so it needs one start time, a stride as "
                f"large, and guidance 0: got start times {list(self.start_times)}, stride {self.stride} and guidance "
                f"{self.guidance:g}"
            )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> "Plan":
        if list(self.stages) != sorted(set(self.stages)) or any(stage >= self.repeats for stage in self.stages):
            raise ValueError(
                f"stages must ascend without repeating and end before the last of {self.repeats} repeats, "
                f"got {list(self.stages)}"
            )
        if self.stages and not measurable(self.witnesses, self.stages[0]):
            raise ValueError(f"stage 0 denoises nothing, and {', '.join(self.witnesses)} cannot be measured there")
        return self

    @property
    def fused(self) -> bool:
        """Whether a score needs a fit by `calibrate`: several witnesses, stages, or a bank of features."""
        return len(self.witnesses) > 1 or bool(need_bank(self.witnesses) or self.stages)

    @property
    def of_one_step(self) -> bool:
        """Whether a repeat is one UNet evaluation."""
        return len(self.start_times) == 1 and self.stride >= self.start_times[0] and not self.guidance

    @property
    def denoises(self) -> bool:
        """Whether the plan needs a UNet."""
        return bool(self.repeats)

    @property
    def plain(self) -> "Plan":
        """The same plan with one witness that needs no fit, on all repeats: the paper's score where it denoises."""
        return self.model_copy(update={"witnesses": ("jump" if self.denoises else "energy",), "stages": ()})

    def changed(self, overrides: dict[str, Any]) -> "Plan":
        """Return this plan with the fields of `overrides` that are not None. Raises UsageError if they do not fit.

        Unless stages are given, those beyond fewer repeats are dropped, and all of them if one witness is left.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        if len(given.get("witnesses", ())) == 1:
            given = {"stages": (), **given}
        elif "repeats" in given:
            given = {"stages": tuple(stage for stage in self.stages if stage < given["repeats"]), **given}
        with explain_invalid("The plan", "correct the option", UsageError):
            return Plan.model_validate({**self.model_dump(), **given})

    def grid(self, alpha_bar: npt.NDArray[np.float64]) -> Grid:
        """The noise levels of this plan's convention."""
        return Grid(alpha_bar, self.schedule)

    def tables(self, alpha_bar: npt.NDArray[np.float64], prediction: Prediction) -> list[StepTable]:
        """One table per start time, in their order. Raises UsageError for a time out of range."""
        grid = self.grid(alpha_bar)
        return [build_table(grid, self.sampler, prediction, start, self.stride) for start in self.start_times]

    def evaluations(self, tables: list[StepTable], repeats: int | None = None) -> int:
        """UNet evaluations of an image after all repeats, or after so many."""
        return sum(map(len, tables)) * (self.repeats if repeats is None else repeats) * (2 if self.guidance > 0 else 1)


# What the paper's code runs with its readme's settings.
REFERENCE = Plan(schedule="reference", sampler="ddim", start_times=(120, 240, 360), stride=20, repeats=4, guidance=2.0)
# The paper's score at a seventy-second of its cost: one step of 360 finds as much as three of 120, at a third of them.
PLAIN = Plan(start_times=(360,), stride=360, repeats=2, guidance=2.0)
# With the other witnesses of the same pass. docs/detection.md: what each adds, what was left out, what stages save.
DEFAULT = PLAIN.changed({"witnesses": ("jump", "reconstruction", "logit_norm", "energy"), "stages": (1,)})
# The classifier's own witnesses, for a bundle without a UNet. docs/detection.md: what they find, and what they miss.
CLASSIFIER = Plan(start_times=(), stride=1, repeats=0, guidance=0.0, witnesses=("margin", "inside"))
# One evaluation an image: no guidance, and no denoised image is classified.
FAST = Plan(
    start_times=(360,),
    stride=360,
    repeats=1,
    guidance=0.0,
    witnesses=("reconstruction", "logit_norm", "energy"),
)

# Of a bundle by name, the default first; the times are of 1,000 training steps.
PLANS = {"default": DEFAULT, "fast": FAST, "plain": PLAIN, "reference": REFERENCE}
PLANS_WITHOUT_UNET = {"classifier": CLASSIFIER}
