"""Attack: an image takes the process that decodes it over, which then reaches for files, network and secrets."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hijacked_decoder import DONE, Hijacked, deeds
from image_mutations import mutate, seeds, with_right_checksums

from diffood.cli.doctor import examine_sandbox
from diffood.runtime import child as child_module
from diffood.runtime.child import NEEDED, ONE_THREAD
from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageShape
from diffood.runtime.inputs.decoding import IN_THREADS, DecodeOptions, decode_ahead
from diffood.runtime.inputs.items import InlineItem, Item, Pause
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.tables import list_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can confine a process this way")

SHAPE = ImageShape(3, 9, 9)
ONE_PROCESS = DecodeOptions(processes=1, seconds=30)
OWN = {"ORT_DISABLE_TELEMETRY", "LC_CTYPE"}  # set by diffood, and by Python itself


def decode(items: list[Item], decoding: DecodeOptions) -> list[DecodedImage]:
    pairs = decode_ahead(items, SHAPE, DEFAULT_LIMITS, 8, decoding)
    return [pair[1] for pair in pairs if not isinstance(pair, Pause)]


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to be read, and a key in the environment; both processes below import what they need to try."""
    start = child_module.START.replace("from", "import hijacked_decoder; from", 1)
    monkeypatch.setattr(child_module, "START", start)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    path = tmp_path / "secret"
    path.write_text("swordfish")
    return path


def require_seccomp() -> None:
    if "seccomp" not in examine_sandbox():
        pytest.skip("this kernel has no seccomp")


def judge(ends: dict[str, str], secret: Path) -> None:
    environment = set(ends.pop("environment").split(","))
    assert environment <= {*NEEDED, *ONE_THREAD, *OWN}
    assert ends.pop("a thread") == DONE
    assert ends.keys() == deeds("").keys()
    assert {name for name, end in ends.items() if end != "PermissionError"} == set()
    assert secret.read_text() == "swordfish"
    assert [path.name for path in secret.parent.iterdir() if path.suffix != ".parquet"] == ["secret"]


def test_a_decoder_reaches_nothing(secret: Path) -> None:
    require_seccomp()
    [loaded] = decode([Hijacked("x", str(secret))], ONE_PROCESS)
    judge(json.loads(loaded.error), secret)


def test_a_reader_of_tables_reaches_nothing(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_seccomp()
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = secret.with_name("t.parquet")
    pq.write_table(pa.table({"image": [b"x"]}), table)
    hijack = (
        "import diffood.runtime.inputs.table_worker as worker, json\n"
        f"worker.read_rows = lambda *given: [(None, json.dumps(hijacked_decoder.tried({str(secret)!r})))]\nmain"
    )
    monkeypatch.setattr(child_module, "START", child_module.START.replace("; main", f"\n{hijack}"))
    [item] = list_table(str(table), "t", ReadOptions(DEFAULT_LIMITS))
    judge(json.loads(item.reason), secret)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")  # pytest undoes what decode.py sets for the threads
def test_confined_decoding_says_the_same() -> None:
    """A module or a file that a decoder would open only when it needs it would show here as another row."""
    items: list[Item] = []
    for number, (name, data) in zip(range(600), itertools.cycle(seeds().items()), strict=False):
        rng = np.random.default_rng([number, len(data)])
        mutant = data if number < len(seeds()) else mutate(data, rng)
        items.append(InlineItem(f"{number}.{name}", "", with_right_checksums(mutant) if number % 2 else mutant))
    found = [decode(items, decoding) for decoding in (IN_THREADS, ONE_PROCESS)]
    for item, one, other in zip(items, *found, strict=True):
        assert (one.sha256, one.note, one.error) == (other.sha256, other.note, other.error), item.id
        assert np.array_equal(one.pixels, other.pixels), item.id  # type: ignore[arg-type]
    assert sum(bool(loaded.error) for loaded in found[0]) > 100
