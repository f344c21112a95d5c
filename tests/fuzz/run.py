"""Runs fuzz targets: `run.py TARGET --minutes M` guided by coverage, `--examples N` on the corpus and N mutants of it.

What fails is written to --findings, with the name of its kind; put it into corpus/TARGET once it is mended. Guided runs
need atheris (extra `fuzz`), and keep what they learn in --findings too, so that the next one goes on from there.
"""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
INSTRUMENTED = ["diffood", "tarfile", "zipfile", "gzip", "PIL"]
SECONDS = 20  # for one input; what takes longer hangs
MEGABYTES = 2048 + 1024  # for the process: what one input may cost, and the libraries
LONGEST = 2**17  # bytes of an input


def load_target(name: str) -> ModuleType:
    """Import a target. diffood comes first: importing it turns the telemetry of ONNX Runtime off."""
    import diffood  # noqa: F401

    return importlib.import_module(f"targets.{name}")


def list_corpus(name: str) -> list[Path]:
    """Files of a target's corpus, in order."""
    return sorted((CORPUS / name).iterdir())


def run_examples(name: str, examples: int, seed: int) -> None:
    """Run the corpus, and so many mutants of it. Raises what fails, after writing the input down."""
    import numpy as np
    from image_mutations import mutate
    from oracle import MOST_BYTES, peak_bytes

    target, rng = load_target(name), np.random.default_rng(seed)
    seeds = [path.read_bytes() for path in list_corpus(name)]
    changes = [change for change in (mutate, getattr(target, "change", None)) if change]

    def use(data: bytes) -> None:
        before = peak_bytes()
        try:
            target.use(data)
            assert peak_bytes() - before < MOST_BYTES, f"{peak_bytes() - before} bytes of memory"
        except BaseException:
            sys.stderr.write(f"failed on {data[:2000].hex()}\n")
            raise

    for data in seeds:
        use(data)
    for number in range(examples):
        data = seeds[int(rng.integers(len(seeds)))]
        use(changes[number % len(changes)](data, rng))
    print(f"{name}: {len(seeds)} files of the corpus and {examples} mutants")


def run_guided(name: str, minutes: float, findings: Path) -> None:
    """Run atheris for so long; it ends the process."""
    import atheris
    import numpy as np

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        target = load_target(name)
    (learnt := findings / name).mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": int(minutes * 60),
        "timeout": SECONDS,
        "rss_limit_mb": MEGABYTES,
        "max_len": LONGEST,
        "artifact_prefix": f"{findings}/{name}-",
        "print_final_stats": 1,
    }

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        changed = target.change(data, np.random.default_rng(seed)) if seed % 2 else atheris.Mutate(data, most)
        return bytes(changed[:most])

    words = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items())]
    custom = {"custom_mutator": mutate} if hasattr(target, "change") else {}
    atheris.Setup([*words, str(learnt), str(CORPUS / name)], target.use, **custom)
    atheris.Fuzz()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(path.name for path in CORPUS.iterdir()))
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path(".fuzz"))
    asked = parser.parse_args()
    if asked.minutes:
        run_guided(asked.target, asked.minutes, asked.findings)
    else:
        run_examples(asked.target, asked.examples, asked.seed)


if __name__ == "__main__":
    main()
