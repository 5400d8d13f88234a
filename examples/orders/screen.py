"""What the demo shows while it runs: a progress bar on a terminal, plain lines everywhere else."""

from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


class Screen(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def say(self, text: str, style: str = "", /) -> None: ...
    def progress(self, finished: int) -> None: ...


class PlainScreen:
    """Lines of text; the progress is said at every tenth."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._tenths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def say(self, text: str, _style: str = "", /) -> None:
        print(text, file=self._stream, flush=True)

    def progress(self, finished: int) -> None:
        tenths = finished * 10 // self._total
        if tenths > self._tenths:
            self._tenths = tenths
            self.say(f"{finished} of {self._total} orders finished")


class BarScreen:
    """A bar that stays at the bottom of the terminal, under the lines."""

    def __init__(self, progress: "Progress", total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("orders finished", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def say(self, text: str, style: str = "", /) -> None:
        self._progress.console.print(text, style=style, markup=False, highlight=False)

    def progress(self, finished: int) -> None:
        self._progress.update(self._task, completed=finished)


def open_screen(stream: TextIO, total: int) -> Screen:
    if not stream.isatty():
        return PlainScreen(stream, total)
    try:  # rich is not among perdure's dependencies: the demo goes without where it is missing
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError:
        return PlainScreen(stream, total)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return BarScreen(Progress(*columns, console=Console(file=stream)), total)
