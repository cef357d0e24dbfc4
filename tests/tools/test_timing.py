from tools.timing import interleave


def test_contenders_take_turns():
    calls = []
    steps = {name: lambda name=name: calls.append(name) or 0.0 for name in "ab"}
    seconds = interleave(steps, 3)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
