"""The arena: temporaries that are alive together never overlap, and no byte more than needed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.compiler import programs
from metaop.compiler.arena import plan_arena
from metaop.compiler.program import Temporary
from metaop.storage import ALIGNMENT

Life = tuple[int, int, int]  # elements, first phase, last phase


def planned(lives: list[Life]) -> tuple[list[tuple[int, int, int, int]], int]:
    """Per buffer: offset, bytes, first and last phase; and the size of the arena."""
    buffers = [Temporary(slot, 4 * size, x, y) for slot, (size, x, y) in enumerate(lives)]
    offsets, total = plan_arena(buffers)
    return [(offsets[b], b.nbytes, b.first, b.last) for b in buffers], total


lives = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 12), st.integers(0, 6)).map(
        lambda life: (life[0], life[1], life[1] + life[2])
    ),
    max_size=14,
)


@given(lives)
@settings(max_examples=300, deadline=None)
def test_buffers_alive_together_do_not_overlap(given_lives):
    placed, total = planned(given_lives)
    for k, (offset, nbytes, first, last) in enumerate(placed):
        assert offset % ALIGNMENT == 0
        assert 0 <= offset <= offset + nbytes <= total
        for other, size, born, died in placed[:k]:
            together = first <= died and born <= last
            assert not together or offset + nbytes <= other or other + size <= offset


@given(lives)
@settings(max_examples=100, deadline=None)
def test_the_arena_is_no_larger_than_all_buffers_and_no_smaller_than_any_phase(given_lives):
    placed, total = planned(given_lives)
    sizes = [max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT for _, nbytes, _, _ in placed]
    assert total <= sum(sizes)
    for phase in range(20):
        alive = sum(s for s, (_, _, x, y) in zip(sizes, placed) if x <= phase <= y)
        assert total >= alive


def test_lives_that_follow_each_other_share_memory():
    placed, total = planned([(64, 0, 1), (64, 2, 3), (64, 4, 5)])
    assert {offset for offset, *_ in placed} == {0}
    assert total == 256


def test_the_last_phase_still_reads():
    # A buffer read in the phase that writes another one is alive with it.
    placed, total = planned([(64, 0, 1), (64, 1, 2)])
    assert total == 512
    assert placed[0][0] != placed[1][0]


def test_a_gap_is_used_again():
    _, total = planned([(100, 0, 9), (50, 0, 1), (100, 0, 9), (50, 2, 9)])
    assert total == 448 + 448 + 256


def test_the_largest_is_placed_first():
    # Smallest first would leave a hole below the second one, too small for the last.
    _, total = planned([(16, 0, 1), (16, 1, 2), (100, 2, 3)])
    assert total == 448 + 64


def test_nothing_takes_nothing():
    assert plan_arena([]) == ({}, 0)


def test_a_chain_of_matrix_products_alternates_between_two_buffers():
    x = mo.array(np.eye(32, dtype=np.float32))
    for _ in range(10):
        x = x @ x
    x.numpy()
    program = list(programs._programs.values())[-1]
    assert len(program.temporaries) == 9
    assert program.arena_bytes == 2 * 32 * 32 * 4


def test_a_program_leaves_inputs_alone():
    a = mo.array(np.arange(64, dtype=np.float32).reshape(8, 8))
    before = a.numpy().copy()
    ((a @ a) @ (a - 1.0)).sum().numpy()
    np.testing.assert_array_equal(a.numpy(), before)
