"""Options about what a bundle must prove before it is used.

They ask what DIFFOOD_TRUST and DIFFOOD_EXPECT_DIGEST ask, for one command: of every bundle that it opens, in this
process and those it starts, so that no way to open one is without the question.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options.shared import print_warnings
from diffood.runtime.bundle.trust import EXPECT_DIGEST, TRUST, Trust

_PANEL = "Trust"


def _ask(context: typer.Context, name: str, value: str) -> None:
    """Set a variable of the environment until the command ends."""
    before = os.environ.get(name)
    os.environ[name] = value

    def restore() -> None:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before

    context.call_on_close(restore)


def _ask_for_keys(context: typer.Context, value: list[Path] | None) -> list[Path] | None:
    if value:
        _ask(context, TRUST, os.pathsep.join(str(file.absolute()) for file in value))
    return value


def _ask_for_digest(context: typer.Context, value: str | None) -> str | None:
    if value is not None:
        _ask(context, EXPECT_DIGEST, Trust(digest=value).digest or "")
    return value


def warn_if_unsigned(bundle: Path) -> None:
    """Tell, on standard error, that a signed bundle was changed by this command and must be signed again."""
    from diffood.runtime.bundle.signing import describe_unsigned

    print_warnings(filter(None, [describe_unsigned(bundle)]))


@dataclass(frozen=True)
class TrustOptions:
    """What a bundle must prove, as typed."""

    trust: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="KEY",
            callback=_ask_for_keys,
            help=f"Refuse a bundle that is not signed by this public key; repeatable. Default: ${TRUST}.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    expect_digest: Annotated[
        str | None,
        typer.Option(
            metavar="sha256:HEX",
            callback=_ask_for_digest,
            help="Refuse a bundle of another digest than this one of `diffood inspect`.",
            rich_help_panel=_PANEL,
        ),
    ] = None
