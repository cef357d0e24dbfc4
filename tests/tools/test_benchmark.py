import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def benchmark(*arguments):
    line = [sys.executable, "-m", "tools.benchmark", "--gin_bindings=preact_resnet18.width=2", "--runs=2", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_prints_the_speed_of_each_recipe_and_their_ratio():
    done = benchmark("--gin_file=gin/at.gin", "--against=gin/at_awp.gin", "--batch_sizes=4", "--shape=8,8,3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith("batch 4  gin/at.gin: ")
    assert "gin/at_awp.gin" in lines[2]
    assert "times the first's time" in lines[2]
    assert "peak memory" in lines[3]


def test_what_is_no_checkout_is_refused(tmp_path):
    done = benchmark("--gin_file=gin/at_awp.gin", "--batch_sizes=2", "--shape=8,8,3", f"--reference={tmp_path}")
    assert done.returncode == 2
    assert "expected a checkout of csdongxian/AWP" in done.stderr
