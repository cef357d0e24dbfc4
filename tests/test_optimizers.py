import keras
import numpy as np
import pytest
from helpers import tiny_trainer

from awp_tf.infra.errors import UserError
from awp_tf.optimizers import SGD
from awp_tf.schedules import Constant, Cosine, LearningRate, Piecewise, Warmup


def torch_sgd(w, gradients, rates, momentum, nesterov):
    """torch.optim.SGD, from its documentation."""
    m = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        m = momentum * m + g
        w = w - lr * (g + momentum * m if nesterov else m)
    return w


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_pytorch_across_a_change_of_the_learning_rate(nesterov, momentum, rng):
    start, gradients, rates = rng.normal(0, 1, (3, 2)), rng.normal(0, 1, (6, 3, 2)), [0.1] * 2 + [0.01] * 4
    variable = keras.Variable(start)
    optimizer = SGD(LearningRate(Piecewise(0.1, 6, drops=[0.5]), 1), momentum, nesterov)
    for gradient in gradients:
        optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(variable, torch_sgd(start, gradients, rates, momentum, nesterov), rtol=1e-12)


def test_describes_itself():
    optimizer = SGD(0.05, 0.8, True)
    assert SGD.from_config(optimizer.get_config()).get_config() == optimizer.get_config()


def test_a_momentum_of_one_is_refused():
    with pytest.raises(UserError, match=r"SGD\.momentum: expected"):
        SGD(0.1, momentum=1.0)


@pytest.mark.parametrize("schedule", [Piecewise(0.1, 6, drops=[0.5]), Constant(0.2), Warmup(0.1, 3), Cosine(0.1, 5)])
def test_a_schedule_is_described_and_made_again(schedule):
    rate = LearningRate(schedule, 4, whole_epochs=True)
    again = LearningRate.from_config(rate.get_config())
    assert (again.schedule, again.steps_per_epoch, again.whole_epochs) == (schedule, 4, True)
    optimizer = SGD(rate, 0.8)
    assert SGD.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    assert float(SGD.from_config(optimizer.get_config()).learning_rate) == pytest.approx(float(rate(0)))


def test_a_schedule_of_another_kind_is_refused():
    with pytest.raises(UserError, match="Did you mean 'Piecewise'"):
        LearningRate.from_config({"schedule": {"class_name": "Piecewse"}, "steps_per_epoch": 1})


def test_a_trainer_wants_an_optimizer_that_steps_at_every_batch_and_takes_its_name():
    trainer = tiny_trainer()
    with pytest.raises(UserError, match=r"gradient_accumulation_steps=2; say accumulation=2"):
        trainer.compile(keras.optimizers.Adam(gradient_accumulation_steps=2))
    trainer.compile("sgd")
    assert isinstance(trainer.optimizer, keras.optimizers.SGD)


def test_a_loss_is_the_methods():
    with pytest.raises(UserError, match="expected no loss: the method has its own"):
        tiny_trainer().compile("sgd", loss="mse")
