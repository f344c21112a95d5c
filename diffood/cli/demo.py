"""diffood demo: the whole chain on the embedded models and images."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder to write to; made if it is missing.")] = Path("demo-output"),
) -> None:
    """Export, calibrate, serve and evaluate the embedded models on real images; ends with a table and two pictures.

    Example: diffood demo --output demo-output
    """
    from diffood.zoo.demo import run_demo

    run_demo(output, typer.echo)
