"""The input folder as it lies there: what is empty, cannot be looked at, or changes while it is read."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.errors import ContractError

Sizes = dict[Path, tuple[int, int]]  # of each input file: bytes and the moment of its last change


def input_sizes(input_root: Path, home: Path) -> Sizes:
    """Every file below the input folder but those set aside by a name that begins with a dot or an underscore.

    A folder that links lead back to is walked once, a home in it not at all. Raises `ContractError` for what cannot be looked
    at and for empty files.
    """
    sizes, walked = {}, {os.path.realpath(home)}
    try:
        for folder, folders, names in os.walk(input_root, onerror=_raise, followlinks=True):
            if (place := os.path.realpath(folder)) in walked:
                folders.clear()
                continue
            walked.add(place)
            folders[:] = [name for name in folders if name[0] not in "._"]
            for path in [Path(folder, name) for name in names if name[0] not in "._"]:
                status = path.stat()
                sizes[path] = (status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ContractError(
            f"{error.filename} cannot be looked at: {error.strerror}. Repair it, let this user read it, or remove it"
        ) from error
    empty = sorted(str(path) for path, (size, _) in sizes.items() if not size)
    if empty:
        raise ContractError(f"{some(empty)} is empty (0 bytes); deliver it again or remove it")
    return sizes


def _raise(error: OSError) -> None:
    raise error


def some(names: list[str]) -> str:
    """The first names of a list that may be long."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def refuse_changes(input_root: Path, home: Path, before: Sizes) -> None:
    """Raises `ContractError` for files that grew, shrank, came or went since `before` was taken."""
    after = input_sizes(input_root, home)
    changed = [
        f"{path} ({before.get(path, (0,))[0]:,} → {after.get(path, (0,))[0]:,} bytes)"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    if changed:
        raise ContractError(
            f"{some(changed)} changed while the input was read. Deliver whole files: write them aside (under a name that "
            "begins with a dot), then rename; run again when they are complete"
        )
