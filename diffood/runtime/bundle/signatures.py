"""Signature files of a bundle, in the format of OpenSSF Model Signing 1.0. Checks them with keys; reads no model.

A file is a Sigstore bundle around a DSSE envelope around an in-toto statement, which lists files with their hashes:

    {"mediaType": …, "verificationMaterial": {"publicKey": {"hint": sha256 of the key}, …}, "dsseEnvelope":
      {"payload": base64 of {"subject": …, "predicate": {"resources": [{"name", "algorithm", "digest"}, …], …}},
       "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": base64, "keyid": ""}]}}

A bundle has up to two: one over what `export` wrote, and one over what was made later, which also covers the manifest.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from diffood.errors import BundleError
from diffood.runtime.bundle.files import plain_folder, read_regular
from diffood.runtime.bundle.keys import PublicKey, Signer
from diffood.runtime.json_reader import parse_json
from diffood.runtime.records import Record, Text, explain_invalid

SIGNATURES = "signatures"
EXPORT_SIGNATURE, LATER_SIGNATURE = "export.sig", "calibration.sig"
MAX_SIGNATURE_BYTES = 16 * 2**20
REMEDY = "remove it and sign the bundle again by `diffood sign`"

_PAYLOAD_TYPE: Literal["application/vnd.in-toto+json"] = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"


class _CamelRecord(Record):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class _KeyHint(_CamelRecord):
    hint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Material(_CamelRecord):
    public_key: _KeyHint
    tlog_entries: Annotated[tuple[Any, ...], Field(max_length=0)] = ()


class _RawSignature(_CamelRecord):
    sig: str
    keyid: Literal[""] = ""


class _Envelope(_CamelRecord):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"] = _PAYLOAD_TYPE
    signatures: Annotated[tuple[_RawSignature, ...], Field(min_length=1, max_length=1)]


class _SignatureRecord(_CamelRecord):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = (
        "application/vnd.dev.sigstore.bundle.v0.3+json"
    )
    verification_material: _Material
    dsse_envelope: _Envelope

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


class _Resource(Record):
    name: Text
    algorithm: Literal["sha256"]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class SignatureFile:
    """A signature file as it was read; what it says is not proven before `verified_by`.

    Attributes:
        path: Of the file.
        hint: SHA-256 of the PEM form of the key that is said to have signed.
        hashes: sha256 of each file that is covered, by its path in the bundle.
    """

    path: Path
    hint: str
    hashes: dict[str, str]
    signed: bytes
    signature: bytes

    def verified_by(self, keys: Iterable[PublicKey]) -> PublicKey | None:
        """The key that signed it, if it is one of these."""
        return next((key for key in keys if key.hint == self.hint and key.verifies(self.signature, self.signed)), None)


def read_signatures(path: Path) -> list[SignatureFile]:
    """The signature files of a bundle's folder, that of the export first. Raises BundleError for a damaged one."""
    folder = plain_folder(path, SIGNATURES)
    names = [name for name in (EXPORT_SIGNATURE, LATER_SIGNATURE) if os.path.lexists(folder / name)]
    return [_parse(folder / name, read_regular(folder, name, MAX_SIGNATURE_BYTES, REMEDY)) for name in names]


def _parse(path: Path, data: bytes) -> SignatureFile:
    with explain_invalid(str(path), REMEDY, BundleError):
        record = _SignatureRecord.model_validate(parse_json(data))
        if record.encode() != data:  # no second spelling, so that each changed bit is seen
            raise ValueError("it is not in the form that signing writes")
        payload = base64.b64decode(record.dsse_envelope.payload, validate=True)
        signature = record.dsse_envelope.signatures[0].sig
        raw = base64.b64decode(signature, validate=True)
        if _encode64(payload) != record.dsse_envelope.payload or _encode64(raw) != signature:
            raise ValueError("it is not in the form that signing writes")
        hashes = _hashes_of(payload)
    return SignatureFile(path, record.verification_material.public_key.hint, hashes, _to_sign(payload), raw)


def _hashes_of(payload: bytes) -> dict[str, str]:
    """The files of a statement. Raises ValueError."""
    try:
        statement = parse_json(payload)
        kinds = statement["_type"], statement["predicateType"], statement["predicate"]["serialization"]["method"]
        listed = [_Resource.model_validate(resource) for resource in statement["predicate"]["resources"]]
    except (KeyError, TypeError):
        raise ValueError("it is not a statement of OpenSSF Model Signing") from None
    if kinds != (_STATEMENT_TYPE, _PREDICATE_TYPE, "files"):
        raise ValueError(f"it is another kind of statement, {kinds!r}"[:200])
    hashes = {resource.name: resource.digest for resource in listed}
    if len(hashes) < len(listed):
        raise ValueError("it names a file twice")
    return hashes


def write_signature(signer: Signer, name: str, hashes: Mapping[str, str], ignored: Sequence[str]) -> bytes:
    """The content of a signature file.

    Args:
        signer: Who signs.
        name: Of the bundle.
        hashes: sha256 of each file that is covered, by its path in the bundle.
        ignored: Paths in the bundle that the signature does not cover.
    """
    files = sorted(hashes.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(found) for _, found in files)).hexdigest()
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [*ignored, SIGNATURES],
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": found} for path, found in files],
        },
    }
    payload = json.dumps(statement).encode()
    record = _SignatureRecord(
        verification_material=_Material(public_key=_KeyHint(hint=signer.hint)),
        dsse_envelope=_Envelope(
            payload=_encode64(payload), signatures=(_RawSignature(sig=_encode64(signer.sign(_to_sign(payload)))),)
        ),
    )
    return record.encode()


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _to_sign(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: no payload can be taken for one of another type."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
