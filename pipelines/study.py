"""Trains several recipes with several seeds, draws their landscapes, and collects tables and figures.

    python -m pipelines.study --gin_file=gin/studies/headline.gin --output=docs/studies/headline --jobs=2

Every run has a folder below --runs and, once finished, a record of its numbers in <output>/records; study.md
and its figures are written anew after each. The same command goes on where it stopped; a run whose record is
there is not repeated, even where its folder is gone. With --jobs=2 two runs at a time share the cores.
"""

import concurrent.futures
import json
import pathlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

import absl.flags
import tensorflow as tf

from awp_tf.evaluation.output import CARD
from awp_tf.infra.errors import UserError, at_least
from awp_tf.infra.files import local
from awp_tf.infra.progress import duration
from awp_tf.infra.result_folder import lock
from awp_tf.infra.run_folder import read_run
from awp_tf.infra.signals import Interrupt
from awp_tf.study.records import Record, Study, Trial, config_digest, read_records, write_record
from awp_tf.study.summary import write_report
from awp_tf.study.worker import Worker, shares_of_cores, shares_of_gpus

from . import _cli, _main

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
_OUTPUT = absl.flags.DEFINE_string("output", None, "Where records, tables and figures go.", required=True)
_RUNS = absl.flags.DEFINE_string("runs", "runs/study", "Where the runs themselves go; studies may share it.")
_JOBS = absl.flags.DEFINE_integer(
    "jobs", 1, "Runs at a time; each gets an equal share of the CPU cores, and of the GPUs."
)

_WRITING = threading.Lock()  # lines of the screen and the report, one worker at a time


def run(argv: Sequence[str]) -> None:
    """Carries out what has no record yet, and writes the report."""
    flags = absl.flags.FLAGS
    if not flags.gin_file:
        raise UserError("--gin_file: expected a study, received none; try --gin_file=gin/studies/headline.gin.")
    at_least("--jobs", _JOBS.value, 1)
    _cli.parse(flags.gin_file, flags.gin_bindings, root="Study.runs")
    study = _cli.call(Study)
    output, runs = local(_OUTPUT.value), local(_RUNS.value)
    records = output / "records"
    known = read_records(records, study)
    for trial in study.trials:
        if trial.name in known:
            _require_same(known[trial.name], trial, study, records)
        else:
            _require_recipe(trial)
    missing = [trial for trial in study.trials if trial.name not in known]
    print(
        f"{len(known)} of {len(study.trials)} runs are recorded; what a run says goes to {runs}/<run>.log", flush=True
    )
    with lock(runs), Interrupt() as interrupt:
        records.mkdir(parents=True, exist_ok=True)
        gpus = shares_of_gpus(_JOBS.value, len(tf.config.list_physical_devices("GPU")))
        shares = zip(shares_of_cores(_JOBS.value), gpus, strict=True)
        workers = [Worker(runs, interrupt, cores, environment) for cores, environment in shares]
        with concurrent.futures.ThreadPoolExecutor(len(workers)) as pool:
            # Each worker takes the next run as soon as it is free.
            queue = iter(missing)
            parts = pool.map(lambda worker: _work(worker, queue, study, output), workers)
            failed = [name for part in parts for name in part]
    if failed:
        raise UserError(f"{', '.join(failed)}: failed, as said above; the same command tries again.")
    print(_report(study, output))


def _require_recipe(trial: Trial) -> None:
    """Finds typing errors before the first run, and not hours later."""
    try:
        _cli.parse(trial.files, trial.bindings)
    except UserError as error:
        raise UserError(f"Study.runs: {trial.label}: {error}") from error


def _require_same(record: Record, trial: Trial, study: Study, records: pathlib.Path) -> None:
    """A record of other settings than those of today would be mixed up with the others."""
    config, drawn = _cli.parse(trial.files, trial.bindings), {network["name"] for network in record.networks}
    wrong = ["with another configuration"] if record.config_sha256 != config_digest(config) else []
    wrong += [f"without its evaluation of {which}" for which in study.evaluated if which not in record.evaluations]
    wrong += [f"without its landscape of {which}" for which in study.drawn if which not in drawn]
    if wrong:
        raise UserError(
            f"{records / trial.name}.json: holds a run {wrong[0]}; delete it to repeat the run, or choose another "
            "--output."
        )


def _work(worker: Worker, queue: Iterator[Trial], study: Study, output: pathlib.Path) -> list[str]:
    """Carries out runs as long as there are any; returns the names of those that failed."""
    failed = []
    for trial in queue:
        with _WRITING:
            print(f"{trial.name}: begins", flush=True)
        try:
            folder = local(_RUNS.value) / trial.name
            seconds = worker.run(trial.name, commands(trial, folder, study))
        except UserError as error:  # said at once, and the others go on: a study takes hours
            with _WRITING:
                print(error, file=sys.stderr, flush=True)
            failed.append(trial.name)
            continue
        record = _record(trial, folder, study, seconds)
        last = record.result["last"]
        with _WRITING:
            numbers = f"{100 * last['test_robust']:.2f} % robust, gap {100 * last['robust_gap']:.2f}"
            print(f"{trial.name}: {numbers}, {duration(sum(seconds.values()))}", flush=True)
            write_record(record, output / "records" / f"{trial.name}.json")
            _report(study, output)
    return failed


def _record(trial: Trial, folder: pathlib.Path, study: Study, seconds: Mapping[str, float]) -> Record:
    """Of a finished run in a folder, its landscapes and its evaluations."""
    run = read_run(folder)
    landscape = json.loads((folder / "landscape" / "landscape.json").read_text(encoding="utf-8"))
    return Record(
        label=trial.label,
        seed=trial.seed,
        config_sha256=config_digest(run.config),
        result=run.result or {},
        history=run.history,
        networks=landscape["networks"],
        seconds={name: round(value, 1) for name, value in seconds.items()},
        commit=landscape["commit"],
        versions=landscape["versions"],
        evaluations={which: _accuracies(folder / f"evaluation_{which}") for which in study.evaluated},
    )


def _accuracies(folder: pathlib.Path) -> dict[str, float]:
    """Of a finished evaluation, on test images, by attack."""
    accuracy: dict[str, float] = json.loads((folder / CARD).read_text(encoding="utf-8"))["accuracy"]["test"]
    return accuracy


def commands(trial: Trial, folder: pathlib.Path, study: Study) -> dict[str, list[str]]:
    """What Python is called with for a run, by command."""
    package, imports = _cli.__package__, _cli.import_flags()  # awp_tf.pipelines where it is installed
    of_run = [f"--workdir={folder}", *imports]
    settings = [*(f"--gin_file={file}" for file in trial.files), *(f"--gin_bindings={each}" for each in trial.bindings)]
    return {
        "train": ["-m", f"{package}.train", *settings, *imports, f"--workdir={folder}"],
        "landscape": [
            *("-m", f"{package}.landscape", *of_run),
            f"--network={study.checkpoints}",
            f"--output={folder / 'landscape'}",
        ],
        **{
            f"evaluate {which}": [
                *("-m", f"{package}.evaluate", *of_run),
                f"--network={which}",
                f"--output={folder / f'evaluation_{which}'}",
            ]
            for which in study.evaluated
        },
    }


def _report(study: Study, output: pathlib.Path) -> str:
    found = read_records(output / "records", study)
    return write_report(list(found.values()), output, len(study.trials))


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
