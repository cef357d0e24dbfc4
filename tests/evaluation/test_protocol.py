import pytest
from golden import mlp

from awp_tf.attacks import APGD, FAB, PGD, SPSA, AutoAttack, LastIterate, Restarts, Transfer
from awp_tf.evaluation.protocol import Protocol
from awp_tf.infra.errors import UserError
from awp_tf.networks.classifier import Classifier
from awp_tf.threats import L2, Linf

BALL = Linf(8 / 255)
OTHER = Classifier("other", mlp(2, 8, 4, 10, 0), (8, 8, 3), 10, "abc")


def cascades(attacks, transfer=None, classes=10, **settings):
    return Protocol(**{"threat": Linf(8 / 255), "attacks": attacks, **settings}).cascades(classes, transfer)


def test_names_become_cascades_in_their_order():
    found = cascades("natural, fgsm,pgd-20 ,standard")
    assert list(found) == ["fgsm", "pgd-20", "standard"]
    assert list(found["standard"].searches) == ["apgd-ce", "apgd-t", "fab-t", "square"]


def test_the_ball_and_the_step_size_reach_the_attacks():
    found = cascades("pgd-20", threat=L2(0.5), relative_step_size=0.1)
    assert found["pgd-20"].searches["pgd-20"] == LastIterate(PGD(L2(0.5), 20, 0.1))


def test_objects_may_stand_among_names():
    found = cascades(["fgsm", SPSA(Linf(0.1), samples=64)], threat=Linf(0.1))
    assert found["spsa"].searches["spsa"].samples == 64


def test_transfer_needs_the_other_network():
    search = cascades("transfer", OTHER)["transfer"].searches["transfer"]
    assert isinstance(search, Transfer)
    assert "other abc" in repr(search)  # what an unfinished evaluation is recognised by
    with pytest.raises(UserError, match="expected a network for transfer"):
        cascades("transfer")
    with pytest.raises(UserError, match="transfer_from: expected the attack transfer among attacks, received 'fgsm'"):
        cascades("fgsm", OTHER)


def test_an_ensemble_may_be_set_up():
    found = cascades([AutoAttack(Linf(8 / 255), "standard", queries=1000)])["standard"]
    assert found.searches["square"].queries == 1000
    assert "1000 queries" in found.remarks[0]


def test_an_attack_in_another_ball_is_refused():
    with pytest.raises(UserError, match="expected all in"):
        Protocol(threat=Linf(0.1), attacks=["fgsm", SPSA(Linf(8 / 255))])
    with pytest.raises(UserError, match="expected all in"):
        Protocol(threat=L2(0.1), attacks=[LastIterate(PGD(Linf(8 / 255)))])
    with pytest.raises(UserError, match="expected all in"):
        Protocol(threat=Linf(8 / 255), attacks=[LastIterate(Restarts(PGD(Linf(1 / 255))))])


@pytest.mark.parametrize(
    "search", [FAB(BALL, targets=9), APGD(BALL, loss="targeted-dlr", targets=2), APGD(BALL, loss="dlr")]
)
def test_an_attack_for_more_classes_is_refused(search):
    protocol = Protocol(Linf(8 / 255), attacks=[search])
    assert protocol.cascades(10, None)
    with pytest.raises(UserError, match="more than 2 classes"):
        protocol.cascades(2, None)


def test_only_rand_alone_takes_noise_into_account():
    assert Protocol(Linf(8 / 255), attacks="rand").expects_randomised
    assert not Protocol(Linf(8 / 255), attacks="standard,rand").expects_randomised
    assert not Protocol(Linf(8 / 255), attacks="transfer").expects_randomised


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": "fgsm,fgsm"}, "once"),
        ({"attacks": "pgd20"}, "Did you mean 'pgd-20'"),
        ({"splits": "tests"}, "Did you mean 'test'"),
        ({"examples": 0}, "Protocol.examples"),
        ({"batch_size": 0}, "Protocol.batch_size"),
        ({"relative_step_size": 0}, "Protocol.relative_step_size"),
    ],
)
def test_senseless_settings_are_refused_at_once(settings, message):
    with pytest.raises(UserError, match=message):
        Protocol(**{"threat": Linf(8 / 255), **settings})


def test_nothing_to_do_is_refused():
    with pytest.raises(UserError, match="at least one"):
        cascades("natural")


@pytest.mark.parametrize(
    ("cores", "images", "shares"),
    [(1, 32, 1), (1, 33, 2), (2, 32, 2), (2, 250, 8), (64, 250, 8), (8, 3, 3)],
)
def test_a_batch_is_cut_into_small_shares_for_all_cores(cores, images, shares, monkeypatch):
    monkeypatch.setattr("awp_tf.infra.cpu.cores", lambda: list(range(cores)))
    assert Protocol(Linf(8 / 255)).shares(images) == shares


def test_a_gpu_takes_a_batch_whole(monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: ["GPU:0"])
    assert Protocol(Linf(8 / 255)).shares(250) == 1
