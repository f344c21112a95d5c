"""diffood demo: the whole chain on the embedded models and images."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.printing import print_lines


def demo(
    output: Annotated[Path, typer.Option(help="Folder to write to; made if it is missing.")] = Path("demo-output"),
) -> None:
    """Run everything on embedded models and real images.

    Export, calibrate, serve and evaluate; ends with a table and pictures.

    Example: diffood demo --output demo-output
    """
    from diffood.zoo.demo import run_demo

    run_demo(output, print_lines)
