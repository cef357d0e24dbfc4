"""What a study runs."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from awp_tf.infra.errors import UserError, at_least, one_of


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a study.

    Attributes:
        label: Of the recipe, as in tables.
        seed: Of the run.
        settings: Gin files and bindings; later files change earlier ones, and bindings change files.
    """

    label: str
    seed: int
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder and record."""
        return f"{re.sub(r'[^a-z0-9.]+', '_', self.label.lower()).strip('_')}-seed{self.seed}"

    @property
    def flags(self) -> list[str]:
        """For pipelines.train."""
        kinds = ["gin_file" if setting.endswith(".gin") else "gin_bindings" for setting in self.settings]
        given = [f"--{kind}={setting}" for kind, setting in zip(kinds, self.settings, strict=True)]
        return [*given, f"--gin_bindings=SEED={self.seed}"]


@dataclasses.dataclass(frozen=True)
class Study:
    """Recipes x seeds.

    Attributes:
        runs: For each label the gin files and bindings of its recipe.
        common: Gin files and bindings for all, after a recipe's own (a recipe's binding still changes a common file).
        seeds: Every recipe is run with each.
        checkpoints: The networks whose landscapes are drawn, by commas: last; and best, epochs.
    """

    runs: Mapping[str, Sequence[str]]
    common: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    checkpoints: str = "best,last"

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        for seed in self.seeds:
            at_least("Study.seeds", seed, 0)
        for kind in self.checkpoints.split(","):
            one_of("Study.checkpoints", kind, ("best", "last", "epochs"))
        if "last" not in self.checkpoints.split(","):
            raise UserError(f"Study.checkpoints: expected last among them, received {self.checkpoints!r}.")
        names = [trial.name for trial in self.trials]
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"Study: expected runs with different names and seeds, received {', '.join(names) or 'none'}."
            )

    @property
    def trials(self) -> list[Trial]:
        """All runs, seed by seed: a study that is stopped early has whole rounds."""
        return [Trial(label, seed, (*own, *self.common)) for seed in self.seeds for label, own in self.runs.items()]
