"""What a bundle must prove when it is opened: signatures by keys that are trusted, or one digest.

Asked for in Python, by --trust and --expect-digest, or for a whole machine by the environment. Without any, a bundle is
opened as it is.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.digest import PREFIX, digest_of
from diffood.runtime.bundle.keys import PublicKey, load_public_key
from diffood.runtime.bundle.seal import Seal
from diffood.runtime.bundle.signatures import SignatureFile, read_signatures
from diffood.runtime.printable import shell_word

TRUST, EXPECT_DIGEST = "DIFFOOD_TRUST", "DIFFOOD_EXPECT_DIGEST"
KEY_ENDINGS = (".pem", ".pub")


@dataclass(frozen=True)
class Trust:
    """What a bundle must prove.

    Attributes:
        keys: Files of public keys, or folders of them; each file of the bundle must be signed by one. Empty: by none.
        digest: The digest the bundle must have, as `diffood inspect` prints it; None: any.
    """

    keys: tuple[Path, ...] = ()
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.digest is not None and not re.fullmatch(rf"{PREFIX}[0-9a-f]{{64}}", self.digest):
            raise UsageError(
                f"The digest {self.digest!r} is not {PREFIX} and 64 hexadecimal digits, as `diffood inspect` prints it."
            )

    @property
    def demands(self) -> bool:
        """Whether anything must be proven."""
        return bool(self.keys) or self.digest is not None

    def updated(self, keys: Sequence[str | Path], digest: str | None) -> "Trust":
        """The same with these keys instead of its own, and this digest, where they are given."""
        return Trust(tuple(map(Path, keys)) or self.keys, self.digest if digest is None else digest)

    def load_keys(self) -> list[PublicKey]:
        """The keys. Raises UsageError for a file that is none, and for a folder without any."""
        return [load_public_key(file) for given in self.keys for file in _key_files(given)]


NOTHING_ASKED = Trust()
"""For a folder that this process has just written itself."""


def asked_by_environment() -> Trust:
    """What DIFFOOD_TRUST, one path or several with ':' between, and DIFFOOD_EXPECT_DIGEST ask of every bundle."""
    given = os.environ.get(TRUST)
    paths = tuple(Path(part) for part in (given or "").split(os.pathsep) if part.strip())
    if given is not None and not paths:
        raise UsageError(f"{TRUST} is set and empty: name the files of the keys to trust, or unset it.")
    return Trust(paths, os.environ.get(EXPECT_DIGEST))


@dataclass(frozen=True)
class TrustCheck:
    """What a bundle proves while it is opened, before its graphs and engines are read.

    Attributes:
        path: The bundle's folder.
        trust: What is asked of it.
        signed: The files that trusted keys have signed; None where no signature is asked for.
    """

    path: Path
    trust: Trust
    signed: Seal | None

    def require(self, name: str, sha256: str) -> None:
        """Raise BundleError unless a file is as it was signed, if it has to be."""
        if self.signed is None:
            return
        if name not in self.signed.hashes:
            raise BundleError(
                f"{self.path / name} is not signed by a key that is trusted: sign it by `diffood sign "
                f"{shell_word(self.path)} --key KEY` if it is yours, else copy the bundle again, whole."
            )
        self.signed.require(name, sha256)

    def finish(self, hash_files: Callable[[], dict[str, str]]) -> Seal | None:
        """Raise BundleError unless all files are as asked; gives what later reads are held to, None if nothing is."""
        if not self.trust.demands:
            return None
        hashes = hash_files()
        for name, sha256 in hashes.items():
            self.require(name, sha256)
        if self.signed is not None and (missing := self.signed.hashes.keys() - hashes.keys()):
            raise BundleError(
                f"{self.path / min(missing)} was signed and is not there: copy the bundle again, whole, or sign it "
                f"again by `diffood sign {shell_word(self.path)} --key KEY`."
            )
        if self.trust.digest is not None and (found := digest_of(hashes)) != self.trust.digest:
            raise BundleError(
                f"{self.path} has the digest {found}, and {self.trust.digest} is expected: it is another bundle, or "
                "was changed. Do not use it; copy the bundle again, whole."
            )
        return Seal(self.path, hashes, "it was opened")


def begin_check(path: Path, trust: Trust) -> TrustCheck:
    """Read and check the signatures of a bundle, if keys are trusted. Raises BundleError if none is by one of them."""
    keys = trust.load_keys()
    if not keys:
        return TrustCheck(path, trust, None)
    found = read_signatures(path)
    valid = [one for one in found if one.verified_by(keys)]
    if not valid:
        raise BundleError(
            f"{path} {_why_not(found)}: {', '.join(str(key.file) for key in keys)} would be trusted. Do not use it; "
            "get a signed bundle from its maker, or sign it by `diffood sign` if it is yours."
        )
    return TrustCheck(path, trust, Seal(path, _merge(path, valid), "it was signed"))


def _merge(path: Path, valid: list[SignatureFile]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for one in valid:
        for name, sha256 in one.hashes.items():
            if hashes.setdefault(name, sha256) != sha256:
                raise BundleError(
                    f"The signatures of {path} disagree about {name}: they are of two bundles. Copy the bundle again, "
                    f"whole, or sign it again by `diffood sign {shell_word(path)} --key KEY --overwrite`."
                )
    return hashes


def _why_not(found: list[SignatureFile]) -> str:
    if not found:
        return "is not signed"
    hints = ", ".join(f"{one.path.name} by {one.hint[:16]}…" for one in found)
    return f"is signed by no key that is trusted, or its signatures were changed ({hints})"


def _key_files(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    files = sorted(file for file in given.iterdir() if file.suffix in KEY_ENDINGS)
    if not files:
        raise UsageError(f"The folder {given} of keys to trust has no {' or '.join(KEY_ENDINGS)} file; put one there.")
    return files
