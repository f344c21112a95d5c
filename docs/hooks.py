"""What the site shows besides the files of docs/: pages of the repository, and the reference of the command line.

MkDocs calls the `on_…` functions. Nothing here needs the network.
"""

import posixpath
import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from diffood.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/gpu/README.md": "gpu_kit.md",
    "diffood/zoo/README.md": "zoo.md",
    "diffood/zoo/data/images/README.md": "zoo_images.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
PICTURES = ("benchmarks/results/*.png", "diffood/zoo/*.png")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
ELSEWHERE = re.compile(r"""<(?:script|img|iframe|link[^>]*stylesheet)[^>]*(?:src|href)="?(https?:[^" >]+)""")
EXAMPLE = re.compile(r"^([^:\n]+): (diffood (?:.+\n?)+?)$(?=\n\n)", re.M)  # "Example: diffood …", one paragraph


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside docs/, and the generated reference."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for pattern in PICTURES:
        for picture in sorted(ROOT.glob(pattern)):
            name = picture.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    files.append(File.generated(config, "cli.md", content=write_cli_reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    del config
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # the front page has the width to itself
    source = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def replace(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) is not None:
            return f"{picture}[{text}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"
        return text if (ROOT / path).exists() else match.group(0)  # a source file is named, not linked

    return LINK.sub(replace, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something over the network."""
    del config
    if found := ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads {found[1]} from elsewhere; keep a copy of it in docs/assets.")
    return output


def write_cli_reference() -> str:
    """Markdown of every command, argument and option, from the command line itself."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="diffood", title="Command line")
    text = re.sub(
        r"\*\*Commands\*\*:.*?(?=^## )", "", text, count=1, flags=re.S | re.M
    )  # cut short; the contents list them
    return EXAMPLE.sub(lambda match: f"{match[1]}:\n\n```console\n$ {' '.join(match[2].split())}\n```", text)
