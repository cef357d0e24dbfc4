"""Every leaf with every file of every axis: what is bound, nothing is left over, all parts attack one ball."""

import collections
import functools
import itertools
import pathlib
import re

import gin
import pytest

from awp_tf.evaluation.accuracy import Measurement
from awp_tf.evaluation.protocol import Protocol
from awp_tf.landscape.settings import Landscape
from awp_tf.threats import require_one_ball
from awp_tf.training.recipe import Recipe
from pipelines import _cli

ROOT = pathlib.Path(__file__).parents[2]
TRAINS = re.compile(r"^include 'gin/(defaults|rst|pretrain)\.gin'", re.MULTILINE)  # those of pipelines.train
LEAVES = sorted(path.stem for path in (ROOT / "gin").glob("*.gin") if TRAINS.search(path.read_text()))
AXES = collections.defaultdict(list)
for file in sorted((ROOT / "gin").glob("*/*.gin")):
    if file.parent.name not in ("studies", "tasks"):  # tasks are of continual learning
        AXES[file.parent.name].append(str(file.relative_to(ROOT)))
LEAF_FILES = [f"gin/{leaf}.gin" for leaf in LEAVES]
# What a person has to say with a file.
SAID = {
    "gin/data/any_tfds.gin": ["TFDS_NAME='mnist'"],
    "gin/data/image_folder.gin": ["PATH='flowers'", "SIZE=32"],
    "gin/data/imagenet.gin": ["PATH='imagenet'"],
    "gin/data/npy.gin": ["PATH='mine'"],
    "gin/data/npz.gin": ["PATH='mine.npz'"],
    "gin/dm_trades.gin": ["EXTRA='pseudo.npz'"],
    "gin/rst.gin": ["EXTRA='pseudo.npz'"],
    "gin/rst_awp.gin": ["EXTRA='pseudo.npz'"],
    "gin/networks/pretrained.gin": ["PRETRAINED='best.keras'"],
}
FILES = [file for files in AXES.values() for file in files]
# All of an axis bind the same macros, so that each once before and once after another is enough; those of perturbations
# bind settings of their parts, too.
PAIRS = [
    (axis, one, other)
    for axis, files in AXES.items()
    for one, other in (
        itertools.permutations(files, 2) if axis == "perturbations" else itertools.pairwise([*files, files[0]])
    )
]


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


def parse(*files, bindings=()):
    in_order = [each for file in files for each in flat(file)]
    # Of an axis the last file counts: what only an earlier one's part needs is refused.
    last = {file if file in LEAF_FILES else pathlib.Path(file).parent: file for file in in_order}
    said = [binding for file in last.values() for binding in SAID.get(file, ())]
    return _cli.parse(list(files), [*said, *bindings])


def flat(file):
    """A file with all that it includes, in the order in which they count."""
    included = re.findall(r"^include '(.+)'", (ROOT / file).read_text(), re.MULTILINE) if (ROOT / file).exists() else ()
    return [*(each for name in included for each in flat(name)), str(file)]


def bound(file):
    return set(re.findall(r"^([A-Z][A-Z_]*) *=", (ROOT / file).read_text(), re.MULTILINE))


def settings(text):
    """Name to value, for a resolved configuration."""
    lines = re.split(r"\n(?=\S)", re.sub(r"^#.*$", "", text, flags=re.MULTILINE).replace("\\\n", " "))
    return dict(re.split(r"\s*=\s*", line.strip(), maxsplit=1) for line in lines if "=" in line)


def reachable(text):
    """The settings that train() can come to, following references and macros from its own."""
    everything, found, wanted = settings(text), {}, {"train"}
    while wanted:
        name = wanted.pop()
        scope, _, plain = name.rpartition("/")
        for key, value in everything.items():
            owner = key.rpartition(".")[0] or key
            if key not in found and owner in (name, plain, f"{scope}/{plain}"):
                found[key] = value
                wanted |= set(re.findall(r"@([\w/]+)", value)) | set(re.findall(r"%(\w+)", value))
    return found


@pytest.mark.parametrize("axis", AXES)
def test_every_file_of_an_axis_binds_the_same_names(axis):
    names = {file: bound(file) for file in AXES[axis]}
    assert len(set(map(frozenset, names.values()))) == 1, names
    assert next(iter(names.values()))


OFTEN = ("at", "trades_awp", "mart", "sam", "free_at", "rst_awp", "pretrain")  # one of each kind; the others are slow


def others_slow(leaves):
    return [leaf if leaf in OFTEN else pytest.param(leaf, marks=pytest.mark.slow) for leaf in leaves]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("leaf", others_slow(LEAVES))
def test_every_leaf_with_every_file_has_its_values_and_one_ball(leaf, file):
    text = parse(f"gin/{leaf}.gin", file)
    alone = dict(re.findall(r"^([A-Z][A-Z_]*) *= *(.+)$", (ROOT / file).read_text(), re.MULTILINE))
    now = settings(text)
    for name, value in alone.items():
        assert now[name] == value
    measurements = [gin.get_configurable(f"{scope}/Measurement")() for scope in ("validation", "test")]
    parts = [_cli.call(Recipe).attack, *measurements, _cli.call(Protocol), _cli.call(Landscape)]
    require_one_ball({str(number): part.threat for number, part in enumerate(parts)})
    assert parts[-1].threat is not None


@pytest.mark.parametrize("file", FILES)
def test_a_text_with_any_file_gives_itself(file, tmp_path):
    text = parse("gin/at.gin", file)
    (tmp_path / "again.gin").write_text(text)
    assert _cli.parse([str(tmp_path / "again.gin")], []) == text


@functools.cache
def reachable_of(*files):
    return reachable(parse(*files))


@pytest.mark.parametrize(("axis", "one", "other"), PAIRS)
def test_swapping_a_file_leaves_nothing_of_the_one_before(axis, one, other):
    swapped = reachable(parse("gin/trades_awp.gin", one, other))
    assert swapped == reachable_of("gin/trades_awp.gin", other)
    assert len(swapped) > 40


def lines(leaf):
    """(Axis files, bindings) of a leaf."""
    text = re.sub(r"^#.*\n", "", (ROOT / "gin" / f"{leaf}.gin").read_text(), flags=re.MULTILINE)
    files = [file for file in re.findall(r"^include '(.+)'", text, re.MULTILINE) if file != "gin/defaults.gin"]
    return files, [line for line in text.splitlines() if "=" in line]


def is_plain(leaf):
    """Method x perturbation alone: another leaf's files leave nothing of it."""
    files, bindings = lines(leaf)
    of_axes = [file for file in files if file.startswith(("gin/methods/", "gin/perturbations/"))]
    return len(of_axes) == len(files) == 2 and all(line.startswith("AWP.") for line in bindings)


PLAIN = [leaf for leaf in LEAVES if is_plain(leaf)]


# Every leaf from a plain one, and from every plain one some.
TURNS = [
    (next(one for one in PLAIN[place % len(PLAIN) :] + PLAIN if one != leaf), leaf) for place, leaf in enumerate(LEAVES)
]


@pytest.mark.parametrize(("one", "other"), TURNS)
def test_the_axes_of_one_leaf_turn_another_into_it(one, other):
    files, bindings = lines(other)
    bindings = [*SAID.get(f"gin/{other}.gin", ()), *bindings]
    assert reachable(parse(f"gin/{one}.gin", *files, bindings=bindings)) == reachable_of(f"gin/{other}.gin")


def test_most_leaves_are_a_method_and_a_perturbation():
    assert {"at", "at_awp", "trades_awp", "mart_awp", "rat", "rat_awp", "sam_at"} <= set(PLAIN)


@pytest.mark.parametrize("attack", ["@FGSM()", "@Restarts()", "@training/PGD()"])
@pytest.mark.parametrize("ball", [["Linf.epsilon='4/255'"], ["THREAT=@L2()", "L2.epsilon=0.5"]])
def test_any_attack_trains_in_the_ball_that_is_evaluated(attack, ball):
    parse("gin/at.gin", bindings=[f"ATTACK={attack}", *ball])
    assert _cli.call(Recipe).attack.threat == _cli.call(Protocol).threat
    assert gin.get_configurable(f"test/{Measurement.__name__}")().threat == _cli.call(Protocol).threat


@pytest.mark.parametrize("epochs", [5, 40, 200])
def test_warm_up_scales_with_the_run_and_survives_a_change_of_gamma(epochs):
    parse("gin/trades_awp.gin", bindings=[f"EPOCHS={epochs}", "AWP.gamma=0.02"])
    recipe = _cli.call(Recipe)
    assert (recipe.perturbation.gamma, recipe.perturb_from) == (0.02, 0.045)
    trainer = recipe_trainer(recipe, epochs)
    assert trainer.perturb_from == pytest.approx(9 * epochs / 200)


def recipe_trainer(recipe, epochs):
    import dataclasses

    from awp_tf.networks import small_cnn

    small = dataclasses.replace(recipe, network=lambda shape, classes: small_cnn(shape=shape, classes=classes, width=2))
    return small.trainer((8, 8, 1), 3, epochs=epochs, steps_per_epoch=2, seed=0)
