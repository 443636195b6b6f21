"""The report of an evaluation: one HTML file without scripts, in which every text is escaped."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from rs_embed.core.atomic import replacing, storing
from rs_embed.explore.page import checked_path, style_policy
from rs_embed.learning import charts
from rs_embed.learning.evaluation import BANDS, PLACE, Evaluation, Scored, bands_of, curve_of, plus_minus
from rs_embed.learning.folds import length, support_by_block
from rs_embed.learning.scores import recalls

_CURVES = 5
"""Largest number of learning curves, beside that of band statistics."""
_MOST_CLASSES = 40
"""Classes of a confusion matrix that is shown."""
_HEAT = 8
"""Steps of the colours of a table."""
_COLOURS = {"model": "0", "control": "3", "baseline": "q"}
_LIMITS = (
    "A score holds for places like the labelled ones. It says nothing of another region, year or season.",
    "The labels were not drawn at random, unless you drew them so. A score is no accuracy of a map.",
    "The interval is that of these places. It does not contain errors of the labels, nor those of another split.",
    "Of many models, the highest score is a little too high: it was chosen because it is the highest.",
    "Heads are small: k nearest neighbours, logistic or ridge regression. Fine-tuning a model may change the order.",
)


def write_report(evaluation: Evaluation, path: str | Path) -> Path:
    """Write the report; an existing file is replaced.

    Raises:
        StorageError: The path does not end in .html, or cannot be written.
    """
    target = checked_path(path)
    with storing(target.parent), replacing(target) as part:
        part.write_text(report_html(evaluation), "utf-8")
    return target


def report_html(evaluation: Evaluation) -> str:
    """Return the report as text. The policy lets only its own style sheet in."""
    style = (files("rs_embed.learning") / "page" / "report.css").read_text("utf-8")
    title = f"Which model for {evaluation.labels.column}?"
    pairs = [
        _curves(evaluation),
        *(_classes(evaluation) if evaluation.labels.classes else [_numbers(evaluation)]),
        _variogram(evaluation),
        _map(evaluation),
    ]
    body = [
        _header(evaluation, title),
        _said(evaluation),
        _bars(evaluation),
        _scores(evaluation),
        *pairs,
        _list("Notes", evaluation.notes, "wide" if len(pairs) % 2 == 0 else ""),
        _list("What a score does not mean", _LIMITS, "wide"),
        _footer(evaluation),
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{style_policy(style)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        *head,
        "</head>",
        f"<body><main>{body}</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _header(evaluation: Evaluation, title: str) -> str:
    labels, folds = evaluation.labels, evaluation.folds
    count = len(labels.classes)
    kind = {"classes": f"{count} classes", "number": "numbers", "multilabel": f"{count} labels"}[labels.kind]
    blocks = f"{int(folds.block.max()) + 1:,}"
    cut = {"blocks": f"{blocks} blocks of {length(folds.block_m)}", "groups": f"{blocks} groups", "random": "places"}
    told = f"{len(labels):,} places, {kind}, {folds.count} folds of {cut[folds.how]}, scored by {evaluation.metric}"
    return f"<header><h1>{escape(title)}</h1><p>{escape(told)}</p></header>"


def _said(evaluation: Evaluation) -> str:
    warnings = [one for one in evaluation.notes if one.startswith("Fewer than") or "too optimistic" in one]
    told = "".join(f'<section class="wide warning"><p>{escape(one)}</p></section>' for one in warnings)
    said = "".join(f"<p>{escape(one)}</p>" for one in evaluation.sentences)
    return f'{told}<section class="wide said">{said}</section>'


def _bars(evaluation: Evaluation) -> str:
    bands, rows = bands_of(evaluation), evaluation.rows
    values = [x for one in rows for x in (one.main.low, one.main.high, one.main.value) if math.isfinite(x)]
    low, high = min(values), max(values)
    if evaluation.labels.kind == "number":
        low = max(low, -1.0)  # the R2 of a useless model may be -10
    margin = 0.04 * (high - low) or 0.05
    span = (low - margin, high + margin)
    drawn = []
    for one in rows:
        quiet = " quiet" if one.role == "baseline" else ""
        bar = charts.interval_bar(one.main, span, None if bands is None else bands.main.value, _COLOURS[one.role])
        main = f"{one.main.value:.3f} <small>{one.main.low:.2f} to {one.main.high:.2f}</small>"
        name = f'<span class="name">{escape(one.title)}</span>'
        drawn.append(f'<div class="bar{quiet}">{name}{bar}<span class="value">{main}</span></div>')
    drawn.append(f'<div class="bar">{charts.axis(span)}</div>')
    line = "" if bands is None else " The dashed line is the score of band statistics."
    text = (
        "Bars hold 95 % of the bootstrap draws over blocks. Two bars may overlap although the models differ: the "
        f'sentences and the column "above bands" compare them over the same draws.{line}'
    )
    return _section(_title(evaluation.metric), text, "".join(drawn), "wide")


def _scores(evaluation: Evaluation) -> str:
    bands, metrics = bands_of(evaluation), list(evaluation.rows[0].scores)
    head = ["", "head", *metrics, "above bands", "length", "s/place", "MB/place", "download", "licence"]
    rows, seen = [], False
    for one in evaluation.rows:
        is_baseline, scores = one.role == "baseline", one.scores
        marks = {"baseline": is_baseline, "first-baseline": is_baseline and not seen, "best": one is evaluation.best}
        seen = seen or is_baseline
        cells = [
            one.head or "-",
            *(f"{scores[name].value:.3f}" for name in metrics),
            "-" if bands is None or one is bands else plus_minus(one.above(bands)),
            f"{one.dim:,}" if one.dim else "-",
            *("-" if value is None else f"{value:.2g}" for value in (one.seconds, one.imagery_mb)),
            one.download,
            one.licence,
        ]
        rows.append(_row(one.name, [_cell(text) for text in cells], " ".join(name for name in marks if marks[name])))
    text = (
        '"above bands" is the difference from band statistics over the same draws, ± half its 95 % interval. Seconds '
        "were measured on this machine, without fetching. MB are the pixels that are read, at 16 bits per value."
    )
    return _section("Scores and costs", text, _table(head, rows), "wide")


def _curves(evaluation: Evaluation) -> str:
    bands = bands_of(evaluation)
    shown = [one for one in evaluation.rows if one.role != "baseline"][:_CURVES]
    shown += [] if bands is None or bands in shown else [bands]
    lines = [
        charts.Line(
            one.title,
            [(places, score.value) for places, score in curve_of(one, evaluation.folds)],
            "q" if one is bands else str(at % charts.SERIES),
        )
        for at, one in enumerate(shown)
    ]
    sizes = [places for places, _ in lines[0].points]
    chart = charts.chart(lines, x_name="places to train on", y_name=evaluation.metric, at_x=sizes)
    return _section("Learning curve", "If a curve still rises at its end, more labels help.", chart)


def _classes(evaluation: Evaluation) -> list[str]:
    labels, best = evaluation.labels, evaluation.best
    support, blocks = labels.support(), support_by_block(labels, evaluation.folds)
    others = [one for one in evaluation.rows if one.name in (BANDS, PLACE) and one is not best]
    found = [recalls(one.validated.found).tolist() for one in (best, *others)]
    rows = [
        _row(name, [_cell(f"{support[name]:,}"), _cell(f"{blocks[name]:,}"), *(_heat(shares[at]) for shares in found)])
        for at, name in enumerate(labels.classes)
    ]
    text = (
        "Recall is the share of the places of a class that is found. It is unsure for a class of few places or blocks."
    )
    head = ["", "places", "blocks", *(one.name for one in (best, *others))]
    table = _section("Classes", text, _table(head, rows, "heat"))
    has_confusion = labels.kind == "classes" and len(labels.classes) <= _MOST_CLASSES
    return [table, _confusion(best, labels.classes)] if has_confusion else [table]


def _confusion(best: Scored, classes: Sequence[str]) -> str:
    counts = best.validated.found.confusion()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        _row(name, [_heat(share, f"{count:,}") for share, count in zip(*both, strict=True)])
        for name, both in zip(classes, zip(shares.tolist(), counts.tolist(), strict=True), strict=True)
    ]
    text = "Rows are the labels, columns what was predicted. Colours are shares of the row."
    return _section(f"Confusion of {best.title}", text, _table(["", *classes], rows, "heat"))


def _numbers(evaluation: Evaluation) -> str:
    best = evaluation.best
    truth, said = best.validated.found.targets.astype(np.float64), best.validated.found.answers[:, 0]
    plot = charts.scatter(truth, said, [0] * len(truth), name="predictions against labels", diagonal=True)
    low, high = min(truth.min(), said.min()), max(truth.max(), said.max())
    text = f"To the right the label, upwards the prediction, both from {low:.4g} to {high:.4g}."
    return _section(f"Predictions of {best.title}", text, plot)


def _variogram(evaluation: Evaluation) -> str:
    curve = evaluation.folds.variogram
    points = list(zip((curve.distance_m / 1000).tolist(), curve.difference.tolist(), strict=True))
    line = charts.Line("", points, "2")
    chart = charts.chart([line], x_name="distance, km", y_name="difference of labels", reference=1.0)
    alike = f"Labels are alike up to about {length(curve.range_m)}."
    text = alike if curve.range_m else "Labels that are near are not more alike than others."
    return _section("How alike are neighbours?", f"{text} 1 is the difference of two places drawn at random.", chart)


def _map(evaluation: Evaluation) -> str:
    folds = evaluation.folds
    lon, lat = folds.footprints.lon, folds.footprints.lat
    narrow = float(np.cos(np.radians(lat.mean())))
    plot = charts.scatter(lon * narrow, lat, folds.fold.tolist(), name="map of the places, coloured by fold")
    where = f"Longitude {lon.min():.3f} to {lon.max():.3f}, latitude {lat.min():.3f} to {lat.max():.3f}."
    return _section("Folds on the map", f"Places of one colour are tested together. {where}", plot)


def _list(title: str, texts: Sequence[str], kind: str = "") -> str:
    return _section(title, "", f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in texts)}</ul>", kind)


def _footer(evaluation: Evaluation) -> str:
    import rs_embed

    weights = "; ".join(
        f"{one.name}: {', '.join(dict.fromkeys(one.weights))}" for one in evaluation.rows if one.weights
    )
    made = f"rs_embed {rs_embed.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return f"<footer>{made} Weights: {escape(weights) or '-'}.</footer>"


def _section(title: str, text: str, content: str, kind: str = "") -> str:
    told = f"<p>{escape(text)}</p>" if text else ""
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{told}{content}</section>'


def _table(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    table = f'<table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _row(name: str, cells: Sequence[str], kind: str = "") -> str:
    return f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>'


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>'


def _heat(share: float, text: str | None = None) -> str:
    known = math.isfinite(share)
    return _cell(
        (f"{share:.2f}" if known else "-") if text is None else text, f"h{round(_HEAT * share) if known else 0}"
    )


def _title(text: str) -> str:
    return text if text != text.lower() else text.capitalize()
