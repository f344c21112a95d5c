"""The embedded models: python benchmarks/zoo.py. Adds INT8 to the shipped bundle, calibrates, verifies, then times."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import RESULTS, comparison, copy_zoo, diffood, machine_line, machine_options, readable, record, share, table

from diffood.zoo.images import unpack_set


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=64, timed=True)
    parser.add_argument("--limit", type=int, help="images of each set, 200 or more, for a trial; all without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle, images, fresh = copy_zoo(Path(scratch, "zoo")), Path(scratch, "validation"), Path(scratch, "fresh")
        unpack_set("fashion-validation", images, given.limit)
        unpack_set("fashion-test", fresh, given.limit)
        diffood("export", "--bundle", bundle, "--precision", "int8", "--images", images)
        diffood("calibrate", bundle, "--images", images, "--threads", given.threads)
        verified = json.loads(
            diffood("verify", bundle, "--images", fresh, "--threads", given.threads, "--json", accept=(0, 1))
        )
        content = json.loads(
            diffood(
                "bench", bundle, "--seconds", given.seconds, "--rounds", given.rounds, "--batch", given.batch,
                "--threads", given.threads, "--output", RESULTS / "zoo.png", "--json",
                *(["--no-compile"] if given.no_compile else []),
            )
        )  # fmt: skip
    gate = [check["detail"] for check in verified["checks"] if check["what"] == "parity"]
    lines = [
        machine_line(content),
        f"Batch {content['batch']}, {content['threads'] or 'all'} threads, {content['seconds']:g} s each in "
        f"{content['rounds']} rounds.",
        "",
        *comparison(content["rows"]),
        "",
        *[f"The gate on INT8: {detail}." for detail in gate],
        *[f"Skipped: {name}: {reason}." for name, reason in _skipped(content)],
        "",
        *table(("figure", "target", "measured"), list(figures(content["rows"]))),
        "",
        "![chart](results/zoo.png)",
    ]
    record("zoo", content | {"gate": gate}, lines)


def figures(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Targets of speed and what was measured; a figure whose rows did not run is left out."""
    plans = sorted({row["name"].split(" plan, ")[0] for row in rows if " plan, " in row["name"]})
    for plan in plans:
        ours = [row for row in rows if row["name"].startswith(f"{plan} plan, ")]
        for row in ours:
            precision = row["name"].split(" plan, ")[1]
            if plan.endswith(" reference"):
                target = {"fp32": "≥ 1.3×", "int8": "≥ 2.5×"}.get(precision.split()[0], "")
                yield [
                    f"same plan, {precision}, against official loop, torch eager, fp32",
                    target,
                    f"{readable(row['ratio']['median'])}×",
                ]
                continue
            name = f"{plan.removeprefix('diffood, ')} plan, {precision}"
            target = "≥ 100×" if plan.endswith(" default") else ""
            yield [f"{name}: images per second", target, f"{readable(row['ratio']['median'])}×"]
            yield [f"{name}: one image alone", "≥ 60×", f"{readable(row['latency']['ratio']['median'])}×"]
            yield [f"{name}: time inside the engine", "≥ 97 %", share(row["engine_share"])]


def _skipped(content: dict[str, Any]) -> list[tuple[str, str]]:
    """What was skipped, GPUs apart: every machine without one leaves them out."""
    return [(name, reason) for name, reason in content["skipped"] if "cuda" not in name and "tensorrt" not in name]


if __name__ == "__main__":
    main()
