"""Machine code kept between processes is that of the sources as they are now."""

import subprocess
import sys

import pytest

pytest.importorskip("numba")

HELPER = """
from transframer.codec.jit import reordered

@reordered
def helper(x):
    return x + {amount}
"""
KERNEL = """
from helper import helper
from transframer.codec.jit import kernel, lazy_kernel, reordered

@reordered
def twice(x):
    return 2 * helper(x)

@{decorator}
def called(x):
    return twice(x)

print(called(1), sum(called.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("decorator", ['kernel("int64(int64)")', "lazy_kernel"])
def test_an_edited_helper_is_compiled_anew(tmp_path, decorator):
    (tmp_path / "kernels.py").write_text(KERNEL.format(decorator=decorator))

    def run(amount):
        (tmp_path / "helper.py").write_text(HELPER.format(amount=amount))
        done = subprocess.run(
            [sys.executable, "kernels.py"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert run(1) == ["4", "0"]
    assert run(1) == ["4", "1"], "found in the cache"
    assert run(5) == ["12", "0"], "not that of the helper as it was"
