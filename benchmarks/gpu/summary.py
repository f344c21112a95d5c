"""The figures to reach, from what `diffood bench --json` wrote. Run: summary.py FILE.json.

A line per contender: images per second, times the loop in torch in the same precision, share of the time inside the
engine, and the median of one image alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

BASELINES = {precision: f"official loop, torch eager, {precision}" for precision in ("fp32", "fp16")}


def line(row: dict[str, Any], baselines: dict[str, float]) -> str:
    """One contender; the ratio is to the loop in torch in its own precision, where that ran."""
    rate, latency = row["images_per_second"]["median"], row["latency"]
    precision = next((name for name in ("fp16", "int8") if f" {name}" in row["name"]), "fp32")
    ratio = f"{rate / baselines[precision]:8.1f} x torch {precision}" if precision in baselines else ""
    share = "" if row["engine_share"] is None else f"{row['engine_share']:7.1%} in the engine"
    alone = "" if latency is None else f"{latency['p50']:9.2f} ms alone"
    return f"{row['name']:<52}{rate:10.1f} images/s{alone}{share}{ratio}"


def main() -> None:
    """Print the machine, the lines, and what was left out."""
    found = json.loads(Path(sys.argv[1]).read_text())
    machine, rows = found["machine"], {row["name"]: row for row in found["rows"]}
    print(f"{machine['gpu'] or machine['processor']}, batch {found['batch']}, {machine['versions']}")
    baselines = {
        precision: rows[name]["images_per_second"]["median"] for precision, name in BASELINES.items() if name in rows
    }
    for row in rows.values():
        print(line(row, baselines))
    for name, reason in found["skipped"]:
        print(f"left out: {name}: {reason}")


if __name__ == "__main__":
    main()
