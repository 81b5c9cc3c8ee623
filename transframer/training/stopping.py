"""Ctrl-C and SIGTERM as a request to finish the step and save, not as an end in the middle of one."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType


class StopRequests:
    """While entered, the first SIGINT or SIGTERM is only noted; a second SIGINT quits at once.

    Attributes:
        signal_number: the signal that asked the run to stop, 0 if none did.
    """

    # torchrun passes the terminal's Ctrl-C on to processes that got it from the terminal as well.
    SAME_PRESS_S = 1.0

    def __init__(self) -> None:
        self.signal_number = 0
        self._noted_at = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python sets no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal_number and number == signal.SIGINT and now - self._noted_at > self.SAME_PRESS_S:
            raise KeyboardInterrupt
        if not self.signal_number:
            self.signal_number, self._noted_at = number, now
