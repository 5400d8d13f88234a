"""Where and when it was measured: a figure without its machine, its load and its commit says nothing."""

import hashlib
import os
import platform
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pydantic

ROOT = Path(__file__).parents[1]


def describe_machine(directory: Path) -> dict[str, str]:
    """Everything that two runs must share before their figures are compared."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "sources": source_digest(),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": f"{apsw.sqlitelibversion()} (apsw {apsw.apswversion()})",
        "pydantic": pydantic.VERSION,
        "filesystem": _filesystem(directory),
    }


def load_average() -> str:
    """How many processes wanted to run in the last 1, 5 and 15 minutes."""
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def source_digest() -> str:
    """The first digits of a SHA-256 over the package: a commit does not tell what a changed working tree holds."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix in {".py", ".sql"}:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


class Others:
    """How much of the machine everybody else has used since this was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def cores(self) -> float | None:
        """Cores in use by others, on average; None where the system does not tell."""
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        used = busy - self._busy - (_own_seconds() - self._own)
        # The kernel counts in hundredths of a second: a little less than nothing is nothing.
        return max(used, 0.0) / (time.perf_counter() - self._began)


def _busy_seconds() -> float | None:
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    # user nice system idle iowait irq softirq steal; guests are counted in user already.
    ticks = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "none yet"
    return f"{commit}, with changes" if _git("status", "--porcelain", "--", "src") else commit


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    ran = subprocess.run([git, "-C", str(ROOT), *arguments], check=False, capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{size / 2**30:.1f} GiB"


def _filesystem(directory: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    # The mount whose point is the longest of those above the directory; the last of equals hides the others.
    best = ("", "unknown")
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split()
        if directory.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return f"{best[1]} ({directory})"
