import subprocess

import awp_tf
from awp_tf.infra import provenance


def test_versions_are_those_of_what_could_change_a_number():
    found = provenance.versions()
    assert set(found) == {"awp_tf", "tensorflow", "keras", "numpy", "python"}
    assert found["awp_tf"] == awp_tf.__version__


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_that_of_the_code_and_says_where_files_were_changed(tmp_path, monkeypatch):
    for folder in ("awp_tf", "pipelines", "tools", "gin"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("1")
    monkeypatch.setattr(awp_tf, "__file__", str(tmp_path / "awp_tf" / "__init__.py"))
    found = provenance.commit.__wrapped__
    assert found() is None  # no checkout
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "code")
    code = found()
    assert len(code) == 40
    (tmp_path / "README").write_text("words")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "words")
    assert found() == code
    (tmp_path / "gin" / "file").write_text("2")
    assert found() == f"{code}-dirty"
