"""A shipped source on files that a test lays out."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

from tasks.sources import SHIPPED
from tests.tiny_source import TinySource


def shipped_source(root: Path, name: str, files: Path | None = None, *names: str) -> TinySource:
    """The shipped source of that name, with copies of `names` of the folder `files` as its input."""
    shipped = TinySource(root)
    shipped.input.mkdir(parents=True)
    shipped.home.mkdir()
    (root / "source").symlink_to(SHIPPED / name)
    add_files(shipped.input, files, *names)
    return shipped


def add_files(folder: Path, files: Path | None, *names: str) -> None:
    """Copies `names` of the folder `files` into `folder`, which is made first."""
    folder.mkdir(exist_ok=True)
    for name in names:
        copyfile((files or folder) / name, folder / name)


def append(path: Path, lines: list[str], encoding: str = "utf-8") -> None:
    """Adds lines to a text file that ends with a line end, or makes it."""
    with path.open("a", encoding=encoding, newline="") as file:
        file.writelines(line + "\n" for line in lines)
