import pytest

from transframer.benchmarks.world import LABEL_SETS, main, rates


def test_rates_are_positive_and_fewer_labels_are_faster():
    wall, core = rates(("depth_m", "mask"), clips=8, rounds=3)
    assert wall > 0
    assert core > rates(("rgb", "depth_m", "mask", "flow"), clips=8, rounds=3)[1]


def test_the_table_has_a_line_for_every_set_of_labels(capsys):
    main(["--workers", "1", "--clips", "2", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:28].strip() for line in lines[2:]] == [" ".join(labels) for labels in LABEL_SETS]


def test_a_misspelt_option_is_refused():
    with pytest.raises(SystemExit):
        main(["--wokers", "1"])
