"""Who fell, when, and where the evaluation goes on: the one file that makes it resumable."""

import dataclasses
import json
import pathlib

import numpy as np

from awp_tf.infra.errors import UserError
from awp_tf.infra.files import read_arrays, write_arrays

ROBUST, CLEAN_ERROR = -1, -2


@dataclasses.dataclass
class Ledger:
    """The state of the evaluation of one split.

    Attributes:
        ranking: For each image its classes by falling clean logit, the likeliest few; [N, R].
        fell: For each cascade and image the run of the cascade that fooled it, ROBUST or
            CLEAN_ERROR; [cascades, N].
        cascade, run, position: Where it goes on: which cascade, which of its runs, and how many of the
            images that this run began with are done.
        clean: How many images the clean pass has looked at.
        seconds: Spent, by "cascade/attack".
        rejected: Whether an image was claimed to be fooled and did not stand the verification;
            [cascades, N].
    """

    ranking: np.ndarray
    fell: np.ndarray
    cascade: int = 0
    run: int = 0
    position: int = 0
    clean: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    rejected: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        """Nothing is rejected yet, unless given."""
        if self.rejected.shape != self.fell.shape:
            self.rejected = np.zeros(self.fell.shape, bool)

    def spend(self, clock: str, seconds: float) -> None:
        """Adds to the time kept under a name."""
        self.seconds[clock] = self.seconds.get(clock, 0.0) + seconds

    def pending(self) -> np.ndarray:
        """The images that the present run began with: robust now, or fooled by this very run."""
        fell = self.fell[self.cascade]
        return np.flatnonzero((fell == ROBUST) | (fell == self.run))

    def save(self, path: pathlib.Path) -> None:
        """Writes it; path holds either the old state or the new one, never half of it."""
        place = {name: getattr(self, name) for name in ("cascade", "run", "position", "clean", "seconds")}
        arrays = {name: getattr(self, name) for name in ("ranking", "fell", "rejected")}
        write_arrays(path, {"place": np.array(json.dumps(place)), **arrays})

    @classmethod
    def load(cls, path: pathlib.Path) -> "Ledger | None":
        """The state in path; None where there is none.

        Raises:
            UserError: It cannot be read.
        """
        data = read_arrays(path, "the state of an evaluation")
        if data is None:
            return None
        try:
            place = json.loads(str(data["place"]))
            return cls(data["ranking"], data["fell"], rejected=data["rejected"], **place)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}: expected the state of an evaluation, which this is not ({error}); "
                "delete its folder to start over, or choose another."
            ) from error
