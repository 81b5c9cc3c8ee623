"""What a reader of a benchmark's tables must know, sentence by sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transframer.benchmarks.numbers import interval, number
from transframer.benchmarks.parts import FrechetDistance, RolloutResult, Sparsification
from transframer.benchmarks.results import TaskResult


def footnotes(results: Sequence[TaskResult]) -> list[str]:
    """What a reader of the table must know, sentence by sentence."""
    machines = sorted({r.protocol["machine"]["device"] for r in results})
    batches = sorted({r.protocol["sampling"]["batch_size"] for r in results})
    fitted = sorted({r.protocol["floor"]["split"] for r in results})
    notes = [
        f"floor: the trivial prediction, fitted on {' or '.join(fitted)} samples. ceiling: the true target "
        "coded and decoded by the model's own code. Both on the same samples as the model.",
        "against the floor: beats or below where the floor lies outside the model's 95 % bootstrap interval, "
        "else ties.",
        f"bits/frame: {bits_are(results)}, of the true coded target. tokens/frame: DCT triples or codes "
        "drawn (in the true target).",
        "s/frame: sampling only, of one frame drawn, "
        f"batch size {', '.join(map(str, batches))}, on {', '.join(machines)}.",
    ]
    notes += specialist_notes(results)
    notes += sorted({r.protocol["data"]["note"] for r in results if "note" in r.protocol["data"]})
    notes += [data_note(r.task, r.protocol["data"]) for r in results if "of" in r.protocol["data"]]
    for result in results:
        if result.sparsification:
            notes.append(f"{result.task}: {reliability(result.sparsification)}.")
        if result.rollout:
            notes += [f"{result.task}: {note}" for note in rollout_notes(result.rollout)]
        if result.nothing_to_judge:
            count, n = len(result.nothing_to_judge), len(result.per_sample)
            notes.append(f"{result.task}: {count} of {n} samples have nothing to judge on their own.")
        if result.main.model.undefined:
            notes.append(
                f"{result.task}: {result.main.model.undefined} of {result.resamples} resamples had nothing "
                "to judge and are left out of the interval."
            )
    return notes


def specialist_notes(results: Sequence[TaskResult]) -> list[str]:
    """What specialists are, how to read what stands beside them, and each with its training."""
    measured = [(result.task, result.specialist) for result in results if result.specialist]
    if not measured:
        return []
    notes = [
        "specialist: a network made for the one task, trained on scenes of the same world and scored on the "
        "same samples. of the specialist: the model's score as a share of its score, or the model's error as "
        "a multiple of its error.",
        "device-seconds: of a GPU by the clock, of a CPU those that its cores worked, rendering included.",
    ]
    decibels = [r.task for r in results if r.specialist and r.headline.unit == "dB"]
    if decibels:
        notes.append(
            f"of the specialist in dB ({', '.join(decibels)}) is generous, since decibels are logarithmic: "
            "90 % of 25 dB is 1.8 times the mean squared error. The paired differences, which stand with all "
            "metrics, say more."
        )
    for task, found in measured:
        spent = found.run_seconds
        beside = "" if spent is None else f" (the run spent {spent:,.0f} s on the task)"
        notes.append(
            f"{task}, specialist: {found.network}; {found.parameters:,} parameters, "
            f"{found.device_seconds:,.0f} device-seconds of training{beside}, {found.steps:,} steps, "
            f"{found.samples_seen:,} samples; {found.seconds_per_frame:.2g} s/frame."
        )
    if without := [result.task for result in results if not result.specialist]:
        notes.append(f"{', '.join(without)}: there is no specialist.")
    return notes


def data_note(task: str, data: Mapping[str, Any]) -> str:
    """Which samples of a data set were measured, and by what protocol."""
    share = (
        f"all {data['of']:,}" if data["n"] == data["of"] else f"{data['n']:,} of {data['of']:,}, at random"
    )
    protocol = "".join(f" {topic}: {text}." for topic, text in data["protocol"].items())
    return f"{task}: {data['split']} samples of {data['source']}, {share}.{protocol}"


def bits_are(results: Sequence[TaskResult]) -> str:
    """Whether the bits per frame are exact or an upper bound, and of which tasks where that differs."""
    bounds = [result.task for result in results if result.likelihood == "bound"]
    bound = "at most (variational bound)"
    if not bounds:
        return "exact"
    return bound if len(bounds) == len(results) else f"{bound} of {', '.join(bounds)}, else exact"


def reliability(found: Sparsification) -> str:
    """How well uncertainty foretells error, in one clause."""
    return f"AUSE {interval(found.ause)}, where 0 is best and a random order has {number(found.ause_random)}"


def rollout_notes(found: RolloutResult) -> list[str]:
    """How videos were drawn, how long a frame took, and the Frechet distance with what it depends on."""
    how = f"temperature {found.temperature:g}" if found.temperature else "the task's point estimate"
    if found.top_p < 1 and found.temperature:
        how += f", top-p {found.top_p:g}"
    frames = f"{found.frames} frame{'s' * (found.frames != 1)}"
    notes = [
        f"rollouts of {frames} after {found.prompt_frames}, {found.videos} videos, {how}, each frame from "
        f"the latest {found.window} at most; {found.seconds_per_frame:.2g} s/frame."
    ]
    return notes + ([distance_note(found.frechet_distance)] if found.frechet_distance else [])


def distance_note(found: FrechetDistance) -> str:
    """The Frechet distance, with all that it depends on and what to know of it."""
    height, width = found.size_px
    network = f"{found.network} (SHA-256 {found.sha256[:12]})" if found.sha256 else found.network
    note = (
        f"{found.name}: {number(found.distance)}, of the last prompt frame repeated {number(found.floor)}; "
        f"{found.videos} videos of {found.frames} frames of {width} x {height} px on each side, prompts "
        f"included; {found.features} features of {network}, given {found.input}."
    )
    return f"{note} Mind: {found.warning}." if found.warning else note
