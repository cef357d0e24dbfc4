import numpy as np
import pytest
import tensorflow as tf

from awp_tf import noise


def test_noise_does_not_depend_on_the_number_of_replicas():
    whole = noise.normal(noise.make_seed(5, 1), tf.zeros([6, 2, 2, 1]))
    shares = [
        noise.normal(noise.make_seed(5, 1)._replace(first=tf.constant(first)), tf.zeros([rows, 2, 2, 1]))
        for first, rows in ((0, 3), (3, 0), (3, 1), (4, 2))
    ]
    np.testing.assert_array_equal(tf.concat(shares, 0), whole)


def test_bits_are_those_of_tensorflow():
    seed = noise.make_seed(7, 3)
    official = tf.random.stateless_uniform([50, 3], seed.key, None, None, dtype=tf.uint32, alg="philox")
    np.testing.assert_array_equal(seed.bits(tf.zeros([50, 3])), official)
    for jit in (False, True):  # key and place unknown to the compiler
        part = tf.function(lambda key, first: noise.Seed(key, first).bits(tf.zeros([9, 3])), jit_compile=jit)
        np.testing.assert_array_equal(part(seed.key, tf.constant(5)), official[5:14])


def test_every_seed_and_place_has_noise_of_its_own():
    places = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, noise.ATTACK, 3), (0, noise.DATA, 3)]
    drawn = [noise.uniform(noise.make_seed(*place), tf.zeros([4])).numpy().tobytes() for place in places]
    assert len(set(drawn)) == len(places)


def test_the_same_place_has_the_same_noise():
    first, second = (noise.uniform(noise.make_seed(1, 2, 3), tf.zeros([4])) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0 <= first.numpy().min() < first.numpy().max() < 1


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_noise_is_the_same_in_every_precision_and_under_xla(draw):
    key = noise.make_seed(3).key
    of = lambda dtype: lambda key: draw(noise.Seed(key), tf.zeros([500], dtype))  # noqa: E731
    plain = of("float64")(key)
    np.testing.assert_allclose(of("float32")(key), plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tf.function(of("float64"), jit_compile=True)(key), plain, rtol=1e-12)


def test_noise_has_the_distribution_it_is_named_for():
    seed, like = noise.make_seed(1), tf.zeros([200_000])
    quantiles = [0.01, 0.1, 0.5, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(noise.uniform(seed, like), quantiles), quantiles, atol=0.005)
    np.testing.assert_allclose(
        np.quantile(noise.normal(seed, like), quantiles), [-2.326, -1.282, 0, 1.282, 2.326], atol=0.02
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_not_even_the_largest_draw_is_1_or_infinite(dtype):
    class Largest:
        def bits(self, like):
            return tf.fill(tf.shape(like), tf.constant(2**32 - 1, tf.uint32))

    like = tf.zeros([3], dtype)
    assert (noise.uniform(Largest(), like).numpy() < 1).all()
    assert np.isfinite(noise.normal(Largest(), like)).all()


def test_an_image_has_noise_of_its_own_whatever_its_batch():
    key, like = noise.make_seed(1).key, tf.zeros([5, 3])
    whole = noise.uniform(noise.ImageSeeds(key, tf.range(5, dtype=tf.int64)), like)
    part = noise.uniform(noise.ImageSeeds(key, tf.constant([3, 1], tf.int64)), like[:2])
    np.testing.assert_array_equal(part, tf.gather(whole, [3, 1]))
    assert len(np.unique(whole)) == 15
    folded = noise.uniform(noise.ImageSeeds(key, tf.range(5, dtype=tf.int64)).fold(1), like)
    assert not np.isin(folded, whole).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_noise_in_16_bits_is_that_of_32_rounded(draw, dtype):
    wide, narrow = (draw(noise.make_seed(3), tf.zeros([500], kind)) for kind in ("float32", dtype))
    assert narrow.dtype == dtype
    np.testing.assert_array_equal(narrow, tf.cast(wide, dtype))
