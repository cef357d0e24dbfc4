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
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert [row["batch"] for row in figures["steps"]] == [4, 4]


def test_what_is_no_checkout_is_refused(benchmark, tmp_path):
    done = benchmark("--gin_file=gin/at_awp.gin", "--batch_sizes=2", "--shape=8,8,3", f"--reference={tmp_path}")
    assert done.returncode == 2
    assert "expected a checkout of csdongxian/AWP" in done.stderr
