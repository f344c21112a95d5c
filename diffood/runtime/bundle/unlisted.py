"""The files of a bundle that its manifest does not list: calibrations, judgements, tunings, detectors, engines.

Each is read once while a bundle is open: whoever asks for a record again gets the same object, and another file has to
be as it was. So what a command shows, decides by and writes comes from one reading, whatever becomes of the folder.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from diffood.errors import BundleError
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.files import WHOLE_COPY, Model, parse_record, read_regular, record_bytes
from diffood.runtime.bundle.seal import Seal


@dataclass(frozen=True)
class UnlistedFiles:
    """The files of one open bundle that were read or written.

    Attributes:
        path: The bundle's folder.
        seal: What every file must be as long as the bundle is open; None where nothing was asked of it.
        hashes: sha256 of each file as it was read or written last, by its path in the bundle.
        records: The records among them, by path.
    """

    path: Path
    seal: Seal | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    records: dict[str, BaseModel] = field(default_factory=dict)

    def read(self, name: str, limit: int, remedy: str = WHOLE_COPY) -> bytes:
        """Bytes of a file; `hashes` has their hash. Raises BundleError, also where it is not as it was read before."""
        data = read_regular(self.path, name, limit, remedy)
        found = hashlib.sha256(data).hexdigest()
        if self.seal is not None:
            self.seal.require(name, found)
        if (before := self.hashes.setdefault(name, found)) != found:
            raise BundleError(
                f"{self.path / name} was changed while the bundle was in use: its sha256 is {found[:12]}…, it was "
                f"{before[:12]}…. Open the bundle again: repeat the command, or open another Detector."
            )
        return data

    def read_record(
        self,
        name: str,
        model: type[Model],
        limit: int,
        remedy: str = WHOLE_COPY,
        check: Callable[[Model], None] | None = None,
    ) -> Model:
        """What a JSON record said when it was first read. Raises BundleError where it is invalid.

        Args:
            name: Its path in the bundle.
            model: Class of the record.
            limit: Largest allowed size of the file in bytes.
            remedy: What the user can do about a damaged file; ends the error message.
            check: Raises BundleError for a record that is not of this bundle.
        """
        known = self.records.get(name)
        if isinstance(known, model):
            return known
        data = self.read(name, limit, remedy)
        try:
            record = parse_record(data, self.path / name, model, remedy)
            if check is not None:
                check(record)
        except BundleError:
            del self.hashes[name]  # it is not used
            raise
        self.records[name] = record
        return record

    def write(self, name: str, data: bytes) -> Path:
        """Write a file in one move; returns its path."""
        write_durably(self.path / name, data)
        self.records.pop(name, None)
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        if self.seal is not None:
            self.seal.hashes[name] = self.hashes[name]
        return self.path / name

    def write_record(self, name: str, record: BaseModel) -> Path:
        """Write a JSON record in one move; later readers get this object. Returns its path."""
        path = self.write(name, record_bytes(record))
        self.records[name] = record
        return path

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)
        self.records.pop(name, None)
        self.hashes.pop(name, None)
