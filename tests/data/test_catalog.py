import importlib.util
import inspect

import pytest
from PIL import Image

from tests.data.toy_dataset import Numbers
from transframer.data import catalog
from transframer.data.catalog import (
    FORMATS,
    dataset_class,
    guess_format,
    guesses,
    open_dataset,
    task_for,
)
from transframer.data.dataset import Dataset
from transframer.errors import ConfigError, DataError, UnknownNameError
from transframer.registry import get_task
from transframer.task import Clip

TOY = "tests.data.toy_dataset:Numbers"
THERE = [name for name, target in FORMATS.items() if importlib.util.find_spec(target.partition(":")[0])]


@pytest.mark.parametrize("name", THERE)
def test_every_format_is_a_data_set_of_that_name(name):
    cls = dataset_class(name)
    assert issubclass(cls, Dataset)
    assert not inspect.isabstract(cls)
    assert cls.name == name
    assert 10 < len(cls.summary) <= 110
    assert "\n" not in cls.summary
    assert (cls.__doc__ or "").strip()
    assert list(inspect.signature(cls).parameters)[:3] == ["root", "split", "clip"]
    assert all(isinstance(text, str) for text in cls.protocol.values())


def test_every_guess_is_a_format_and_plain_images_come_last():
    assert set(catalog._GUESSES) <= set(FORMATS)
    assert len(set(catalog._GUESSES)) == len(catalog._GUESSES)
    assert catalog._GUESSES[-1] == "image_folder"


def test_listing_formats_imports_none_of_them():
    assert all(isinstance(target, str) for target in FORMATS.values())


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'image_folder'"):
        dataset_class("imagefolder")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("nowhere:Set", "cannot be imported"), ("json:Set", "cannot be imported"),
        ("json:dumps", "is no data set"), ("pathlib:Path", "is no data set"),
    ],
)  # fmt: skip
def test_a_class_that_is_none(target, found):
    with pytest.raises(ConfigError, match=found) as caught:
        dataset_class(target)
    assert caught.value.field == "format"


@pytest.fixture
def toy_formats(monkeypatch):
    """Two formats: one that knows folders that hold `a`, one that knows any."""

    class KnowsA(Numbers):
        @classmethod
        def looks_like(cls, root):
            return (root / "a").exists()

    class KnowsAll(Numbers):
        @classmethod
        def looks_like(cls, root):
            return root.is_dir() and any(root.iterdir())

    known = {"first": KnowsA, "second": KnowsAll}
    monkeypatch.setattr(catalog, "dataset_class", known.__getitem__)
    monkeypatch.setattr(catalog, "_GUESSES", tuple(known))
    return known


def test_the_first_that_knows_the_folder_is_guessed(toy_formats, tmp_path):
    with pytest.raises(DataError, match="not a layout that is known"):
        guess_format(tmp_path)
    (tmp_path / "b").touch()
    assert guess_format(tmp_path) == "second"
    (tmp_path / "a").touch()
    assert guess_format(tmp_path) == "first"
    assert type(open_dataset(tmp_path, "train")) is toy_formats["first"]


def test_nothing_is_guessed_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        guess_format(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such file or folder"):
        open_dataset(tmp_path / "nowhere", "train")


def test_opening_gives_the_split_the_options_and_the_tasks_clip():
    task = get_task("video_prediction")
    dataset = open_dataset("x", "test", task, format=TOY, options={"n": 3, "bad": [1]})
    assert (dataset.split, dataset.clip, len(dataset), dataset.broken) == ("test", task.clip, 3, {1})
    assert open_dataset("x", "test", format=TOY).clip == Clip()


def test_options_that_the_format_does_not_have_are_refused():
    with pytest.raises(ConfigError, match="has no option 'size'") as caught:
        open_dataset("x", "test", format=TOY, options={"size": 3})
    assert caught.value.expected == "one of n, bad, train_samples"
    for name in ("root", "split", "clip"):  # these are no options
        with pytest.raises(ConfigError, match="has no option"):
            open_dataset("x", "test", format=TOY, options={name: "y"})


def test_data_of_our_own_need_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_dataset("motorcycle", "train", get_task("depth_estimation")).name == "motorcycle"


class TestTaskFor:
    def dataset(self, **classes):
        dataset = Numbers()

        class Named(Numbers):
            @property
            def classes(self):
                return classes

        dataset.__class__ = Named
        return dataset

    def test_it_gets_the_class_names_of_its_label(self):
        task = get_task("image_classification")
        dataset = self.dataset(mask=("sky", "sea"), label=("cat", "dog"))
        assert task_for(task, dataset).classes == ("cat", "dog")
        assert task_for(get_task("semantic_segmentation"), dataset).classes == ("sky", "sea")
        assert task_for(task, dataset).quality == task.quality

    def test_it_stays_where_there_are_none_of_its_label_or_no_such_setting(self):
        task = get_task("image_classification")
        assert task_for(task, self.dataset(mask=("sky", "sea"))) == task
        depth = get_task("depth_estimation")
        assert task_for(depth, self.dataset(label=("cat",))) is depth

    def test_an_empty_list_of_names_is_none(self):
        task = get_task("image_classification")
        assert task_for(task, self.dataset(label=())) == task


def test_of_several_layouts_the_one_that_serves_the_task_is_taken(tmp_path):
    for name in ("cat", "dog", "emu", "fox"):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    assert list(guesses(tmp_path)) == ["frames", "image_folder"]
    classes, videos = get_task("image_classification"), get_task("video_prediction")
    assert open_dataset(tmp_path, "train", classes).classes == {"label": ("cat", "dog", "emu", "fox")}
    assert open_dataset(tmp_path, "train", videos).name == "frames"
    assert open_dataset(tmp_path, "train", get_task("depth_estimation")).name == "frames"  # refused later
