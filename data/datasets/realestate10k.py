"""RealEstate10K: walks through houses with a camera for each frame."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch

from transframer.data.dataset import part_of_training
from transframer.data.datasets.posed_views import PosedViews, checked_pose, finite_numbers
from transframer.data.datasets.sequences import SequenceDataset
from transframer.data.formats.text import read_lines
from transframer.errors import DataError
from transframer.frames import Camera
from transframer.task import Clip

_IMAGES = (".png", ".jpg", ".jpeg")


class RealEstate10K(SequenceDataset):
    """Clips of videos with cameras: {train,test}/CLIP.txt, and frames named by their time stamps.

    Frames lie in frames/{train,test}/CLIP/MICROSECONDS.{png,jpg}, or in {train,test}/CLIP/; the data set is
    published without them. Frames that are missing are left out, and so are clips without any. Times are
    seconds of the video. Train and validation are the folder `train`, divided by clip.

    Translations come from structure from motion and have an arbitrary scale in each clip: they are not
    metres, and two clips cannot be compared.

    Args:
        root: the folder that holds `train` and `test`.

    Raises:
        DataError: no clips of the split, or none with frames.
    """

    name: ClassVar[str] = "realestate10k"
    summary: ClassVar[str] = "RealEstate10K: {train,test}/CLIP.txt, frames/{train,test}/CLIP/MICROSECONDS.png"
    protocol: ClassVar[Mapping[str, str]] = {
        "reference": "Zhou et al., Stereo Magnification, SIGGRAPH 2018; papers choose their own clips and "
        "frames of the test part"
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
    ) -> None:
        super().__init__(root, split, clip, frame_stride, window_stride)
        part = "test" if split == "test" else "train"
        folder = self.root / part
        tables = sorted(folder.glob("*.txt"))
        if not tables:
            raise DataError(
                "no clips" if folder.is_dir() else "no such folder",
                file=folder,
                expected="CLIP.txt for each clip",
            )
        places = [place for place in (self.root / "frames" / part, folder) if place.is_dir()]
        clips = [found for table in tables if (found := _clip(table, places)) is not None]
        if not clips:
            raise DataError(
                f"{len(tables)} clips, and frames of none",
                file=self.root,
                expected=f"frames/{part}/CLIP/MICROSECONDS.png",
                next_step="take the frames out of the videos at the time stamps that the files list",
            )
        if split != "test":
            clips = part_of_training(clips, [one.name for one in clips], split)
        self._clips = clips

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """A clip's text whose second line has time, intrinsics and pose: 19 numbers."""
        for table in (file for part in ("train", "test") for file in islice((root / part).glob("*.txt"), 1)):
            with table.open("rb") as file:
                lines = file.read(2000).decode("utf-8", "replace").splitlines()
            if len(lines) > 1 and len(finite_numbers(lines[1])) == 19:
                return True
        return False

    @property
    def sequences(self) -> Sequence[ClipViews]:
        """See `SequenceDataset.sequences`."""
        return self._clips

    @property
    def labels(self) -> frozenset[str]:
        """Cameras."""
        return frozenset({"cameras"})

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `SequenceDataset.record`; times are those of the time stamps."""
        record = super().record(index, keys)
        _, context, target = self.place(index)
        times = self.place(index)[0].times_s  # type: ignore[attr-defined]
        if "times" in record:
            record["times"] = torch.tensor([times[frame] for frame in context], dtype=torch.float64)
        if "query_time" in record and target is not None:
            record["query_time"] = times[target]
        return record


class ClipViews(PosedViews):
    """The frames of one clip that there are, in the order of time.

    Attributes:
        table: the text file with a line for each frame.
        times_s: of each frame, by its name.
    """

    def __init__(self, table: Path, folder: Path, names: Sequence[str]) -> None:
        super().__init__(table.stem, folder, names)
        self.table = table
        self.times_s = [int(Path(name).stem) / 1e6 for name in self.names]
        steps = [after - before for before, after in zip(self.times_s, self.times_s[1:], strict=False)]
        self.frames_per_s = 1 / median(steps) if steps else None

    def camera(self, frame: int) -> Camera:
        """See `FrameSequence.camera`.

        Raises:
            DataError: the text has no line of this time stamp, or another form.
        """
        stamp = int(Path(self.names[frame]).stem)
        numbers = finite_numbers(self._lines.get(stamp, ""))
        if len(numbers) != 19 or min(numbers[1:3]) <= 0:
            raise DataError(
                "no line of this time" if stamp not in self._lines else "not a camera",
                file=self.table,
                field=str(stamp),
                expected="the time, fx fy cx cy 0 0, and 12 numbers of the pose",
            )
        height, width = self.size_px
        fx, fy, x, y = numbers[1:5]  # in units of the image's width and height
        intrinsics = torch.tensor([[fx * width, 0, x * width], [0, fy * height, y * height], [0, 0, 1]])
        # The file has camera_from_world.
        return Camera(intrinsics, checked_pose(numbers[7:], self.table, str(stamp), inverse=True))

    @cached_property
    def _lines(self) -> dict[int, str]:
        """The lines by their time stamp; the first line of the file is the video's address."""
        lines = read_lines(self.table, "a line for each frame")
        stamped = ((line.split(maxsplit=1), line) for line in lines[1:])
        return {int(words[0]): line for words, line in stamped if words and words[0].isdecimal()}


def _clip(table: Path, places: Sequence[Path]) -> ClipViews | None:
    """The clip of a text file with the frames that there are, or none."""
    for place in places:
        folder = place / table.stem
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        # One image for each time stamp; names without a time are of something else.
        frames = {
            int(stem): name
            for name in sorted(names)
            for stem, suffix in (os.path.splitext(name),)
            if suffix.lower() in _IMAGES and stem.isdecimal()
        }
        if frames:
            return ClipViews(table, folder, [frames[stamp] for stamp in sorted(frames)])
    return None
