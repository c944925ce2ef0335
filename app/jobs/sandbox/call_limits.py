"""Limits of one call that the host enforces: two of wall-clock time, and the usage that the kernel does not limit."""

from __future__ import annotations

import math

from app.core.clock import monotonic
from app.core.errors import TimeLimitExceeded
from app.jobs.sandbox.child import SOFT_LIMIT_SIGNAL
from app.jobs.sandbox.pool import Sandbox
from app.jobs.sandbox.usage import CHECK_S, Usage


class CallLimits:
    """The limits of a call that begins now: a signal at the soft one, a kill at the hard one and at too much usage."""

    def __init__(self, soft_s: float | None, grace_s: float, usage: Usage) -> None:
        self.soft_s = soft_s
        self.grace_s = grace_s
        self.asked = False
        self.at = math.inf if soft_s is None else monotonic() + soft_s
        self._usage = usage
        self._check_at = monotonic() + CHECK_S

    def wait_ms(self) -> int:
        """Return the time until the next limit or check."""
        return max(0, math.ceil((min(self.at, self._check_at) - monotonic()) * 1000))

    def enforce(self, sandbox: Sandbox) -> None:
        """Signal the sandbox at the soft limit; kill it and raise at the hard one, and if it took too much."""
        now = monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_S
            fault = self._usage.fault()
            if fault is not None:
                sandbox.kill()
                sandbox.wait_exit_code()
                raise fault
        if now < self.at:
            return
        if not self.asked:
            self.asked = True
            self.at = monotonic() + self.grace_s
            sandbox.signal(SOFT_LIMIT_SIGNAL)
            return
        sandbox.kill()
        sandbox.wait_exit_code()
        raise TimeLimitExceeded(f"killed {self.grace_s:g} s after its time limit of {self.soft_s:g} s")
