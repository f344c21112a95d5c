"""Signs a bundle: what was exported, and in a second signature what was made later, on the device for example."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import ENGINES, KEPT, MANIFEST, NOT_IN_MANIFEST, Bundle, open_bundle
from diffood.runtime.bundle.digest import digest_of
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.files import plain_folder
from diffood.runtime.bundle.keys import PublicKey, Signer, load_signer
from diffood.runtime.bundle.signatures import (
    EXPORT_SIGNATURE,
    LATER_SIGNATURE,
    SIGNATURES,
    SignatureFile,
    read_signatures,
    write_signature,
)
from diffood.runtime.bundle.trust import NOTHING_ASKED, Trust, asked_by_environment
from diffood.runtime.printable import shell_word

LATER = (*NOT_IN_MANIFEST[1:], KEPT, ENGINES)
"""What is made after an export; the signature of the export ignores it."""


@dataclass(frozen=True)
class SignedBundle:
    """What a signing did.

    Attributes:
        digest: Of the bundle.
        hint: SHA-256 of the PEM form of the key that signed.
        written: How many files each signature that was written covers, by its name.
        kept: Whether the export's earlier signature was left as it was.
    """

    digest: str
    hint: str
    written: dict[str, int]
    kept: bool


def sign_bundle(path: Path, key: Path, *, overwrite: bool = False) -> SignedBundle:
    """Sign the files of a bundle.

    A signature of the export that is there already is kept, and only what was made later is signed.

    Args:
        path: The bundle's folder.
        key: File of the private key.
        overwrite: Sign the export again too.

    Raises:
        BundleError: The bundle is damaged, or its export is not what was signed.
        UsageError: The key cannot be used.
        MissingExtraError: cryptography is not installed.
    """
    signer, bundle = load_signer(key), open_bundle(path, NOTHING_ASKED)
    hashes = bundle.hash_files()
    exported = {name: found for name, found in hashes.items() if name == MANIFEST or name in bundle.manifest.files}
    kept = not overwrite and _export_is_signed(bundle, exported, asked_by_environment())
    later = {MANIFEST: hashes[MANIFEST]} | {name: hashes[name] for name in hashes.keys() - exported.keys()}
    written = {}
    if not kept:
        _write(bundle, EXPORT_SIGNATURE, signer, exported, LATER)
        written[EXPORT_SIGNATURE] = len(exported)
    if len(later) > 1:
        _write(bundle, LATER_SIGNATURE, signer, later, sorted(exported.keys() - {MANIFEST}))
        written[LATER_SIGNATURE] = len(later)
    else:
        (path / SIGNATURES / LATER_SIGNATURE).unlink(missing_ok=True)
    return SignedBundle(digest_of(hashes), signer.hint, written, kept)


def _export_is_signed(bundle: Bundle, exported: Mapping[str, str], trust: Trust) -> bool:
    """Whether the export has a signature. Raises BundleError if that is of other files, or of no key to trust."""
    found = next((one for one in read_signatures(bundle.path) if one.path.name == EXPORT_SIGNATURE), None)
    if found is None:
        return False
    remedy = "Do not sign it; copy the bundle again, or give --overwrite if the export is yours"
    changed = {name for name, _ in exported.items() ^ found.hashes.items()}
    if changed:
        raise BundleError(f"{bundle.path / min(changed)} is not as it was when the export was signed. {remedy}.")
    keys = trust.load_keys()
    if keys and not found.verified_by(keys):
        raise BundleError(f"{found.path} is by no key that is trusted, or was changed. {remedy}.")
    return True


def _write(
    bundle: Bundle, name: str, signer: Signer, hashes: Mapping[str, str], ignored: tuple[str, ...] | list[str]
) -> None:
    folder = plain_folder(bundle.path, SIGNATURES)
    folder.mkdir(exist_ok=True)
    write_durably(folder / name, write_signature(signer, bundle.path.absolute().name, hashes, ignored))


@dataclass(frozen=True)
class SignatureState:
    """A signature as `diffood inspect` shows it.

    Attributes:
        name: Of its file.
        key: SHA-256 of the PEM form of the key that is said to have signed.
        files: How many files it covers.
        trusted: The file of the trusted key that signed; None if there is none, or none is trusted.
        changed: Files that are not as they were signed.
    """

    name: str
    key: str
    files: int
    trusted: str | None
    changed: tuple[str, ...]


def list_signatures(bundle: Bundle, hashes: Mapping[str, str]) -> list[SignatureState]:
    """The signatures of a bundle whose files have these hashes. Raises BundleError for a damaged one."""
    found, keys = read_signatures(bundle.path), asked_by_environment().load_keys()
    return [_state(one, keys, hashes) for one in found]


def describe_unsigned(path: Path) -> str:
    """A sentence for whoever changed a signed bundle, with what to do; "" where it is not signed, or all of it is."""
    try:
        signatures = read_signatures(path)
        if not signatures:
            return ""
        bundle = open_bundle(path, NOTHING_ASKED)
        hashes = bundle.hash_files()
    except BundleError as error:
        return str(error)
    signed = {(name, found) for one in signatures for name, found in one.hashes.items()}
    changed = sorted({name for name, _ in {*hashes.items()} ^ signed})
    if not changed:
        return ""
    exported = any(name == MANIFEST or name in bundle.manifest.files for name in changed)
    more = f" and {len(changed) - 1} more files" if len(changed) > 1 else ""
    return (
        f"{changed[0]}{more} of {path} are not as they were signed, and --trust refuses the bundle: sign it again by "
        f"`diffood sign {shell_word(path)} --key KEY{' --overwrite' if exported else ''}`."
    )


def _state(one: SignatureFile, keys: list[PublicKey], hashes: Mapping[str, str]) -> SignatureState:
    key = one.verified_by(keys)
    changed = tuple(sorted(name for name, found in one.hashes.items() if hashes.get(name) != found))
    return SignatureState(one.path.name, one.hint, len(one.hashes), str(key.file) if key else None, changed)
