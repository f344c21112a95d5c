"""What the scripts share: running the command line as a user would, and writing results into README.md."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffood import zoo
from diffood.bench.compare import readable
from diffood.bench.machine import describe_machine

HERE = Path(__file__).parent
RESULTS, README = HERE / "results", HERE / "README.md"
NONE = "–"


def diffood(*words: object, accept: Sequence[int] = (0,)) -> str:
    """Run one verb and return what it printed; its messages go to the terminal. SystemExit where it fails."""
    command = [str(word) for word in words]
    print(f"$ diffood {shlex.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "diffood", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in accept or not done.stdout:  # verify ends with 1 where its gate refuses, and prints why
        sys.exit(f"`diffood {command[0]}` failed with exit code {done.returncode}: {done.stdout}")
    return done.stdout


def machine_options(description: str | None, *, batch: int, timed: bool = False) -> argparse.ArgumentParser:
    """A parser of what scripts share; timed: also of what `diffood bench` takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--threads", type=int, default=0)
    if timed:
        parser.add_argument("--seconds", type=float, default=120, help="of each contender")
        parser.add_argument("--rounds", type=int, default=7)
        parser.add_argument("--no-compile", action="store_true")
    return parser


def copy_zoo(path: Path) -> Path:
    """A copy of the shipped bundle, without a calibration."""
    return Path(shutil.copytree(zoo.BUNDLE, path))


def record(name: str, content: dict[str, Any], lines: Sequence[str]) -> None:
    """Keep the figures as results/NAME.json, put the lines into README.md's section of that name, and print them."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": asdict(describe_machine()), **content}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    text = "\n".join(lines)
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page, count = re.subn(
        f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", README.read_text(), count=1, flags=re.DOTALL
    )
    if not count:
        sys.exit(f"README.md has no section {begin} … {end}; put it back.")
    README.write_text(page)
    print(text)


def machine_line(content: dict[str, Any]) -> str:
    """Where it was measured, and how busy the machine was before and after, in one line."""
    machine = content.get("machine") or asdict(describe_machine())
    versions = {name: version for name, version in machine["versions"].items() if name != "diffood"}
    memory = f", {machine['memory'] / 2**30:.0f} GiB" if machine["memory"] else ""
    load = ", ".join(readable(content[key]) for key in ("load_before", "load_after") if content.get(key) is not None)
    busy = f" Load average before and after: {load}." if load else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.{busy}"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown; all columns but the first to the right."""
    marks = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]


def comparison(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows of `diffood bench --json` as a table in Markdown."""
    heads = (
        "", "images/s", "times the first", "UNet evaluations an image", "one image, p50 / p95 / p99 ms",
        "times the first", "peak MB", "in the engine",
    )  # fmt: skip
    return table(heads, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    latency = row["latency"]
    quantiles = " / ".join(_maybe(latency[key]) for key in ("p50", "p95", "p99")) if latency else NONE
    return [
        row["name"],
        spread(row["images_per_second"]),
        spread(row["ratio"]),
        f"{row['evaluations']:.3g}",
        quantiles,
        spread(latency["ratio"]) if latency else NONE,
        NONE if row["peak_memory"] is None else f"{row['peak_memory'] / 1e6:.0f}",
        share(row["engine_share"]),
    ]


def spread(value: dict[str, float]) -> str:
    """A median and its quantiles over rounds."""
    return f"{readable(value['median'])} ({readable(value['low'])}–{readable(value['high'])})"


def share(value: float | None) -> str:
    """A percentage."""
    return NONE if value is None else f"{100 * value:.1f} %"


def _maybe(value: float | None) -> str:
    return NONE if value is None else readable(value)
