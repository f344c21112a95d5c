"""Every verb that opens a bundle asks it for what --trust, --expect-digest and the environment say."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.trust import EXPECT_DIGEST, TRUST

Run = Callable[..., Any]  # gives conftest.Done
PLAN = ("--start-time", 360, "--stride", 360, "--repeats", 1, "--guidance", 0)
OTHER = f"sha256:{'0' * 64}"


def test_every_verb_refuses_a_bundle_that_is_not_the_expected_one(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    ind, rows = folders / "ind", tmp_path / "rows.jsonl"
    rows.touch()
    before = open_bundle(calibrated).digest
    for words in (
        ("inspect", calibrated),
        ("verify", calibrated, "--images", ind),
        ("evaluate", calibrated, "--ind", ind),
        ("report", calibrated, "--ind", ind, "--output", tmp_path / "report.html"),
        ("bench", calibrated, "--seconds", 0, "--no-compile"),
        ("tune", calibrated, "--ind", ind, "--budget", 2),
        ("calibrate", calibrated, "--images", ind, "--overwrite"),
        ("calibrate", calibrated, "--plan-only"),
        ("calibrate", calibrated, "--restore"),
        ("serve-batch", calibrated, ind, "--output", tmp_path / "new.jsonl"),
        ("monitor", rows, "--bundle", calibrated),
        ("export-triton", calibrated, "--output", tmp_path / "models"),
        ("export-triton", calibrated, "--output", tmp_path / "models", "--decode-images"),
        ("export", "--bundle", calibrated),
        ("export", "--bundle", calibrated, "--precision", "fp16"),
    ):
        with subtests.test(words=" ".join(map(str, words[:3]))):
            run(*words, "--expect-digest", OTHER).assert_one_line(1, "has the digest", f"{OTHER} is expected")
            assert EXPECT_DIGEST not in os.environ
    assert open_bundle(calibrated).digest == before
    run("inspect", calibrated, "--expect-digest", "sha256:12").assert_wrong_usage(
        "'sha256:12'", "64 hexadecimal digits"
    )
    assert run("inspect", calibrated, "--expect-digest", before).code == 0


def test_a_run_tells_the_digest_of_the_bundle(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    digest = run("inspect", calibrated, "--json").content["digest"]
    rows = tmp_path / "rows.jsonl"
    serve = ("serve-batch", calibrated, folders / "ind", "--output", rows, "--batch", 8, "--threads", 1)
    assert run(*serve, "--expect-digest", digest).code == 0
    assert json.loads((tmp_path / "rows.jsonl.summary.json").read_bytes())["run"]["bundle_digest"] == digest


def make_keys(folder: Path) -> None:
    """NAME.pem and NAME.pub of a maker and a device."""
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="extra `trust`")
    from cryptography.hazmat.primitives import serialization as form

    for name in ("maker", "device"):
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(private)
        (folder / f"{name}.pub").write_bytes(public)


def test_a_bundle_is_signed_trusted_calibrated_again_and_signed_by_the_device(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path)
    bundle = Path(shutil.copytree(calibrated, tmp_path / "bundle"))
    maker, device = ("--trust", tmp_path / "maker.pub"), ("--trust", tmp_path / "device.pub")
    run("inspect", bundle, *maker).assert_one_line(1, "is not signed")
    signed = run("sign", bundle, "--key", tmp_path / "maker.pem", "--json").content
    assert signed["digest"] == run("inspect", bundle, *maker, "--json").content["digest"]
    run("inspect", bundle, *device).assert_one_line(1, "by no key that is trusted")

    monkeypatch.setenv(TRUST, f"{tmp_path / 'maker.pub'}{os.pathsep}{tmp_path / 'device.pub'}")
    (bundle / "calibration.json").write_bytes((bundle / "calibration.json").read_bytes() + b"\n")  # as anew
    serve = ("serve-batch", bundle, folders / "ind", "--output", tmp_path / "rows.jsonl", "--batch", 8, "--threads", 1)
    run(*serve).assert_one_line(1, "calibration.json was changed after it was signed")
    done = run("sign", bundle, "--key", tmp_path / "device.pem")
    assert "export      keeps its signature" in done.out
    shown = run("inspect", bundle)
    assert "signed      export.sig" in shown.out
    assert f"trusted by {tmp_path / 'maker.pub'}" in shown.out
    assert f"trusted by {tmp_path / 'device.pub'}" in shown.out
    monkeypatch.delenv(TRUST)
    assert "not checked" in run("inspect", bundle).out
    run("inspect", bundle, *maker).assert_one_line(1, "is not signed by a key that is trusted")
    (bundle / "calibration.json").write_bytes((bundle / "calibration.json").read_bytes() + b"\n")
    assert "not valid: 1 changed since, calibration.json among them" in run("inspect", bundle).out


def test_whoever_changes_a_signed_bundle_is_told_to_sign_it_again(
    run: Run, calibrated: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    make_keys(tmp_path)
    bundle, ind = Path(shutil.copytree(calibrated, tmp_path / "bundle")), calibrated.parent / "images"
    trust = ("--trust", tmp_path / "maker.pub", "--trust", tmp_path / "device.pub")
    machine = ("--backend", "onnxruntime-cpu", "--batch", 8, "--threads", 1)
    assert run("sign", bundle, "--key", tmp_path / "maker.pem").code == 0
    for words, changed, export in (
        (("verify", bundle, "--images", ind, "--max-flips", 0.5, *machine), "parity.json", False),
        (("calibrate", bundle, "--images", ind, "--fpr", 0.2, "--overwrite", *PLAN, *machine), "calibration", False),
        (("calibrate", bundle, "--restore"), "calibration", False),
        (("tune", bundle, "--ind", ind, "--budget", 1, "--images", 60, *machine), "and", True),
        (("export", "--bundle", bundle, "--precision", "fp16"), "and", True),
    ):
        with subtests.test(words=" ".join(map(str, words[:3]))):
            done = run(*words, *trust)
            assert done.code in (0, 3), done
            told = [line for line in done.err.splitlines() if "--trust refuses the bundle" in line]
            assert len(told) == 1, done
            assert changed in told[0]
            remedy = f"`diffood sign {bundle} --key KEY{' --overwrite' if export else ''}`"
            assert remedy in told[0]
            run("inspect", bundle, *trust).assert_one_line(1, "sign")
            sign = ["sign", bundle, "--key", tmp_path / ("maker.pem" if export else "device.pem")]
            assert run(*sign, *(["--overwrite"] if export else [])).code == 0
            shown = run("inspect", bundle, *trust)
            assert shown.out.count("trusted by") == 2, shown
            assert run("inspect", bundle, *trust).code == 0
    (bundle / "signatures" / "export.sig").unlink()
    (bundle / "signatures" / "calibration.sig").unlink()
    assert "--trust" not in run("calibrate", bundle, "--restore").err  # where nothing is signed, nothing is said
