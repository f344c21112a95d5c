"""Public and private keys in PEM files: Ed25519, and the elliptic curves that OpenSSF's model-signing takes.

`cryptography` is imported where a key is needed: without signatures nothing needs it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffood.errors import MissingExtraError, UsageError

MAX_KEY_BYTES = 64 * 1024
KINDS = "Ed25519, or ECDSA on P-256, P-384 or P-521"
_MAKE = (
    "`openssl genpkey -algorithm ed25519 -out key.pem` makes one, `openssl pkey -in key.pem -pubout` its public half"
)
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # as model-signing takes them


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        file: Where it was read.
        hint: SHA-256 of its PEM form, by which a signature names it.
        pem: Its PEM form.
    """

    file: Path
    hint: str
    pem: bytes

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature is this key's over the data."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        key = serialization.load_pem_public_key(self.pem)
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, data)
            elif isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, _ecdsa(key.curve.name))
            else:
                return False
        except InvalidSignature:
            return False
        return True


def load_public_key(file: Path) -> PublicKey:
    """Read a public key. Raises UsageError if the file holds none that can be used, MissingExtraError."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    data = _read(file)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"{file} is a private key: trust its public half, and keep the private one off this machine.")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{file} is not a public key in PEM form; {_MAKE}.") from None
    _require_kind(key, file)
    pem = _public_pem(key)
    return PublicKey(file, hashlib.sha256(pem).hexdigest(), pem)


@dataclass(frozen=True)
class Signer:
    """A private key, and how its public half is named in a signature."""

    key: Any  # of cryptography, which need not be installed
    hint: str

    def sign(self, data: bytes) -> bytes:
        """The signature over the data."""
        from cryptography.hazmat.primitives.asymmetric import ed25519

        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return bytes(self.key.sign(data))
        return bytes(self.key.sign(data, _ecdsa(self.key.curve.name)))


def load_signer(file: Path) -> Signer:
    """Read a private key. Raises UsageError if the file holds none that can be used, MissingExtraError."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    data = _read(file)
    if b"PUBLIC KEY" in data:
        raise UsageError(f"{file} is a public key, which checks signatures: sign with the private one.")
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        raise UsageError(
            f"{file} is encrypted: give it decrypted, as `openssl pkey -in {file.name}` prints it."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{file} is not a private key in PEM form; {_MAKE}.") from None
    public: Any = key.public_key()
    _require_kind(public, file)
    return Signer(key, hashlib.sha256(_public_pem(public)).hexdigest())


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"The key {file} cannot be read ({error.strerror}); check the path.") from None


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Signatures need cryptography, which is not installed: pip install 'diffood[trust]'"
        ) from None


def _require_kind(key: Any, file: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    curve = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES
    if not curve and not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{file} is a key of another kind than {KINDS}; {_MAKE}.")


def _public_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.PEM, form))


def _ecdsa(curve: str) -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(getattr(hashes, _HASHES[curve])())
