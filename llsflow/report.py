"""The report of a run: report.html (one file, light and dark), report.md and the plots, from plain data."""

from __future__ import annotations

import html
import io
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llsflow.home import write_aside

ROWS_SHOWN = 200
TEXT_SHOWN = 2000
"""Characters of one cell."""
PLOTS_SHOWN = 12

Curve = Sequence[tuple[int, float]]
Interval = Sequence[float]

_SAFE = re.compile(r"(https?|file)://[^\s<>]+$")
"""Addresses that become links; javascript: and the like stay text."""
_INK = "#010203"
"""Colour that stands for the page's own text colour until the plot is inlined."""
_COLOURS = ("#2f7ed8", "#e07b39", "#2a9d68", "#a463c9", "#c94f6d", "#8a8f98")
_TITLES = {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Gradient norm", "tokens_per_s": "Tokens per second"}


@dataclass(frozen=True)
class Score:
    """One number of one model."""

    candidate: str
    """Which model: base, tuned, baseline, candidate."""
    metric: str
    value: float | None
    """Null where no row could be scored."""
    interval: Interval | None = None
    """95 % interval: low, high."""


@dataclass(frozen=True)
class Comparison:
    """What a model gains over its baseline on the same rows."""

    metric: str
    difference: float | None
    interval: Interval | None = None
    """95 % interval of the difference: low, high."""


@dataclass(frozen=True)
class Sample:
    """One row's answers."""

    prompt: str
    expected: str | None
    """null: no answer by itself is expected, other columns are scored."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """By the model that gave them."""


@dataclass(frozen=True)
class ReportMaterial:
    """All that the report shows; what is empty is left out."""

    title: str
    description: str = ""
    verdict: str = ""
    """The result in one sentence."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Model, data, recipe, …: name -> short value."""
    scores: Sequence[Score] = ()
    comparisons: Sequence[Comparison] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Name -> (step, value); names that end alike (train/loss, val/loss) share a plot."""
    samples: Sequence[Sample] = ()
    preview: Sequence[Sequence[Mapping[str, Any]]] = ()
    """Training rows as pieces `{text, loss}`: what the model reads and what it learns."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The evaluated rows; the first 200 are shown."""
    command: str = ""
    """What reproduces the run."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Text -> address."""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def build_report(folder: Path, material: ReportMaterial) -> list[Path]:
    """Write report.html, report.md and plots/*.png into `folder` and return their paths."""
    plots = _plots(material)
    files: dict[Path, str | bytes] = {
        folder / "report.html": _page(material, {name: svg for name, (_, svg) in plots.items()}),
        folder / "report.md": _markdown(material, list(plots)),
    }
    files |= {folder / "plots" / f"{name}.png": png for name, (png, _) in plots.items()}
    for path, content in files.items():
        write_aside(path, content if isinstance(content, bytes) else _printable(content))
    return list(files)


def _printable(text: str) -> str:
    # answers of an untrained model hold any byte: control characters and half surrogates are not text
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\ufffd", text)


def number(value: float | None) -> str:
    """Return a number as tables show it: 4 significant digits, a dash for none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def with_interval(value: float | None, interval: Interval | None, *, sign: bool = False) -> str:
    """Return `0.970 [0.936, 0.986]`; with `sign`, a plus before gains."""
    text = number(value)
    if sign and value is not None and value > 0:
        text = f"+{text}"
    return f"{text} [{number(interval[0])}, {number(interval[1])}]" if interval else text


def _score_table(material: ReportMaterial) -> tuple[list[str], list[list[str]]]:
    candidates = list(dict.fromkeys(score.candidate for score in material.scores))
    found = {(score.metric, score.candidate): score for score in material.scores}
    gains = {comparison.metric: comparison for comparison in material.comparisons}
    table = []
    for metric in dict.fromkeys([*(score.metric for score in material.scores), *gains]):
        cells = [found.get((metric, candidate)) for candidate in candidates]
        row = [metric, *(with_interval(cell.value, cell.interval) if cell else "–" for cell in cells)]
        if gains:
            gain = gains.get(metric)
            row.append(with_interval(gain.difference, gain.interval, sign=True) if gain else "–")
        table.append(row)
    return ["metric", *candidates, *(["difference"] if gains else [])], table


def _sample_table(material: ReportMaterial) -> tuple[list[str], list[list[str]]]:
    models = list(dict.fromkeys(name for sample in material.samples for name in sample.answers))
    rows = [[s.prompt, _text(s.expected), *(_text(s.answers.get(name)) for name in models)] for s in material.samples]
    return ["prompt", "expected", *(f"{name} answer" for name in models)], rows


def _row_table(material: ReportMaterial) -> tuple[list[str], list[list[str]]]:
    shown = material.rows[:ROWS_SHOWN]
    columns = list(dict.fromkeys(key for row in shown for key in row))
    return columns, [[_text(row.get(column)) for column in columns] for row in shown]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + "…"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _plots(material: ReportMaterial) -> dict[str, tuple[bytes, str]]:
    """Return each plot as PNG and as SVG in the page's own text colour."""
    groups: dict[str, dict[str, Curve]] = {}
    for name, curve in material.curves.items():
        if curve:
            groups.setdefault(_printable(name).rpartition("/")[2], {})[_printable(name)] = curve
    plots = {}
    if any(score.value is not None for score in material.scores):
        plots["scores"] = _rendered("scores", partial(_score_figure, material.scores))
    order = sorted(groups, key=lambda group: list(_TITLES).index(group) if group in _TITLES else len(_TITLES))
    for group in order[:PLOTS_SHOWN]:
        name = re.sub(r"\W+", "_", group) or "curve"
        plots[name] = _rendered(name, partial(_curve_figure, _TITLES.get(group, group), groups[group]))
    return plots


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # the object API: no global figures, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=_INK, alpha=0.4)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(color=_INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _curve_figure(title: str, curves: Mapping[str, Curve]) -> Any:
    figure, axes = _axes(5.6, 3.1)
    for colour, (name, curve) in zip(_COLOURS * len(curves), curves.items(), strict=False):
        steps, values = zip(*curve, strict=True)
        mark = {"marker": "o", "markersize": 3.5} if len(curve) <= 30 else {}
        axes.plot(steps, values, color=colour, linewidth=1.5, label=name, **mark)
    axes.set_title(title, color=_INK, fontsize=11, loc="left")
    axes.set_xlabel("optimizer step", color=_INK, fontsize=9)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    return figure


def _score_figure(scores: Sequence[Score]) -> Any:
    scores = [replace(s, metric=_printable(s.metric), candidate=_printable(s.candidate)) for s in scores]
    metrics = list(dict.fromkeys(score.metric for score in scores))
    candidates = list(dict.fromkeys(score.candidate for score in scores))
    figure, axes = _axes(10, 0.9 + 0.34 * len(metrics) * (len(candidates) + 0.6))
    thick = 0.8 / len(candidates)
    for place, candidate in enumerate(candidates):
        # the last candidate, the tuned model, has the strong colour
        colour = _COLOURS[0] if place == len(candidates) - 1 else _COLOURS[-1 - place % 5]
        own = [s for s in scores if s.candidate == candidate and s.value is not None]
        middle = [metrics.index(s.metric) - 0.4 + thick * (place + 0.5) for s in own]
        axes.barh(middle, [s.value for s in own], thick * 0.86, color=colour, label=candidate)
        for y, score in zip(middle, own, strict=True):
            _score_ends(axes, y, score)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.set_ylim(len(metrics) - 0.45, -0.55)
    values = [v for s in scores for v in (s.value, *(s.interval or ())) if v is not None and math.isfinite(v)]
    axes.set_xlim(min(0.0, *values) * 1.2, max(0.0, *values) * 1.2 or 1.0)
    axes.grid(visible=False, axis="y")
    axes.legend(
        frameon=False, labelcolor=_INK, fontsize=9, ncols=len(candidates), loc="lower left", bbox_to_anchor=(0, 1)
    )
    return figure


def _score_ends(axes: Any, y: float, score: Score) -> None:
    end = score.value
    if score.interval:
        axes.hlines(y, *score.interval, color=_INK, linewidth=1.3)
        axes.vlines(score.interval, y - 0.06, y + 0.06, color=_INK, linewidth=1.3)
        end = max(score.interval[1], end or 0.0)
    axes.annotate(
        number(score.value), (end, y), (5, 0), textcoords="offset points", va="center", color=_INK, fontsize=9
    )


def _rendered(name: str, draw: Callable[[], Any]) -> tuple[bytes, str]:
    import matplotlib

    png, svg = io.BytesIO(), io.StringIO()
    # text as text: it takes the page's font and colour; the salt keeps ids of several plots apart and stable
    look = matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False})
    with look, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the plots' font lacks
        figure = draw()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, dpi=144, facecolor="white", metadata={"Software": None})
    text = svg.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return png.getvalue(), re.sub(r'<path d="[^"]*"\s+style="fill: #ffffff"\s*/>', "", text)


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5c6470; --line: #dfe3e8; --page: #ffffff;
  --card: #f6f8fa; --link: #0b62c4; --learn: #cfe8d5; --good: #1a7f43; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa4b2; --line: #333a44;
  --page: #14171c; --card: #1d2229; --link: #6cb0ff; --learn: #1f5136; --good: #5fd08c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem; color: var(--ink);
  background: var(--page); font: 15px/1.55 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; } h2 { margin: 2.6rem 0 .8rem; font-size: 1.2rem; }
a { color: var(--link); } .soft { color: var(--soft); } summary { cursor: pointer; }
.verdict { margin: 1.2rem 0; padding: .8rem 1rem; border-left: 4px solid var(--good); border-radius: 4px;
  background: var(--card); font-size: 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; } mark { color: inherit; background: var(--learn); border-radius: 3px; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
.tall { max-height: 36rem; overflow-y: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: pre-wrap; overflow-wrap: break-word; max-width: 26rem; }
th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; } svg text { font-family: inherit !important; }
pre { margin: 0 0 .8rem; padding: .9rem 1rem; border-radius: 8px; background: var(--card); overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; }
"""


def _page(material: ReportMaterial, plots: Mapping[str, str]) -> str:
    title = html.escape(material.title)
    sections = "".join(
        f"<section><h2>{name}</h2>{body}</section>\n" for name, body in _sections(material, plots) if body
    )
    verdict = f'<p class="verdict">{html.escape(material.verdict)}</p>' if material.verdict else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><header><h1>{title}</h1>"
        f'<p class="soft">{html.escape(material.description)}</p>{verdict}{_pairs(_flat(material.facts))}</header>\n'
        f"{sections}</body></html>\n"
    )


def _sections(material: ReportMaterial, plots: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    figures = {name: f"<figure>{svg}</figure>" for name, svg in plots.items()}
    scores = _table(*_score_table(material), hint="In brackets: 95 % intervals.") if material.scores else ""
    yield "Result", scores + figures.pop("scores", "")
    yield "Before and after", _table(*_sample_table(material)) if material.samples else ""
    yield "Training", f'<div class="plots">{"".join(figures.values())}</div>' if figures else ""
    yield "What is learned", _preview(material.preview)
    yield "Rows", _rows(material)
    yield "Reproduce", f"<pre>{html.escape(material.command)}</pre>" if material.command else ""
    links = "".join(f"<li>{_link(text, address)}</li>" for text, address in material.links.items())
    yield "Links", f"<ul>{links}</ul>" if links else ""
    origin = _pairs(_flat(material.provenance))
    yield "Where it comes from", origin and f"<details><summary>Code, libraries, machine</summary>{origin}</details>"


def _preview(rows: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    if not rows:
        return ""
    hint = '<p class="soft">Training rows as the model reads them; it learns the <mark>marked</mark> part.</p>'
    return hint + "".join(f"<pre>{''.join(_piece(piece) for piece in row)}</pre>" for row in rows)


def _piece(piece: Mapping[str, Any]) -> str:
    text = html.escape(str(piece["text"]))
    return f"<mark>{text}</mark>" if piece["loss"] else text


def _rows(material: ReportMaterial) -> str:
    if not material.rows:
        return ""
    columns, rows = _row_table(material)
    hint = f"The first {len(rows)} of {len(material.rows)} rows."
    return f"<details><summary>{hint}</summary>{_table(columns, rows, tall=True)}</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, hint: str = "", tall: bool = False) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    note, box = f'<p class="soft">{hint}</p>' if hint else "", "scroll tall" if tall else "scroll"
    return f'<div class="{box}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    inner = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{inner}</dl>" if inner else ""


def _link(text: str, address: str) -> str:
    if _SAFE.match(address):
        return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'
    return f"{html.escape(text)}: {html.escape(address)}"


def _markdown(material: ReportMaterial, plots: Sequence[str]) -> str:
    parts = [f"# {_md(material.title)}", _md(material.description)]
    parts.append(f"**{_md(material.verdict)}**" if material.verdict else "")
    parts.append("\n".join(f"- {_md(name)}: {_md(value)}" for name, value in _flat(material.facts)))
    if material.scores:
        parts += ["## Result", _md_table(*_score_table(material)), "In brackets: 95 % intervals."]
    parts += [f"![{name}](plots/{name}.png)" for name in plots if name == "scores"]
    if material.samples:
        parts += ["## Before and after", _md_table(*_sample_table(material))]
    curves = [f"![{name}](plots/{name}.png)" for name in plots if name != "scores"]
    parts += ["## Training", *curves] if curves else []
    if material.command:
        parts += ["## Reproduce", _fence(material.command)]
    links = [f"- [{_md(text)}](<{address}>)" for text, address in material.links.items() if _SAFE.match(address)]
    parts += ["## Links", "\n".join(links)] if links else []
    if material.provenance:
        origin = json.dumps(material.provenance, indent=2, ensure_ascii=False, default=str)
        parts += ["## Where it comes from", _fence(origin)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    escaped = [[cell if cell == "---" else _md(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _md(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(text, quote=False))
    return "<br>".join(escaped.splitlines())


def _fence(text: str) -> str:
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}\n{text}\n{ticks}"
