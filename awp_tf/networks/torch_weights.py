"""Weights between our networks and the PyTorch checkpoints of the reference.

Our layers carry the names of the reference's modules, so only layouts differ: OIHW and HWIO for
convolutions, (out, in) and (in, out) for dense layers.
"""

from collections.abc import Iterator, Mapping

import keras
import numpy as np

from awp_tf.infra.errors import UserError

_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_torch_weights(network: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Copies a PyTorch state dict into network.

    `module.` prefixes, `num_batches_tracked` and the unused `sub_block1` are left out.

    Args:
        network: A preact_resnet18 or wide_resnet.
        state: PyTorch parameter and buffer names to arrays.

    Raises:
        UserError: A name is missing or left over, or a shape differs; nothing has been changed.
    """
    given = _clean(state)
    wanted = dict(_variables(network))
    values = {}
    for name, variable in wanted.items():
        if name not in given:
            raise UserError(f"{network.name}: expected {name!r} in the checkpoint, which holds {_summary(given)}.")
        value = _to_keras(np.asarray(given[name]))
        if value.shape != tuple(variable.shape):
            expected = _to_torch(np.empty(variable.shape)).shape
            raise UserError(f"{name}: expected shape {expected} for {network.name}, received {given[name].shape}.")
        values[name] = value
    surplus = sorted(set(given) - set(wanted))
    if surplus:
        raise UserError(f"{network.name}: the checkpoint holds {surplus[0]!r}, for which the network has no place.")
    for name, variable in wanted.items():
        variable.assign(values[name])


def dump_torch_weights(network: keras.Model) -> dict[str, np.ndarray]:
    """The inverse of load_torch_weights: PyTorch names to arrays in PyTorch's layouts."""
    return {name: _to_torch(np.asarray(keras.ops.convert_to_numpy(v))) for name, v in _variables(network)}


def _variables(network: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    for layer in network.layers:
        for variable in layer.weights:
            if variable.name not in _NAMES:
                raise UserError(
                    f"{network.name}: expected preact_resnet18 or wide_resnet, whose layers have PyTorch's names; "
                    f"received one with {layer.name}/{variable.name}."
                )
            yield f"{layer.name}.{_NAMES[variable.name]}", variable


def _clean(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    dead = ("num_batches_tracked", "sub_block1.")
    return {name: value for name, value in plain.items() if not any(part in name for part in dead)}


def _to_keras(array: np.ndarray) -> np.ndarray:
    return array.transpose(_axes(array.ndim, (2, 3, 1, 0)))


def _to_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(_axes(array.ndim, (3, 2, 0, 1)))


def _axes(rank: int, convolution: tuple[int, ...]) -> tuple[int, ...]:
    return {1: (0,), 2: (1, 0), 4: convolution}[rank]


def _summary(given: Mapping[str, np.ndarray]) -> str:
    names = sorted(given)
    return f"{len(names)} arrays: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
