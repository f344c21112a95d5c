"""Options that choose a plan of the bundle and change it."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import typer

from diffood.calibration.request import PlanRequest
from diffood.cli.options.parsers import Words, words
from diffood.runtime.method.plan import Combination
from diffood.runtime.method.schedule import Convention, Sampler
from diffood.runtime.method.witnesses.registry import WITNESSES


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Plan", **settings)


@dataclass(frozen=True)
class PlanOptions:
    """A plan as named on the command line, with its changed fields; the names are those of `PlanRequest`."""

    name: Annotated[str | None, _option("--plan", help="Plan of the bundle; default: the bundle's own default.")] = None
    start_times: Annotated[list[int] | None, _option("--start-time", metavar="T", help="Start time; repeatable.")] = (
        None
    )
    stride: Annotated[int | None, _option(help="Noising steps per denoising step.")] = None
    repeats: Annotated[int | None, _option(help="Noise draws per image.")] = None
    guidance: Annotated[float | None, _option(help="The paper's beta; 0 turns guidance off.")] = None
    sampler: Annotated[Sampler | None, _option(help="How a denoising step is taken.")] = None
    schedule: Annotated[Convention | None, _option(help="reference: the conventions of the paper's code.")] = None
    space: Annotated[Literal["logits", "features"] | None, _option(help="What of the classifier is compared.")] = None
    norm: Annotated[Literal["l1", "l2"] | None, _option(help="Distance it is compared by.")] = None
    compare: Annotated[
        Literal["origin", "neighbour"] | None,
        _option(help="Compare with the image itself, or with the next smaller start time."),
    ] = None
    seed: Annotated[int | None, _option(help="Seed of the noise.")] = None
    witnesses: Annotated[
        Words | None,
        _option(metavar="W[,W]", parser=words, help=f"Witnesses to combine, with commas: {', '.join(WITNESSES)}."),
    ] = None
    combine: Annotated[
        Combination | None,
        _option(help="sum: of standard deviations; tail: a witness that is far out and reliable weighs more."),
    ] = None
    stages: Annotated[
        list[int] | None,
        _option("--stage", metavar="N", help="Repeats after which a clear image ends; 0: before any; repeatable."),
    ] = None

    def request(self) -> PlanRequest:
        """The same for `diffood.calibration`."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return PlanRequest(**values | {"start_times": _tuple(self.start_times), "stages": _tuple(self.stages)})


def _tuple(numbers: list[int] | None) -> tuple[int, ...] | None:
    return tuple(numbers) if numbers else None
