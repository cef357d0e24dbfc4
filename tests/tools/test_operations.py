import pytest
import tensorflow as tf

from awp_tf.networks.convolution import as_keras_does
from awp_tf.training.recipe import Recipe
from pipelines import _cli
from tools.operations import arithmetic


def count(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    return arithmetic(tf.function(function, autograph=False).get_concrete_function(*specs))


def test_a_matrix_product_counts_multiplications_and_additions():
    assert count(tf.matmul, [3, 5], [5, 7]) == 2 * 3 * 5 * 7
    assert count(lambda a, b: tf.matmul(a, b, transpose_a=True), [5, 3], [5, 7]) == 2 * 3 * 5 * 7
    assert count(tf.matmul, [2, 3, 5], [2, 5, 7]) == 2 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_two_gradients_cost_the_same(stride):
    once = 2 * 2 * (8 // stride) ** 2 * 3 * 3 * 4 * 5

    def gradients(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = tf.nn.conv2d(x, kernel, stride, "SAME")
        return tape.gradient(y, (x, kernel), output_gradients=tf.sin(y))

    assert count(lambda x, kernel: tf.nn.conv2d(x, kernel, stride, "SAME"), [2, 8, 8, 4], [3, 3, 4, 5]) == once
    assert count(gradients, [2, 8, 8, 4], [3, 3, 4, 5]) == 3 * once
    only_images = lambda x, kernel: gradients(x, kernel)[0]  # noqa: E731
    assert count(only_images, [2, 8, 8, 4], [3, 3, 4, 5]) == 2 * once  # what nobody asks for is not computed


def test_loops_count_as_often_as_they_turn_and_branches_as_the_dearer_one():
    def turns(x):
        return tf.while_loop(lambda i, _: i < 9, lambda i, x: (i + 1, x @ x), (0, x), maximum_iterations=7)[1]

    def branches(x):
        return tf.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)

    assert count(turns, [4, 4]) == 7 * 2 * 4**3
    assert count(branches, [4, 4]) == 2 * 2 * 4**3


@pytest.mark.parametrize(("leaf", "passes"), [("standard", 3), ("at", 23), ("at_awp", 26)])
def test_the_passes_of_a_recipe(leaf, passes):
    """A forward pass and two gradients in the outer step, as many in the ascent, and two in each of 10 steps of PGD."""
    _cli.parse([f"gin/{leaf}.gin"], ["preact_resnet18.width=4"])
    trainer = _cli.call(Recipe).trainer((32, 32, 3), 10, epochs=1, steps_per_epoch=1, seed=0)
    batch = tf.zeros([2, 32, 32, 3]), tf.zeros([2], tf.int32)
    with as_keras_does():
        found = arithmetic(tf.function(trainer.train_step, autograph=False).get_concrete_function(batch))
        forward = count(lambda x: trainer.network(x, training=False), [2, 32, 32, 3])
    first = 2 * 2 * 32 * 32 * 3 * 3 * 3 * 4  # the outer step needs no gradient of the images
    outer = {"standard": 1, "at": 1, "at_awp": 2}[leaf]
    assert found == pytest.approx(passes * forward - outer * first, rel=1e-3)
