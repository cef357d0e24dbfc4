"""What `pip install .` brings: commands, recipes and types, far from the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = ("train", "evaluate", "landscape", "export", "study", "continual")
FEW = ["--gin_bindings=Data.limit=256", "--gin_bindings=test/Measurement.examples=64"]
pytestmark = pytest.mark.slow


def start(*line, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run(*line, cwd):
    done = start(*line, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    for folder in ("awp_tf", "pipelines", "gin"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", ".", cwd=place)
    return next((place / "dist").glob("awp_tf-*.whl"))


def test_the_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"awp_tf"}
    recipes = {str(path.relative_to(ROOT)) for path in (ROOT / "gin").rglob("*.gin")}
    assert {f"awp_tf/{recipe}" for recipe in recipes} <= set(names)
    assert "awp_tf/py.typed" in names


def test_the_digits_are_trained_from_another_folder(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    run(str(tmp_path / "venv" / "bin" / "pip"), "install", "-q", str(wheel), cwd=tmp_path)
    command = {name: str(tmp_path / "venv" / "bin" / f"awp-{name}") for name in COMMANDS}
    for name in (
        "landscape",
        "export",
        "study",
    ):  # the others run below: no optional part is needed to say what a command does
        assert "--gin_file" in start(command[name], "--help", cwd=tmp_path).stdout
    short = ["--gin_file=gin/trades_awp.gin", "--gin_file=gin/digits.gin", "--gin_bindings=EPOCHS=1", *FEW]
    table = run(command["train"], *short, cwd=tmp_path).splitlines()[-6:]
    assert any(line.startswith("| best.keras") for line in table)
    few = ["--workdir=runs/trades_awp+digits", "--attacks=pgd-5", "--max_examples=32", "--check_examples=8"]
    assert "worst case" in run(command["evaluate"], *few, cwd=tmp_path)
    assert "BWT" in run(command["continual"], "--gin_file=gin/er.gin", "--gin_bindings=EPOCHS=1", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "venv"]
    refused = start(command["export"], "--workdir=runs/trades_awp+digits", cwd=tmp_path)
    assert refused.returncode == 2
    assert "expected the extra 'serving'" in refused.stderr
