"""The recipes: scripts that parse, settings that `train` takes, and what is run, continued and skipped."""

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from transframer import cli
from transframer.models.presets import PRESETS
from transframer.options import parse
from transframer.registry import task_names
from transframer.training.checkpoint import load_config, stored_config
from transframer.training.config import TrainConfig
from transframer.weights import GENERALIST

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
SCRIPTS = ("cpu", "generalist", "gpu")
SETTINGS = sorted(RECIPES.glob("*.yaml"))
LINES = re.findall(r"^(transframer .*)$", (RECIPES / "README.md").read_text(), re.M)

# Writes down how it was called, and leaves what a training leaves: it is stopped where STOP names its run.
STAND_IN = r"""#!/bin/bash
echo "$(basename "$0") threads=${OMP_NUM_THREADS:-} $*" >> "$CALLS"
[[ " $* " == *" train "* ]] || exit 0
run=$(sed -E 's/.*--(out|resume) ([^ ]+).*/\2/' <<< "$*")
mkdir -p "$run/checkpoints/step-000001"
touch "$run/config.yaml"
[ "$run" != "${STOP:-}" ] || { echo "stopped by SIGTERM and saved at step 1" >> "$run/log.txt"; exit 143; }
[ "$run" != "${WRONG:-}" ] || exit 2
echo "trained 1 steps; the model is in $run/model" >> "$run/log.txt"
[ "$run" != "${COMPLETE:-}" ] || exit 1
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the recipes in a checkout whose environment holds stand-ins."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("transframer", "torchrun"):
        (tmp_path / ".venv/bin" / name).write_text(STAND_IN)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    (tmp_path / ".venv/bin/getconf").write_text("#!/bin/bash\necho 5\n")
    (tmp_path / ".venv/bin/getconf").chmod(0o755)
    (tmp_path / "recipes").mkdir()
    for path in RECIPES.iterdir():
        (tmp_path / "recipes" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "recipes" / path.name).chmod(path.stat().st_mode)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def called(checkout, *words, code=0, **environment):
    """What a recipe, started in another folder, calls; paths of the checkout are written as ROOT."""
    calls = checkout / "calls"
    calls.write_text("")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | environment
    done = subprocess.run(
        [checkout / "recipes" / words[0], *words[1:]], cwd=checkout / "elsewhere", capture_output=True,
        text=True, env=environment | {"CALLS": str(calls)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return calls.read_text().replace(str(checkout), "ROOT").splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_executable_and_parse(name):
    assert os.access(RECIPES / name, os.X_OK)
    for path in (RECIPES / name, RECIPES / "resumable.sh"):
        assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert f"`recipes/{name} [" in (RECIPES / "README.md").read_text()


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_settings_are_those_of_train(path):
    config = parse(TrainConfig, ["--config", str(path), "--minutes", "3"], prog="train")
    given = yaml.safe_load(path.read_text())
    assert config.minutes == 3
    assert config.preset == given["preset"] in PRESETS
    assert config.weights == given.get("weights", {})
    assert len(config.tasks) == 8
    assert set(config.tasks) <= set(task_names())
    assert config.tasks == yaml.safe_load((RECIPES / "cpu.yaml").read_text())["tasks"]


def test_the_generalist_is_trained_as_it_was():
    recipe = parse(TrainConfig, ["--config", str(RECIPES / "generalist.yaml")], prog="train")
    shipped = stored_config(Path(GENERALIST))
    own = dict(out=shipped.out, task_settings=shipped.task_settings)
    assert replace(recipe, **own) == shipped


@pytest.mark.parametrize("line", LINES)
def test_commands_of_the_page_are_understood(line, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)[1:]
    if "--print-config" not in words and "--config" in words:
        words.append("--print-config")
        with pytest.raises(SystemExit) as done:
            cli.main(words)
        assert done.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["minutes"] == 3.0


def test_cpu_trains_on_every_core_then_benchmarks(checkout):
    launch = "torchrun threads=1 --standalone --nproc-per-node 4 -m transframer train"
    assert called(checkout, "cpu") == [
        f"{launch} --config ROOT/recipes/cpu.yaml --out runs/cpu",
        "transframer threads= benchmark runs/cpu",
    ]
    assert (checkout / "elsewhere/runs/cpu").is_dir()
    assert called(checkout, "cpu", "30", "r")[0] == (
        f"{launch} --config ROOT/recipes/cpu.yaml --minutes 30 --out r"
    )
    assert called(checkout, "cpu", "30", "r") == ["transframer threads= benchmark r"]


def test_a_recipe_that_was_stopped_goes_on(checkout):
    assert len(called(checkout, "cpu", "", "r", code=143, STOP="r")) == 1
    again = called(checkout, "cpu", "", "r")
    assert again[0].endswith("-m transframer train --resume r")
    assert again[1:] == ["transframer threads= benchmark r"]


def test_a_complete_run_whose_log_did_not_say_so_is_benchmarked(checkout):
    called(checkout, "cpu", "", "r", code=143, STOP="r")
    assert len(called(checkout, "cpu", "", "r", code=2, WRONG="r")) == 1, "nothing is measured of it"
    assert called(checkout, "cpu", "", "r", COMPLETE="r")[1:] == ["transframer threads= benchmark r"]


def test_a_run_killed_before_its_first_checkpoint_is_moved_aside(checkout):
    (checkout / "elsewhere/r").mkdir()
    (checkout / "elsewhere/r/config.yaml").write_text("lost: true")
    assert called(checkout, "gpu", "5", "r/") == [  # as a shell completes it
        "transframer threads= train --config ROOT/recipes/gpu.yaml --minutes 5 --out r/",
        "transframer threads= benchmark r/",
        "transframer threads= benchmark speed --parts training --presets small --precision bf16 "
        "--training-batch 128 --no-peers --device cuda --out r//speed",
    ]
    (aside,) = (checkout / "elsewhere").glob("r-*")
    assert (aside / "config.yaml").read_text() == "lost: true"


def test_the_generalist_is_trained_by_two_processes(checkout):
    launch = "torchrun threads=1 --standalone --nproc-per-node 2 -m transframer train"
    assert called(checkout, "generalist", code=143, STOP="runs/recipe-generalist") == [
        f"{launch} --config ROOT/recipes/generalist.yaml --out runs/recipe-generalist"
    ]
    assert called(checkout, "generalist") == [
        f"{launch} --resume runs/recipe-generalist",
        "transframer threads=1 benchmark runs/recipe-generalist",
    ]


def test_the_last_command_is_one_of_ours():
    script = (RECIPES / "gpu").read_text().replace("\\\n", "")
    words = shlex.split(script.splitlines()[-1].replace("$run", "r"))
    command = cli.COMMANDS[" ".join(words[1:3])]
    module, _, name = command.config.partition(":")
    config = parse(getattr(__import__(module, fromlist=[name]), name), words[3:], prog="speed")
    assert (config.parts, config.presets, config.peers) == (["training"], ["small"], False)
    recipe = yaml.safe_load((RECIPES / "gpu.yaml").read_text())
    assert (config.precision, config.training_batch) == (recipe["precision"], recipe["batch_size"])


def test_ctrl_c_stops_the_recipe_and_says_how_to_go_on(checkout):
    (checkout / ".venv/bin/transframer").write_text(
        "#!/bin/bash\ntrap 'exit 130' INT\ntouch started\nwhile true; do sleep 0.05; done\n"
    )
    recipe = subprocess.Popen(
        [checkout / "recipes/gpu"], cwd=checkout, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (checkout / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(recipe.pid, signal.SIGINT)  # as a terminal does
    _, said = recipe.communicate(timeout=30)
    assert recipe.returncode == 130
    assert said.splitlines()[-1] == "stopped: the same command goes on from here"


def test_the_settings_of_a_recipe_train(tmp_path, monkeypatch):
    small = PRESETS["tiny"].__class__(
        encoder_widths=(16,), encoder_blocks=(1,), pixel_stem=(), width=16, value_layers=1, heads=2,
        chunk_events=96, chunk_overlap=12,
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "tiny", small)
    out = tmp_path / "run"
    words = ["train", "--config", str(RECIPES / "cpu.yaml"), "--out", str(out)]
    few = "--steps 2 --batch-size 4 --size-px 32 --validations 1 --validation-episodes 1 --pictures 0"
    assert cli.main([*words, *few.split()]) == 0
    assert load_config(out).weights["image_classification"] == 3
    state = torch.load(out / "checkpoints/step-000002/state.pt", weights_only=True)
    assert state["step"] == 2
    assert (out / "log.txt").read_text().splitlines()[-1].startswith("trained 2 steps"), (
        "what recipes look for"
    )
