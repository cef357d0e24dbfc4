"""Folders of images as people have them."""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from awp_tf.data import folders, image_folder
from awp_tf.data.folders import class_names, decode, read
from awp_tf.infra.errors import UserError

SIZE = 9
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
COLOUR = PIL.Image.fromarray(PIXELS)
ALPHA = PIL.Image.fromarray(np.concatenate([PIXELS, RNG.integers(0, 256, (SIZE, SIZE, 1), np.uint8)], axis=2))
GREY, BITS = COLOUR.convert("L"), COLOUR.convert("1")
PALETTE = COLOUR.quantize(17)
# What the README names, in every depth and mode that is met: (image, suffix, how it is saved).
FILES = {
    "png": (COLOUR, "png", {}),
    "png with transparency": (ALPHA, "png", {}),
    "grey png": (GREY, "png", {}),
    "grey png with transparency": (GREY.convert("LA"), "png", {}),
    "palette png": (PALETTE, "png", {}),
    "1 bit png": (BITS, "png", {}),
    "jpeg": (COLOUR, "jpg", {"quality": 95}),
    "progressive jpeg": (COLOUR, "jpeg", {"progressive": True}),
    "grey jpeg": (GREY, "jpg", {}),
    "bmp": (COLOUR, "bmp", {}),
    "palette bmp": (PALETTE, "bmp", {}),
    "grey bmp": (GREY, "bmp", {}),
    "1 bit bmp": (BITS, "bmp", {}),
    "gif": (PALETTE, "gif", {}),
    "webp": (COLOUR, "webp", {"lossless": True}),
    "webp with losses": (COLOUR, "webp", {}),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", FILES)
def test_pixels_are_those_of_pillow(kind, channels, tmp_path):
    image, suffix, settings = FILES[kind]
    file = tmp_path / f"a.{suffix}"
    image.save(file, **settings)
    with PIL.Image.open(file) as there:
        # Transparency is ignored: the colours below it, as in serving.
        opaque = there.convert("RGBA").convert("RGB") if there.mode in ("RGBA", "P", "LA") else there
        expected = np.asarray(opaque.convert("RGB" if channels == 3 else "L")).astype(int)
    found = decode(file, SIZE, channels)
    assert found.shape == (SIZE, SIZE, channels)
    difference = np.abs(found.reshape(expected.shape) - expected)
    if "jpeg" in kind:  # TensorFlow decodes with the faster of libjpeg's transforms, here and in serving
        assert difference.mean() < 2
        assert difference.max() < 10
    else:  # grey is made of colour with other last digits
        assert difference.max() <= (1 if channels == 1 else 0)


def test_what_is_lost_of_16_bits_is_said_once_a_folder(tmp_path, capsys):
    values = RNG.integers(0, 65536, (SIZE, SIZE)).astype(np.uint16)
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(decode(tmp_path / name, SIZE, 1)[..., 0], values >> 8)
    GREY.save(tmp_path / "c.png")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"warning: {tmp_path}: holds PNG images of 16 bits, of whose values the upper 8 are kept" in said
    decode(tmp_path / "c.png", SIZE, 1)
    assert not capsys.readouterr().err


def fill(root, classes=("ant", "bee"), parts=("train", "test"), suffix="png"):
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(3):
                COLOUR.save(root / part / name / f"{number}.{suffix}")


def test_webp_is_read_as_any_other(tmp_path):
    fill(tmp_path, suffix="webp")
    source = image_folder(str(tmp_path), size=SIZE)
    assert (len(source.train), source.class_names) == (6, ("ant", "bee"))
    np.testing.assert_array_equal(np.bincount(source.train.labels), [3, 3])


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"])
def test_folders_of_systems_are_no_classes(name, tmp_path):
    fill(tmp_path)
    (tmp_path / "train" / name).mkdir()
    COLOUR.save(tmp_path / "train" / name / "0.png")
    (tmp_path / "train" / "ant" / name).mkdir()
    assert class_names(tmp_path / "train") == ["ant", "bee"]
    assert image_folder(str(tmp_path), size=SIZE).class_names == ("ant", "bee")


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("how", ["empty", "deeper", "another kind"])
def test_a_class_without_images_names_class_split_and_what_is_there(part, how, tmp_path):
    fill(tmp_path)
    folder = tmp_path / part / "bee"
    for file in folder.iterdir():
        if how == "another kind":
            file.rename(file.with_suffix(".tiff"))
        elif how == "deeper":
            (folder / "more").mkdir(exist_ok=True)
            file.rename(folder / "more" / file.name)
        else:
            file.unlink()
    holds = {"empty": "nothing", "deeper": "1 folders", "another kind": "3 .tiff"}[how]
    with pytest.raises(UserError, match=rf"{part}: expected images .* received none in 'bee' \(it holds {holds}\)"):
        image_folder(str(tmp_path), size=SIZE)


def test_what_is_left_out_is_counted_by_kind_in_one_line(tmp_path, capsys):
    fill(tmp_path)
    for name in ("a.txt", "b.txt", "c.tiff", "README"):
        (tmp_path / "train" / "ant" / name).write_text("")
    (tmp_path / "train" / "bee" / "more").mkdir()
    (tmp_path / "train" / "bee" / "Thumbs.db").write_text("")
    image_folder(str(tmp_path), size=SIZE)
    (line,) = capsys.readouterr().out.splitlines()
    start, _, kinds = line.partition("train: 5 files or folders left out: ")
    assert start == f"{tmp_path}/"
    assert sorted(kinds.split(", ")) == ["1 .tiff", "1 folders", "1 without a suffix", "2 .txt"]


def test_kinds_of_images_that_are_mixed_are_counted(tmp_path, capsys):
    fill(tmp_path, parts=("train",))
    COLOUR.save(tmp_path / "train" / "ant" / "x.JPG")
    images, labels = read(tmp_path / "train", ["ant", "bee"], SIZE, 3)
    assert (images.shape, labels.tolist()) == ((7, SIZE, SIZE, 3), [0, 0, 0, 0, 1, 1, 1])
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/train: 7 images: 6 .png, 1 .jpg"]


def test_a_link_to_nothing_is_named_as_one(tmp_path):
    fill(tmp_path)
    (tmp_path / "train" / "ant" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"9\.png: cannot be read; it is a link to a file that is not there"):
        image_folder(str(tmp_path), size=SIZE)
    with pytest.raises(UserError, match=r"9\.png: cannot be read; it is a link to a file that is not there"):
        _ = image_folder(str(tmp_path), size=SIZE, memory_gib=1e-9).identity


def test_names_that_are_no_utf8(tmp_path):
    fill(tmp_path)
    (tmp_path / "train" / "ant" / "0.png").rename(tmp_path / "train" / "ant" / "\udcff.png")
    assert len(image_folder(str(tmp_path), size=SIZE).train) == 6
    (tmp_path / "train" / "ant" / "\udcff.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"expected a PNG, JPEG, WebP") as error:
        image_folder(str(tmp_path), size=SIZE)
    str(error.value).encode("utf-8")
    (tmp_path / "train" / "ant").rename(tmp_path / "train" / "\udcfe")
    with pytest.raises(UserError, match="expected class folders with names in UTF-8"):
        image_folder(str(tmp_path), size=SIZE)


def test_a_file_is_decoded_by_the_cpu_whatever_else_computes(tmp_path, monkeypatch):
    COLOUR.save(tmp_path / "a.bmp")
    places = []

    def resized(image, height, width):
        places.append(tf.constant(0.0).device)
        return image

    monkeypatch.setattr(folders, "resize", resized)
    with tf.device("CPU:1"):
        decode(tmp_path / "a.bmp", SIZE, 3)
    assert places[0].endswith("CPU:0")


def test_a_graph_that_decodes_is_the_cpus():
    graph = folders._decoder(3, False).graph
    assert {op.device[-5:] for op in graph.get_operations() if op.type not in ("Placeholder", "Identity")} == {"CPU:0"}


@pytest.mark.parametrize("size", [SIZE, 7, 20])
def test_an_image_of_the_right_size_is_as_if_it_had_been_resized(size, tmp_path):
    COLOUR.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png", size, 3), folders.resize(tf.constant(PIXELS), size, size))
