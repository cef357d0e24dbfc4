"""Tables and figures over the records of a study."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import matplotlib.figure
import numpy as np

from awp_tf.evaluation.accuracy import correlation
from awp_tf.infra.figures import PAGE, colour, figure_files, legend_above, line_style, literal
from awp_tf.infra.files import write_bytes, write_text
from awp_tf.infra.progress import duration, table
from awp_tf.study.records import Record

_FEW = 6  # recipes whose names find a place beside each other, or among the dots
Groups = Mapping[str, Sequence[Record]]


def write_report(records: Sequence[Record], folder: pathlib.Path, planned: int) -> str:
    """Writes study.md and its figures; returns the text of the tables.

    Args:
        records: Of the runs that are finished, at least one.
        folder: Where.
        planned: How many runs there will be.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.label, []).append(record)
    seconds = sum(sum(record.seconds.values()) for record in records)
    text = "\n\n".join(
        part
        for part in [
            f"{len(records)} of {planned} runs, {duration(seconds)} of wall clock; of runs side by side each counts.",
            "Mean ± standard error over seeds, %; robust accuracy on test images as in training's last table; best is "
            "the epoch of the highest robust accuracy on validation images (early stopping), last the end of training.",
            _accuracies(groups),
            _evaluations(groups),
            "Robust generalisation gap (training minus test images), and sharpness, the mean over directions:",
            _flatness(groups),
            _correlations(records),
        ]
        if part
    )
    figures = {"curves": _curves, "minutes": _against_minutes, "best_and_last": _best_and_last}
    if 0.5 in _sizes(records):
        figures["sharpness_and_gap"] = _scatter
    for name, draw in figures.items():
        for file, content in figure_files(f"study_{name}", lambda draw=draw: draw(groups)).items():  # type: ignore[misc]
            write_bytes(folder / file, content)
    pictures = "\n\n".join(f"![{name}](study_{name}.png)" for name in figures)
    write_text(folder / "study.md", f"# Study\n\n{text}\n\n{pictures}\n")
    return text


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """(Mean, standard error); the error is NaN for one value."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return float(np.mean(values)), float(error)


def _accuracies(groups: Groups) -> str:
    header = ["recipe", "seeds", "clean, best", "clean, last", "robust, best", "robust, last", "best - last"]
    columns: list[Callable[[Record], float]] = [
        lambda r: r.result["best"]["test_clean"],
        lambda r: r.result["last"]["test_clean"],
        lambda r: r.result["best"]["test_robust"],
        lambda r: r.result["last"]["test_robust"],
        lambda r: r.result["best"]["test_robust"] - r.result["last"]["test_robust"],
    ]
    return _rows(header, groups, [(column, 100.0, "{:.2f}") for column in columns])


def _evaluations(groups: Groups) -> str:
    """A table of what pipelines.evaluate found, where every run was evaluated; else nothing."""
    records = [record for group in groups.values() for record in group]
    common = [
        (which, attack)
        for which, accuracies in records[0].evaluations.items()
        for attack in _worth_a_column(accuracies)
        if all(attack in record.evaluations.get(which, ()) for record in records)
    ]
    if not common:
        return ""
    columns: list[tuple[Callable[[Record], float], float, str]] = [
        (lambda r, w=which, a=attack: r.evaluations[w][a], 100.0, "{:.2f}")  # type: ignore[misc]
        for which, attack in common
    ]
    columns.append((lambda r: r.seconds["train"], 1 / 60, "{:.1f}"))
    header = ["recipe", "seeds", *(f"{attack}, {which}" for which, attack in common), "training, minutes"]
    return f"Evaluated by the protocol of the study:\n\n{_rows(header, groups, columns)}"


def _worth_a_column(accuracies: Mapping[str, float]) -> list[str]:
    """Whole attacks, not the stages of a cascade; and the worst case where there are several."""
    whole = [name for name in accuracies if "/" not in name]
    return whole if len(whole) > 3 else [name for name in whole if name != "worst case"]


def _flatness(groups: Groups) -> str:
    header = ["recipe", "seeds", "gap, best", "gap, last"]
    columns: list[tuple[Callable[[Record], float], float, str]] = [
        (lambda r: r.result["best"]["robust_gap"], 100.0, "{:.2f}"),
        (lambda r: r.result["last"]["robust_gap"], 100.0, "{:.2f}"),
    ]
    for size in _sizes([record for records in groups.values() for record in records]):
        header.append(f"g({size:g}) - g(0), last")
        columns.append((lambda r, size=size: r.sharpness("last", size), 1.0, "{:.3f}"))  # type: ignore[misc]
    return _rows(header, groups, columns)


def _sizes(records: Sequence[Record]) -> list[float]:
    """Where the sharpness of every network was read off."""
    visited = [set(network["sharpness"]) for record in records for network in record.networks]
    return sorted(map(float, set.intersection(*visited)))


def _rows(header: list[str], groups: Groups, columns: Sequence[tuple[Callable[[Record], float], float, str]]) -> str:
    rows = []
    for label, records in groups.items():
        cells = []
        for column, scale, form in columns:
            mean, error = mean_and_error([scale * column(record) for record in records])
            cells.append(form.format(mean) + (f" ± {form.format(error)}" if np.isfinite(error) else ""))
        rows.append([label, str(len(records)), *cells])
    return table(header, rows)


def _correlations(records: Sequence[Record]) -> str:
    networks = [network for record in records for network in record.different_networks()]
    gaps = [network["robust_gap"] for network in networks]
    found = [
        f"{correlation([network['sharpness'][f'{size:g}'][0] for network in networks], gaps):.2f} at {size:g}"
        for size in _sizes(records)
    ]
    return (
        f"Correlation (Pearson) of sharpness with the robust gap under the landscape's attack, over {len(networks)} "
        f"networks (of every run best, last and kept epochs, each once): {', '.join(found)}. Those of one run are not "
        "independent of each other."
    )


def _curves(groups: Groups) -> matplotlib.figure.Figure:
    """Robust accuracy epoch by epoch."""
    return _through_training(groups, "epoch", lambda record, epoch: epoch)


def _against_minutes(groups: Groups) -> matplotlib.figure.Figure:
    """The same against time, for recipes whose epochs cost more or less.

    Only a run's whole time is known, start and tests included: every epoch takes an equal part of it.
    """
    return _through_training(
        groups,
        "minutes, tests included",
        lambda record, epoch: epoch * record.seconds["train"] / 60 / record.history[-1]["epoch"],
    )


def _through_training(groups: Groups, label: str, where: Callable[[Record, float], float]) -> matplotlib.figure.Figure:
    """Robust accuracy through training, on training and on validation images; where says at which x an epoch is."""
    figure = matplotlib.figure.Figure(figsize=(PAGE, 3.0), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for panel, part, title in zip(panels, ("train", "validation"), ("training", "validation"), strict=True):
        name = f"{part}/robust"
        for number, (recipe, records) in enumerate(groups.items()):
            curves = [
                {epoch["epoch"]: 100 * epoch[name] for epoch in record.history if name in epoch} for record in records
            ]
            epochs = sorted(set.intersection(*map(set, curves)))
            values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
            x = [np.mean([where(record, epoch) for record in records]) for epoch in epochs]
            panel.plot(x, values.mean(axis=0), label=literal(recipe), **line_style(number, len(groups)))
            if len(values) > 1:
                panel.fill_between(
                    *(x, values.min(axis=0), values.max(axis=0)),
                    color=colour(number, len(groups)),
                    alpha=0.15,
                    linewidth=0,
                )
        panel.set(xlabel=label, title=f"{title} images")
    panels[0].set_ylabel("robust accuracy (%)")
    legend_above(figure, panels[0])
    return figure


def _best_and_last(groups: Groups) -> matplotlib.figure.Figure:
    """Robust test accuracy of the best and the last epoch; one dot a seed."""
    figure = matplotlib.figure.Figure(figsize=(PAGE, 2.8), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(groups))
    for shift, which, shade in ((-0.2, "best", "0.75"), (0.2, "last", "0.35")):
        values = [[100 * record.result[which]["test_robust"] for record in records] for records in groups.values()]
        axes.bar(places + shift, [np.mean(v) for v in values], 0.38, color=shade, label=f"{which} epoch")
        for place, each in zip(places, values, strict=True):
            axes.plot([place + shift] * len(each), each, "o", color="black", markersize=3)
    axes.set(ylabel="robust test accuracy (%)")
    axes.set_xticks(places, list(map(literal, groups)))
    if len(groups) > _FEW:
        axes.tick_params("x", labelrotation=30)
        for name in axes.get_xticklabels():
            name.set_horizontalalignment("right")
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))  # above the bars
    return figure


def _scatter(groups: Groups) -> matplotlib.figure.Figure:
    """Every network: how sharp, how large a gap."""
    figure = matplotlib.figure.Figure(figsize=(PAGE / 1.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, (label, records) in enumerate(groups.items()):
        networks = [network for record in records for network in record.different_networks()]
        style = {**line_style(number, len(groups)), "linestyle": "", "markersize": 4}
        style.pop("markevery")
        axes.plot(
            [network["sharpness"]["0.5"][0] for network in networks],
            [100 * network["robust_gap"] for network in networks],
            label=literal(label),
            **style,
        )
    axes.set(xlabel=r"sharpness $g(0.5) - g(0)$", ylabel="robust generalisation gap (points)")
    if len(groups) > _FEW:
        legend_above(figure, axes)
    else:
        axes.legend(frameon=False)
    return figure
