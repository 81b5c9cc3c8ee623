import pytest

from tests.data.toy_dataset import Numbers
from transframer.data.dataset import part_of_training
from transframer.errors import DataError, UnknownNameError
from transframer.task import Clip


def test_the_splits_are_three():
    assert Numbers(split="validation").split == "validation"
    with pytest.raises(UnknownNameError, match="did you mean 'validation'"):
        Numbers(split="valid")


def test_the_clip_is_one_frame_unless_asked():
    assert Numbers().clip == Clip()
    assert Numbers(clip=Clip(frames=3)).clip.frames == 3


class TestPartOfTraining:
    @pytest.mark.parametrize("n", [2, 3, 7, 19, 20, 21, 400])
    def test_every_item_is_in_one_part(self, n):
        items = [f"{i}.jpg" for i in range(n)]
        train, validation = (part_of_training(items, items, split) for split in ("train", "validation"))
        assert train
        assert validation
        assert sorted(train + validation) == sorted(items)
        assert train == [item for item in items if item not in validation], "in the order given"

    def test_a_tenth_is_held_out(self):
        items = list(range(5000))
        held_out = part_of_training(items, [f"item {i}" for i in items], "validation")
        assert 400 < len(held_out) < 600  # 500, standard deviation 21
        assert len(part_of_training(range(15), [str(i) for i in range(15)], "validation")) == 2  # 1.5

    def test_items_of_one_key_stay_together(self):
        keys = [f"video {i // 10}" for i in range(400)]
        validation = part_of_training(range(400), keys, "validation")
        assert len(validation) % 10 == 0
        assert {i // 10 * 10 for i in validation} == set(validation[::10])

    def test_new_files_move_no_old_one(self):
        keys = [f"{i}.jpg" for i in range(100)]
        before = part_of_training(keys, keys, "validation")
        after = part_of_training([*keys, "new.jpg"], [*keys, "new.jpg"], "validation")
        assert [key for key in after if key != "new.jpg"] == before

    def test_the_hash_is_what_it_always_was(self):
        """What was held out when a model was trained must be held out by every later version."""
        keys = [f"{i}.jpg" for i in range(60)]
        assert part_of_training(keys, keys, "validation") == ["11.jpg", "12.jpg", "55.jpg"]

    def test_one_item_cannot_be_divided(self):
        with pytest.raises(DataError, match="1 items to divide"):
            part_of_training([1, 2], ["a", "a"], "train")
