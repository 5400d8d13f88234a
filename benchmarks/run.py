"""Measures perdure: throughput, latency, imports, memory, recovery, and the raw limits beside them.

What is short is measured in rounds, each figure once or more in each, so that a neighbour who is busy for ten seconds
spoils a sample of every figure and the median of none. What is large is measured once, and compared with itself.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import report
from busy import measure_busy, measure_idle
from coordination import measure_coordination
from figure import CHILDREN, EXECUTED, FINISHED, IN_FLIGHT, SLEEPERS, SUSPENDED, WAITING, Figures, new_figures
from limit import measure_inserts, measure_syncs, read_journal
from machine import Others, describe_machine, load_average, source_digest
from process import ask, measure_first_result, measure_import, measure_parked
from recovery import measure_recovery
from throughput import Throughput, measure_latency, measure_throughput
from workload import STEPS

RESULTS = Path(__file__).parent / "RESULTS.md"

# By the file system's standard it outlives a restart, so it is on a disk. /tmp is often memory, where a commit is free.
DISK = Path("/var/tmp")  # noqa: S108 - only mkdtemp makes anything in it

ROUNDS = 5
# On a busy machine fewer rounds must do: all of it ends within a minute.
FEWEST_ROUNDS = 2
ROUNDS_S = 35.0

WORKFLOWS = 1_000
# With one in flight the rate does not depend on how many follow; the thousand would take most of the minute.
WORKFLOWS_ALONE = 50
ONE_STEP_WORKFLOWS = 300
GATHERS = 3
BUSY_WORKFLOWS = 15
SYNCS = 200
IMPORTS = 11
IMPORTS_ALL = 5
FIRST_RESULTS = 5
PARKED = 2_000
# Journals of a thousand entries each.
REPLAYED = 40
# A process each: half a second of work has a spread of its own.
REPLAYS = 5
RECOVERIES = 5
WAITING_ROUNDS = 3
TRIPS = 200
# The largest of them take a minute on a quiet machine.
LARGE_LIMIT_S = 600.0


def say(text: str) -> None:
    # Beside the report, which may go to a file or a program.
    print(text, file=sys.stderr, flush=True)


def measure_round(directory: Path, figures: Figures) -> None:
    others = Others()
    for in_flight in IN_FLIGHT:
        measure_steps(directory, in_flight, figures)
    waited = asyncio.run(measure_latency(directory / "latency.perdure", workflows=ONE_STEP_WORKFLOWS, gathers=GATHERS))
    figures["one_step_p50_ms"].samples.append(waited.percentile(50))
    figures["one_step_p99_ms"].samples.append(waited.percentile(99))
    figures["gather_ms"].samples += waited.gather
    busy = asyncio.run(measure_busy(directory / "busy.perdure", workflows=BUSY_WORKFLOWS))
    idle = asyncio.run(measure_idle(directory / "idle.perdure", workflows=BUSY_WORKFLOWS))
    figures["busy_p50_ms"].samples.append(statistics.median(busy))
    figures["busy_times"].samples.append(statistics.median(busy) / idle)
    figures["disk_syncs_per_s"].samples.append(measure_syncs(directory / "syncs", SYNCS))
    cores = others.cores()
    if cores is not None:
        figures["others_cores"].samples.append(cores)


def measure_steps(directory: Path, in_flight: int, figures: Figures) -> None:
    """The engine with so many in flight, then the same rows without it."""
    path = directory / f"steps-{in_flight}.perdure"
    workflows = WORKFLOWS_ALONE if in_flight == 1 else WORKFLOWS
    did = asyncio.run(measure_throughput(path, workflows=workflows, in_flight=in_flight))
    statement, rows = read_journal(path)
    rows = rows[STEPS:]  # the first execution was there before the clock started
    note_steps(figures, in_flight, did, len(rows))
    size = max(1, round(len(rows) / did.transactions))
    raw = measure_inserts(directory / f"raw-{in_flight}", statement, rows, size)
    figures[f"raw_rows_per_s_{in_flight}"].samples.append(raw)
    if in_flight == 1:
        commits = raw if size == 1 else measure_inserts(directory / "raw", statement, rows, 1)
        figures["disk_commits_per_s"].samples.append(commits)


def note_steps(figures: Figures, in_flight: int, did: Throughput, rows: int) -> None:
    figures[f"steps_per_s_{in_flight}"].samples.append(did.steps / did.seconds)
    figures[f"cpu_us_per_step_{in_flight}"].samples.append(did.cpu_seconds / did.steps * 1_000_000)
    figures[f"rows_per_commit_{in_flight}"].samples.append(rows / did.transactions)
    figures["commits_per_step"].samples.append(did.commits / did.steps)
    figures["rows_per_step"].samples.append(rows / did.steps)


def measure_rounds(directory: Path, figures: Figures, rounds: int) -> None:
    began = time.perf_counter()
    for number in range(1, rounds + 1):
        place = directory / f"round-{number}"
        place.mkdir()
        measure_round(place, figures)
        last = {name: figure.text(figure.samples[-1]) for name, figure in figures.items() if figure.samples}
        say(
            f"round {number} of {rounds}: {last['steps_per_s_100']} steps/s, {last['cpu_us_per_step_100']} µs CPU a step, "
            f"one step {last['one_step_p50_ms']} ms, gather {last['gather_ms']} ms, "
            f"disk {last['disk_commits_per_s']} commits/s, others {last.get('others_cores', '?')} cores"
        )
        spent = time.perf_counter() - began
        if number >= FEWEST_ROUNDS and spent + spent / number > ROUNDS_S:
            say(f"the machine is busy: {number} rounds must do")
            return


def measure_processes(directory: Path, figures: Figures) -> None:
    measure_import("import perdure")  # writes the bytecode, if nobody has
    for _ in range(IMPORTS):
        figures["import_ms"].samples.append(measure_import("import perdure"))
    for _ in range(IMPORTS_ALL):
        figures["import_all_ms"].samples.append(measure_import("from perdure import *"))
    say(f"imports: {figures['import_ms'].median:.0f} ms, all names {figures['import_all_ms'].median:.0f} ms")
    for number in range(FIRST_RESULTS):
        figures["first_result_s"].samples.append(measure_first_result(directory / f"first-{number}.perdure"))
    say(f"first result: {figures['first_result_s'].median:.2f} s")
    parked = measure_parked(directory, PARKED)
    figures["parked_bytes"].samples.append(parked.kept)
    figures["evicted_bytes"].samples.append(parked.evicted)
    say(f"a parked kernel: {parked.kept:,.0f} bytes")


def measure_waiting(directory: Path, figures: Figures) -> None:
    for number in range(1, WAITING_ROUNDS + 1):
        place = directory / f"waiting-{number}"
        place.mkdir()
        waited = asyncio.run(
            measure_coordination(place, trips=TRIPS, waiting=WAITING, children=CHILDREN, sleepers=SLEEPERS)
        )
        for name, value in waited._asdict().items():
            figures[name].samples.append(value)
        say(
            f"waiting {number} of {WAITING_ROUNDS}: round trip {waited.round_trip_ms:.2f} ms, "
            f"{waited.completions_per_s:,.0f} completions/s, {CHILDREN:,} children {waited.children_s:.2f} s, "
            f"{waited.sleepers_per_s:,.0f} sleepers/s"
        )


def measure_memory(directory: Path, figures: Figures) -> None:
    """What is kept of many: the process's own size, so each in a process of its own."""
    for name, what in (("suspended_bytes", "parked"), ("suspended_evicted_bytes", "evicted")):
        figures[name].samples.append(ask("memory.py", what, directory, SUSPENDED, limit_s=LARGE_LIMIT_S))
        say(f"{SUSPENDED:,} {what}: {figures[name].median:,.0f} bytes each")
    grown = ask("memory.py", "executed", directory, EXECUTED, limit_s=LARGE_LIMIT_S)
    figures["executed_growth"].samples.append(grown["growth"])
    figures["executed_bytes"].samples.append(grown["bytes_each"])
    say(f"{EXECUTED:,} executed: the process has grown {grown['growth']:.3f} times, to {grown['mib']:.0f} MiB")


def measure_replay(directory: Path, figures: Figures) -> None:
    for number in range(REPLAYS):
        place = directory / f"replay-{number}"
        place.mkdir()
        for name, rate in ask("replay.py", place, REPLAYED, limit_s=LARGE_LIMIT_S).items():
            figures[f"replay_{name}"].samples.append(rate)
    say(f"replay: {figures['replay_per_s'].median:,.0f} entries/s")


def measure_finished(directory: Path, figures: Figures) -> None:
    for verb, (full, empty) in ask("beside.py", directory, FINISHED, limit_s=LARGE_LIMIT_S).items():
        figures[f"finished_{verb}"].samples.append(full / empty)
        say(f"{verb}: {full:,.1f} µs of CPU beside {FINISHED:,} finished executions, {empty:,.1f} beside none")


def measure_recoveries(directory: Path, figures: Figures) -> None:
    for number in range(RECOVERIES):
        for spread_ms in (0, 10):
            did = measure_recovery(directory / f"{spread_ms}-{number}", concurrency=None, spread_ms=spread_ms)
            figures["recovery_s"].samples.append(did.seconds)
            figures["recovery_cpu_s"].samples.append(did.cpu_seconds)
            figures["recovery_cut_off"].samples.append(did.cut_off)
            figures["recovery_unrecorded"].samples.append(did.unrecorded)
        everything = measure_recovery(directory / f"all-{number}", concurrency=1_000, spread_ms=0)
        figures["recovery_all_s"].samples.append(everything.seconds)
        figures["recovery_all_cut_off"].samples.append(everything.cut_off)
        figures["recovery_all_unrecorded"].samples.append(everything.unrecorded)
    say(f"recovery: {figures['recovery_s'].median:.2f} s")


# By what `--only` calls them. The directory of each is its own, and gone before the next one begins.
PARTS: dict[str, Callable[[Path, Figures], None]] = {
    "processes": measure_processes,
    "waiting": measure_waiting,
    "memory": measure_memory,
    "replay": measure_replay,
    "finished": measure_finished,
    "recovery": measure_recoveries,
}
IN_ROUNDS = "engine"


def measure_parts(options: argparse.Namespace, figures: Figures) -> None:
    parts = {IN_ROUNDS: lambda directory, figures: measure_rounds(directory, figures, options.rounds), **PARTS}
    for part, measure in parts.items():
        if options.only is None or part in options.only:
            began, cpu_began = time.perf_counter(), sum(os.times()[:4])
            with tempfile.TemporaryDirectory(prefix="perdure-bench-", dir=options.directory) as name:
                measure(Path(name), figures)
            # Far apart: somebody else had the cores.
            say(f"{part}: {time.perf_counter() - began:.0f} s, {sum(os.times()[:4]) - cpu_began:.0f} s of CPU")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure perdure on this machine, in a few minutes.")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/RESULTS.md")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a figure misses what it must reach")
    parser.add_argument("--json", action="store_true", help="report as JSON, with every sample")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often to measure ({ROUNDS})")
    parser.add_argument("--directory", type=Path, default=DISK, help=f"on which disk to measure ({DISK})")
    parser.add_argument("--only", action="append", choices=[IN_ROUNDS, *PARTS], help="measure this part (and others)")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write: RESULTS.md has all figures of one run, so not with --only")
    if options.rounds < 1:
        parser.error("--rounds: it takes one at least")
    if not options.directory.is_dir():
        parser.error(f"--directory: there is no folder {options.directory}")

    figures = new_figures()
    machine = describe_machine(options.directory.resolve())
    machine["load before"] = load_average()
    say(f"measuring in {options.directory}, load {machine['load before']}")
    measure_parts(options, figures)
    machine["load after"] = load_average()
    if source_digest() != machine["sources"]:
        machine["sources"] += ", and CHANGED while it was measured: measure again"

    print(report.as_json(machine, figures) if options.json else report.table(figures))
    if options.write:
        RESULTS.write_text(report.markdown(machine, figures), encoding="utf-8")
        say(f"written to {RESULTS}")
    missed = [figure.title for figure in figures.values() if not figure.is_met]
    if missed:
        say(f"missed: {'; '.join(missed)}")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
