"""What `diffood bench` prints, in at most a hundred columns; measures nothing."""

import textwrap
from collections.abc import Iterator

from diffood.bench.bench import BenchResult
from diffood.bench.compare import SPREAD, Comparison, ContenderResult, Spread, readable
from diffood.calibration.metrics.formatting import counted
from diffood.cli.text.tables import WIDTH, table_lines

NONE = "-"


def describe_bench(result: BenchResult) -> list[str]:
    """Lines: what was timed and how, the machine, and the tables."""
    request, manifest, budget = result.request, result.manifest, result.request.budget
    shape, latent = manifest.image, manifest.latent
    of = f"latents of {latent.channels}x{latent.height}x{latent.width} of " if latent else ""
    return [
        f"models      a UNet of {(manifest.unet.parameters if manifest.unet else 0) / 1e6:.1f} M parameters on {of}"
        f"{shape.channels}x{shape.height}x{shape.width}, {len(request.images)} images in turn",
        f"engines     batch {request.batch}, {request.threads or 'all'} threads, {budget.seconds:g} s each in "
        f"{counted(budget.rounds, 'round')}",
        *describe_comparison(result.comparison),
    ]


def describe_comparison(found: Comparison) -> list[str]:
    """Lines: the machine and its load, a table each for throughput, latency and resources, and what was skipped."""
    machine, rows = found.machine, found.rows
    memory = f", {machine.memory / 2**30:.0f} GiB" if machine.memory else ""
    load = " and ".join(
        "unknown" if value is None else f"{value:.2f}" for value in (found.load_before, found.load_after)
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    low, high = SPREAD
    return [
        f"machine     {machine.processor}, {machine.cores} cores{memory}, {machine.system}",
        *(_labelled("GPU", machine.gpu) if machine.gpu else ()),
        *_labelled("versions", versions),
        f"load        {load} before and after",
        "",
        *table_lines(("many images at once", "images/s", "times the first", "UNet"), map(_throughput, rows)),
        "",
        *table_lines(("one image alone", "p50 ms", "p95 ms", "p99 ms", "times the first"), map(_latency, rows)),
        "",
        *table_lines(("resources", "peak MB", "in the engine"), map(_resources, rows)),
        "",
        *textwrap.wrap(
            f"Medians over {counted(found.rounds, 'round')}, with the {low:.0%} and {high:.0%} quantiles; ratios are "
            "within a round. UNet: evaluations per image. One image alone: with the batch size that serves it "
            "fastest; - where too few were timed. Peak MB: of a process that runs this alone, libraries included. In "
            "the engine: share of the time inside engine calls.",
            WIDTH,
        ),
        *_notes(rows),
        *(line for name, reason in found.skipped for line in _labelled("skipped", f"{name}: {reason}")),
    ]


def _notes(rows: tuple[ContenderResult, ...]) -> Iterator[str]:
    for note in dict.fromkeys(row.note for row in rows if row.note):
        yield from _labelled("note", f"{note}: {', '.join(row.name for row in rows if row.note == note)}")


def _labelled(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label:<12}{text}", WIDTH, subsequent_indent=12 * " ", break_on_hyphens=False)


def _throughput(row: ContenderResult) -> tuple[str, ...]:
    return row.name, _spread(row.images_per_second), _spread(row.ratio), readable(row.evaluations)


def _latency(row: ContenderResult) -> tuple[str, ...]:
    if row.latency is None:
        return (row.name, *4 * (NONE,))
    quantiles = (row.latency.p50, row.latency.p95, row.latency.p99)
    cells = (NONE if value is None else readable(value) for value in quantiles)
    return (row.name, *cells, _spread(row.latency.ratio))


def _resources(row: ContenderResult) -> tuple[str, ...]:
    memory = f"{row.peak_memory / 1e6:.0f}" if row.peak_memory else NONE
    return row.name, memory, NONE if row.engine_share is None else f"{row.engine_share:.1%}"


def _spread(value: Spread) -> str:
    return f"{readable(value.median)} ({readable(value.low)}-{readable(value.high)})"
