"""Counts the arithmetic of a traced function: what convolutions and matrix products do, loops included."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_Shape = list[int]


def arithmetic(function: Any) -> float:
    """Operations (a multiplication and an addition are two) of the convolutions and matrix products of a call.

    Args:
        function: A concrete function whose shapes are all known, and whose loops have a known number of turns.
    """
    definition = function.graph.as_graph_def(add_shapes=True)
    bodies = {each.signature.name: each for each in definition.library.function}
    kept = [*(output.op.name for output in function.graph.outputs), *(o.name for o in function.graph.control_outputs)]
    return _Body(definition.node, {}, bodies, kept).operations()


@dataclasses.dataclass
class _Body:
    """The nodes of a graph or of a function in its library.

    Attributes:
        nodes: Of a graph's definition, with shapes.
        arguments: Shapes of the function's arguments.
        bodies: The library.
        kept: What is asked for. Gradients that nobody asks for are traced, but never computed.
    """

    nodes: Any
    arguments: dict[str, _Shape]
    bodies: dict[str, Any]
    kept: list[str]

    def __post_init__(self) -> None:
        self.by_name = {node.name: node for node in self.nodes}

    def operations(self) -> float:
        """Of all that leads to what is kept."""
        total, seen, ahead = 0.0, set(), list(self.kept)
        while ahead:
            node = self.by_name.get(_name(ahead.pop()))
            if node is not None and node.name not in seen:
                seen.add(node.name)
                total += self._of(node)
                ahead += node.input
        return total

    def shape(self, node: Any, place: int) -> _Shape:
        """Of an input: "node:k", or in a function "node:output:k", where a loop has all its outputs under one name."""
        name, *_, number = [*node.input[place].split(":"), "0"][:3]
        if name in self.arguments:
            return self.arguments[name]
        found = self.by_name[name]
        return _shapes(found.attr)[int(number) if "While" in found.op or "Call" in found.op else 0]

    def _of(self, node: Any) -> float:
        if node.op in _COUNTED:
            return 2 * float(_COUNTED[node.op](self, node))
        if node.op in ("While", "StatelessWhile"):
            return self._turns(node) * self._called(node, "body")
        if node.op in ("If", "StatelessIf"):
            return max(self._called(node, branch) for branch in ("then_branch", "else_branch"))
        return self._called(node, "f") if "PartitionedCall" in node.op else 0.0

    def _called(self, node: Any, attribute: str) -> float:
        body = self.bodies[node.attr[attribute].func.name]
        shapes = {arg.name: _shapes(body.arg_attr[i].attr) for i, arg in enumerate(body.signature.input_arg)}
        known = {name: each[0] for name, each in shapes.items() if each}
        kept = [*body.ret.values(), *body.control_ret.values()]
        return _Body(body.node_def, known, self.bodies, kept).operations()

    def _turns(self, loop: Any) -> int:
        """Its second input is the most turns that it may take."""
        limit = self.by_name[_name(loop.input[1])]
        return int(tf.make_ndarray(limit.attr["value"].tensor))


def _name(reference: str) -> str:
    return reference.lstrip("^").split(":")[0]


def _shapes(attributes: Any) -> list[_Shape]:
    return [[size.size for size in shape.dim] for shape in attributes["_output_shapes"].list.shape]


def _kernel(kernel: _Shape, pixels: _Shape) -> float:
    """Multiplications of a convolution whose outputs have so many pixels: each meets its kernel once."""
    return float(np.prod(pixels[:3]) * np.prod(kernel))


def _product(body: _Body, node: Any) -> float:
    first = body.shape(node, 0)
    transposed = node.attr["transpose_a"].b or node.attr["adj_x"].b
    return float(np.prod(_shapes(node.attr)[0]) * first[-2 if transposed else -1])


_COUNTED: dict[str, Callable[[_Body, Any], float]] = {
    "Conv2D": lambda body, node: _kernel(body.shape(node, 1), _shapes(node.attr)[0]),
    "Conv2DBackpropInput": lambda body, node: _kernel(body.shape(node, 1), body.shape(node, 2)),
    "Conv2DBackpropFilter": lambda body, node: _kernel(_shapes(node.attr)[0], body.shape(node, 2)),
    "MatMul": _product,
    "BatchMatMulV2": _product,
}
