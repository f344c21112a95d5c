"""diffood demo: the whole chain on the embedded models and images."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffood.cli.printing import print_lines


def demo(
    model: Annotated[
        Literal["clothes", "materials"],
        typer.Option(help="Grey clothes, or surfaces in colour, which need the extra 'export'."),
    ] = "clothes",
    output: Annotated[Path, typer.Option(help="Folder to write to; made if it is missing.")] = Path("demo-output"),
) -> None:
    """Run everything on embedded models and real images.

    Export, calibrate, serve and evaluate; ends with a table and pictures.

    Example: diffood demo --model materials --output demo-output
    """
    from diffood.zoo.demo import run_demo
    from diffood.zoo.pairs import PAIRS

    run_demo(PAIRS[model], output, print_lines)
