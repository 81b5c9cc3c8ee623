"""Speculation leaves the distribution as it is: every sequence of a toy, and the greedy draws of a model."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from tests.models.conftest import CONFIG, episode, wake
from tests.models.test_sampling import generator, lengthen
from transframer.codec import Tokens
from transframer.errors import ConfigError
from transframer.models.transframer import Transframer
from transframer.sampling import Sampler

CHANNELS = (1, 2, 5)  # Cb and Cr, which have one cell at 16 px, and a luma one
DRAWS = 20_000


@pytest.fixture(scope="module")
def toy():
    """A model of frames of four cells, which codes three channels of them at most, with values -1 and 1."""
    torch.manual_seed(0)
    model = wake(Transframer(replace(CONFIG, max_value=1, memory="target")))
    rare = torch.full((193,), -60.0)
    rare[[*CHANNELS, 192]] = 0.0
    with torch.no_grad():
        model.decoder.channel_head.bias += rare
        bias = model.draft.bias.weight.view(-1, 3, 192)
        bias[:, 0] = -40.0
        bias[:, 0, CHANNELS] = torch.tensor([0.5, -0.5, -1.5])
        bias[:, 1, CHANNELS] = 0.4
        model.draft.out.weight.zero_()
        model.draft.hint.weight.zero_()
    return model


def sequences(channels=CHANNELS):
    """Every sequence of triples of the toy: of each pair no value, -1 or 1."""
    pairs = [(c, p) for c in channels for p in ((0, 1, 2, 3) if c == 5 else (0,))]
    found = [[]]
    for pair in pairs:
        found = [[*s, (*pair, v)] for s in found for v in (-1, 1)] + found
    return found


def probabilities(model, asked, chains):
    """The model's own, by scoring in PyTorch."""
    n, longest = len(chains), max(map(len, chains))
    columns = torch.zeros(3, n, longest, dtype=torch.long)
    for i, chain in enumerate(chains):
        for j, triple in enumerate(chain):
            columns[:, i, j] = torch.tensor(triple)
    length = torch.tensor([len(chain) for chain in chains])
    tokens = Tokens(*columns, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "tokens", lambda self, batch: tokens)
        return model.log_prob([asked] * n).double().exp()


def drawn_chains(tokens):
    columns = torch.stack(tokens[:3], -1).tolist()
    return [tuple(map(tuple, row[:n])) for row, n in zip(columns, tokens.length.tolist(), strict=True)]


def p_value(model, how, seed=0):
    """Of the chi-square test of draws against the exact probabilities of all sequences."""
    asked = episode(1, size=(16, 16), quality=50)
    chains = [tuple(sorted(chain)) for chain in sequences()]
    exact = probabilities(model, asked, chains)
    assert exact.sum() == pytest.approx(1, abs=1e-4), "these are all sequences there are"
    index = {chain: i for i, chain in enumerate(chains)}
    count = torch.zeros(len(chains))
    sampler = Sampler(model, generator=generator(seed), **how)
    for _ in range(4):
        for chain in drawn_chains(sampler.tokens([asked], DRAWS // 4)[0]):
            count[index[chain]] += 1
    common = exact * DRAWS >= 5
    rest = (1 - exact[common].sum()) * DRAWS
    observed = [*count[common].tolist(), float(count[~common].sum())]
    expected = torch.cat([exact[common] * DRAWS, rest[None]])
    assert common.sum() > 50, "a test of many sequences"
    return stats.chisquare(observed, expected / expected.sum() * sum(observed)).pvalue


@pytest.mark.parametrize("how", [{}, {"proposals": 1}, {"proposals": 3}], ids=["plain", "one", "three"])
def test_every_sequence_is_as_frequent_as_it_is_probable(toy, how):
    assert p_value(toy, how) > 1e-3


@pytest.mark.parametrize("how", [{"temperature": 0.7}, {"top_p": 0.9}, {"temperature": 1.4, "top_p": 0.8}])
def test_other_distributions_are_those_without_speculation(toy, how):
    """Draws with and without, at temperatures and nuclei whose probabilities are not scored."""
    asked = episode(1, size=(16, 16), quality=50)
    index = {tuple(sorted(chain)): i for i, chain in enumerate(sequences())}
    count = torch.zeros(2, len(index))
    for i, proposals in enumerate((0, 3)):
        sampler = Sampler(toy, generator=generator(i), proposals=proposals, **how)
        for chain in drawn_chains(sampler.tokens([asked], DRAWS // 2)[0]):
            count[i, index[chain]] += 1
    common = count.sum(0) >= 10
    table = torch.cat([count[:, common], count[:, ~common].sum(1, keepdim=True) + 1], 1)
    assert common.sum() > 20, "a test of many sequences"
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_the_test_above_notices_a_wrong_rule(toy, monkeypatch):
    """What is drawn if every proposal stays: the draft's own sequences."""
    from transframer.models import event_kernels, packing

    drafts = packing.pack

    def silent(decoder):
        heads, layers = drafts(decoder)
        flat = {name: getattr(heads, name) * 0 for name in ("channel", "pointer", "value", "correction")}
        return heads._replace(**flat), layers

    assert event_kernels.STOP == 192
    monkeypatch.setattr(packing, "pack", silent)
    assert p_value(toy, {"proposals": 3}) < 1e-6


@pytest.mark.parametrize("proposals", [1, 2, 5])
def test_greedy_draws_are_those_without_speculation(model, episodes, proposals):
    lengthen(model)
    plain, nats = Sampler(model, temperature=0.0).tokens(episodes)
    sampler = Sampler(model, temperature=0.0, proposals=proposals)
    tokens, speculated = sampler.tokens(episodes)
    for ours, expected in zip(tokens, plain, strict=True):
        assert torch.equal(ours, expected)
    torch.testing.assert_close(speculated, nats, rtol=1e-4, atol=1e-3)
    assert 0 < sampler.passes <= int(tokens.length.sum()) + len(episodes)


def test_a_draft_that_is_right_needs_few_passes(toy):
    """With decoders that add nothing to the draft every proposal stays."""
    quiet = wake(Transframer(CONFIG))
    with torch.no_grad():
        for layer in (quiet.decoder.channel_head, quiet.decoder.pointer_query, quiet.decoder.values.query):
            layer.weight.zero_()
            layer.bias.zero_()
        quiet.decoder.values.correction.weight.zero_()
        quiet.decoder.values.correction.bias.zero_()
        quiet.decoder.values.bias.weight.zero_()
        quiet.draft.bias.weight.view(-1, 3, 192)[:, 0] += 2
    sampler = Sampler(quiet, generator=generator(), proposals=4)
    tokens, _ = sampler.tokens([episode(1)])
    events = int(tokens.length[0]) + 1
    chunks = 1 + max(0, -(-(events - CONFIG.chunk_events) // (CONFIG.chunk_events - CONFIG.chunk_overlap)))
    assert events > 20
    assert sampler.passes <= events / 4 + chunks


@pytest.mark.parametrize(
    "wrong", [{"compiled": False}, {"proposals": -1}, {"temperature": 0.0, "estimate": "median"}]
)
def test_what_speculation_cannot_do_is_refused(any_model, wrong):
    with pytest.raises(ConfigError, match="proposals"):
        Sampler(any_model, **{"proposals": 2, **wrong})


def test_a_model_without_a_draft_has_nothing_to_propose(any_model):
    with pytest.raises(ConfigError, match="draft"):
        Sampler(Transframer(replace(CONFIG, draft=False)), proposals=2)
