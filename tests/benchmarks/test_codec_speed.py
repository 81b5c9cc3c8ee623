import math

from transframer.benchmarks import codec_speed


def test_every_row_compares_two_rates():
    rows = codec_speed.speeds((16,), rounds=2, seconds=0.001)
    assert {"encode", "decode"} <= {row.what for row in rows}
    for row in rows:
        assert row.size_px == 16
        assert 0 < row.low <= row.ratio <= row.high < math.inf
        assert min(row.ours, row.peer) > 0


def test_the_command_prints_a_table(capsys):
    codec_speed.main(["--sizes-px", "16", "--rounds", "1", "--seconds", "0.001"])
    assert "encode" in capsys.readouterr().out
