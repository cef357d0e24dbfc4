import numpy as np
import pytest

from awp_tf.continual import figures
from awp_tf.infra.errors import UserError

CLEAN = [[0.9], [0.8, 0.95], [0.5, 0.85, 0.9]]
ROBUST = [[0.6], [0.5, 0.55], [0.2, 0.5, 0.5]]
RISE = [[[0.1, 0.4, 2.0]], [[0.1, 0.5, 2.5], [0.0, 0.2, 1.0]], [[0.2, 0.6, 3.0], [0.0, 0.2, 1.1], [0.1, 0.1, 0.5]]]


def result_of(tasks=3, robust=True, sharpness=True):
    accuracy = {"clean": CLEAN[:tasks], **({"robust": ROBUST[:tasks]} if robust else {})}
    found = {"alphas": [0.25, 0.5, 1.0], "rise": RISE[:tasks]}
    return {"accuracy": accuracy, **({"sharpness": found} if sharpness else {})}


def words(files, name):
    """What stands in a picture: in an SVG text stays text."""
    return files[f"{name}.svg"].decode()


def test_the_matrix_says_accuracies_and_their_summary_for_clean_and_robust():
    drawn = words(figures.draw_figures(result_of()), "accuracy")
    titles = ("clean: ACC 75.0 %", "BWT -25.0 points", "robust: ACC 40.0 %", "BWT -22.5 points")
    for text in (*titles, "95", "85", "55"):
        assert f">{text}</text>" in drawn


def test_what_was_not_measured_is_not_drawn():
    plain = figures.draw_figures(result_of(robust=False, sharpness=False))
    assert set(plain) == {f"{name}.{kind}" for name in ("accuracy", "curves") for kind in ("png", "svg")}
    assert "robust" not in words(plain, "accuracy") + words(plain, "curves")


def test_sharpness_stands_beside_forgetting():
    found = figures.draw_figures(result_of())
    assert set(found) == {f"{name}.{kind}" for name in ("accuracy", "curves", "sharpness") for kind in ("png", "svg")}
    assert "forgotten so far (robust, points)" in words(found, "sharpness")
    lost = figures._lost_so_far(CLEAN)
    np.testing.assert_allclose(lost[2], [40, 10, 0], atol=1e-9)
    assert np.isnan(lost[0, 1:]).all()
    assert "forgotten so far (clean, points)" in words(figures.draw_figures(result_of(robust=False)), "sharpness")


def test_of_one_task_nothing_is_said_of_transfer():
    found = figures.draw_figures(result_of(tasks=1))
    assert "clean: ACC 90.0 %<" in words(found, "accuracy")
    assert "sharpness.png" not in found


def test_a_loss_that_is_no_number_leaves_its_cell_empty():
    broken = result_of()
    broken["sharpness"] = {
        "alphas": [1.0],
        "rise": [[[float("nan")]], [[float("inf")], [0.25]], [[0.0], [-0.5], [7e7]]],
    }
    drawn = words(figures.draw_figures(broken), "sharpness")
    assert ">nan<" not in drawn
    assert ">inf<" not in drawn


def test_twenty_tasks_have_no_numbers_in_the_cells():
    rows = [[0.11] * (i + 1) for i in range(20)]
    drawn = words(figures.draw_figures({"accuracy": {"clean": rows}}), "accuracy")
    assert ">11</text>" not in drawn
    assert "ACC 11.0 %" in drawn


def test_the_heat_map_is_a_picture_for_tensorboard():
    pixels = figures.heat_map(result_of(tasks=2))
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_rows_that_are_no_triangle_are_refused():
    with pytest.raises(UserError, match="rows: expected accuracies"):
        figures.draw_figures({"accuracy": {"clean": [[0.5], [0.5]]}})


@pytest.mark.parametrize("tasks", [3, 20])
def test_no_line_hides_the_number_of_a_task(tasks):
    rows = [[0.5] * (i + 1) for i in range(tasks)]  # all lines lie on the mean
    panel = figures._curves({"accuracy": {"clean": rows}}).axes[0]
    assert [text.get_text() for text in panel.texts] == [str(j + 1) for j in range(tasks)]
    assert min(text.zorder for text in panel.texts) > max(line.zorder for line in panel.lines)
    assert panel.get_xticks()[0] == 1
