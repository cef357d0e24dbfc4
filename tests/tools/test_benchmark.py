import json

import pytest


@pytest.fixture
def benchmark(commands):
    narrow = ["--gin_bindings=preact_resnet18.width=2", "--runs=2"]
    return lambda *arguments: commands.run("tools.benchmark", *narrow, *arguments)


@pytest.mark.slow
def test_it_prints_the_speed_of_each_recipe_and_their_ratio(benchmark, tmp_path):
    recipes = ["--gin_file=gin/at.gin", "--against=gin/at_awp.gin"]
    done = benchmark(*recipes, "--batch_sizes=4", "--shape=8,8,3", f"--json={tmp_path}/speed.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == "batch 4"
    assert ["of the limit" in line for line in lines[2:3]] == [True]
    assert [line.split("|")[1].strip() for line in lines[4:6]] == ["gin/at.gin", "gin/at_awp.gin"]
    assert lines[6].startswith("a matrix product: ")
    rows = json.loads((tmp_path / "speed.json").read_text())["steps"]
    assert [(row["name"], row["batch"]) for row in rows] == [("gin/at.gin", 4), ("gin/at_awp.gin", 4)]
    assert rows[0]["times_as_fast"] == 1
    assert rows[1]["operations"] > rows[0]["operations"]
    for row in rows:
        assert row["slowest"] <= row["images_per_second"] <= row["fastest"]
        assert 0 < row["of_limit"] < 1
        assert 0.1 < row["peak_gib"] < 8
        assert 0 < row["imported"] < row["made"] < row["traced"] < row["first"]
        assert row["traces"] == 1


def test_what_is_no_checkout_is_refused(benchmark, tmp_path):
    done = benchmark("--gin_file=gin/at_awp.gin", "--batch_sizes=2", "--shape=8,8,3", f"--reference={tmp_path}")
    assert done.returncode == 2
    assert "expected a checkout of csdongxian/AWP" in done.stderr
