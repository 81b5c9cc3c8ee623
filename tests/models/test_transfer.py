"""A model with more names, and one with low-rank changes: what stays, what learns, what is saved."""

import copy
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import nn

from tests.models.conftest import CONFIG, episode, wake
from transframer.errors import ConfigError, UnknownNameError
from transframer.models.transfer import add_low_rank, extended, merged
from transframer.models.transframer import Transframer
from transframer.sampling import Sampler


def of_new_names(seed=5):
    """An episode of a task and a kind that CONFIG does not know."""
    old = episode(seed, 1)
    query = replace(old.query, kind="normals")
    return replace(old, task="third", query=query, target=replace(old.target, annotation=query))


def step(model, batch, seed=0):
    """One step of plain gradient descent on what may learn."""
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    model.loss(model.collate(batch), torch.Generator().manual_seed(seed)).total.backward()
    with torch.no_grad():
        for weight in learned:
            weight -= 0.1 * weight.grad if weight.grad is not None else 0
            weight.grad = None


class TestExtended:
    def test_the_old_tasks_are_exactly_as_likely_as_before(self, model, episodes):
        larger = extended(model, ["third", "first"], ["normals", "rgb"])
        assert larger.config.tasks == ("first", "second", "third")
        assert larger.config.kinds == ("rgb", "depth", "normals")
        assert torch.equal(larger.log_prob(episodes), model.log_prob(episodes))
        # It can fail: in another order of names the old rows are others'.
        shuffled = Transframer(replace(larger.config, tasks=("third", "first", "second")))
        shuffled.load_state_dict(larger.state_dict())
        assert not torch.equal(shuffled.eval().log_prob(episodes), model.log_prob(episodes))

    def test_the_model_itself_and_its_mode_stay(self, any_model):
        before = copy.deepcopy(any_model.state_dict())
        larger = extended(any_model, ["third"], ["normals"])
        step(larger, [of_new_names()])
        assert any_model.config == CONFIG
        torch.testing.assert_close(any_model.state_dict(), before, rtol=0, atol=0)
        assert not larger.training
        assert extended(any_model.train(), ["third"], []).training

    def test_new_names_can_be_asked_for_and_learned(self, any_model):
        asked = [of_new_names()]
        with pytest.raises(UnknownNameError, match="normals"):
            any_model.log_prob(asked)
        larger = extended(any_model, ["third"], ["normals"])
        before = larger.log_prob(asked)
        assert before.isfinite().all()
        for i in range(5):
            step(larger, asked, i)
        assert larger.log_prob(asked).item() > before.item()
        assert larger.sample(asked).frames[0].annotation.kind == "normals"

    def test_it_can_be_saved_and_loaded(self, any_model, tmp_path):
        larger = extended(any_model, ["third"], ["normals"])
        larger.save_pretrained(tmp_path)
        loaded = Transframer.from_pretrained(tmp_path).eval()
        assert loaded.config == larger.config
        asked = [of_new_names(), episode()]
        assert torch.equal(loaded.log_prob(asked), larger.log_prob(asked))

    def test_a_task_learned_anew_starts_as_the_mean_of_the_others(self, any_model, episodes):
        known = extended(any_model, ["third"], [])
        larger = extended(known, ["first", "fourth"], [], anew=["first", "fourth"])
        for before, after in zip(known.task_tables(), larger.task_tables(), strict=True):
            torch.testing.assert_close(after.weight[0], before.weight[1:3].mean(0))
            assert torch.equal(after.weight[1:3], before.weight[1:3])
        as_before = larger.log_prob(episodes) == any_model.log_prob(episodes)
        assert as_before.tolist() == [e.task != "first" for e in episodes]

    def test_the_only_task_learned_anew_starts_as_in_random_weights(self):
        torch.manual_seed(0)
        alone = Transframer(replace(CONFIG, tasks=("first",)))
        untrained = [table.weight[0].clone() for table in alone.task_tables()[1:]]  # of the draft: constants
        wake(alone)
        for table, start in zip(extended(alone, [], [], ["first"]).task_tables()[1:], untrained, strict=True):
            assert torch.equal(table.weight[0], start)

    def test_it_may_get_a_sketch(self, episodes):
        torch.manual_seed(0)
        plain = wake(Transframer(replace(CONFIG, sketch=False)))
        larger = extended(plain, [], [], changes={"sketch": True, "chunk_overlap": 5})
        assert (larger.config.sketches, larger.config.chunk_overlap) == (True, 5)
        larger = extended(plain, [], [], changes={"sketch": True})
        torch.testing.assert_close(larger.log_prob(episodes), plain.log_prob(episodes))

    @pytest.mark.parametrize("changes", [{"width": 48}, {"sketch": False}, {"value_layers": 1}, {"heads": 2}])
    def test_settings_that_would_lose_weights_are_refused(self, any_model, changes):
        with pytest.raises(ConfigError, match="model to start from that has"):
            extended(any_model, [], [], changes=changes)

    def test_beyond_the_spare_rows_too(self, any_model, episodes):
        larger = extended(any_model, [f"task {i}" for i in range(40)], [])
        rows = larger.encoder.annotations.task.num_embeddings
        assert rows > any_model.encoder.annotations.task.num_embeddings
        assert torch.equal(larger.log_prob(episodes), any_model.log_prob(episodes))


def low_rank(model):
    pytest.importorskip("peft")
    changed = copy.deepcopy(model)
    add_low_rank(changed, 2)
    return changed


def train_low_rank(model, episodes):
    changed = low_rank(model)
    for i in range(3):
        step(changed, episodes, i)
    return changed


class TestLowRank:
    def test_it_starts_as_the_model_it_changes(self, any_model, episodes):
        assert torch.equal(low_rank(any_model).log_prob(episodes), any_model.log_prob(episodes))

    def test_only_low_rank_changes_and_embedding_tables_learn(self, any_model, episodes):
        changed = low_rank(any_model)
        tables = {name for name, each in changed.named_modules() if isinstance(each, nn.Embedding)}
        learned = {name for name, weight in changed.named_parameters() if weight.requires_grad}
        assert {name for name in learned if "lora_" not in name} == {f"{name}.weight" for name in tables}
        linear = [name for name, each in any_model.named_modules() if isinstance(each, nn.Linear)]
        assert {name.partition(".lora_")[0] for name in learned if "lora_" in name} == set(linear)
        before = copy.deepcopy(changed.state_dict())
        step(changed, episodes)
        moved = {name for name, value in changed.state_dict().items() if not torch.equal(value, before[name])}
        assert moved
        assert moved <= learned
        # Of a matrix n x m of rank 2: 2 (n + m) numbers.
        sizes = {name: any_model.get_submodule(name).weight.shape for name in linear}
        count = sum(weight.numel() for name, weight in changed.named_parameters() if "lora_" in name)
        assert count == sum(2 * (n + m) for n, m in sizes.values())

    def test_changes_learn_at_the_rate_of_their_layer(self, any_model):
        for scale, module in enumerate(any_model.modules(), 2):
            module.lr_scale = float(scale)
        for module in low_rank(any_model).modules():
            if hasattr(module, "lora_A"):
                changes = [*module.lora_A.children(), *module.lora_B.children()]
                assert {change.lr_scale for change in changes} == {module.get_base_layer().lr_scale}

    def test_merged_it_is_a_plain_model_that_says_the_same(self, model, episodes, tmp_path):
        changed = train_low_rank(model, episodes)
        assert not torch.allclose(changed.log_prob(episodes), model.log_prob(episodes))
        plain = merged(changed)
        torch.testing.assert_close(plain.log_prob(episodes), changed.log_prob(episodes), rtol=2e-5, atol=1e-2)
        assert set(plain.state_dict()) == set(model.state_dict())
        assert all(weight.requires_grad for weight in plain.parameters())
        plain.save_pretrained(tmp_path)
        loaded = Transframer.from_pretrained(tmp_path).eval()
        assert torch.equal(loaded.log_prob(episodes), plain.log_prob(episodes))

    def test_merging_leaves_the_changed_model_as_it_is(self, any_model, episodes):
        changed = train_low_rank(any_model, episodes)
        before = copy.deepcopy(changed.state_dict())
        merged(changed)
        torch.testing.assert_close(changed.state_dict(), before, rtol=0, atol=0)
        assert merged(any_model) is any_model

    def test_the_sampling_kernels_see_the_merged_weights(self, any_model, episodes):
        """They read weights and not modules; what they draw must be as likely as the changed model says."""
        changed = train_low_rank(any_model, episodes)
        sampler = Sampler(merged(changed), generator=torch.Generator().manual_seed(3))
        assert sampler.compiled
        tokens, drawn = sampler.tokens(episodes)
        with patch.object(Transframer, "tokens", lambda self, batch: tokens):
            scored, unchanged = changed.log_prob(episodes), any_model.log_prob(episodes)
        torch.testing.assert_close(scored, drawn, rtol=1e-4, atol=2e-3)
        assert not torch.allclose(unchanged, drawn, rtol=1e-3, atol=0.1)

    def test_without_the_library_it_says_what_to_install(self, any_model):
        with (
            patch.dict("sys.modules", {"peft": None}),
            pytest.raises(ConfigError, match=r"transframer\[lora\]"),
        ):
            add_low_rank(any_model, 2)


def test_a_merged_model_of_the_paper_preset_without_a_draft(episodes):
    torch.manual_seed(0)
    paper = wake(Transframer(replace(CONFIG, draft=False)))
    changed = train_low_rank(paper, episodes)
    torch.testing.assert_close(
        merged(changed).log_prob(episodes), changed.log_prob(episodes), rtol=2e-5, atol=1e-2
    )
