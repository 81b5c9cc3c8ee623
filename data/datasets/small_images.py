"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: small images, all held in memory."""

from __future__ import annotations

import abc
import gzip
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.stills import StillDataset
from transframer.errors import DataError
from transframer.task import Clip


class SmallImages(StillDataset):
    """Labelled images of one size, read whole when the split is opened.

    Images and labels are tensors, which the workers of a DataLoader share whether they are forked or spawned;
    read on first use, each worker would hold its own.
    """

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        self._files, self._classes, images, labels = self._read(train=split != "test")
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{len(images)} images and {len(labels)} labels", file=self._files[0])
        if int(labels.max()) >= len(self._classes):
            raise DataError(
                f"label {int(labels.max())}", file=self._files[-1], expected=f"below {len(self._classes)}"
            )
        if split != "test":
            keys = [str(index) for index in range(len(images))]
            part = torch.tensor(part_of_training(range(len(images)), keys, split))
            images, labels = images[part], labels[part]
        self._images, self._labels = images, labels

    @abc.abstractmethod
    def _read(
        self, train: bool
    ) -> tuple[list[Path], tuple[str, ...], UInt8[Tensor, "n c h w"], UInt8[Tensor, " k"]]:
        """Files, class names, images of one channel or three, and labels."""

    @property
    def labels(self) -> frozenset[str]:
        """Always the class."""
        return frozenset({"label"})

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the classes of `label`."""
        return {"label": self._classes}

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """The image at its own size; grey is repeated."""
        return self._images[index].expand(3, -1, -1).clone()

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The class."""
        return {"label": int(self._labels[index])}

    def files(self, index: int) -> Sequence[Path]:
        """The files of the whole part, since they hold all images together."""
        return self._files


class MNIST(SmallImages):
    """MNIST (LeCun et al. 1998): digits, 28 x 28, 60,000 for training and 10,000 for test.

    Args:
        root: the folder that torchvision takes (with MNIST/raw in it), or one that directly holds
            `train-images-idx3-ubyte` and the other three files, each gzipped or not.
    """

    name: ClassVar[str] = "mnist"
    summary: ClassVar[str] = "MNIST's digits, in idx files"
    protocol: ClassVar[Mapping[str, str]] = {
        "reference": "LeCun et al. 1998: error rate on the 10,000 of t10k"
    }
    _folder: ClassVar[str] = "MNIST"
    _class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Idx files; in a folder whose name says fashion they are not digits, though named alike."""
        if _idx_folder(root / cls._folder / "raw"):
            return True
        fashion = any("fashion" in part.lower() for part in root.resolve().parts[-2:])
        folder = _idx_folder(root, root / "raw")
        return folder is not None and fashion == (cls._folder == "FashionMNIST")

    def _read(
        self, train: bool
    ) -> tuple[list[Path], tuple[str, ...], UInt8[Tensor, "n c h w"], UInt8[Tensor, " k"]]:
        # torchvision's class takes only the first of these folders, and no gzipped file; a damaged one fails
        # an assertion there.
        folder = _idx_folder(self.root / self._folder / "raw", self.root, self.root / "raw")
        if folder is None:
            raise DataError(
                "no idx files",
                file=self.root,
                expected=f"train-images-idx3-ubyte, gzipped or not, there or in {self._folder}/raw",
            )
        part = "train" if train else "t10k"
        files = [_idx_file(folder, f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        return files, self._class_names, _read_idx(files[0], 3)[:, None], _read_idx(files[1], 1)


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao et al. 2017): articles of clothing, in files named as those of MNIST.

    Args:
        root: the folder that torchvision takes (with FashionMNIST/raw in it), or one that directly holds the
            idx files, each gzipped or not, such as /usr/share/datasets/fashion-mnist of Debian's
            dataset-fashion-mnist.
    """

    name: ClassVar[str] = "fashion_mnist"
    summary: ClassVar[str] = "Fashion-MNIST's clothes, in idx files"
    protocol: ClassVar[Mapping[str, str]] = {
        "reference": "Xiao et al. 2017: error rate on the 10,000 of t10k"
    }
    _folder: ClassVar[str] = "FashionMNIST"
    _class_names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
        "ankle boot",
    )  # fmt: skip


def _idx_file(folder: Path, name: str) -> Path:
    """The file, else its gzipped form, whether that is there or not."""
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _idx_folder(*folders: Path) -> Path | None:
    """The first of the folders with the images of either part."""
    for folder in folders:
        for part in ("train", "t10k"):
            if _idx_file(folder, f"{part}-images-idx3-ubyte").is_file():
                return folder
    return None


def _read_idx(path: Path, dimensions: int) -> UInt8[Tensor, "*sizes"]:
    """An array in the idx format: 0, 0, 8 (bytes), the number of dimensions, their big-endian sizes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise DataError("no such file, gzipped or not", file=path) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be unpacked: {error}", file=path) from error
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        raise DataError("not an idx file", file=path, expected=f"bytes in {dimensions} dimensions")
    shape = [int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4)]
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{len(content) - start} bytes after the header", file=path, expected=f"{math.prod(shape)}"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


class CIFAR10(SmallImages):
    """CIFAR-10 (Krizhevsky 2009): 32 x 32, ten classes, 50,000 for training and 10,000 for test.

    torchvision reads it, and first compares each file with its known checksum: the files are pickles, and one
    that somebody changed could run code.

    Args:
        root: the folder that torchvision takes (with cifar-10-batches-py in it), or that one itself.
    """

    name: ClassVar[str] = "cifar10"
    summary: ClassVar[str] = "CIFAR-10, in Python batches"
    protocol: ClassVar[Mapping[str, str]] = {"reference": "Krizhevsky 2009: error rate on the 10,000 of test"}
    _folder: ClassVar[str] = "cifar-10-batches-py"
    _training_file: ClassVar[str] = "data_batch_1"
    _meta_file: ClassVar[str] = "batches.meta"
    _archive: ClassVar[str] = "cifar-10-python.tar.gz"
    _torchvision_class: ClassVar[str] = "CIFAR10"

    @classmethod
    def _batches(cls, root: Path) -> Path | None:
        for folder in (root / cls._folder, root):
            if (folder / cls._training_file).is_file() and (folder / cls._meta_file).is_file():
                return folder
        return None

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """The batches, there or in the folder of the archive."""
        return cls._batches(root) is not None

    def _read(
        self, train: bool
    ) -> tuple[list[Path], tuple[str, ...], UInt8[Tensor, "n c h w"], UInt8[Tensor, " k"]]:
        from torchvision import datasets

        folder = self._batches(self.root)
        if folder is None:
            raise DataError(
                f"no {self._training_file} and {self._meta_file}",
                file=self.root,
                expected=f"these there or in {self._folder}",
                next_step=f"unpack {self._archive} there" if (self.root / self._archive).exists() else None,
            )
        published = getattr(datasets, self._torchvision_class)
        reader = type(self._torchvision_class, (published,), {"base_folder": ""})
        try:
            batches = reader(folder, train=train, download=False)
        except (RuntimeError, OSError) as error:
            raise DataError(
                "missing, or not the published file (by its checksum)",
                file=folder / _first_damaged(published, folder),
                next_step=f"unpack {self._archive} anew",
            ) from error
        names = [name for name, _ in (published.train_list if train else published.test_list)]
        images = torch.from_numpy(np.ascontiguousarray(batches.data.transpose(0, 3, 1, 2)))
        return (
            [folder / name for name in names],
            tuple(batches.classes),
            images,
            torch.tensor(batches.targets, dtype=torch.uint8),
        )


def _first_damaged(published: type, folder: Path) -> str:
    """The name of the first file that has not the checksum it should have."""
    from torchvision.datasets.utils import check_integrity

    meta = published.meta  # type: ignore[attr-defined]
    expected = [*published.train_list, *published.test_list, (meta["filename"], meta["md5"])]  # type: ignore[attr-defined]
    return next((name for name, md5 in expected if not check_integrity(str(folder / name), md5)), "")


class CIFAR100(CIFAR10):
    """CIFAR-100 (Krizhevsky 2009): 32 x 32, a hundred classes (the fine ones).

    Args:
        root: the folder that torchvision takes (with cifar-100-python in it), or that one itself.
    """

    name: ClassVar[str] = "cifar100"
    summary: ClassVar[str] = "CIFAR-100, in Python batches, fine classes"
    _folder: ClassVar[str] = "cifar-100-python"
    _training_file: ClassVar[str] = "train"
    _meta_file: ClassVar[str] = "meta"
    _archive: ClassVar[str] = "cifar-100-python.tar.gz"
    _torchvision_class: ClassVar[str] = "CIFAR100"
