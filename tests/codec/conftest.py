"""Real photographs and libjpeg's own coefficients, as oracles."""

import io
from collections.abc import Callable

import jpeglib
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from transframer.codec import channel_plane, channel_zigzag

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture
def photograph() -> Callable[[str, tuple[int, int]], Tensor]:
    def load(name: str, size: tuple[int, int]) -> Tensor:
        image = Image.fromarray(getattr(skimage.data, name)()).resize(size[::-1], Image.Resampling.LANCZOS)
        return torch.tensor(np.array(image)).permute(2, 0, 1)

    return load


class Libjpeg:
    """A JPEG file that libjpeg (in Pillow, accurate integer DCT) wrote from an image."""

    def __init__(self, image: Tensor, quality: int, subsampling: str, path: str) -> None:
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
        pixels.save(path, "JPEG", quality=quality, subsampling=subsampling)
        self.path, self.step = path, 2 if subsampling == "4:2:0" else 1

    def pixels(self) -> Tensor:
        with open(self.path, "rb") as file:
            return torch.tensor(np.array(Image.open(io.BytesIO(file.read())))).permute(2, 0, 1)

    def differences(self, grid: Tensor) -> Tensor:
        """Our coefficients less the file's, over the blocks that hold pixels of the image."""
        file = jpeglib.read_dct(self.path)
        found = []
        for plane, blocks in enumerate((file.Y, file.Cb, file.Cr)):
            step = self.step if plane else 1
            theirs = torch.tensor(blocks.astype(np.int32)).permute(2, 3, 0, 1)  # 8 8 rows columns
            for channel in (channel_plane == plane).nonzero()[:, 0].tolist():
                row, column = divmod(RASTER[int(channel_zigzag[channel])], 8)
                ours = grid[channel, ::step, ::step][: theirs.shape[2], : theirs.shape[3]]
                found.append((ours.int() - theirs[row, column]).flatten())
        return torch.cat(found)


# T.81, figure 5: written out, so as not to be derived the way the codec derives it
RASTER = [
    *(0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6),
    *(7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31),
    *(39, 46, 53, 60, 61, 54, 47, 55, 62, 63),
]


@pytest.fixture
def libjpeg(tmp_path_factory) -> Callable[[Tensor, int, str], Libjpeg]:
    path = str(tmp_path_factory.mktemp("libjpeg") / "image.jpg")
    return lambda image, quality, subsampling: Libjpeg(image, quality, subsampling, path)
