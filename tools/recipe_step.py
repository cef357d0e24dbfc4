"""The training step of a recipe, as a child of awp_tf.infra.apart.

    python -m tools.recipe_step FILES BINDINGS BATCH.npz CLASSES DEVICES

FILES and BINDINGS are lists in JSON; so many DEVICES share the batch. It says how long it took from its start until it
had imported everything ("imported"), made the trainer ("made"), traced the step ("traced") and taken the first one
("first"), and the arithmetic of a step.
"""

import json
import sys
from collections.abc import Callable, Sequence

import numpy as np

from awp_tf.infra.apart import Facts, serve, since_start


def prepare(arguments: Sequence[str]) -> tuple[Callable[[], Facts], Facts]:
    """Of the command line: see awp_tf.infra.apart.serve.

    Raises:
        UserError: The recipe makes no sense.
    """
    from awp_tf.networks.convolution import as_keras_does  # noqa: PLC0415 (its time is measured)
    from awp_tf.training.recipe import Recipe  # noqa: PLC0415
    from awp_tf.training.strategy import make_strategy  # noqa: PLC0415
    from pipelines import _cli  # noqa: PLC0415
    from tools.operations import arithmetic  # noqa: PLC0415
    from tools.shared_step import SharedStep  # noqa: PLC0415
    from tools.timing import peak  # noqa: PLC0415

    imported = since_start()
    files, bindings, batch, classes, devices = arguments
    _cli.parse(json.loads(files), json.loads(bindings))
    recipe, strategy = _cli.call(Recipe), make_strategy(int(devices))
    with np.load(batch, allow_pickle=False) as data:
        x, y = data["x"], data["y"]
    step = SharedStep(recipe, strategy, x, y, int(classes))
    made = since_start()
    step.trace()
    traced = since_start()
    step()
    first = since_start()
    with as_keras_does():
        work = arithmetic(step.graph())
    facts = {"imported": imported, "made": made, "traced": traced, "first": first, "operations": work}
    return lambda: {"loss": step(), "peak": peak()}, {**facts, "traces": step.traces}


if __name__ == "__main__":
    serve(prepare, sys.argv[1:])
