"""Random numbers: the words of Threefry, the streams, and the distributions made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metaop as mo
from metaop import random, reference
from metaop.graph import RandomBits
from metaop.random import Generator
from tests.helpers import assert_bits, python_value

COUNT = 200_000


def bits_of(key: tuple[int, int], call: int, shape: tuple[int, ...]) -> mo.Var:
    words = mo.array(np.array(key, np.uint32)), mo.array(np.uint32(call))
    return mo.Var._of(RandomBits(shape, words[0]._node, words[1]._node))


# --------------------------------------------------------------------------------- the words


@pytest.mark.parametrize("key, call", [
    ((0, 0), 0), ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF), ((0x13198A2E, 0x03707344), 0x85A308D3),
    ((7, 0), 1)])  # fmt: skip
def test_bits_are_threefry_of_key_and_counter(key, call):
    for shape in ((), (1,), (0,), (17,), (3, 5)):
        x = bits_of(key, call, shape)
        want = reference.random_bits(key, call, shape)
        assert x.dtype is mo.uint32
        assert_bits(python_value(x), want)
        assert_bits(x.numpy(), want)


def test_bits_of_a_published_vector():
    """Random123's kat_vectors: threefry2x32, 20 rounds, counter and key of zeros, then of ones."""
    assert bits_of((0, 0), 0, ()).item() == 0x6B200159
    ones = 0xFFFFFFFF
    assert reference.threefry2x32((ones, ones), (ones, ones))[0] == 0x1CB996FC


def test_an_element_depends_on_its_number_alone():
    line = bits_of((3, 4), 5, (60,)).numpy()
    assert_bits(bits_of((3, 4), 5, (3, 4, 5)).numpy(), line.reshape(3, 4, 5))
    assert_bits(bits_of((3, 4), 5, (100_003,)).numpy()[:60], line)
    assert_bits(bits_of((3, 4), 5, (60,)).reshape(6, 10).T.numpy(), line.reshape(6, 10).T)


# ------------------------------------------------------------------------------------- streams


def test_generator_counts_calls():
    g = Generator(5)
    first, second = g.bits(17), g.bits(17)
    assert_bits(first.numpy(), reference.random_bits((5, 0), 0, (17,)))
    assert_bits(second.numpy(), reference.random_bits((5, 0), 1, (17,)))
    assert g.calls.item() == 2
    g.manual_seed(5)
    assert_bits(g.bits(17).numpy(), first.numpy())


def test_the_order_of_reading_does_not_matter():
    g = Generator(1)
    a, b, c = (g.bits(5) for _ in range(3))
    late = [c.numpy(), a.numpy(), b.numpy()]
    g.manual_seed(1)
    early = [g.bits(5).numpy() for _ in range(3)]
    for got, want in zip(late, (early[2], early[0], early[1])):
        assert_bits(got, want)


def test_seeding_before_a_draw_is_read_does_not_change_it():
    g = Generator(1)
    drawn = g.bits(5)
    g.manual_seed(99)
    assert_bits(drawn.numpy(), reference.random_bits((1, 0), 0, (5,)))
    assert_bits(g.bits(5).numpy(), reference.random_bits((99, 0), 0, (5,)))


def test_same_seed_same_numbers_other_seed_others():
    draws = {}
    for seed in (0, 1, 2**32, -1, 2**63, 12345678901234567890):
        mo.manual_seed(seed)
        draws[seed] = tuple(random.uniform((8,)).tolist())
        mo.seed(seed)
        assert tuple(random.uniform((8,)).tolist()) == draws[seed]
        assert mo.set_global_seed(seed) is random.default_generator()
    assert len(set(draws.values())) == len(draws)
    assert Generator(2**64 + 3).key.tolist() == Generator(3).key.tolist() == [3, 0]
    assert Generator(7 << 32).key.tolist() == [0, 7]


def test_unseeded_generators_differ():
    assert len({tuple(Generator().bits(4).tolist()) for _ in range(5)}) == 5


def test_generators_are_independent_of_each_other_and_of_the_default():
    mo.manual_seed(3)
    a, b = Generator(3), Generator(3)
    first = random.uniform((4,), generator=a).tolist()
    random.normal((4,), generator=a).sync()
    assert random.uniform((4,), generator=b).tolist() == first
    assert random.uniform((4,)).tolist() == first
    assert random.default_generator().calls.item() == 1


def test_consecutive_calls_differ():
    mo.manual_seed(0)
    drawn = [tuple(random.uniform((4,)).tolist()) for _ in range(20)]
    assert len(set(drawn)) == 20
    x, y = random.normal((COUNT,)).numpy(), random.normal((COUNT,)).numpy()
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / math.sqrt(COUNT)


def test_a_stream_can_be_saved_and_resumed():
    g = Generator(11)
    random.normal((3,), generator=g).sync()
    key, calls = g.key.numpy(), g.calls.numpy()
    want = random.normal((3,), generator=g).tolist()
    resumed = Generator(0)
    resumed.key.assign(key)
    resumed.calls.assign(calls)
    assert random.normal((3,), generator=resumed).tolist() == want


@pytest.mark.usefixtures("no_disk_cache")
def test_another_seed_compiles_nothing():
    mo.manual_seed(0)
    random.normal((33,)).sync()
    random.normal((33,)).sync()
    before = mo.stats().compiled
    for seed in (1, 2, 3):
        mo.manual_seed(seed)
        random.normal((33,)).sync()
    assert mo.stats().compiled == before


def test_the_first_numbers_of_seed_0_stay():
    """Streams are stable within a minor version: a change here is a change for every user."""
    mo.manual_seed(0)
    assert random.random_bits(4).tolist() == GOLDEN_BITS
    np.testing.assert_array_equal(random.uniform((4,)).numpy(), np.array(GOLDEN_UNIFORM, "f4"))
    np.testing.assert_allclose(random.normal((4,)).numpy(), GOLDEN_NORMAL, rtol=1e-6)
    assert random.randint(0, 100, (8,)).tolist() == GOLDEN_INTEGERS
    assert random.permutation(8).tolist() == GOLDEN_ORDER


GOLDEN_BITS = [1797259609, 1351547692, 1688610540, 3098264785]
GOLDEN_UNIFORM = [0.21629542112350464, 0.5760166049003601, 0.3496558666229248, 0.4517728090286255]
GOLDEN_NORMAL = [
    -2.3139970302581787,
    0.1374773532152176,
    -0.025527233257889748,
    -0.8658460378646851,
]
GOLDEN_INTEGERS = [35, 0, 14, 8, 5, 48, 1, 30]
GOLDEN_ORDER = [2, 4, 1, 7, 6, 5, 3, 0]


# --------------------------------------------------------------------------------- distributions


def kolmogorov_smirnov(sample: np.ndarray, distribution: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(sample, distribution).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [mo.float32, mo.float64, mo.float16, mo.bfloat16], ids=str)
def test_uniform_lies_in_its_interval(dtype):
    x = random.uniform((COUNT,), dtype=dtype, generator=Generator(0))
    values = x.numpy().astype("f8")
    assert x.dtype is dtype and values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 5 / math.sqrt(12 * COUNT)
    assert abs(values.var() - 1 / 12) < 1e-3
    if dtype in (mo.float32, mo.float64):
        kolmogorov_smirnov(values, "uniform")


def test_uniform_of_other_bounds():
    x = random.uniform((1000,), -3.0, 5.0, generator=Generator(0)).numpy()
    assert x.min() >= -3 and x.max() < 5 and abs(x.mean() - 1) < 0.4
    assert random.uniform(generator=Generator(0)).shape == ()
    # in float32 1 + (1 - 2**-24) is 2, in float16 so are many
    for dtype in ("float32", "float16"):
        narrow = random.uniform((COUNT,), 1.0, 2.0, dtype=dtype, generator=Generator(0)).numpy()
        assert narrow.dtype == dtype and narrow.min() >= 1 and narrow.max() < 2
    assert random.uniform(3, generator=Generator(0)).shape == (3,)
    assert random.uniform((0, 2)).numpy().shape == (0, 2)


def test_uniform_has_24_bits_and_in_float64_53():
    single = random.uniform((10_000,), generator=Generator(0)).numpy().astype("f8") * 2.0**24
    assert (single == np.floor(single)).all() and (single % 2 == 1).any()
    double = random.uniform((10_000,), dtype="float64", generator=Generator(0)).numpy()
    scaled = double * 2.0**53
    assert (scaled == np.floor(scaled)).all()
    for bit in range(53):  # each of the 53 bits is 1 half of the time
        share = (np.floor(scaled / 2.0**bit) % 2).mean()
        assert abs(share - 0.5) < 0.025, bit
    high, low = Generator(0), Generator(0)
    upper = high.bits(10_000).numpy() >> 5
    low.bits(1)
    lower = low.bits(10_000).numpy() >> 6
    np.testing.assert_array_equal(scaled, upper * 2.0**26 + lower)


@pytest.mark.parametrize("dtype", [mo.float32, mo.float64], ids=str)
def test_normal_has_the_moments_of_a_normal(dtype):
    x = random.normal((COUNT,), dtype=dtype, generator=Generator(0))
    values = x.numpy().astype("f8")
    assert x.dtype is dtype and np.isfinite(values).all()
    assert abs(values.mean()) < 5 / math.sqrt(COUNT)
    assert abs(values.var() - 1) < 0.02
    assert abs((values**3).mean()) < 0.05 and abs((values**4).mean() - 3) < 0.15
    assert values.max() > 4 and values.min() < -4
    kolmogorov_smirnov(values, "norm")


def test_normal_with_mean_and_deviation():
    x = random.normal((20_000,), 10.0, 0.5, generator=Generator(0)).numpy()
    assert abs(x.mean() - 10) < 0.02 and abs(x.std() - 0.5) < 0.02
    half = random.normal((1000,), dtype="float16", generator=Generator(0))
    assert half.dtype is mo.float16 and abs(half.numpy().astype("f8").std() - 1) < 0.1


@pytest.mark.parametrize("low, high", [(0, 2), (-3, 4), (0, 1), (5, 1005), (-(2**40), 2**40)])
def test_randint_lies_in_its_interval(low, high):
    x = random.randint(low, high, (20_000,), generator=Generator(0))
    values = x.numpy()
    assert x.dtype is mo.int64 and values.min() >= low and values.max() < high
    if high - low <= 7:
        counts = np.bincount(values - low, minlength=high - low)
        assert (abs(counts - 20_000 / (high - low)) < 5 * math.sqrt(20_000)).all()
    else:
        assert abs(values.mean() - (low + high) / 2) < (high - low) / 50


def test_randint_of_an_empty_interval_raises():
    for low, high in ((3, 3), (4, 3)):
        with pytest.raises(ValueError, match=rf"need low < high, got {low} and {high}"):
            random.randint(low, high, (2,))


@pytest.mark.parametrize("low, high", [(0, 2**63), (-(2**63), 2**63), (0, 2**64)])
def test_randint_of_an_interval_that_int64_cannot_hold_raises(low, high):
    with pytest.raises((ValueError, OverflowError), match=r"randint.*int64"):
        random.randint(low, high, (2,))


def test_bernoulli():
    x = random.bernoulli(0.3, (20_000,), generator=Generator(0))
    assert x.dtype is mo.bool_ and abs(x.numpy().mean() - 0.3) < 0.02
    p = mo.array([0.0, 1.0, 0.5])
    drawn = np.stack([random.bernoulli(p).numpy() for _ in range(20)])
    assert not drawn[:, 0].any() and drawn[:, 1].all() and 0 < drawn[:, 2].sum() < 20


@pytest.mark.parametrize("n", [0, 1, 2, 17, 10_007])
def test_permutation_is_one(n):
    order = random.permutation(n, generator=Generator(0))
    assert order.dtype is mo.int64
    np.testing.assert_array_equal(np.sort(order.numpy()), np.arange(n))
    if n > 2:
        assert (order.numpy() != np.arange(n)).any()


def test_permutation_of_an_array_permutes_its_first_axis():
    x = np.arange(34).reshape(17, 2)
    shuffled = random.permutation(mo.array(x), generator=Generator(0)).numpy()
    order = random.permutation(17, generator=Generator(0)).numpy()
    np.testing.assert_array_equal(shuffled, x[order])
    assert random.permutation(x, generator=Generator(0)).tolist() == shuffled.tolist()


def test_every_order_of_three_is_equally_likely():
    g = Generator(0)
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(120):
        order = tuple(random.permutation(3, generator=g).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 6 and min(seen.values()) > 6


def test_random_numbers_carry_no_gradient():
    w = mo.array([1.0, 2.0], requires_grad=True)
    noise = random.normal((2,), generator=Generator(0))
    assert not noise.requires_grad
    (gradient,) = mo.grad((w * noise).sum(), [w])
    np.testing.assert_array_equal(gradient.numpy(), noise.numpy())


def test_a_dtype_that_is_no_float_raises():
    for draw in (random.uniform, random.normal):
        with pytest.raises(mo.DTypeError, match="the dtype must be a float, not int32"):
            draw((2,), dtype="int32")


def test_a_bad_shape_raises():
    with pytest.raises(mo.ShapeError, match="a shape is a tuple of integers"):
        random.uniform((2.5,))
    with pytest.raises(mo.ShapeError, match="must not be negative"):
        random.normal((-1,))


# --------------------------------------------------------------- distributions made of the others

SAMPLES = 20_000


def moments(x: mo.Var) -> tuple[float, float]:
    values = x.numpy().astype(np.float64)
    return float(values.mean()), float(values.var())


def test_exponential_has_its_mean_and_variance() -> None:
    mo.manual_seed(1)
    mean, variance = moments(mo.random.exponential((SAMPLES,), 2.5))
    assert abs(mean - 2.5) < 0.1 and abs(variance - 6.25) < 0.6
    assert (mo.random.exponential((100,)).numpy() >= 0).all()


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5, 40.0])
def test_gamma_has_its_mean_variance_and_third_moment(alpha: float) -> None:
    mo.manual_seed(2)
    x = mo.random.gamma(alpha, (SAMPLES,), dtype="float64")
    mean, variance = moments(x)
    spread = 5 / np.sqrt(SAMPLES)
    assert abs(mean - alpha) < spread * np.sqrt(alpha)
    assert abs(variance - alpha) < 3 * spread * (alpha + np.sqrt(alpha))
    third = ((x.numpy() - alpha) ** 3).mean()
    assert abs(third - 2 * alpha) < 0.15 * (2 * alpha + alpha**1.5 * 2)
    assert (x.numpy() > 0).all()


def test_gamma_broadcasts_alpha_and_takes_no_gradient() -> None:
    alpha = mo.array([0.5, 5.0], requires_grad=True)
    x = mo.random.gamma(alpha, (3000, 2))
    assert not x.requires_grad
    np.testing.assert_allclose(x.numpy().mean(0), [0.5, 5.0], rtol=0.12)


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_draws_with_the_given_probabilities(replacement: bool) -> None:
    mo.manual_seed(3)
    p = np.array([0.0, 1.0, 3.0, 6.0])
    drawn = mo.random.multinomial(mo.array(np.tile(p, (SAMPLES, 1))), 2, replacement).numpy()
    assert drawn.shape == (SAMPLES, 2) and drawn.dtype == np.int64
    first = np.bincount(drawn[:, 0], minlength=4) / SAMPLES
    np.testing.assert_allclose(first, p / 10, atol=0.015)
    if not replacement:
        assert (drawn[:, 0] != drawn[:, 1]).all()
        after_3 = np.bincount(drawn[drawn[:, 0] == 3, 1], minlength=4)
        np.testing.assert_allclose(after_3 / after_3.sum(), [0, 0.25, 0.75, 0], atol=0.02)
    with pytest.raises(mo.ShapeError, match="multinomial"):
        mo.random.multinomial(mo.array([0.5, 0.5]), 3)


def test_choice_shuffle_and_names_of_torch() -> None:
    x = mo.array(np.arange(10) * 10)
    assert set(mo.random.choice(x, (5, 4)).numpy().ravel()) <= set(range(0, 100, 10))
    without = mo.random.choice(10, (10,), replace=False).numpy()
    assert sorted(without) == list(range(10))
    assert sorted(mo.random.shuffle(x).numpy()) == x.tolist()
    weighted = mo.random.choice(3, (500,), p=np.array([0.0, 0.0, 1.0]))
    assert (weighted.numpy() == 2).all()
    assert mo.rand(2, 3).shape == mo.randn((2, 3)).shape == (2, 3)
    assert sorted(mo.randperm(7).numpy()) == list(range(7))
    assert mo.rand_like(mo.zeros(4, dtype="float64")).dtype is mo.float64
    assert mo.randn_like(mo.zeros(4)).shape == (4,)
