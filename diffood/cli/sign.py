"""diffood sign: a signature over the files of a bundle."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_lines


@expand_records
def sign(
    *,
    bundle: options.BundlePath,
    key: Annotated[Path, typer.Option(metavar="FILE", help="Private key in PEM form: Ed25519, or ECDSA on P-256.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Sign the export again, by this key, where it is signed.")
    ] = False,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Sign a bundle, so that --trust accepts it.

    The export is signed once; its signature is kept. What was made later, such as a calibration on the device, gets a
    second signature.

    Example: diffood sign bundle --key maker.pem && diffood verify bundle --trust maker.pub
    """
    from diffood.runtime.bundle.signing import sign_bundle

    done = sign_bundle(bundle, key, overwrite=overwrite)
    if as_json:
        print_lines(json.dumps(asdict(done)))
        return
    if done.kept:
        print_lines("export      keeps its signature")
    for name, count in done.written.items():
        print_lines(f"signed      {name}: {count} files, key {done.hint[:16]}…")
    print_lines(f"digest      {done.digest}")
