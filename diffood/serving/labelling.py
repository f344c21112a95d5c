"""Keeps the pictures that people are to label, and lists them as tasks of Label Studio."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.feedback import LabelDesign
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.printable import escape_json
from diffood.serving.rows.row import Row
from diffood.serving.watching.flagged import FlaggedFolder, picture_name

TASKS = "tasks.json"
SERVED = "/data/local-files/?d="  # where Label Studio serves files of its local storage


class LabelFolder:
    """A folder with the file of each row that the design draws, and `tasks.json` once the run has ended."""

    def __init__(self, folder: Path, limits: ImageLimits, design: LabelDesign) -> None:
        self._folder, self._design = FlaggedFolder(folder, limits, "--export-labels"), design

    @property
    def not_kept(self) -> int:
        """Files that changed or went away after they were scored."""
        return self._folder.not_kept

    def keep(self, row: Row, item: Item) -> None:
        """Keep the file of a row, if it is drawn."""
        if self._draws(row):
            self._folder.keep_as(picture_name(row.id, row.sha256), item, row.sha256, None)

    def write_tasks(self, rows: Iterable[Row]) -> int:
        """List the drawn ones of all rows of an output; returns how many they are."""
        tasks: list[dict[str, Any]] = []
        for row in rows:
            if self._draws(row):
                name = picture_name(row.id, row.sha256)
                place = f"{SERVED}{self._folder.folder.name}/{name}"
                tasks.append({"data": {"image": place, "row": row.id, "sha256": row.sha256, "name": name}})
        text = escape_json(json.dumps(tasks, ensure_ascii=False, indent=1))
        write_durably(self._folder.folder / TASKS, (text + "\n").encode())
        return len(tasks)

    def _draws(self, row: Row) -> bool:
        return row.status != "rejected" and self._design.draws(row.id, row.sha256, flagged=bool(row.is_ood))
