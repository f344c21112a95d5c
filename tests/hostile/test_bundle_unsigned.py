"""Attack: a bundle is changed, completed, thinned out or signed anew by someone whose key is not trusted."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import undone
from full_bundle import complete
from planted_engine import plant_engine

from diffood.calibration.calibrate import calibrate_files
from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.digest import hash_file
from diffood.runtime.bundle.engines import list_engines
from diffood.runtime.bundle.signatures import EXPORT_SIGNATURE, LATER_SIGNATURE, SIGNATURES
from diffood.runtime.bundle.signing import sign_bundle
from diffood.runtime.bundle.trust import EXPECT_DIGEST, TRUST, Trust, begin_check
from diffood.runtime.bundle.writing import write_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import PLANS_WITHOUT_UNET

pytest.importorskip("cryptography", reason="the extra `trust` is not installed")

Attack = Callable[[Path], object]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys: NAME.pem and NAME.pub of a maker, a device, a thief, and an elliptic curve."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    folder = tmp_path_factory.mktemp("keys")
    made: dict[str, Any] = {name: ed25519.Ed25519PrivateKey.generate() for name in ("maker", "device", "thief")}
    for name, key in (made | {"curve": ec.generate_private_key(ec.SECP256R1())}).items():
        (folder / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return folder


@pytest.fixture
def trust(keys: Path) -> Trust:
    """Trust in the maker and the device."""
    return Trust((keys / "maker.pub", keys / "device.pub"))


@pytest.fixture
def signed(fused: Path, keys: Path) -> Path:
    """A bundle with an engine, signed by its maker, and calibrated and signed on a device."""
    for name in ("calibration.json", "detector.json", "detector.onnx"):
        (fused / name).rename(fused.parent / name)
    sign_bundle(fused, keys / "maker.pem")
    for name in ("calibration.json", "detector.json", "detector.onnx"):
        (fused.parent / name).rename(fused / name)
    plant_engine(fused)
    sign_bundle(fused, keys / "device.pem")
    return fused


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def files_of(folder: Path) -> list[Path]:
    """All files in a folder and its folders."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_signed_opens_and_scores_as_before(signed: Path, trust: Trust, keys: Path) -> None:
    plain = open_bundle(signed)
    with Detector.open(signed, batch=8, threads=1, trust=trust.keys, expect_digest=plain.digest) as detector:
        assert detector.calibration() == load_calibration(plain)
        assert detector.bundle.digest == plain.digest
    for curve in (keys / "curve.pem", keys / "maker.pem"):  # one key may sign it all
        sign_bundle(signed, curve, overwrite=True)
        open_bundle(signed, Trust((curve.with_suffix(".pub"),)))


def test_a_bit_of_any_file_is_refused(signed: Path, trust: Trust, subtests: pytest.Subtests) -> None:
    for path in files_of(signed):
        for place in (0.0, 0.37, 1.0):
            with subtests.test(file=path.name, place=place), undone(signed):
                flip(path, int(place * (path.stat().st_size - 1)))
                with pytest.raises(BundleError) as refused:
                    Detector.open(signed, batch=8, threads=1, trust=trust.keys)
                assert str(refused.value).isprintable()


@pytest.fixture
def lean(signed: Path, keys: Path, tmp_path: Path, clothes_folder: Path) -> Path:
    """A signed bundle of the classifier alone, so small that each of its bits can be tried."""
    bundle = tmp_path / "lean"
    bundle.mkdir()
    manifest = open_bundle(signed).manifest
    for name in ("classify.onnx", manifest.golden):
        shutil.copyfile(signed / name, bundle / name)
    np.savez(bundle / manifest.golden, image=np.zeros(1, np.uint8))  # opening a bundle hashes it, and reads it not
    plans, classify = dict(PLANS_WITHOUT_UNET), tuple(one for one in manifest.graphs if one.role == "classify")
    changes = {
        "unet": None,
        "noise_levels": None,
        "graphs": classify,
        "plans": plans,
        "default_plan": next(iter(plans)),
    }
    write_bundle(bundle, lambda files: manifest.model_copy(update=changes | {"files": files}))
    sign_bundle(bundle, keys / "maker.pem")
    detector = Detector.load(open_bundle(bundle), plans[changes["default_plan"]], batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    complete(bundle)
    sign_bundle(bundle, keys / "device.pem")
    return bundle


def judge_steps(path: Path, trust: Trust) -> Callable[[str], object]:
    """What opening a bundle does with a file, by its path: the steps of open_bundle without what other files cost."""
    check, bundle = begin_check(path, trust), open_bundle(path, trust)
    signatures = {f"{SIGNATURES}/{name}" for name in (EXPORT_SIGNATURE, LATER_SIGNATURE)}

    def judge(name: str) -> object:
        if name in signatures:
            begin_check(path, trust)
            return open_bundle(path, trust)  # where it is still a signature
        if name in bundle.manifest.files:
            return bundle.read(name)
        if name == "manifest.json":
            return check.require(name, hashlib.sha256((path / name).read_bytes()).hexdigest())
        return check.finish(lambda: {**signed, name: hash_file(path, name, {})})

    signed = bundle.hash_files()
    return judge


@pytest.mark.slow
def test_every_bit_of_every_file_is_refused(lean: Path, trust: Trust) -> None:
    judge, passed, tried = judge_steps(lean, trust), [], 0
    for path in files_of(lean):
        name, original = path.relative_to(lean).as_posix(), path.read_bytes()
        judge(name)  # as it is, it passes
        with path.open("r+b", buffering=0) as file:
            for bit in range(8 * len(original)):
                place, value = bit // 8, original[bit // 8]
                os.pwrite(file.fileno(), bytes([value ^ 1 << bit % 8]), place)
                tried += 1
                for open_it in (judge, lambda _: open_bundle(lean, trust)) if tried % 500 == 0 else (judge,):
                    try:
                        open_it(name)
                    except BundleError:
                        continue
                    passed.append((name, bit))
                os.pwrite(file.fileno(), bytes([value]), place)
    assert tried > 300_000
    assert not passed, passed[:20]


def rewrite_statement(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a signature file says, and leave its signature."""
    record = json.loads(path.read_bytes())
    statement = json.loads(base64.b64decode(record["dsseEnvelope"]["payload"]))
    change(statement)
    record["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(record, separators=(",", ":")))


def test_what_is_not_as_signed_is_refused(
    signed: Path, trust: Trust, keys: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    export, later = (Path(SIGNATURES, name) for name in (EXPORT_SIGNATURE, LATER_SIGNATURE))

    def other_bundle(bundle: Path) -> None:
        """A true signature of another bundle of the same maker."""
        other = Path(shutil.copytree(bundle, tmp_path / "other"))
        content = json.loads((other / "manifest.json").read_bytes())
        (other / "manifest.json").write_text(json.dumps(content))
        sign_bundle(other, keys / "maker.pem", overwrite=True)
        shutil.copyfile(other / export, bundle / export)

    def name_the_maker(bundle: Path) -> None:
        """The thief's signature under the maker's name."""
        hint = json.loads((bundle / export).read_bytes())["verificationMaterial"]["publicKey"]["hint"]
        sign_bundle(bundle, keys / "thief.pem", overwrite=True)
        record = json.loads((bundle / export).read_bytes())
        record["verificationMaterial"]["publicKey"]["hint"] = hint
        (bundle / export).write_text(json.dumps(record, separators=(",", ":")))

    def loosen(bundle: Path) -> None:
        (bundle / "classify.onnx").write_bytes(b"")
        rewrite_statement(bundle / export, lambda statement: statement["predicate"]["resources"].pop())

    def link(bundle: Path) -> None:
        (bundle / SIGNATURES).rename(tmp_path / "elsewhere")
        (bundle / SIGNATURES).symlink_to(tmp_path / "elsewhere")

    def bank(bundle: Path) -> Path:
        return next((bundle / "calibrations").glob("bank.*"))

    attacks: dict[str, tuple[Attack, str]] = {
        "no signatures": (lambda bundle: shutil.rmtree(bundle / SIGNATURES), "is not signed"),
        "no export": (lambda bundle: (bundle / export).unlink(), "is not signed by a key that is trusted"),
        "no later": (lambda bundle: (bundle / later).unlink(), r"(calibration|detector).* is not signed by a key"),
        "thief": (lambda bundle: sign_bundle(bundle, keys / "thief.pem", overwrite=True), "by no key that is trusted"),
        "thief in the maker's name": (name_the_maker, "by no key that is trusted|is not signed by a key"),
        "another bundle": (other_bundle, "disagree about manifest.json"),
        "a statement of less": (loosen, "is not signed by a key that is trusted"),
        "links": (link, "is a link"),
        "calibration gone": (lambda bundle: (bundle / "calibration.json").unlink(), "was signed and is not there"),
        "engine gone": (lambda bundle: shutil.rmtree(bundle / "engines"), "was signed and is not there"),
        "bank gone": (lambda bundle: bank(bundle).unlink(), "was signed and is not there"),
        "an engine more": (lambda bundle: plant_engine(bundle, "fast"), "engines/.*is not signed"),
        "a judgement more": (lambda bundle: (bundle / "parity.json").write_text("{}"), "parity.json is not signed"),
        "a tuning more": (lambda bundle: (bundle / "tuning.json").write_text("{}"), "tuning.json is not signed"),
        "a kept calibration more": (lambda bundle: (bundle / "calibrations/0.json").write_text("{}"), "0.json is not"),
        "signatures of nothing": (lambda bundle: (bundle / export).write_text("{}"), "export.sig is invalid"),
        "a long signature": (lambda bundle: (bundle / export).write_bytes(b" " * 2**25), "bytes where at most"),
        "deep": (lambda bundle: (bundle / export).write_text("[" * 100_000), "export.sig is invalid"),
    }
    for name, (attack, message) in attacks.items():
        with subtests.test(attack=name), undone(signed):
            attack(signed)
            with pytest.raises(BundleError, match=message):
                open_bundle(signed, trust)
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        open_bundle(signed, trust)


def test_a_changed_bundle_is_refused_before_its_manifest_and_graphs_are_read(signed: Path, trust: Trust) -> None:
    (signed / "classify.onnx").unlink()
    (signed / "detector.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"detector.onnx was changed after it was signed"):  # that one is hashed first
        open_bundle(signed, trust)
    (signed / "manifest.json").write_text("not JSON")
    with pytest.raises(BundleError, match=r"manifest.json was changed after it was signed"):
        open_bundle(signed, trust)
    with pytest.raises(BundleError, match=r"manifest.json is invalid: it is not JSON"):  # without the question
        open_bundle(signed)


def test_what_is_swapped_while_a_bundle_is_open_is_refused(
    signed: Path, trust: Trust, subtests: pytest.Subtests
) -> None:
    engine = next((signed / "engines").iterdir()).name
    swapped: dict[str, Callable[[Bundle], object]] = {
        "calibration.json": load_calibration,
        f"engines/{engine}/engine.json": list_engines,
    }
    for name, read in swapped.items():
        for asked in (trust, Trust(digest=open_bundle(signed).digest)):
            with subtests.test(name=name, keys=len(asked.keys)), undone(signed):
                bundle = open_bundle(signed, asked)
                (signed / name).write_text(json.dumps(json.loads((signed / name).read_bytes())))  # another spelling
                with pytest.raises(BundleError, match=f"{name} was changed after it was opened"):
                    read(bundle)


def test_the_digest_is_that_of_sha256sum_and_leaves_reports_out(signed: Path) -> None:
    digest = open_bundle(signed).digest
    (signed / "report.html").write_text("a report")
    (signed / ".calibration.json.tmp").write_text("a write in progress")
    listed = [path for path in files_of(signed) if path.parent.name != SIGNATURES]
    lines = sorted((path.relative_to(signed).as_posix(), path.read_bytes()) for path in listed)
    text = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in lines
        if name not in ("report.html", ".calibration.json.tmp")
    )
    assert open_bundle(signed).digest == digest == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    flip(signed / "detector.onnx", 100)
    changed = open_bundle(signed).digest
    assert changed != digest
    with pytest.raises(BundleError, match=f"has the digest {changed}, and {digest} is expected"):
        open_bundle(signed, Trust(digest=digest))


def test_a_device_does_not_sign_an_export_that_is_not_the_makers(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = (signed / SIGNATURES / EXPORT_SIGNATURE).read_bytes()
    (signed / "calibration.json").write_bytes((signed / "calibration.json").read_bytes() + b"\n")  # calibrated again
    assert sign_bundle(signed, keys / "device.pem").kept
    assert (signed / SIGNATURES / EXPORT_SIGNATURE).read_bytes() == maker
    content = json.loads((signed / "manifest.json").read_bytes())
    (signed / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"manifest.json is not as it was when the export was signed"):
        sign_bundle(signed, keys / "device.pem")
    sign_bundle(signed, keys / "thief.pem", overwrite=True)
    monkeypatch.setenv(TRUST, str(keys / "maker.pub"))
    with pytest.raises(BundleError, match="by no key that is trusted"):
        sign_bundle(signed, keys / "device.pem")


def test_the_environment_asks_of_every_bundle(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    several = f"{keys / 'maker.pub'}:{keys / 'device.pub'}"
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    for value, error, message in (
        (str(keys / "thief.pub"), BundleError, "by no key that is trusted"),
        (str(keys / "maker.pub"), BundleError, "is not signed by a key that is trusted"),
        ("", UsageError, "DIFFOOD_TRUST is set and empty"),
        (" :", UsageError, "DIFFOOD_TRUST is set and empty"),
        (str(keys / "gone.pub"), UsageError, "gone.pub cannot be read"),
        (str(keys / "maker.pem"), UsageError, "is a private key"),
        (str(signed / "manifest.json"), UsageError, "is not a public key"),
        (str(trusted), UsageError, "has no .*file"),
    ):
        monkeypatch.setenv(TRUST, value)
        with pytest.raises(error, match=message):
            open_bundle(signed)
    monkeypatch.setenv(TRUST, several)
    open_bundle(signed)
    for name in ("maker.pub", "device.pub"):
        shutil.copy(keys / name, trusted)
    monkeypatch.setenv(TRUST, str(trusted))
    digest = open_bundle(signed).digest
    for value, error in (("sha256:12", UsageError), (f"sha256:{'0' * 64}", BundleError)):
        monkeypatch.setenv(EXPECT_DIGEST, value)
        with pytest.raises(error):
            open_bundle(signed)
    monkeypatch.setenv(EXPECT_DIGEST, digest)
    open_bundle(signed)


def test_openssfs_own_tool_accepts_the_signatures_and_makes_them(fused: Path, keys: Path) -> None:
    verifying = pytest.importorskip("model_signing.verifying", reason="model-signing is not installed")
    signing, hashing = (pytest.importorskip(f"model_signing.{name}") for name in ("signing", "hashing"))
    sign_bundle(fused, keys / "curve.pem")
    for name in (EXPORT_SIGNATURE, LATER_SIGNATURE):
        config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "curve.pub")
        config.verify(fused, fused / SIGNATURES / name)
    shutil.rmtree(fused / SIGNATURES)
    (fused / SIGNATURES).mkdir()
    ignore = hashing.Config().set_ignored_paths(paths=[SIGNATURES])
    config = signing.Config().use_elliptic_key_signer(private_key=keys / "curve.pem").set_hashing_config(ignore)
    config.sign(fused, fused / SIGNATURES / EXPORT_SIGNATURE)
    open_bundle(fused, Trust((keys / "curve.pub",)))
    flip(fused / "calibration.json", 100)
    with pytest.raises(BundleError, match=r"calibration.json was changed after it was signed"):
        open_bundle(fused, Trust((keys / "curve.pub",)))
