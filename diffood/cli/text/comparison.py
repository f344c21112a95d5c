"""A comparison as plain text; measures nothing."""

from diffood.bench.compare import SPREAD, Comparison, Latency, Row, Spread, readable

NONE = "-"


def table(found: Comparison) -> str:
    """The machine and its load, a line a contender, what was left out and what the columns mean."""
    machine, rows = found.machine, found.rows
    memory = f", {machine.memory / 2**30:.0f} GiB" if machine.memory else ""
    load = " and ".join(
        "unknown" if value is None else f"{value:.2f}" for value in (found.load_before, found.load_after)
    )
    lines = [
        f"machine     {machine.processor}, {machine.cores} cores{memory}, {machine.system}",
        f"versions    {', '.join(f'{name} {version}' for name, version in machine.versions.items())}",
        f"load        {load} before and after",
        "",
    ]
    width = max((len(row.name) for row in rows), default=0)
    heads = ("images/s", "times the first", "UNet", "p50 ms", "p95", "p99", "times the first", "MB", "engine", "lanes")
    widths = (20, 21, 6, 8, 8, 8, 21, 6, 8, 7)
    lines.append(" " * width + "".join(f"{head:>{size}}" for head, size in zip(heads, widths, strict=True)))
    for row in rows:
        cells = "".join(f"{cell:>{size}}" for cell, size in zip(_cells(row), widths, strict=True))
        lines.append(f"{row.name:<{width}}{cells}")
    lines += [
        "",
        f"Median over {found.rounds} rounds, in brackets the {SPREAD[0]:.0%} and {SPREAD[1]:.0%} quantiles; ratios are "
        "of the same round. UNet: evaluations an image.",
        "p50, p95, p99: one image alone, in the number of lanes that serves it fastest; - where too few were timed. "
        "MB: peak memory of a process",
        "that runs this alone, libraries included. engine: share of the time inside engine calls. lanes: share of "
        "engine rows that did work.",
    ]
    notes = dict.fromkeys(row.note for row in rows if row.note)
    lines += [f"note        {note}: {', '.join(row.name for row in rows if row.note == note)}" for note in notes]
    lines += [f"left out    {name}: {reason}" for name, reason in found.skipped]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    latency = row.latency
    return (
        _spread(row.images_per_second),
        _spread(row.ratio),
        readable(row.evaluations),
        *_latency(latency),
        f"{row.peak_memory / 1e6:.0f}" if row.peak_memory else NONE,
        _share(row.engine_share),
        _share(row.lanes_busy),
    )


def _latency(latency: Latency | None) -> tuple[str, ...]:
    if latency is None:
        return (NONE,) * 4
    quantiles = (NONE if value is None else readable(value) for value in (latency.p50, latency.p95, latency.p99))
    return (*quantiles, _spread(latency.ratio))


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _spread(value: Spread) -> str:
    return f"{readable(value.median)} ({readable(value.low)}-{readable(value.high)})"
