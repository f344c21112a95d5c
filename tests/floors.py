"""Prints the oldest version that pyproject.toml allows of each package a user's extra needs, as constraints for pip.

Run by `make test-floors`. torch is left to constraints-cpu.txt: its oldest release has no CPU build at the registry.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

EXTRAS = ("", "export", "parquet", "pictures", "remote", "report")


def main() -> None:
    """Print a line per package."""
    for requirement in map(Requirement, requires("diffood") or ()):
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS)
        for bound in requirement.specifier:
            if wanted and bound.operator == ">=" and requirement.name != "torch":
                print(f"{requirement.name}=={bound.version}")


if __name__ == "__main__":
    main()
