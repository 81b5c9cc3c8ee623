"""What a data set on disk is to the rest: records of one split, in the vocabulary of tasks."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from transframer.errors import DataError, unknown_name
from transframer.task import Clip

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE = 0.1
Item = TypeVar("Item")


class Dataset(abc.ABC):
    """One split of a labelled data set, map-style: item i is always the same.

    Splits have the same meaning everywhere. "test" is the part that papers report on and whose labels are
    public (COCO's val2017, MNIST's test). "validation", for choices made while training, is cut out of the
    training part (see `part_of_training`), also where the authors have one of that name; "train" is the rest.
    So neither training nor its choices ever see what a benchmark measures.

    A record is a mapping in the vocabulary of `transframer.task.Task`, with images and labels at the size
    they have on disk and not yet resized.

    Attributes:
        name: of the format, as the command line knows it.
        summary: one line about what it reads, for listings.
        root: the folder (or file) that the user named.
        split: one of SPLITS.
        clip: which frames of a sequence a record holds; of single images, `clip.target` says that the
            image itself is also the target (colourisation, super-resolution).
        protocol: what the data set's own evaluation prescribes and `evaluation` applies, in words by topic
            ("crop", "cap", "ignored", "reference"); empty where there is none.
        shuffle_window: how many neighbouring records may be read in any order; None where all may. A data
            set that is read as a stream says how far it can afford to jump.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    protocol: ClassVar[Mapping[str, str]] = {}
    shuffle_window: int | None = None

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        self.root, self.split, self.clip = Path(root), split, clip or Clip()

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether a folder or file has this layout, judged by names and a few headers."""
        return False

    @property
    @abc.abstractmethod
    def fields(self) -> frozenset[str]:
        """The keys of the vocabulary that records can have, `images` among them."""

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names by field: "label", "mask", "box_labels", "instance_labels"; ids are places in them."""
        return {}

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many records the split has."""

    @abc.abstractmethod
    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The record of an index with those of the keys that it has; reads no file that these do not need.

        Raises:
            DataError: a file that is missing, damaged or not of the format; names it.
        """

    @abc.abstractmethod
    def files(self, index: int) -> Sequence[Path]:
        """The files that a record is read from; for a member of an archive, the archive."""

    def evaluation(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record as the data set's own protocol judges it: cropped, far depths unknown, and so on."""
        return record


def part_of_training(items: Sequence[Item], keys: Sequence[str], split: str) -> list[Item]:
    """The items of "train" or of "validation" where a data set has only a training part.

    An item is in "validation" where a hash of its key says so, so that adding files moves none; of fewer
    than 20 items every tenth in order of the hashes, and at least one.

    Args:
        keys: one for each item, independent of where the data lies (a path in the root, say). Items of one
            key stay together: give what must not be torn apart (a video, a scene, a drive).

    Raises:
        DataError: fewer than two different keys, which cannot be divided.
    """
    hashes = {
        key: int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") for key in keys
    }
    if len(hashes) < 2:
        raise DataError(
            f"{len(hashes)} items to divide into train and validation",
            expected="at least two (of videos, scenes)",
        )
    held_out = {key for key, value in hashes.items() if value < VALIDATION_SHARE * 2**64}
    if len(hashes) < 20 or not held_out:
        ordered = sorted(hashes, key=lambda key: hashes[key])
        held_out = set(ordered[: max(1, round(len(ordered) * VALIDATION_SHARE))])
    return [
        item for item, key in zip(items, keys, strict=True) if (key in held_out) == (split == "validation")
    ]


def three_parts(items: Sequence[Item], keys: Sequence[str], split: str) -> list[Item]:
    """The items of a split where nothing is divided yet: about 10 % test, and 10 % of the rest validation.

    Args:
        keys: as of `part_of_training`.

    Raises:
        DataError: too few different keys to divide.
    """
    # Another hash than that of the second cut, which would find nothing left of its tenth.
    salted, first = [f"test {key}" for key in keys], "validation" if split == "test" else "train"
    pairs = part_of_training(list(zip(items, keys, strict=True)), salted, first)
    if split != "test":
        pairs = part_of_training(pairs, [key for _, key in pairs], split)
    return [item for item, _ in pairs]
