"""Writes the corpus from real files: records of a calibrated bundle, its graphs, images, archives, rows, weights.

    python tests/fuzz/make_corpus.py

What a fuzz target once failed on is in files named after it, which this leaves alone.
"""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import numpy as np
import torch
from cheap_calibration import calibrate_cheaply
from image_mutations import seeds
from planted_engine import plant_engine
from run import CORPUS
from small_models import CLASSIFIER_WEIGHTS, SMALL_BUNDLE
from targets.journals import KINDS
from targets.records import READERS
from tars import member, png, tar

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.parity import CheckRecord, add_checks
from diffood.runtime.bundle.tuning import add_tuned
from diffood.runtime.detector import Detector
from diffood.zoo.images import unpack_set

RESEALED = 0x80
URLS = (
    "http://user:pass@host.example/a.png?X-Amz-Signature=0a1b&size=2\nhttps://h/x?token=abc#frag\nimages/a.png\n",
    "s3://bucket/key with space.png\ngs://b/k\naz://container@account/b\nzip://*.png::https://h/a.zip\n",
    "reference://a.png::http://h/evil.json\nfile:///etc/passwd\nsimplecache::http://h/a\n::1\n10.0.0.1\n64:ff9b::1\n",
    "http://[::ffff:169.254.169.254]/latest\nHTTP://H/?sig=Zq7Secret9Zq7Secret9Zq7x\n\ufeffhttp://\u202eh/\n",
)
TABLES = (b"\0\3image\nimage\nid", b"\4\2\1\nimage\nname\n\x1b[31mred", b"\2\nbytes\nbytes")


def write(target: str, name: str, data: bytes) -> None:
    """Write a file of the corpus."""
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(data)


def write_records(folder: Path, images: Path) -> None:
    """Records of a bundle that was calibrated and signed, with a made-up engine and judgement."""
    bundle = calibrate_cheaply(Path(shutil.copytree(SMALL_BUNDLE, folder / "bundle")), images)
    opened = open_bundle(bundle)
    running = Detector.open(bundle, batch=1, threads=1).fingerprint
    add_checks(opened, [CheckRecord(variant=running, what="golden", outcome="ok", detail="as exported")])
    add_tuned(opened, ["0" * 64, "f" * 64])
    key = folder / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run([sys.executable, "-m", "diffood", "sign", bundle, "--key", key], check=True)
    engine = plant_engine(bundle) / "engine.json"
    for number, (name, _) in enumerate(READERS):
        data = (engine if name == "engine.json" else bundle / name).read_bytes()
        write("records", name.replace("/", "-"), bytes([number]) + data)
        write(
            "records", f"resealed-{name.replace('/', '-')}", bytes([number + RESEALED - RESEALED % len(READERS)]) + data
        )
    rows = folder / "rows"
    for options in (["--output", rows, "--format", "jsonl", "--part-rows", 8], ["--output", folder / "rows.csv"]):
        subprocess.run([sys.executable, "-m", "diffood", "serve-batch", bundle, images, *map(str, options)], check=True)
    found = (rows / "_journal", rows / "part-000000.jsonl", folder / "rows.csv", rows / "_summary.json")
    for number, (name, path) in enumerate(zip(KINDS, found, strict=True)):
        write("journals", name, bytes([number]) + b"".join(path.read_bytes().splitlines(keepends=True)[:200]))


def write_archives() -> None:
    """Tars of all compressions and a zip, each to be opened as a file; a tar that comes piece by piece."""
    whole = tar([member("a.png", png(1)), member("d/b.png", png(2)), member("a.txt", b"7"), member(".h", b"")])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.png", "d/b.png", "a.cls"):
            archive.writestr(zipfile.ZipInfo(name), png(3))
    for name, data in {
        "tar": whole,
        "gz": gzip.compress(whole, mtime=0),
        "bz2": bz2.compress(whole),
        "xz": lzma.compress(whole),
        "zip": stream.getvalue(),
        "two": whole + whole,
    }.items():
        write("archives", name, b"f" + data)
    write("archives", "stream", b"s" + whole)
    write("archives", "stream.gz", b"s" + gzip.compress(whole, mtime=0))


def write_tensors(folder: Path) -> None:
    """Arrays of a bundle, weights of a model as safetensors and as torch writes them."""
    levels, features = np.linspace(0.999, 0.01, 50), np.eye(4, 6, dtype=np.float16)
    for name, arrays in {"levels": {"alpha_bar": levels}, "bank": {"features": features}}.items():
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write("tensors", name, b"n" + stream.getvalue())
    write("tensors", "safetensors", b"s" + CLASSIFIER_WEIGHTS.read_bytes()[:12_000])
    state = {"model": {"conv.weight": torch.ones(2, 1, 3, 3), "conv.bias": torch.zeros(2)}, "step": 7}
    for name, new in {"torch.zip": True, "torch.legacy": False}.items():
        torch.save(state, folder / name, _use_new_zipfile_serialization=new)
        write("tensors", name, b"t" + (folder / name).read_bytes())


def main() -> None:
    """Write everything."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        unpack_set("fashion-validation", folder / "images", 64)
        write_records(folder, folder / "images")
        write_tensors(folder)
    write_archives()
    write("graphs", "classify.onnx", (SMALL_BUNDLE / "classify.onnx").read_bytes())
    for name, data in seeds().items():
        write("images", name, b"\0" + data)
    for number, text in enumerate(URLS):
        write("urls", f"list{number}", text.encode())
    for number, data in enumerate(TABLES):
        write("tables", f"table{number}", data)


if __name__ == "__main__":
    main()
