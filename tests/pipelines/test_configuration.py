"""Configurations that people write, and those that runs saved: data, from which nothing is imported."""

import sys
import uuid

import absl.flags
import gin
import pytest

from awp_tf.attacks import PGD
from awp_tf.data import Chain, Cutout, Data, MixChain, MixUp, PadCropFlip, RandAugment, SmoothLabels
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.infra.errors import UserError
from awp_tf.networks import small_cnn
from awp_tf.schedules import Warmup
from awp_tf.threats import Linf
from awp_tf.training.recipe import Recipe
from pipelines import _cli

FLAGS = absl.flags.FLAGS


@pytest.fixture(autouse=True)
def forget():
    FLAGS(["test"])
    yield
    gin.clear_config()
    FLAGS["import"].unparse()
    FLAGS.unparse_flags()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A person's own part, in a module that can be imported; it says so when it is."""
    name = f"p{uuid.uuid4().hex}"  # gin forgets nothing that was registered
    code = f"import gin\nfrom awp_tf.data import digits\n\n@gin.configurable\ndef {name}():\n    return digits()\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def saved(folder, text=None):
    (folder / "config.gin").write_text(text or _cli.parse(["gin/at.gin", "gin/digits.gin"], []))
    return folder


def test_a_saved_configuration_is_read_and_can_be_changed(tmp_path):
    text = _cli.parse_run(saved(tmp_path), [], [])
    assert text == (tmp_path / "config.gin").read_text()
    assert "EPOCHS = 3" in _cli.parse_run(tmp_path, [], ["EPOCHS=3"])


@pytest.mark.parametrize(
    "line",
    [
        "import {}",
        "from {} import my_data",
        "from __gin__ import dynamic_registration\nimport runpy",
        "include 'gin/at.gin'",
        "import {} as harmless",
    ],
)
def test_import_lines_in_a_saved_configuration_are_refused_and_nothing_is_imported(line, module, tmp_path):
    saved(tmp_path, f"EPOCHS = 3\n{line.format(module)}\n")
    with pytest.raises(UserError, match=r"config\.gin, line 2: expected settings only, received an import or an inc"):
        _cli.parse_run(tmp_path, [], [])
    assert module not in sys.modules


def test_a_reference_in_a_saved_configuration_runs_nothing(tmp_path):
    saved(tmp_path, "train.recipe = @runpy.run_path()\nrunpy.run_path.path_name = '/tmp/x.py'\n")
    with pytest.raises(UserError, match="No configurable matching"):
        _cli.parse_run(tmp_path, [], [])


@pytest.mark.parametrize("text", ["\x00\x01", "train.recipe = ", "{'a': 1}", "not gin at all"])
def test_what_is_no_configuration_is_named(text, tmp_path):
    (tmp_path / "config.gin").write_text(text)
    with pytest.raises(UserError, match=r"config\.gin: expected the settings of a run, which this is not"):
        _cli.parse_run(tmp_path, [], [])


def test_a_configuration_that_is_saved_holds_no_imports(module, tmp_path):
    (tmp_path / "mine.gin").write_text(f"import {module}\nDATA = @{module}\n")
    text = _cli.parse(["gin/at.gin", str(tmp_path / "mine.gin")], [])
    assert "import" not in text
    assert f"DATA = @{module}" in text
    saved(tmp_path, text)
    assert _cli.parse_run(tmp_path, [], []) == text


def test_parts_of_your_own_are_made_known_by_a_flag(module):
    with pytest.raises(UserError, match="A part of your own is made known by --import=<its module>"):
        _cli.parse(["gin/at.gin"], [f"DATA=@{module}"])
    gin.clear_config()
    FLAGS.set_default("import", [module])
    _cli.parse(["gin/at.gin"], [f"DATA=@{module}"])
    assert len(gin.get_configurable(Data.__name__)().load()[0].train) == 1437
    FLAGS.set_default("import", ["no_such_module"])
    with pytest.raises(UserError, match=r"--import: expected a module or a .py file, received 'no_such_module'"):
        _cli.parse(["gin/at.gin"], [])
    FLAGS.set_default("import", [])


def test_dynamic_registration_is_refused_with_the_way_to_go(tmp_path):
    (tmp_path / "mine.gin").write_text("from __gin__ import dynamic_registration\nimport runpy\n")
    with pytest.raises(UserError, match="--import"):
        _cli.parse([str(tmp_path / "mine.gin"), "gin/at.gin"], [])


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("METHOD=@TRADES", r"Recipe\.method: expected an object such as @TRADES\(\), received"),
        ("ATTACK=@FGSM", r"Recipe\.attack: expected an object such as @\w+\(\), received"),
        ("PERTURBATION=@AWP", r"Recipe\.perturbation: expected an object such as @AWP\(\), received"),
        ("Recipe.network=@small_cnn()", r"small_cnn\(\) missing .*; bind it in .* or name a network without brackets"),
        (
            "Recipe.precision='float16'",
            r"Recipe\.precision: expected one of float32, mixed_bfloat16, mixed_float16, float64",
        ),
    ],
)
def test_slips_with_brackets_are_one_line(binding, message):
    _cli.parse(["gin/at.gin", "gin/digits.gin"], [binding])
    with pytest.raises(UserError, match=message):
        _cli.call(Recipe)


def test_data_with_brackets():
    _cli.parse(["gin/at.gin"], ["DATA=@digits()"])
    with pytest.raises(UserError, match=r"Data\.source: expected a source such as @digits \(no brackets\)"):
        _cli.call(Data)


def test_a_run_that_goes_well_says_nothing_of_where_gin_looked(caplog, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _cli.parse(["gin/at.gin", "gin/digits.gin"], [])
    assert "Path not found" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (
            ["epochs=50"],
            r"epochs: nothing in this recipe uses a macro .*\. Did you mean 'EPOCHS'\? \(in --gin_",
        ),
        (
            ["Batch_Size=50"],
            r"Batch_Size: nothing in this recipe uses a macro of this name\. Did you mean 'BATCH_SIZE'",
        ),
        (["train/PGD.steps=50"], r"train/: nothing is of this scope\. Did you mean 'training'"),
        (["valid/Measurement.examples=50"], r"valid/: nothing is of this scope\. Did you mean 'validation'"),
        (["PGD.steps=50"], r"PGD\.steps: changes nothing; say which is meant: .*test/PGD\.steps, training/PGD\.steps"),
    ],
)
def test_names_that_nothing_uses_are_slips(bindings, message):
    with pytest.raises(UserError, match=message):
        _cli.parse(["gin/at.gin", "gin/digits.gin"], bindings)


@pytest.mark.parametrize(
    ("files", "binding"),
    [
        (["pretrain", "digits"], "PRETRAINED='runs/at/best.keras'"),  # digits.gin brings a network of its own
        (["rst", "data/npz", "digits"], "PATH='mine.npz'"),
    ],
)
def test_what_a_later_file_took_the_use_from_is_no_longer_bound(files, binding):
    files = [f"gin/{name}.gin" for name in files]
    _cli.parse(files[:-1], [binding, "EXTRA='pseudo.npz'"] if "rst" in files[0] else [binding])
    name = binding.split("=")[0]
    with pytest.raises(UserError, match=rf"^{name}: nothing in this recipe uses a macro of this name\. \(in --gin_bin"):
        _cli.parse(files, [binding, "EXTRA='pseudo.npz'"] if "rst" in files[0] else [binding])
    needed = ["EXTRA='pseudo.npz'"] if "rst" in files[0] else []
    _cli.parse(files, needed)  # nor needed


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("METHOD=TRADES", r"expected a value, received TRADES; a part is written @TRADES\(\)"),
        ("PATH=flowers", r"received flowers; a text stands in quotes .*PATH='flowers'.* \(in --gin_bindings=PATH=flo"),
        (
            "Linf.epsilon=8/255",
            r"a fraction is a text \(\"Linf.epsilon='8/255'\"\).*\(in --gin_bindings=Linf.epsilon=8",
        ),
        ("EPOCHS=3 SEED=1", r"expected one value; .* each setting stands alone"),
        ("small_cnn.classes=7", "changes nothing, since a network's classes come from the data"),
        ("small_cnn.shape=(9, 9, 1)", "changes nothing, since a network's shape comes from the data"),
    ],
)
def test_values_that_gin_would_not_take_or_not_use_are_one_line(binding, message):
    with pytest.raises(UserError, match=message) as error:
        _cli.parse(["gin/at.gin", "gin/digits.gin"], [binding])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("leaf", "attack"), [("laptop", []), ("at_awp", ["ATTACK=@FGSM()"])])
def test_the_attack_of_training_is_not_changed_by_settings_of_another(leaf, attack):
    files = [f"gin/{leaf}.gin", "gin/digits.gin"]
    with pytest.raises(
        UserError, match=r"^training/PGD\.steps: changes nothing, since no part .* is training/PGD\. \(in"
    ):
        _cli.parse(files, [*attack, "training/PGD.steps=3"])


@pytest.mark.parametrize("attack", ["@training/PGD()", "@Restarts()", "@PGD()"])
def test_settings_of_a_scope_and_of_all_scopes_are_used(attack):
    text = _cli.parse(["gin/at.gin"], [f"ATTACK={attack}", "training/PGD.steps=3", "PGD.start=@GaussianStart()"])
    assert "training/PGD.steps = 3" in text


def test_classes_of_a_data_set_are_a_setting_like_any_other():
    text = _cli.parse(["gin/at.gin", "gin/data/cifar10_half.gin"], ["only_classes.classes=(5, 6)"])
    assert "only_classes.classes = (5, 6)" in text


@pytest.mark.parametrize("binding", ["Recipe.precision='mixed_bfloat16'", "train.devices=2", "Study.seeds=(1,)"])
def test_settings_of_another_command_are_slips(binding):
    with pytest.raises(UserError, match="changes nothing, since no part of this recipe is"):
        _cli.parse(["gin/fs_dgpm.gin"], [binding], root="Continual.learner")


def test_a_recipe_comes_first_or_it_would_undo_what_came_before():
    with pytest.raises(UserError, match=r"expected a recipe \(try .*\) first, then your other files"):
        _cli.parse(["gin/digits.gin", "gin/trades_awp.gin"], [])


def test_a_radius_that_grows_is_of_training_alone():
    growing = ["Warmup.value=0.1", "Warmup.epochs=2"]
    _cli.parse(["gin/at.gin", "gin/digits.gin"], ["Linf.epsilon=@Warmup()", *growing])
    with pytest.raises(UserError, match=r"Measurement: epsilon: expected a number that stays as it is"):
        _cli.call(Measurement, attack=PGD(Linf(Warmup(0.1, 2))))
    _cli.parse(
        ["gin/at.gin", "gin/digits.gin"],
        ["training/PGD.threat=@training/Linf()", "training/Linf.epsilon=@Warmup()", *growing],
    )
    assert _cli.call(Recipe).attack.threat == Linf(Warmup(0.1, 2))


def test_averages_and_mixes_are_bound_by_name():
    bindings = ["Recipe.averaging=@SWA", "SWA.epochs=%EPOCHS", "SWA.start=0.5"]
    mix = ["Data.mix=@MixChain()", "MixChain.parts=[@MixUp(), @SmoothLabels()]", "MixUp.alpha=0.4"]
    augment = ["AUGMENT=@Chain()", "Chain.parts=[@PadCropFlip(), @RandAugment(), @Cutout()]", "Cutout.size=8"]
    _cli.parse(["gin/at.gin", "gin/digits.gin"], [*bindings, *mix, *augment])
    average = _cli.call(Recipe).averaging(small_cnn(shape=(8, 8, 1), classes=2, width=2))
    assert (type(average).__name__, average._before) == ("SWA", 20)
    data = _cli.call(Data)
    assert data.mix == MixChain([MixUp(0.4), SmoothLabels(0.1)])
    assert data.augment == Chain([PadCropFlip(), RandAugment(2, 9), Cutout(8)])


def test_a_path_may_look_like_a_macro():
    text = _cli.parse(["gin/at.gin", "gin/data/npz.gin"], ["PATH='/data/100%real @night/it.npz'"])
    assert "100%real" in text
    with pytest.raises(UserError, match=r"^%real: no file gives this macro a value"):
        _cli.parse(["gin/at.gin", "gin/data/npz.gin"], ["PATH=%real"])


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_file_of_ones_own_may_include_a_recipe(quote, tmp_path):
    (tmp_path / "mine.gin").write_text(f"include {quote}gin/at_awp.gin{quote}\nEPOCHS = 7\n")
    assert "EPOCHS = 7" in _cli.parse([str(tmp_path / "mine.gin")], [])
