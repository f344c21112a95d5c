"""Reads people's answers from files: CSV, and what Label Studio and CVAT export. Judges nothing."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from diffood.errors import UsageError
from diffood.runtime.bundle.feedback import PersonAnswer
from diffood.runtime.json_reader import parse_json
from diffood.runtime.records import explain_invalid

MAX_LABELS_BYTES = 256 * 2**20
SHOWN = 80  # characters of a value in a message
REMEDY = "give CSV with the columns id and label, or the JSON that Label Studio or CVAT (Datumaro format) exports"


@dataclass(frozen=True)
class Label:
    """What a file says about one row.

    Attributes:
        where: The file and place, for messages.
        answer: In-distribution or not.
        id: Of the row; "" where only `name` is known.
        sha256: Of its file's bytes; "" if the file does not say.
        name: Of the picture that was exported, without its folder; "" if the file does not say.
    """

    where: str
    answer: PersonAnswer
    id: str = ""
    sha256: str = ""
    name: str = ""


def read_labels(path: Path) -> list[Label]:
    """All answers of a file; what has none yet is left out. Raises UsageError, with the place, for anything invalid."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--labels {path} cannot be read ({error.strerror}); {REMEDY}.") from None
    if len(data) > MAX_LABELS_BYTES:
        raise UsageError(f"--labels {path} has more than {MAX_LABELS_BYTES} bytes; {REMEDY}.")
    if path.suffix.lower() != ".json":
        return list(_read_csv(data, path))
    with explain_invalid(str(path), REMEDY, UsageError):
        content = parse_json(data)
    if isinstance(content, list):
        return list(_read_label_studio(content, path))
    if isinstance(content, dict) and isinstance(content.get("items"), list):
        return list(_read_datumaro(content, path))
    raise UsageError(f"{path} is neither an export of Label Studio nor one of CVAT; {REMEDY}.")


def _read_csv(data: bytes, path: Path) -> Iterator[Label]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        missing = [name for name in ("id", "label") if name not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(f"{path}, line 1 lacks the column {' and '.join(map(repr, missing))}; {REMEDY}.")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UsageError(f"{where} has not as many values as columns; {REMEDY}.")
            if row["label"].strip():
                yield Label(where, _answer(row["label"], where), row["id"], row.get("sha256") or "")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; {REMEDY}.") from None
    except csv.Error as error:
        raise UsageError(f"{path} is not CSV ({error}); {REMEDY}.") from None


def _read_label_studio(tasks: list[Any], path: Path) -> Iterator[Label]:
    """JSON has the data of a task apart and a list of annotations; JSON-MIN has all in one object."""
    for number, task in enumerate(tasks, 1):
        where = f"{path}, task {number}"
        if not isinstance(task, dict):
            raise UsageError(f"{where} is not an object; {REMEDY}.")
        inner = task.get("data")
        data: dict[str, Any] = inner if isinstance(inner, dict) else task
        row, sha256 = data.get("row"), data.get("sha256", "")
        if not isinstance(row, str) or not isinstance(sha256, str):
            raise UsageError(
                f"{where} does not say which row it is about: its data lack the text 'row'. Import the tasks.json of "
                "`diffood serve-batch --export-labels`, and export those tasks."
            )
        for choice in _choices(task, where):
            yield Label(where, _answer(choice, where), row, sha256)


def _choices(task: dict[str, Any], where: str) -> Iterator[Any]:
    if "annotations" not in task:
        if task.get("choice"):
            yield task["choice"]
        return
    try:
        for annotation in task["annotations"]:
            if not annotation.get("was_cancelled"):
                for result in annotation["result"]:
                    if result["type"] == "choices":
                        yield from result["value"]["choices"]
    except (AttributeError, KeyError, TypeError):
        raise UsageError(f"{where} has annotations that are not those of a choice; {REMEDY}.") from None


def _read_datumaro(content: dict[str, Any], path: Path) -> Iterator[Label]:
    """CVAT's export in the format of Datumaro: a picture's name, and numbers of labels."""
    try:
        names = [label["name"] for label in content["categories"]["label"]["labels"]]
        for item in content["items"]:
            name = PurePosixPath(str(item["id"])).name
            for annotation in item["annotations"]:
                if annotation["type"] == "label":
                    where = f"{path}, item {name[:SHOWN]!r}"
                    yield Label(where, _answer(names[annotation["label_id"]], where), name=name)
    except (AttributeError, IndexError, KeyError, TypeError):
        raise UsageError(f"{path} is not CVAT's export in the format of Datumaro; {REMEDY}.") from None


def _answer(text: Any, where: str) -> PersonAnswer:
    known: tuple[PersonAnswer, ...] = get_args(PersonAnswer)
    found = next((answer for answer in known if isinstance(text, str) and answer == text.strip().lower()), None)
    if found is None:
        raise UsageError(
            f"{where}: the label is {str(text)[:SHOWN]!r}; it must be 'ind' (in-distribution) or 'ood'. Leave it empty "
            "where nobody knows."
        )
    return found
