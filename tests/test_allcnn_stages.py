"""Which of many checkpoints stand for all."""

import pytest

from allcnn.workspace.checkpoint_names import MOST_STAGES, spread_out


@pytest.mark.parametrize(
    ("n", "chosen"),
    [
        (1, [0]),
        (3, [0, 1, 2]),
        (6, [0, 1, 2, 3, 4, 5]),
        (7, [0, 1, 2, 3, 4, 6]),
        (12, [0, 1, 2, 3, 6, 11]),
        (71, [0, 1, 4, 15, 36, 70]),
    ],
)
def test_stages_are_denser_in_the_beginning(n, chosen):
    names = [f"epoch-{k:04d}" for k in range(n)]
    assert spread_out(names, 6) == [names[k] for k in chosen]


@pytest.mark.parametrize("n", range(1, 40))
def test_what_is_chosen_is_chosen_again_of_itself(n):
    """A pipeline stores the stages alone, and a figure chooses of what is stored."""
    names = [f"epoch-{k:04d}" for k in range(n)]
    chosen = spread_out(names)
    assert len(chosen) == min(n, MOST_STAGES)
    assert (chosen[0], chosen[-1]) == (names[0], names[-1])
    assert spread_out(chosen) == chosen
