import dataclasses
import json
import math

import pytest

from transframer.benchmarks.cache import ResultCache
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.statistics import Estimate


@pytest.fixture
def result(toy_benchmark):
    return toy_benchmark()[0]


def test_result_survives_strict_json(result):
    bits = Estimate(math.inf, -math.inf, math.nan, 3)
    odd = dataclasses.replace(result, bits_per_frame=bits)
    text = json.dumps(odd.to_json(), allow_nan=False)
    read = TaskResult.from_json(json.loads(text))
    assert str(read) == str(odd)  # nan is not equal to itself


def test_stored_result_is_found_by_its_digest_only(result, tmp_path):
    cache = ResultCache(tmp_path / "made" / "later")
    assert cache.load(result.task, result.digest) is None
    cache.store(result)
    assert cache.load(result.task, result.digest) == result
    assert cache.load(result.task, "0" * 16) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"task": "toy_doubling"}'])
def test_damaged_entry_counts_as_missing(result, tmp_path, damage):
    cache = ResultCache(tmp_path)
    cache.store(result)
    cache.path(result.task, result.digest).write_text(damage)
    assert cache.load(result.task, result.digest) is None


def test_entry_renamed_to_another_digest_is_not_believed(result, tmp_path):
    cache = ResultCache(tmp_path)
    cache.store(result)
    cache.path(result.task, result.digest).rename(cache.path(result.task, "f" * 16))
    assert cache.load(result.task, "f" * 16) is None
