"""Videos drawn from an image or a clip, frame by frame, in files: `transframer video`.

Frames go to disk as they are drawn (see `video_partial`), so that a video may be long, and a stopped command
goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from transframer.data.formats.images import resize_image, save_png
from transframer.data.formats.video import require_pyav, write_video
from transframer.errors import ConfigError, DataError
from transframer.rollout import Rollout, require_next_frame, window_of
from transframer.task import Task
from transframer.task_settings import configured_task, task_settings
from transframer.training.stopping import StopRequests
from transframer.video_config import VideoConfig
from transframer.video_partial import PartialVideos
from transframer.video_prompt import Prompt, read_prompt
from transframer.video_sheet import video_sheet
from transframer.weights import located

SAVE_EVERY_S, LINE_EVERY_S = 5.0, 10.0


def draw_video(config: VideoConfig) -> list[Path]:
    """Draws the videos that go on from images or a clip; all inputs are checked before the model is loaded.

    Returns:
        The files written: an MP4 for each variant, and a PNG of frames of all of them.

    Raises:
        TransframerError: an unreadable file, a run that is none, a task that does not predict the next
            frame, PyAV missing, frames of other settings in the folder of a stopped command, a full disk.
        SystemExit: with 130 or 143 when Ctrl-C or SIGTERM stopped it, after what is drawn was saved.
    """
    from transframer.training.checkpoint import load_run, stored_config
    from transframer.training.distributed import choose_device

    stored = stored_config(config.run)
    task = configured_task(config.task, stored.task_settings)
    require_pyav()
    size_px = config.size_px or stored.size_px
    prompt = read_prompt(config.context, size_px, config.fps, config.prompt_frames)
    window = config.window or window_of(task)
    require_able(task, prompt.frames, window)
    device = choose_device(config.device)
    _require_writable([*config.videos, config.sheet], config.context)
    predictor, _ = load_run(config.run)  # before anything drawn is compared with it, or removed
    settings = {
        "run": _digest_of_weights(located(config.run)),
        "context": hashlib.sha256(prompt.frames.numpy().tobytes()).hexdigest(),
        "task": [config.task, task_settings(task)],
        "size_px": size_px,
        "window": window,
        "variants": config.variants,
        "temperature": config.temperature_used,
        "top_p": config.top_p,
        "seed": config.seed,
        "device": device.type,  # draws of a seed differ between devices
    }
    partial = PartialVideos(config.partial, settings, config.variants, size_px)
    if config.restart:
        partial.remove()
    partial.check()
    rollout = Rollout(
        predictor.to(device).eval(),
        task,
        prompt.frames[None, -window:].expand(config.variants, -1, -1, -1, -1),
        window=window,
        temperature=config.temperature_used,
        top_p=config.top_p,
        seed=config.seed,
    )
    if (state := partial.state()) is not None:
        rollout.load(state)
    _draw(rollout, partial, config)
    return _write(prompt, partial, config)


def require_able(task: Task, images: UInt8[Tensor, "n 3 h w"], window: int) -> None:
    """Checks that a task predicts the frame after such images, and takes so many of them.

    Raises:
        ConfigError: a task that needs more than images or predicts something else; a window it cannot take.
        DataError: too few images.
    """
    missing = sorted(task.sample_type.__required_keys__ - {"images"})  # type: ignore[attr-defined]
    if missing:
        raise ConfigError(
            f"{task.name} needs {', '.join(missing)} beside the images",
            field="task",
            expected="a task that predicts the next frame, such as video_prediction",
        )
    least, most = task.context_images
    if not least <= window <= most:
        raise ConfigError(str(window), field="window", expected=f"{least} to {most} for {task.name}")
    if len(images) < least:
        raise DataError(f"{task.name} for {len(images)} images", field="context", expected=f"{least} or more")
    require_next_frame(task, task.format({"images": images[-window:]}).without_target())


def _draw(rollout: Rollout, partial: PartialVideos, config: VideoConfig) -> None:
    """Draws to the end, or to a request to stop."""
    count = config.drawn_frames
    with StopRequests() as requests, _Told(count, rollout.drawn, config.variants) as told:
        saved = time.monotonic()
        while rollout.drawn < count:
            partial.append(rollout.next_frames())
            told.drawn(rollout.drawn)
            stop = requests.signal_number
            if stop or rollout.drawn == count or time.monotonic() - saved >= SAVE_EVERY_S:
                partial.save(rollout.state())
                saved = time.monotonic()
            if stop:
                break
    if requests.signal_number:
        print(
            f"stopped by {signal.Signals(requests.signal_number).name} and saved after {rollout.drawn} of "
            f"{count} frames; the same command goes on from there",
            flush=True,
        )
        raise SystemExit(128 + requests.signal_number)


def _write(prompt: Prompt, partial: PartialVideos, config: VideoConfig) -> list[Path]:
    """Encodes the frames drawn and removes the folder that held them."""
    count = config.drawn_frames
    size = _size_of(prompt.size, config.scale * partial.size_px)
    given = prompt.frames[:0] if config.no_context else prompt.frames

    def frames(video: int) -> Iterator[Tensor]:
        for frame in given:
            yield resize_image(frame, size)
        for frame in partial.frames(video, count):
            yield resize_image(frame, size)

    for video, path in enumerate(config.videos):
        write_video(path, frames(video), config.fps)
    save_png(config.sheet, video_sheet(prompt, partial, count, config.fps))
    partial.remove()
    names = ", ".join(path.name for path in config.videos)
    print(
        f"{names}: frames: {len(given)} given, {count} drawn, {config.fps:g} a second; "
        f"{config.sheet.name} shows some of them",
        flush=True,
    )
    return [*config.videos, config.sheet]


def _size_of(size: tuple[int, int], longer_px: int) -> tuple[int, int]:
    """Height and width at the aspect of `size`, both even, as players want them."""
    height, width = (max(2, 2 * round(side * longer_px / max(size) / 2)) for side in size)
    return height, width


def _require_writable(files: list[Path], given: Sequence[str]) -> None:
    """Raises DataError where files could not be written, or would replace what is given; makes no folder."""
    folder = files[0].parent
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError("is no folder that can be written to", file=there, next_step="give another --out")
    inputs = {Path(name).resolve() for name in given}
    for path in files:
        if path.is_dir():
            raise DataError("is a folder", file=path, expected="the name of a file")
        if path.resolve() in inputs:
            raise DataError("would be replaced, and is given", file=path, next_step="give another --out")


def _digest_of_weights(run: Path) -> str:
    """What tells one trained model from another, also where a run went on under the same name."""
    from transframer.training.checkpoint import MODEL

    folder = run / MODEL if (run / MODEL).is_dir() else run
    digest = hashlib.sha256()
    for path in sorted({*folder.glob("config.json"), *folder.glob("*.safetensors")}):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class _Told:
    """What is told of the drawing: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, count: int, drawn: int, variants: int) -> None:
        self.count, self.before, self.variants = count, drawn, variants
        self.began = self.told_at = time.monotonic()
        self._bar: Any = None
        console = Console()
        if console.is_terminal:
            self._bar = Progress(
                BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
                console=console,
            )  # fmt: skip
            self._bar.add_task("", total=count, completed=drawn)

    def __enter__(self) -> _Told:
        if self._bar:
            self._bar.start()
        if self.before:
            print(f"going on after {self.before} of {self.count} frames", flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def drawn(self, number: int) -> None:
        """Tells that so many frames are there."""
        now = time.monotonic()
        frames = (number - self.before) * self.variants
        text = f"{(now - self.began) / frames:.2f} s a frame"
        if self.variants > 1:
            text += f", {self.variants} videos side by side"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=number, description=text)
        elif now - self.told_at >= LINE_EVERY_S or number == self.count:
            print(f"{number} of {self.count} frames  {text}", flush=True)
            self.told_at = now
