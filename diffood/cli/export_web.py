"""diffood export-web: a calibrated bundle as a web page that judges images in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_lines
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.printable import shell_word
from diffood.serving.web.runtime import DEFAULT_FOLDER, PACKAGE
from diffood.serving.web.site import write_page


@expand_records
def export_web(
    *,
    bundle: options.BundlePath,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the page; must not exist.")],
    runtime: Annotated[
        Path, typer.Option(metavar="DIR", help=f"An unpacked {PACKAGE}, as `npm install {PACKAGE}` makes it.")
    ] = DEFAULT_FOLDER,
    precision: Annotated[Precision | None, typer.Option(help="Of the detector; without: what was calibrated.")] = None,
    trust: TrustOptions,
) -> None:
    """Write a web page that judges images in the browser.

    Files dropped on it and pictures of a camera get verdicts on the user's own device: nothing is uploaded, and the
    page loads nothing from elsewhere.

    Example: diffood export-web bundle --output page --runtime node_modules/onnxruntime-web
    """
    written = write_page(bundle, output, runtime, precision)
    print_lines(f"detector    {written.precision}, {written.detector_bytes / 1e6:.1f} MB")
    print_lines(f"runtime     {PACKAGE} {written.runtime}")
    print_lines(f"wrote       {output} ({written.total_bytes / 1e6:.1f} MB)")
    print_lines(f"try         python -m http.server --bind 127.0.0.1 --directory {shell_word(output.absolute())} 8000")
    print_lines("            and open http://127.0.0.1:8000 in a browser")
