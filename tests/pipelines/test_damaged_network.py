"""A network that a bad disk damaged, given to the commands that read it: one line, and nothing is left."""

import pytest
from helpers import tiny_network


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "landscape", "export"])
def test_a_damaged_network_is_one_line_and_leaves_nothing(command, tmp_path, commands):
    file, output = tmp_path / "best.keras", tmp_path / "out"
    tiny_network().save(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x80
    file.write_bytes(content)
    arguments = [f"--network={file}", "--data=digits", f"--output={output}"]
    done = commands.run(f"pipelines.{command}", *arguments)
    assert done.returncode == 2, done.stderr
    (said,) = done.stderr.strip().splitlines()
    assert "best.keras cannot be read as a Keras network" in said
    assert not output.exists()
