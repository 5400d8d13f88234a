"""A small file system of a test's own, in memory: one that can be full, and one that can be read-only."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(folder: Path, size: str) -> Iterator[Path]:
    """Mount one, if this process may."""
    folder.mkdir()
    try:
        done = _mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("there is no mount(8) here; the faults below SQLite's file system run all the same")
    if done.returncode != 0:
        pytest.skip(f"this process may not mount: {done.stderr.strip()}; the faults below SQLite run all the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    """Make a mounted file system `ro` or `rw`."""
    done = _mount("-o", f"remount,{how}", str(folder))
    assert done.returncode == 0, done.stderr


def fill(folder: Path) -> Path:
    """Take all the space that is left; the file that has it."""
    filler = folder / "filler"
    file = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (65_536, 4_096, 1):
            with contextlib.suppress(OSError):
                while os.write(file, bytes(size)):
                    pass
    finally:
        os.close(file)
    return filler


def _mount(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
