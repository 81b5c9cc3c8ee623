"""The frames of videos that are being drawn, on disk: what a stopped command goes on from.

The folder holds settings.json (all that the frames depend on), video-1.rgb, video-2.rgb, ... (each frame as
3 x h x w bytes, one after the other) and state.safetensors (`Rollout.state`, after some of these frames).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from transframer.data.formats.atomic import whole_file, write_json
from transframer.errors import ConfigError, DataError

SETTINGS, STATE = "settings.json", "state.safetensors"


class PartialVideos:
    """Frames drawn so far of k videos. The folder is made with the first frames.

    Args:
        folder: of its files.
        settings: all that the frames depend on, as JSON values by name.
        videos: how many.
        size_px: height and width of a frame.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], videos: int, size_px: int) -> None:
        self.folder, self.settings, self.size_px = folder, json.loads(json.dumps(settings)), size_px
        self.files = [folder / f"video-{place + 1}.rgb" for place in range(videos)]

    def check(self) -> None:
        """Raises ConfigError where the folder holds frames of other settings, DataError where damaged."""
        if not self.folder.exists():
            return
        try:
            stored = json.loads((self.folder / SETTINGS).read_text())
            differing = sorted(
                name for name in {*stored, *self.settings} if stored.get(name) != self.settings.get(name)
            )
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise self._damaged(SETTINGS) from error
        if differing:
            raise ConfigError(
                f"holds the frames of a stopped command, drawn with another {', '.join(differing)}",
                file=self.folder,
                next_step="go on with the settings of that command, add --restart, or remove the folder",
            )

    def state(self) -> dict[str, Tensor] | None:
        """The state saved last, None where there is none; frames drawn after it are dropped.

        Tensors that were on a GPU come back on the current one.

        Raises:
            DataError: a file is damaged or missing.
        """
        if not (self.folder / STATE).exists():
            self._cut(0)
            return None
        try:
            with safe_open(self.folder / STATE, "pt") as file:
                devices = file.metadata()
                state = {name: file.get_tensor(name).to(devices[name]) for name in devices}
            drawn = int(state["drawn"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._damaged(STATE) from error
        self._cut(drawn)
        return state

    def append(self, frames: UInt8[Tensor, "k 3 s s"]) -> None:
        """Adds the next frame of each video."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
        if not (self.folder / SETTINGS).exists():
            write_json(self.folder / SETTINGS, self.settings)
        for path, frame in zip(self.files, frames.cpu().contiguous(), strict=True):
            with path.open("ab") as file:
                file.write(frame.numpy().tobytes())

    def save(self, state: dict[str, Tensor]) -> None:
        """Saves the state after all the frames that were added, whole or not at all."""
        for path in self.files:  # never a state whose frames a crash has lost
            with path.open("rb") as file:
                os.fsync(file.fileno())
        # Copies: safetensors takes neither views with gaps nor tensors that share their memory.
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in state.items()
        }
        devices = {name: tensor.device.type for name, tensor in state.items()}
        with whole_file(self.folder / STATE) as temporary:
            save_file(tensors, temporary, metadata=devices)

    def frame(self, video: int, number: int) -> UInt8[Tensor, "3 s s"]:
        """A frame by the number of its video and its own, both from 0."""
        with self.files[video].open("rb") as file:
            file.seek(number * self._frame_bytes)
            content = bytearray(file.read(self._frame_bytes))
        return torch.frombuffer(content, dtype=torch.uint8).view(3, self.size_px, self.size_px)

    def frames(self, video: int, count: int) -> Iterator[UInt8[Tensor, "3 s s"]]:
        """The first frames of a video, read one by one."""
        return (self.frame(video, number) for number in range(count))

    def remove(self) -> None:
        """Deletes the folder, where there is one."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    @property
    def _frame_bytes(self) -> int:
        return 3 * self.size_px**2

    def _cut(self, drawn: int) -> None:
        """Drops the frames after the first `drawn`."""
        for path in self.files:
            known = path.stat().st_size if path.exists() else 0
            if known < drawn * self._frame_bytes:
                raise self._damaged(path.name)
            if known:
                os.truncate(path, drawn * self._frame_bytes)

    def _damaged(self, name: str) -> DataError:
        return DataError(
            "damaged or missing, so that the stopped command cannot be continued",
            file=self.folder / name,
            next_step="add --restart, or remove the folder",
        )
