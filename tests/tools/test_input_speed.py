import numpy as np

from awp_tf.data.stored import in_memory
from tools import input_speed


def test_files_are_read_in_place_and_are_the_same_images(tmp_path, rng):
    images = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    found = input_speed._files(images, tmp_path / "images")
    assert not in_memory(found)
    np.testing.assert_array_equal(found[:], images)
