"""Discovery of tasks: what is found, what is imported for it, and what is said when it goes wrong."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from transframer.errors import PluginError, UnknownNameError
from transframer.registry import VARIABLE, get_task, include, task_class, task_names, task_origins

BUILT_IN = (
    "colorization",
    "depth_estimation",
    "frame_interpolation",
    "image_classification",
    "instance_segmentation",
    "object_detection",
    "optical_flow",
    "semantic_segmentation",
    "super_resolution",
    "surface_normals",
    "video_prediction",
    "view_synthesis",
)
TOY = """
from dataclasses import dataclass
from typing import ClassVar
from transframer.task import Metric, Task

@dataclass(frozen=True)
class {cls}(Task):
    name: ClassVar[str] = "{name}"
    sample_type: ClassVar[type] = dict
    headline: ClassVar[Metric] = Metric("score", higher_is_better=True)
    round_trip_bound: ClassVar[float] = 1.0
    gain: float = 1.0
    def format(self, sample): ...
    decode = truth = combine = floor = score = summarise = draw = write = format
"""

pytestmark = pytest.mark.usefixtures("fresh_registry")


def toy(folder: Path, file: str = "toys.py", name: str = "toy", cls: str = "Toy") -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TOY.format(name=name, cls=cls))
    return path


def test_the_built_in_tasks_are_listed_with_their_origin():
    assert task_names() == BUILT_IN
    origin = task_origins()["depth_estimation"]
    assert (origin.source, origin.target) == (
        "transframer",
        "transframer.tasks.depth_estimation:DepthEstimation",
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_task_is_found_under_its_own_name(name):
    assert get_task(name).name == name


def test_listing_imports_no_task_and_no_torch():
    code = (
        "import sys; from transframer.registry import task_names; task_names(); "
        "print([m for m in sys.modules if m in ('torch', 'timm') or m.startswith('transframer.tasks')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_task_is_imported_alone():
    code = (
        "import sys; from transframer.registry import get_task; get_task('depth_estimation'); "
        "print([m for m in sys.modules if m.startswith('transframer.tasks.') and m.split('.')[2] in %r])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code % (BUILT_IN,)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['transframer.tasks.depth_estimation']"


def test_settings_reach_the_task_and_unknown_ones_name_the_nearest(tmp_path):
    include(toy(tmp_path))
    assert get_task("toy", gain=3.0).gain == 3.0
    with pytest.raises(UnknownNameError, match="unknown setting of toy 'gian', did you mean 'gain'"):
        get_task("toy", gian=3.0)


def test_a_task_that_lacks_what_defines_one_is_told(tmp_path):
    path = toy(tmp_path)
    lines = [line for line in path.read_text().splitlines() if "headline" not in line]
    path.write_text("\n".join(lines))
    include(path)
    with pytest.raises(PluginError, match="has no headline"):
        get_task("toy")


@pytest.mark.parametrize("name", ["toys.v2.py", "notes.txt"])
def test_a_file_that_is_no_module_is_told(tmp_path, monkeypatch, name):
    path = toy(tmp_path, name)
    with pytest.raises(PluginError, match="no Python module can have that name"):
        include(path)
    monkeypatch.setenv(VARIABLE, str(path))
    assert get_task("depth_estimation").name == "depth_estimation"


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'optical_flow'") as caught:
        get_task("optical_flo")
    assert all(name in str(caught.value) for name in BUILT_IN)


def test_an_unknown_name_tells_of_plugins_that_failed(tmp_path, monkeypatch):
    broken = tmp_path / "broken_plugin.py"
    broken.write_text("import a_module_that_is_missing\n")
    monkeypatch.setenv(VARIABLE, str(broken))
    assert get_task("depth_estimation").name == "depth_estimation"
    with pytest.raises(
        UnknownNameError, match=r"broken_plugin.py.*ModuleNotFoundError: No module named 'a_mod"
    ):
        get_task("toy")


def test_without_any_task_the_error_asks_whether_the_package_is_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path and path])
    with pytest.raises(UnknownNameError, match=r"is the package installed\? run pip install -e \."):
        task_class("depth_estimation")


@pytest.mark.parametrize("how", ["file", "package", "file in a package", "module"])
def test_include(tmp_path, monkeypatch, how):
    if how == "file":
        source = str(toy(tmp_path))
    elif how == "module":
        toy(tmp_path, "toy_module.py")
        monkeypatch.syspath_prepend(tmp_path)
        source = "toy_module"
    else:
        path = toy(tmp_path, "toy_package/inner/toys.py")
        (tmp_path / "toy_package/__init__.py").write_text("")
        (tmp_path / "toy_package/inner/__init__.py").write_text("from toy_package.inner.toys import Toy\n")
        source = str(path if how == "file in a package" else tmp_path / "toy_package")
    assert include(source) == ("toy",)
    assert include(source) == ("toy",), "including twice is no duplicate"
    assert "toy" in task_names()
    assert get_task("toy").name == "toy"
    assert os.environ[VARIABLE] == source


def test_includes_of_the_environment_are_registered(tmp_path, monkeypatch):
    first, second = toy(tmp_path, "one.py", "toy1"), toy(tmp_path, "two.py", "toy2")
    monkeypatch.setenv(VARIABLE, f"{first}{os.pathsep}{second}")
    assert {"toy1", "toy2"} <= set(task_names())


def test_a_spawned_worker_knows_what_was_included(tmp_path):
    include(toy(tmp_path))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(task_class, ("toy",)).name == "toy"
        assert pool.apply(repr, (get_task("toy", gain=2.0),)).endswith("gain=2.0)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_module_that_is_missing", "importing odd_plugin failed: ModuleNotFoundError"),
        ("def f(:", "importing odd_plugin failed: SyntaxError"),
        ("x = 1", "defines no task"),
        ("from transframer.tasks.depth_estimation import DepthEstimation", "defines no task"),
        (TOY.format(name="depth_estimation", cls="Mine"), "two tasks are named 'depth_estimation'"),
        (TOY.format(name="toy", cls="A") + TOY.format(name="toy", cls="B"), "two tasks are named 'toy'"),
        (TOY.format(name="toy", cls="A").replace('str] = "toy"', "str]"), "A has no name"),
        (TOY.format(name="toy", cls="A").replace("= write", ""), "defines no task"),
    ],
)
def test_a_faulty_include_is_refused_and_leaves_the_registry_as_it_was(tmp_path, text, message):
    path = tmp_path / "odd_plugin.py"
    path.write_text(text)
    with pytest.raises(PluginError, match=message) as caught:
        include(path)
    assert str(path) in str(caught.value)
    assert task_names() == BUILT_IN
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere.py", "no such file"), ("no_such_module_here", "ModuleNotFoundError"), (".", "no __init__.py")],
)
def test_an_include_that_is_not_there(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=message):
        include(source)


def test_a_file_whose_module_name_is_taken_is_refused(tmp_path):
    with pytest.raises(PluginError, match="the module name 'json' is taken"):
        include(toy(tmp_path, "json.py"))


def test_two_distributions_that_claim_one_name_are_both_named(distribution, monkeypatch):
    monkeypatch.syspath_prepend(distribution("rival-tasks", {"depth_estimation": "rival:Depth"}))
    with pytest.raises(
        PluginError, match=r"DepthEstimation of transframer|rival:Depth of rival-tasks"
    ) as caught:
        task_names()
    assert "rival-tasks" in str(caught.value)
    assert "of transframer" in str(caught.value)


def test_one_distribution_seen_twice_is_no_duplicate(distribution, monkeypatch):
    for folder in ("site", "checkout"):
        monkeypatch.syspath_prepend(distribution("toys", {"toy": "toys:Toy"}, folder))
    assert "toy" in task_names()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing_plugin:Toy", "plugin toys: importing missing_plugin failed: ModuleNotFoundError"),
        ("toys:Absent", "plugin toys: toys:Absent is not a concrete Task"),
        ("transframer.task:Task", "is not a concrete Task"),
        ("toys:Toy", "is announced as 'other' but calls itself 'toy'"),
    ],
)
def test_a_broken_plugin_is_listed_and_explains_itself_when_asked_for(
    tmp_path, distribution, monkeypatch, target, message
):
    toy(tmp_path / "site")
    monkeypatch.syspath_prepend(distribution("toys", {"other": target}))
    assert "other" in task_names()
    assert get_task("depth_estimation").name == "depth_estimation"
    with pytest.raises(PluginError, match=message) as caught:
        get_task("other")
    assert len(str(caught.value).splitlines()) <= 3
