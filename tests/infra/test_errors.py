import numpy as np
import pytest
import tensorflow as tf

from awp_tf.infra import errors
from awp_tf.schedules import Warmup


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            lambda v: errors.positive("x", v),
            [1, 0.5, Warmup(1, 2), tf.constant(-1)],
            [0, -1, np.nan, None, "1", True],
        ),
        (lambda v: errors.not_negative("x", v), [0, 2.5], [-1e-9]),
        (lambda v: errors.at_least("x", v, 2), [2, np.int64(3)], [1, 2.0, True, None, "3"]),
        (lambda v: errors.fraction("x", v), [0, 0.999], [1, -0.1]),
        (lambda v: errors.share("x", v), [0.001, 0.5], [0, 1, True, "0.5", None]),
    ],
)
def test_checks_let_through_what_fits_and_name_what_does_not(check, good, bad):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(errors.UserError, match=r"^x: expected .*, received"):
            check(value)


def test_of_long_lines_the_place_where_they_differ_is_quoted():
    one, other = (f"{'a, ' * 200}epsilon={e}{', z' * 200}" for e in (8, 4))
    for text, e in zip(errors.first_difference(one, other), (8, 4), strict=True):
        assert f"epsilon={e}" in text
        assert len(text) < 130
    assert errors.first_difference("a\nb", "a\nc") == ("b", "c")
