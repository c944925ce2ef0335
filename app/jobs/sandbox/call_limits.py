"""The two wall-clock limits of one call: a signal at the soft one, a kill at the hard one."""

from __future__ import annotations

import math

from app.core.clock import monotonic
from app.core.errors import TimeLimitExceeded
from app.jobs.sandbox.child import SOFT_LIMIT_SIGNAL
from app.jobs.sandbox.pool import Sandbox


class CallLimits:
    """The limits of a call that begins now."""

    def __init__(self, soft_s: float | None, grace_s: float) -> None:
        self.soft_s = soft_s
        self.grace_s = grace_s
        self.asked = False
        self.at = math.inf if soft_s is None else monotonic() + soft_s

    def wait_ms(self) -> int | None:
        """Return the time until the next limit; None without one."""
        return None if self.at == math.inf else max(0, math.ceil((self.at - monotonic()) * 1000))

    def enforce(self, sandbox: Sandbox) -> None:
        """Signal the sandbox if the soft limit is over; kill it and raise TimeLimitExceeded if the hard one is."""
        if monotonic() < self.at:
            return
        if not self.asked:
            self.asked = True
            self.at = monotonic() + self.grace_s
            sandbox.signal(SOFT_LIMIT_SIGNAL)
            return
        sandbox.kill()
        sandbox.wait_exit_code()
        raise TimeLimitExceeded(f"killed {self.grace_s:g} s after its time limit of {self.soft_s:g} s")
