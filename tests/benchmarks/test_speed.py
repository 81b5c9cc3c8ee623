import dataclasses
import json
import re
import subprocess

import pytest
import torch

from transframer import cli
from transframer.benchmarks import peers, sampling_speed, speed, speed_memory, speed_training, training_speed
from transframer.benchmarks.machine import bandwidth, described, matrix_rate
from transframer.benchmarks.peers import INSTALL, PEERS
from transframer.benchmarks.plain import parameter_count
from transframer.benchmarks.speed_config import EQUAL, SpeedConfig
from transframer.benchmarks.timing import Clock, Lap, Spread, in_turns
from transframer.errors import TransframerError
from transframer.models.presets import PRESETS

CPU = torch.device("cpu")
CLOCK = Clock(CPU, 1)


def test_a_run_writes_json_and_markdown(tmp_path, small_tiny, monkeypatch, capsys):
    monkeypatch.setattr(speed, "LARGE_BYTES", 2**22)
    monkeypatch.setattr(speed, "_CLIPS", 2)
    out = tmp_path / "speed"
    words = f"benchmark speed --parts sampling codec world --presets tiny --batches 2 --rounds 1 --events 64 \
        --sizes-px 16 --device cpu --no-peers --out {out}"
    threads = torch.get_num_threads()
    try:
        assert cli.main(words.split()) == 0
    finally:
        torch.set_num_threads(threads)
    assert str(out / "speed.md") in capsys.readouterr().out
    record = json.loads((out / "speed.json").read_text())
    assert list(record["parts"]) == ["sampling", "codec", "world"]
    assert record["machine"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert record["machine"]["code"]["version"]
    assert record["machine"]["measured"]["memory_bytes_per_s"]["median"] > 0
    for rows in record["parts"].values():
        for row in rows:
            assert 0 < row["rate"]["low"] <= row["rate"]["median"] <= row["rate"]["high"]
    facts = record["parts"]["sampling"][0]["facts"]
    assert facts["tokens_per_frame"] == 64
    assert facts["limit_from_memory"] > 0
    report = (out / "speed.md").read_text()
    assert re.findall("^## (.*)", report, re.M) == ["Sampling", "Codec", "World"]
    for table in re.findall(r"(?:^\|.*\n)+", report, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert [path.name for path in out.iterdir() if path.name.startswith("speed.")]
    assert len(list(out.iterdir())) == 2


def test_the_two_words_have_a_help_of_their_own(capsys):
    for words, option in ((["benchmark", "speed"], "--no-peers"), (["benchmark"], "--samples-per-query")):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--help"])
        assert ended.value.code == 0
        assert option in capsys.readouterr().out


def test_a_run_folder_of_this_name_is_reached_by_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["benchmark", "./speed"]) == 2
    assert capsys.readouterr().err.startswith("transframer: speed: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--parts sampeling", "unknown part 'sampeling', did you mean 'sampling'?"),
        ("--presets tyni", "did you mean 'tiny'?"),
        ("--batches 0", "batches: 0\nexpected at least 1"),
        ("--batches one", "--batches: no value is given"),
        ("--rounds 0", "rounds: 0\nexpected at least 1"),
        ("--training-batch 0", "training_batch: 0\nexpected at least 1"),
        ("--threads 0", "threads: 0"),
        ("--events 100", "events: 100\nexpected a multiple of 64"),
        ("--sizes-px 24", "expected multiples of 16"),
        ("--parts codec codec", "expected at least one, and each once"),
        ("--device abacus", "'abacus' is no device"),
        ("--piers", "unknown option --piers"),
    ],
)
def test_bad_settings_are_told_in_three_lines(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["benchmark", "speed", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 3
    assert not list(tmp_path.iterdir())


def test_a_missing_peer_is_named_and_left_out(monkeypatch):
    absent = [dataclasses.replace(peer, package="no_such_package") for peer in PEERS]
    for module in (speed, sampling_speed, speed_memory):
        monkeypatch.setattr(module, "PEERS", absent)
    assert speed.missing_peers()["no_such_package"] == INSTALL
    timed = sampling_speed.subjects("tiny", 1, 64, CPU, peers=True, compiled=True)
    assert [subject.name for subject in timed] == ["ours"]


@pytest.mark.parametrize("preset", [EQUAL, "tiny", "small"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_are_as_large_as_ours(peer, preset):
    if not peer.installed:
        pytest.skip(f"{peer.package} is {INSTALL}")
    like = sampling_speed.likeness(sampling_speed.config_of(preset, 256, one_chunk=True), 256)
    with torch.device("meta"):
        model = peer.model(like)
    assert peer.decoder_size(model) == pytest.approx(like.decoder_parameters, rel=0.03)
    assert parameter_count(model) == pytest.approx(like.parameters, rel=0.15)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_draw_what_is_asked(peer):
    if not peer.installed or peer.compiled:
        pytest.skip(INSTALL)
    subject = peer.subject(peers.Likeness(16, 2, 2, 8, 6, 30_000, 45_000), 3, CPU)
    subject.encode()
    assert subject.draw() == 18
    assert 0 < subject.read_parameters < subject.decoder_parameters < subject.parameters


@pytest.mark.parametrize("batch", [1, 3])
def test_ours_draws_the_events_asked_for_and_stops_by_itself(batch):
    config = sampling_speed.config_of("tiny", 128, one_chunk=False)
    config = dataclasses.replace(config, encoder_widths=(16,), encoder_blocks=(1,), pixel_stem=(), width=16)
    subject = sampling_speed.ours("ours", config, 128, batch, CPU)
    assert subject.draw() == 128 * batch
    assert 0 < subject.read_parameters < subject.decoder_parameters < subject.parameters


def test_eight_million_parameters():
    like = sampling_speed.likeness(sampling_speed.config_of(EQUAL, 256, one_chunk=True), 256)
    assert like.parameters == pytest.approx(8e6, rel=0.03)
    assert like.memory == 64


@pytest.fixture
def small_tiny(monkeypatch):
    """A preset that takes no time."""
    small = dataclasses.replace(
        PRESETS["tiny"], encoder_widths=(16,), encoder_blocks=(1,), pixel_stem=(8, 8), width=16, heads=2
    )
    monkeypatch.setitem(PRESETS, "tiny", small)


def test_a_training_step_is_timed_beside_its_limit(small_tiny):
    how = {"rounds": 1, "matrix_rate": 1e12, "batch_size": 2}
    for precision in ("fp32", "bf16"):
        (row,) = speed_training.speeds(["tiny"], CLOCK, **how, precision=precision)
        assert 0 < row.rate.median < row.facts["limit_from_products"]
        assert row.what == f"tiny, step, {precision}, batch 2"


def test_a_step_in_bf16_multiplies_in_bf16(small_tiny):
    asked = speed_training.episodes(2)
    model = speed_training.model_of("tiny", asked, torch.device("cpu"))
    types = []
    model.decoder.pointer_query.register_forward_hook(lambda module, given, out: types.append(out.dtype))
    batch = model.collate(asked)
    for precision in ("fp32", "bf16"):
        speed_training.stepper(model, batch, precision)()
    assert set(types[: len(types) // 2]) == {torch.float32}
    assert set(types[len(types) // 2 :]) == {torch.bfloat16}


def test_training_is_compared_with_the_plain_decoder(monkeypatch):
    speed = training_speed.Speed("tiny, long", "fp32", 8, 10, 11, 6.0, 3.0, 2.0, 1.0, 2.0, 1.5, 2.5, 7.0, 8.0)
    monkeypatch.setattr(training_speed, "speeds", lambda *args, **options: speed)
    rows = speed_training.beside_plain(["tiny"], rounds=1, lengths=["long"], precisions=["fp32"])
    mine, plain = rows
    assert (mine.rate.median, plain.rate.median) == (6.0, 3.0)
    assert (mine.ratio, plain.ratio) == (None, Spread(2.0, 1.5, 2.5))
    assert [row.facts["parameters"] for row in (mine, plain)] == [10, 11]


@pytest.mark.parametrize("what", ["sampling", "training"])
def test_peak_memory_is_measured(what, small_tiny):
    job = {"what": what, "who": "ours", "preset": "tiny", "batch": 2, "events": 64, "device": "cpu"}
    result = speed_memory.measure({**job, "threads": torch.get_num_threads()})
    assert 0 < result["before_mib"] <= result["peak_mib"]
    assert job.items() <= result.items()


def test_each_peak_has_a_process_of_its_own(monkeypatch):
    commands = []

    def run(words, **options):
        commands.append(json.loads(words[-1]))
        return subprocess.CompletedProcess(words, 0, f"noise\n{words[-1]}\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    jobs = list(speed_memory.peaks(["tiny", "small"], batch=3, events=64, device="cpu"))
    assert jobs == commands
    assert [(job["what"], job["preset"]) for job in jobs] == [
        (what, preset) for preset in ("tiny", "small") for what in ("sampling", "training")
    ]


def test_a_failed_process_is_told(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(TransframerError, match="MemoryError"):
        next(speed_memory.peaks(["tiny"], batch=1, events=64, device="cpu"))


def test_turns_rotate_and_short_work_is_repeated():
    done = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    laps = in_turns(works, CLOCK, 2, least_s=0.0)
    assert done == ["a", "b", "a", "b", "b", "a"]
    assert [len(own) for own in laps.values()] == [2, 2]
    in_turns({"a": lambda: done.append("more")}, CLOCK, 1, least_s=0.01, warm_up=False)
    assert done.count("more") > 1


def test_the_clock_is_the_processor_on_one_thread_only():
    lap = Lap(2.0, 1.0)
    assert Clock(CPU, 1).seconds(lap) == 1.0
    assert Clock(CPU, 2).seconds(lap) == 2.0
    assert Clock(torch.device("cuda"), 1).seconds(lap) == 2.0


def test_the_machine_is_described_and_measured():
    json.dumps(described(CLOCK))
    assert bandwidth(2**20, CLOCK, 1).median > 1e6
    assert matrix_rate(CLOCK, 1).median > 1e6
    assert matrix_rate(CLOCK, 1, torch.bfloat16).median > 1e6


def test_settings_have_the_issues_defaults():
    config = SpeedConfig()
    assert config.batches == [1, 8, 32]
    assert {"tiny", "small", "base"} < set(config.presets)
