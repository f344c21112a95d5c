"""Attack: names, columns, classes and messages that act on a terminal, in a page or in a log, through every verb."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from command_line import Done, run_here
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, FACTORY, SMALL_BUNDLE

from diffood.runtime.printable import escape_for_terminal, is_hidden
from diffood.serving.rows.readers import read_rows
from diffood.zoo.images import load_set, unpack_set

NAMES = (
    *("\x1b[31mred", "\x1b]0;owned\x07", "\x9b31m", "a\nguarantee     all is well", "a\rb", "a\b\b", "\x7f", "a\x85b"),
    *("a\u2028b", "a\u2029b", "\u202egpj.exe", "\u2067a", "\u200ea", "\u061ca", "a\u200bb", "\ufeffa", "\U000e0041x"),
    *(
        "\udc9b31m\udcff",
        "[red]x[bold]",
        "<script>alert(1)<script>",
        '" onload="alert(1)',
        "<!--",
        "]]>",
        "$\\frac{a}$",
    ),
    *("=cmd|' '!A0", "+1", "@x", "\uff1d1", "{task.x}{0}%s", "{{ 7 * 7 }}", "a|b`c`", "--help", "'", "\\x1b"),
)
H = "\x1b[31m\u202ea\x9b\u2028\u200b\n[red]<b>"
"""One name that holds the most of them; it is an argument of a command too."""
PLAN = ("--start-time", "360", "--stride", "360", "--repeats", "1", "--guidance", "0")
MACHINE = ("--batch", "8", "--threads", "1")
ALSO_FOLDERS = 6  # a file of each name, and a folder of some

Say = Callable[..., Done]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Run a command and check all that it prints; libraries in C write past Python's streams."""

    def run(*words: object) -> Done:
        done = run_here(*words)
        assert "Traceback" not in done.err, done.err
        for line in (done.out + done.err).split("\n"):
            assert escape_for_terminal(line) == line
        return done

    yield run
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image and a broken file of each name, and a calibrated bundle; read-only."""
    root = tmp_path_factory.mktemp("hostile")
    images = load_set("fashion-test").images
    unpack_set("fashion-test", root / "good", len(NAMES))
    for number, (name, good) in enumerate(zip(NAMES, sorted((root / "good").iterdir()), strict=True)):
        folder = root / "images" / name if number < ALSO_FOLDERS else root / "images"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(good, folder / f"{name}.png")
        (folder / f"broken {name}.png").write_bytes(name.encode(errors="surrogateescape"))
    assert len(images) > len(NAMES)
    bundle = Path(shutil.copytree(SMALL_BUNDLE, root / f"bundle{H}"))
    unpack_set("fashion-validation", root / "validation", 96)
    done = run_here("calibrate", bundle, "--images", root / "validation", *PLAN, *MACHINE)
    assert done.code == 0, done
    return root


def assert_text(path: Path) -> str:
    """The text of a file that people read, which has no character that acts or is hidden."""
    text = path.read_text("utf-8")
    assert not [letter for letter in text if letter != "\n" and is_hidden(letter)], path
    return text


def test_a_run_over_hostile_names(hostile: Path, say: Say, tmp_path: Path) -> None:
    [bundle] = hostile.glob("bundle*")
    found = {}
    for ending in ("jsonl", "csv", "parquet"):
        rows, log = tmp_path / f"{ending}{H}.{ending}", tmp_path / f"{ending}.log"
        serve = ("serve-batch", bundle, hostile / "images", "--output", rows, "--log", log, *MACHINE)
        done = say(*serve, "--save-flagged", tmp_path / f"flagged {ending}{H}")
        assert done.code == 3, done
        assert f"{2 * len(NAMES)} files: {len(NAMES)} scored" in done.out
        found[ending] = [row for block in read_rows(rows) for row in block]
        for written in (log, *tmp_path.glob(f"{ending}*.json"), *tmp_path.glob(f"{ending}*.journal")):
            assert_text(written)
        assert say(*serve, "--save-flagged", tmp_path / f"flagged {ending}{H}", "--resume").code == 3
        assert say("monitor", rows, "--bundle", bundle, "--level", 0.5, "--json").code in (0, 4)
    assert found["jsonl"] == found["csv"] == found["parquet"]
    assert {Path(row.id).name for row in found["csv"]} >= {f"{name}.png" for name in NAMES if name.isprintable()} - {
        "\\x1b.png", "$\\frac{a}$.png"
    }  # fmt: skip
    assert_text(tmp_path / f"jsonl{H}.jsonl")
    assert len(assert_text(tmp_path / f"csv{H}.csv").split("\n")) == 2 * len(NAMES) + 2


class _Tags(HTMLParser):
    """The tags of a page and the names of their attributes; a comment is none of the page's own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def test_a_page_about_hostile_names_has_no_tag_of_theirs(hostile: Path, say: Say, tmp_path: Path) -> None:
    [bundle] = hostile.glob("bundle*")
    page, folder = tmp_path / f"page{H}.html", tmp_path / f"folder{H}"
    ood = f"<marquee onload>[red]$\\frac{{a}}$\u200b={hostile / 'images'}"
    given = ("--ind", hostile / "images", "--ood", ood, "--output", folder, "--report", page)
    assert say("evaluate", bundle, *given, *MACHINE).code == 3
    assert_text(folder / "evaluation.json")
    tags = _Tags(assert_text(page)).found
    assert {"html", "img", "alt"} <= tags
    assert not [name for name in tags if name in ("script", "marquee") or name.startswith("on")]


def write_containers(root: Path) -> dict[str, tuple[str, ...]]:
    """A list, an archive of each kind and tables with hostile names, and the options with which they are read."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = [*NAMES, f"http://h\x1bost/{H}?token=1", "reference://\x1b::x", "file://\x1b", "\x1b://x", f"{H}::zip://a"]
    (root / "list.txt").write_text("\n".join(lines), errors="surrogateescape")
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for name in (name for name in NAMES if "\udcff" not in name):
            archive.writestr(f"{name}.png", b"x")
    with tarfile.open(root / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in NAMES:
            member = tarfile.TarInfo(f"{name}.png")
            member.size = 1
            tar.addfile(member, BytesIO(b"x"))
            link = tarfile.TarInfo(f"{name}.lnk")
            link.type, link.linkname = tarfile.SYMTYPE, name
            tar.addfile(link)
    pq.write_table(pa.table({H: [1], "image": pa.array([None], pa.struct([(H, pa.int64())]))}), root / "a.parquet")
    ids = [name for name in NAMES if "\udcff" not in name]
    pq.write_table(pa.table({"id": ids, "image": [b"x"] * len(ids)}), root / "b.parquet")
    return {
        f"@{root / 'list.txt'}": (),
        str(root / "a.zip"): (),
        str(root / "a.tar"): (),
        str(root / "a.parquet"): ("--image-column", H),
        str(root / "b.parquet"): ("--id-column", "id"),
    }


def test_a_run_over_containers_with_hostile_names(hostile: Path, say: Say, tmp_path: Path) -> None:
    [bundle] = hostile.glob("bundle*")
    for number, (given, options) in enumerate(write_containers(tmp_path).items()):
        rows, log = tmp_path / f"{number}.csv", tmp_path / f"{number}.log"
        done = say("serve-batch", bundle, given, "--output", rows, "--log", log, "--decoders", 1, *options, *MACHINE)
        assert done.code == 3, done
        for written in (rows, log, *tmp_path.glob(f"{number}.csv.*")):
            assert_text(written)
        assert list(read_rows(rows))


def refused(bundle: Path, root: Path) -> list[tuple[object, ...]]:
    """Command lines of every verb that end in a message which quotes a name."""
    images, file = root / "images", root / "list.txt"
    serve = ("serve-batch", bundle, images, "--output", root / "rows.jsonl")
    to = ("--output", root / "new")
    return [
        *((H,), (f"--{H}",), ("inspect", bundle, f"--no{H}"), ("inspect", H), ("inspect", bundle, "--trust", H)),
        *(("inspect", bundle, "--expect-digest", H), ("inspect", bundle, "--trust", file), ("doctor", H)),
        *(("calibrate", bundle, "--images", H), ("calibrate", bundle, "--restore", "--kept", H)),
        *(("calibrate", bundle, "--images", images, *option, H) for option in [["--fpr"], ["--witnesses"], ["--plan"]]),
        *(("evaluate", bundle, "--ind", images, "--ood", name) for name in (H, f"{H}={H}", f"a={H}", f"a\u200b={H}")),
        *(("monitor", H, "--bundle", bundle), ("monitor", file, "--bundle", bundle), ("monitor", file, "--bundle", H)),
        *(("sign", bundle, "--key", H), ("sign", bundle, "--key", file), ("verify", bundle, "--images", H)),
        *(("tune", bundle, "--ind", H, "--budget", 1), ("report", bundle, "--ind", H, "--output", root / f"{H}.html")),
        *(("bench", bundle, "--plan", H), ("bench", bundle, "--images", H)),
        *(("export-triton", bundle, *to, "--name", H), ("export-web", bundle, *to, "--runtime", H)),
        *((*serve, "--log", root / H / "l"), (*serve, "--save-flagged", file / H), (*serve, "--backend", H)),
        *((*serve, "--watch", H), (*serve, "--provider", H), (*serve, "--format", H), (*serve[:2], "-", *serve[3:], H)),
        *((*serve[:2], name, *serve[3:]) for name in (H, f"@{H}", f"http://{H}", f"\x1b://{H}", f"{file}{H}")),
        ("serve-batch", bundle, images, "--output", root / f"{H}.xyz"),
    ]


def test_every_verb_that_refuses_a_hostile_name(hostile: Path, say: Say, tmp_path: Path) -> None:
    [bundle] = hostile.glob("bundle*")
    (tmp_path / "images").mkdir()
    (tmp_path / "list.txt").write_text(f"{H}\n")
    for words in refused(bundle, tmp_path):
        done = say(*words)
        assert done.code in (1, 2), (words, done)
        done.assert_one_line(done.code)


def test_variables_of_the_environment(hostile: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    [bundle] = hostile.glob("bundle*")
    for name in ("DIFFOOD_TRUST", "HOME", "TERM", "COLUMNS", "LANG"):
        with monkeypatch.context() as patch:
            patch.setenv(name, H)
            assert (say("inspect", bundle).code != 0) == (name == "DIFFOOD_TRUST")


HOSTILE_CLASSIFIER = f"""
import logging, warnings
warnings.warn({H!r})
logging.getLogger("a library").warning("%s", {H!r})
raise RuntimeError({H!r})
"""


@pytest.mark.slow  # it imports torch
def test_an_export_with_hostile_names(say: Say, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    models = ("--classifier", f"{CLASSIFIER}:{FACTORY}", "--classifier-weights", CLASSIFIER_WEIGHTS)
    names = tmp_path / f"names{H}.txt"
    names.write_text("\n".join(["a\u200bb", "[red]x", "<b>", "$x$", "=1", "|", "`", "\u200ea", "\ufeffx", "k"]))
    done = say("export", *models, "--input-size", "28x28", "--class-names", names, "--output", tmp_path / f"bundle{H}")
    assert done.code == 0, done
    assert "a\\u200bb" in done.out
    graph = onnx.load(SMALL_BUNDLE / "classify.onnx")
    made = {name for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        node.name += H
        node.output[:] = [name + H for name in node.output]
        node.input[:] = [name + H if name in made else name for name in node.input]
    for output in graph.graph.output:
        output.name += H
    onnx.save(graph, tmp_path / "net.onnx")
    (tmp_path / "net.py").write_text(HOSTILE_CLASSIFIER)
    to = ("--output", tmp_path / "other")
    given = (
        *(f"{kind}{H}" for kind in ("", "onnx:", "timm:", "torchvision:", f"{H}:")),
        f"onnx:{tmp_path / 'net.onnx'}",
    )
    for words in (
        *(("export", "--classifier", spec, *to) for spec in (*given, f"{tmp_path / 'net.py'}:build")),
        *(("export", *models, *to, "--class-names", H), ("export", *models, *to, "--unet", H)),
        *(("train-unet", "--images", H, *to), ("demo", "--output", tmp_path)),
    ):
        assert say(*words).code in (1, 2)


def test_a_letter_that_a_locale_lacks_is_an_escape() -> None:
    program = (
        "from diffood.cli.printing import print_lines, print_messages\n"
        "from diffood.cli.streams import outlast_readers\n"
        "outlast_readers()\nprint_lines('猫')\nprint_messages('猫')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("\\u732b\n", "\\u732b\n")


def test_what_python_prints_by_itself_is_escaped() -> None:
    program = (
        "import logging, warnings\n"
        "from diffood.cli.printing import print_what_python_says\n"
        "print_what_python_says()\n"
        f"warnings.warn({H!r})\nlogging.getLogger('a.library').warning('%s', {H!r})\nraise OSError({H!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert "UserWarning: \\x1b[31m\\u202e" in done.stderr
    assert "OSError: \\x1b[31m\\u202e" in done.stderr
    assert done.stderr.count("\\x1b[31m\\u202e") >= 3
    for line in done.stderr.split("\n"):
        assert escape_for_terminal(line) == line
