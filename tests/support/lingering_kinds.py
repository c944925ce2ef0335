"""A user's module whose import starts a thread that never ends and that Python waits for at its end."""

from __future__ import annotations

import threading

threading.Thread(target=threading.Event().wait, name="lingering").start()
