"""A job that blocks the event loop: found by its task and line, named to its owners, and counted against it alone."""

from __future__ import annotations

import asyncio
import linecache
import site
import sys
import sysconfig
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import app
from app.core import clock
from app.core.errors import LoopBlocked
from app.core.logging import bind, get_logger, unbind
from app.jobs.worker.finisher import Finisher
from app.jobs.worker.loop import JobLoop
from app.jobs.worker.run import Run, Runs

# A shorter stall is not reported: garbage collection and imports take that long.
MIN_REPORTED_S = 1.0

_FOLDERS = [sysconfig.get_path("stdlib"), *site.getsitepackages(), str(Path(app.__file__).parent / "jobs")]
_LIBRARIES = tuple(str(Path(folder).resolve()) for folder in _FOLDERS)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Blocker:
    """The run that blocks the loop, the line of its code, and the stack of the loop's thread."""

    run: Run
    line: str
    stack: str


class LoopWatch:
    """Samples the loop's thread while the loop does not turn. Call `look()` several times a second, in one thread."""

    def __init__(self, loop: JobLoop, runs: Runs, finisher: Finisher) -> None:
        self._loop = loop
        self._runs = runs
        self._finisher = finisher
        self._samples: Counter[str] = Counter()
        self._seen: dict[str, Blocker] = {}
        self._reported: Run | None = None
        self._longest_s = 0.0

    @property
    def blocker(self) -> Blocker | None:
        """The run that was seen most often since the loop stopped turning; None while it turns, or if none was seen."""
        most = next(iter(self._samples.most_common(1)), None)
        return self._seen[most[0]] if most is not None else None

    @property
    def is_stalled(self) -> bool:
        return self._loop.stalled_s > MIN_REPORTED_S

    def look(self) -> None:
        """Take a sample if the loop does not turn; report a stall, and its end."""
        stalled_s = self._loop.stalled_s
        if stalled_s <= MIN_REPORTED_S:
            self._recover()
            return
        self._longest_s = max(self._longest_s, stalled_s)
        self._sample()
        blocker = self.blocker
        if blocker is not None and self._reported is None:
            self._report(blocker, stalled_s)

    def error(self, blocker: Blocker) -> LoopBlocked:
        return LoopBlocked(
            f"blocked the event loop of its worker for {self._loop.stalled_s:.0f} s at {blocker.line}",
            stack=blocker.stack,
        )

    def _sample(self) -> None:
        task = asyncio.current_task(self._loop.loop)
        frame = sys._current_frames().get(self._loop.thread_id)
        run = self._run_of(task) if task is not None else None
        if run is None or frame is None or asyncio.current_task(self._loop.loop) is not task:
            return
        self._samples[run.claim.id] += 1
        self._seen[run.claim.id] = Blocker(run, line_of(frame), "".join(traceback.format_stack(frame)))

    def _run_of(self, task: asyncio.Task[object]) -> Run | None:
        """Return the run whose task this is, or whose code started it."""
        for run in self._runs.all():
            if run.task is task:
                return run
        job_id = self._loop.owner(task)
        return self._runs.get(job_id) if job_id is not None else None

    def _report(self, blocker: Blocker, stalled_s: float) -> None:
        self._reported = blocker.run
        claim = blocker.run.claim
        fields = {"job_id": claim.id, "kind": claim.kind, "attempt": claim.tries + 1, "fence": claim.fence}
        bind(**fields)
        log.warning("loop_blocked", seconds=round(stalled_s, 1), line=blocker.line, stack=blocker.stack)
        unbind(*fields)
        if blocker.run.progress is not None:
            at = clock.moment(clock.now())
            state = blocker.run.progress.state() | {"blocked": {"line": blocker.line, "at": at}}
            self._finisher.snapshot(claim, state)

    def _recover(self) -> None:
        """Forget the stall; other runs get the time that they lost."""
        blocker, self._longest_s, lost_s = self.blocker, 0.0, self._longest_s
        if lost_s == 0:
            return
        self._samples.clear()
        self._seen.clear()
        for run in self._runs.all():
            if run.task is not None and (blocker is None or run is not blocker.run):
                run.postpone(lost_s)
        reported, self._reported = self._reported, None
        if reported is not None and reported.progress is not None and not reported.ended:
            self._finisher.snapshot(reported.claim, reported.progress.state())


def line_of(frame: FrameType) -> str:
    """Return the innermost line that is neither Python's nor a library's: `file.py, line 7, in f: time.sleep(40)`."""
    inner: FrameType | None = frame
    while inner is not None and inner.f_code.co_filename.startswith((*_LIBRARIES, "<")):
        inner = inner.f_back
    shown = inner or frame
    name, number = shown.f_code.co_filename, shown.f_lineno
    text = linecache.getline(name, number).strip()
    return f"{name}, line {number}, in {shown.f_code.co_name}" + (f": {text}" if text else "")
