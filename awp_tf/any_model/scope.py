"""Keras' StatelessScope, which also knows of variables that nobody told it about."""

from typing import Any

import keras


class Scope(keras.StatelessScope):
    """Holds values of variables while a pass is traced, and keeps what the pass would have written.

    Attributes:
        written: The variables that the pass wrote, in order: those of the model, and others that its layers and losses
            have without saying so (states of a stateful RNN, Keras' global seed).
    """

    def __init__(self, values: list[tuple[keras.Variable, Any]]) -> None:
        """Values of variables that differ from what they hold."""
        super().__init__(state_mapping=values, collect_losses=True)
        self.written: list[keras.Variable] = []

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """See keras.StatelessScope."""
        super().add_update(update)
        if all(update[0] is not variable for variable in self.written):
            self.written.append(update[0])
