import matplotlib.figure

from awp_tf.infra.figures import colour, figure_files, line_style, literal, png


def draw(name="a"):
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([0, 1], [0, 1], label=literal(name), **line_style(0, 2))
    return figure


def test_the_same_figure_gives_the_same_bytes():
    assert figure_files("curve", draw) == figure_files("curve", draw)
    assert set(figure_files("curve", draw)) == {"curve.png", "curve.svg"}
    assert png(draw) == png(draw)


def test_lines_are_told_apart_in_grey():
    styles = [line_style(number, 4) for number in range(4)]
    for key in ("linestyle", "marker"):
        assert len({style[key] for style in styles}) == 4
    brightness = [sum(colour(number, 4)[:3]) for number in range(4)]
    assert brightness == sorted(brightness)


def test_dollars_in_a_name_are_no_formula():
    assert literal("$x$") == r"\$x\$"
