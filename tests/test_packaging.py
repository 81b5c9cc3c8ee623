"""What is shipped: one import name, links that only editors need, checks that catch the known traps."""

import configparser
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import transframer.tasks
from transframer.registry import task_origins
from transframer.task import Task

ROOT = Path(__file__).parents[1]
FOLDERS = ("tasks", "data", "benchmarks")


def python(*words: str, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of the committed and uncommitted sources, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("built")
    done = python("-m", "build", "--no-isolation", "--outdir", str(folder), ".")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_the_package_links_to_the_top_level_folder(name):
    link = ROOT / "transframer" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"
    assert link.is_dir()


def test_every_package_is_listed(setup_cfg):
    listed = set(setup_cfg["options"]["packages"].split())
    folders = {path.parent for path in (ROOT / "transframer").rglob("__init__.py")}
    for name in FOLDERS:
        folders |= {path.parent for path in (ROOT / "transframer" / name).rglob("__init__.py")}
    assert listed == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_every_task_in_the_folder_is_announced():
    defined = set()
    for info in pkgutil.iter_modules(transframer.tasks.__path__, "transframer.tasks."):
        for name, value in vars(importlib.import_module(info.name)).items():
            concrete = isinstance(value, type) and issubclass(value, Task) and not inspect.isabstract(value)
            if concrete and value.__module__ == info.name:
                defined.add(f"{info.name}:{name}")
    assert {origin.target for origin in task_origins().values()} == defined


def test_the_wheel_holds_one_import_name_and_no_tests(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"transframer"}
    for expected in (
        "cli.py",
        "weights/generalist/model.safetensors",
        "weights/generalist/README.md",
        "py.typed",
        "tasks/__init__.py",
        "data/world/__init__.py",
        "benchmarks/__init__.py",
    ):
        assert f"transframer/{expected}" in names
    of_users = {"transframer/testing.py", "transframer/templates/test_my_task.py.template"}
    assert {name for name in names if "test" in name} == of_users
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_sdist_builds_and_holds_no_run_or_environment(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"transframer", "tasks", "data", "benchmarks", "setup.cfg", "pyproject.toml", "LICENSE"} <= tops
    assert not tops & {"runs", ".venv", "build", "dist"}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("statement", ["import {0}", "import {0}.depth_estimation", "from {0} import x"])
def test_ruff_refuses_the_second_class_identity(name, statement):
    for file in ("tests/snippet.py", "transframer/snippet.py"):
        done = python(
            "-m", "ruff", "check", "--stdin-filename", file, "-", input=statement.format(name) + "\n"
        )
        assert done.returncode == 1
        assert "TID251" in done.stdout
    allowed = python("-m", "ruff", "check", "--select", "TID251", "-", input=f"import transframer.{name}\n")
    assert allowed.returncode == 0


def test_types_are_checked_through_the_links():
    done = python(
        "-c",
        "from mypy.find_sources import create_source_list as find; from mypy.options import "
        "Options; print(*(s.module for s in find(['transframer'], Options())), sep='\\n')",
    )
    modules = done.stdout.split()
    assert "transframer.tasks.depth_estimation" in modules
    assert "transframer.data.formats.images" in modules
    assert len(modules) == len(set(modules))


def test_the_lock_has_hashes_and_no_address(setup_cfg):
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|@ |--index-url|--extra-index-url|--find-links|^-", lock, re.M)
    packages = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in package for package in packages)
    locked = {re.match(r"[\w.-]+", package)[0].lower().replace("_", "-") for package in packages}
    wanted = (setup_cfg["options"]["install_requires"] + setup_cfg["options.extras_require"]["dev"]).split(
        "\n"
    )
    wanted = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in wanted if line.strip()}
    assert wanted <= locked


def test_nothing_is_installed_again_when_nothing_changed(tmp_path):
    """Runs make with a stand-in for the installer, so as to count how often it is called."""
    for name in ("Makefile", "requirements.lock", "setup.cfg", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".ci").mkdir()
    installer = tmp_path / ".ci/install"
    installer.write_text("#!/bin/bash\nmkdir -p .venv; echo installed >> calls\n")
    installer.chmod(0o755)

    def make() -> int:
        subprocess.run(["make", "install"], cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "calls").read_text().count("installed")

    assert (make(), make()) == (1, 1)
    later = (tmp_path / ".venv/.installed").stat().st_mtime + 10
    os.utime(tmp_path / "requirements.lock", (later, later))
    assert make() == 2


def test_a_failed_install_is_tried_again(tmp_path):
    for name in ("Makefile", "requirements.lock", "setup.cfg", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".ci").mkdir()
    installer = tmp_path / ".ci/install"
    installer.write_text("#!/bin/bash\nmkdir -p .venv; exit 1\n")
    installer.chmod(0o755)
    for _ in range(2):
        done = subprocess.run(["make", "install"], cwd=tmp_path, capture_output=True)
        assert done.returncode != 0
    assert not (tmp_path / ".venv/.installed").exists()


def test_make_demo_and_train_run_their_scripts(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("requirements.lock", "setup.cfg", "pyproject.toml", ".venv/.installed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, line in ((".ci/demo", "echo demo"), ("recipes/cpu", 'echo "cpu, $1 minutes, $2"')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)

    def make(*words: str) -> str:
        return subprocess.run(
            ["make", *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    assert make("demo") == "demo\n"
    assert make("train") == "cpu, 10 minutes, runs/cpu\n"
    assert make("train", "TRAIN_MINUTES=3", "TRAIN_RUN=r") == "cpu, 3 minutes, r\n"


def test_the_demo_benchmarks_the_generalist_and_says_what_a_stop_means(tmp_path):
    for name in (".ci", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    script, program = tmp_path / ".ci/demo", tmp_path / ".venv/bin/transframer"
    script.write_bytes((ROOT / ".ci/demo").read_bytes())
    program.write_text('#!/bin/bash\necho "$PWD: $*"\n')
    for path in (script, program):
        path.chmod(0o755)
    assert subprocess.run([script], capture_output=True, text=True).stdout == f"{tmp_path}: benchmark\n"
    program.write_text("#!/bin/bash\nkill -INT $PPID\nexit 130\n")
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "stopped: make demo goes on with the tasks that are missing\n"


@pytest.mark.parametrize("failing", [None, "test", "lint", "types", "wheel-check"])
def test_ci_fails_when_any_check_fails_and_runs_them_all(tmp_path, failing):
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci/run"
    script.write_bytes((ROOT / ".ci/run").read_bytes())
    script.chmod(0o755)
    checks = ("test", "lint", "types", "wheel-check")
    (tmp_path / "Makefile").write_text(
        "".join(f"{name}:\n\t@echo ran {name}; {'false' if name == failing else 'true'}\n" for name in checks)
    )
    done = subprocess.run([script], capture_output=True, text=True)
    assert all(f"ran {name}" in done.stdout for name in checks)
    assert done.returncode == (1 if failing else 0)
    assert done.stdout.splitlines()[-1] == (f"failed: {failing}" if failing else "all checks passed")
