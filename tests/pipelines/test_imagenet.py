"""The recipe for ImageNet, on a small folder of the same form."""

import json

import numpy as np
import PIL.Image
import pytest

SETTINGS = [
    *("EPOCHS=1", "BATCH_SIZE=4", "Data.validation=4", "image_folder.size=32", "image_folder.memory_gib=1e-5"),
    *("validation/PGD.steps=1", "test/PGD.steps=1", "test/Measurement.examples=8"),
    *("application.name='MobileNet'", "application.settings={'alpha': 0.25}"),
]


@pytest.mark.slow
def test_photographs_of_any_size_train_from_their_files(tmp_path, commands, rng):
    for part, count in (("train", 6), ("val", 2)):
        for i in range(2 * count):
            file = tmp_path / "photos" / part / f"n{i % 2}" / f"{i}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(20, 90, 2)
            PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    flags = ["--gin_file=gin/imagenet_at_awp.gin", f"--gin_bindings=PATH='{tmp_path / 'photos'}'"]
    done = commands.train(*flags, *(f"--gin_bindings={each}" for each in SETTINGS), f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "decoded when they are needed" in done.stdout
    assert set(json.loads((tmp_path / "run" / "result.json").read_text())) == {"best", "last"}
