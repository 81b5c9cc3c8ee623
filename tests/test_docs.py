"""The documents tell the truth: code runs or is the tested code, commands parse, links lead somewhere."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from transframer import cli
from transframer import finetune as finetuning
from transframer.data.catalog import FORMATS
from transframer.data.formats.cameras import read_cameras
from transframer.finetune_config import FinetuneConfig
from transframer.models.presets import TransframerConfig
from transframer.models.transframer import Transframer
from transframer.registry import task_names
from transframer.training.checkpoint import save_model, stored_config
from transframer.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLUGIN = ROOT / "tests/plugin"
QUOTED = [
    PLUGIN / "transframer_boundaries.py",
    ROOT / "tasks/surface_normals.py",
    ROOT / "data/world/samples.py",
    ROOT / "transframer/templates/test_my_task.py.template",
]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.M | re.S)


def cases(language: str) -> list:
    return [
        pytest.param(block, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(blocks(document, language))
    ]


@pytest.mark.parametrize("block", cases("python"))
def test_python_runs_or_is_tested_code(block, tmp_path, monkeypatch, capsys):
    if "import" not in block:
        quoted = "".join(block.split())
        assert any(quoted in "".join(path.read_text().split()) for path in QUOTED), (
            "equal but for white space"
        )
        return
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), "gray").save("photo.jpg")
    torch.manual_seed(0)
    config = TransframerConfig(
        ("depth_estimation",),
        ("rgb", "depth"),
        (16,),
        (1,),
        (8, 8),
        16,
        chunk_events=16,
        chunk_overlap=4,
        heads=2,
    )
    save_model(Path("runs/tiny"), Transframer(config), TrainConfig(size_px=16), step=1)
    tuned = []
    monkeypatch.setattr(finetuning, "finetune", lambda config: tuned.append(config) or config.from_)
    exec(compile(block, "block", "exec"), {})
    assert capsys.readouterr().out
    assert all(isinstance(config, FinetuneConfig) for config in tuned)


@pytest.mark.parametrize("block", cases("toml"))
def test_toml_is_the_tested_plugin(block):
    assert block.strip("\n") in (PLUGIN / "pyproject.toml").read_text()


@pytest.mark.parametrize("block", cases("json"))
def test_cameras_are_read(block, tmp_path):
    (tmp_path / "cameras.json").write_text(block)
    cameras, query = read_cameras(tmp_path / "cameras.json", ["left.png", "right.png"])
    assert [camera.world_from_camera[0, 3].item() for camera in (*cameras, query)] == pytest.approx(
        [0, 0.2, 0.1]
    )


COMMANDS = [
    (document.name, line.partition(" #")[0].strip())
    for document in DOCUMENTS
    for block in blocks(document, "bash")
    for line in block.splitlines()
]


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_commands_are_understood(document, line, monkeypatch, fresh_registry):
    program, *words = shlex.split(line)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in words if "=" not in word]
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
        return
    assert program == "transframer"
    monkeypatch.chdir(ROOT)
    assert is_understood(words, monkeypatch)


def is_understood(words: list[str], monkeypatch) -> bool:
    """Whether the command line takes these words; nothing but the list of tasks is run."""
    understood = []
    for name, command in cli.COMMANDS.items():
        if command.config:
            monkeypatch.setitem(cli.COMMANDS, name, dataclasses.replace(command, run="stub:run"))
    imported = cli._imported
    monkeypatch.setattr(cli, "_imported", lambda t: understood.append if t == "stub:run" else imported(t))
    return cli.main(words) == 0 and bool(understood or "tasks" in words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_readme_lists_every_task_and_what_the_generalist_makes_of_its_own():
    tasks, results = (
        re.findall(r"^\| (\w+) \|", part, re.M)
        for part in (ROOT / "README.md").read_text().split("## What the generalist gives")
    )
    known = set(task_names())
    assert sorted(known.intersection(tasks)) == sorted(known)
    assert sorted(known.intersection(results)) == sorted(stored_config("generalist").tasks)


def test_data_page_lists_every_format():
    listed = re.findall(r"`(\w+)`", (ROOT / "docs/data.md").read_text().split("## Formats")[1])
    assert set(FORMATS) <= set(listed)
