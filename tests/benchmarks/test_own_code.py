"""A model with a code and a likelihood of its own: its ceiling, and what is said of its bits."""

import dataclasses
import json

from transframer.benchmarks.notes import bits_are
from transframer.benchmarks.quality import write_results
from transframer.frames import Frame


def test_ceiling_is_that_of_the_models_own_code(toy_benchmark, toy_predictor):
    def coarse(episodes):
        assert len({episode.size for episode in episodes}) == 1
        frames = [Frame(episode.target.image + 4, episode.query) for episode in episodes]
        return frames, 11 * len(episodes)

    (by_dct,) = toy_benchmark()
    toy_predictor.round_trips = coarse
    (own,) = toy_benchmark(no_cache=True)
    assert (by_dct.main.ceiling, own.main.ceiling) == (0, 4)
    assert own.metrics["worst"].ceiling == 4
    assert own.target_tokens_per_frame == 11
    assert {picture.scores["ceiling"] for picture in own.pictures} == {4}
    assert own.pictures[0].ceiling != by_dct.pictures[0].ceiling


def test_bound_of_the_likelihood_is_said_wherever_bits_are(toy_benchmark, toy_predictor, toy_config):
    def written(results):
        config = toy_config()
        write_results(config, results)
        return [(config.folder / name).read_text() for name in ("results.md", "report.html", "results.json")]

    exact = toy_benchmark()
    for text in written(exact)[:2]:
        assert "bits/frame: exact, of the true coded target" in text
        assert "≤" not in text
    toy_predictor.likelihood = "bound"
    bound = toy_benchmark()
    assert (exact[0].likelihood, bound[0].likelihood) == ("exact", "bound")
    assert exact[0].digest != bound[0].digest
    table, report, record = written(bound)
    for text in (table, report):
        assert "bits/frame: at most (variational bound), of the true coded target" in text
        assert "≤ 13.50 [" in text
    assert "lower bound: bits/frame are at most" in report
    assert json.loads(record)["results"][0]["protocol"]["model"]["likelihood"] == "bound"
    both = [exact[0], dataclasses.replace(bound[0], task="other")]
    assert bits_are(both) == "at most (variational bound) of other, else exact"
