import operator

import pytest

from awp_tf.infra.errors import UserError
from tools import perturbed_cost


@pytest.mark.slow
def test_the_table_has_a_line_for_each_step_and_what_it_costs(monkeypatch):
    monkeypatch.setattr(perturbed_cost, "peak", operator.concat)  # processes of their own would take a minute
    lines = perturbed_cost.compare("transformer", runs=1).splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == list(perturbed_cost.WRAPS)
    assert " 1.00 " in lines[2]


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match="--perturbed: expected one of mlp, cnn, transformer, received 'mlq'"):
        perturbed_cost.compare("mlq", runs=1)
