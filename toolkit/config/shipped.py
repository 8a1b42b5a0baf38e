"""Where the files that ship beside the package lie (`ds_configs/`, `recipes/`, `slurm/`), installed or from a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(path: str) -> Path | None:
    """The file as given, from the working directory first, then from the installed package, then from the checkout."""
    for folder in (Path(), PACKAGE / "bundled", PACKAGE.parent):
        if (folder / path).exists():
            return folder / path
    return None
