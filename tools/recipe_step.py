"""The training step of a recipe, as a child of tools.apart.

    python -m tools.recipe_step FILES BINDINGS BATCH.npz CLASSES

FILES and BINDINGS are lists in JSON. It says how long it took from its start until it had imported everything
("imported"), made the trainer ("made"), traced the step ("traced") and taken the first one ("first"), and the
arithmetic of a step.
"""

import json
import sys
from collections.abc import Callable, Sequence

import numpy as np

from tools.apart import Facts, serve, since_start


def prepare(arguments: Sequence[str]) -> tuple[Callable[[], Facts], Facts]:
    """Of the command line: see tools.apart.serve.

    Raises:
        UserError: The recipe makes no sense.
    """
    import tensorflow as tf  # noqa: PLC0415 (its time is measured)

    from awp_tf.networks.convolution import as_keras_does  # noqa: PLC0415
    from awp_tf.training.recipe import Recipe  # noqa: PLC0415
    from pipelines import _cli  # noqa: PLC0415
    from tools.operations import arithmetic  # noqa: PLC0415

    imported = since_start()
    files, bindings, batch, classes = json.loads(arguments[0]), json.loads(arguments[1]), arguments[2], arguments[3]
    _cli.parse(files, bindings)
    recipe = _cli.call(Recipe)
    with np.load(batch, allow_pickle=False) as data:
        x, y = tf.constant(data["x"], recipe.dtype), tf.constant(data["y"])
    trainer = recipe.trainer(tuple(x.shape[1:]), int(classes), epochs=1, steps_per_epoch=1, seed=0)
    made = since_start()
    step = tf.function(trainer.train_step, autograph=False)
    step.get_concrete_function((x, y))
    traced = since_start()
    float(step((x, y))["loss"])
    first = since_start()
    with as_keras_does():
        work = arithmetic(tf.function(trainer.train_step, autograph=False).get_concrete_function((x, y)))
    facts = {"imported": imported, "made": made, "traced": traced, "first": first, "operations": work}
    return lambda: {"loss": float(step((x, y))["loss"])}, {**facts, "traces": step.experimental_get_tracing_count()}


if __name__ == "__main__":
    serve(prepare, sys.argv[1:])
