"""Whether held-out frames still take fewer bits than before, and when a run that no longer gains is over."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


class Best:
    """The best validation so far.

    Args:
        tasks: those whose mean bits per frame count.
        patience: validations in a row without a better one after which the run is over; 0 for never.
    """

    def __init__(self, tasks: Sequence[str], patience: int) -> None:
        self.tasks, self.patience = tasks, patience
        self.step: int | None = None
        self.bits = float("inf")
        self.waited = 0
        self.noted: int | None = None

    def note(self, step: int, bits_per_frame: Mapping[str, float]) -> bool:
        """Takes a validation in, and says whether it is the best one.

        Of one step only the first counts: where validating takes longer than training from one to the next,
        several meet the same weights, which says nothing about whether the run still gains.
        """
        if step == self.noted:
            return False
        self.noted = step
        bits = statistics.fmean(bits_per_frame[name] for name in self.tasks)
        if bits < self.bits:
            self.step, self.bits, self.waited = step, bits, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.waited

    def __str__(self) -> str:
        return (
            f"{self.waited} validations in a row without fewer bits per frame than the {self.bits:.2f} "
            f"of step {self.step}, whose model is kept"
        )

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"step": self.step, "bits": self.bits, "waited": self.waited, "noted": self.noted}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        for name, value in state.items():
            setattr(self, name, value)
