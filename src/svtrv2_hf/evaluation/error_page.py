# SPDX-License-Identifier: Apache-2.0
"""What a model misreads, as one HTML file that needs nothing else."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from math import sqrt
from pathlib import Path

from PIL import Image

from ..data.audit_report import percent
from ..image_processing_svtrv2 import load_rgb
from .benchmarks import wilson_interval
from .errors import BINS, Bin, Column, ErrorKind, Errors, Mistake, SetErrors, visible


LARGEST_IMAGE = (480, 96)  # width and height in pixels of the images on the page
CONFUSED = 16  # characters in the confusion table
LISTED = 8  # confusions in each list
WIDE = 7  # width of an image in units of its height from which its card takes two columns
SELDOM = 20  # occurrences of a character from which its share of errors is listed
PROTOCOLS = {
    "english": "ASCII letters and digits are compared, case ignored",
    "chinese": "everything but spaces is compared, case ignored",
}
KINDS = {
    ErrorKind.UNREADABLE: "the image cannot be opened",
    ErrorKind.NOTHING_READ: "nothing that is compared was read",
    ErrorKind.ONE_WRONG: "one character is another",
    ErrorKind.ONE_MISSING: "one character is missing",
    ErrorKind.ONE_TOO_MANY: "one character does not belong there",
    ErrorKind.ANOTHER_TEXT: "less than half of the text agrees",
    ErrorKind.SEVERAL_WRONG: "two or more are wrong, at least half agree",
}


def write_page(errors: Errors, path: str | Path, title: str) -> None:
    """Writes a page with counts, confusions, calibration and the kept mistakes with their images.

    Args:
        errors: what was collected.
        path: of the HTML file; it is self-contained, images are in it.
        title: plain text.
    """
    body = [_header(errors, title), "<main>", _sets(errors), _calibration(errors), _confusions(errors)]
    body += [_gallery(errors), _unreadable(errors), "</main>"]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
    Path(path).write_text(page, encoding="utf-8")


def _text(text: str) -> str:
    """Escaped for elements and attributes, with code points for what no file may hold or nobody would see."""
    return escape("".join(c if c == " " or c.isprintable() else visible(c) for c in text))


def _words(kind: ErrorKind) -> str:
    return kind.value.replace("_", " ")


def _header(errors: Errors, title: str) -> str:
    error = errors.expected_calibration_error
    total = _total(errors)
    kinds, wrong_case = total.kinds, total.wrong_case
    facts = [
        (f"{errors.samples:,}", "images", f"in {len(errors.sets)} set{'' if len(errors.sets) == 1 else 's'}"),
        (f"{percent(errors.right, errors.samples)} %", "right", f"{errors.right:,} images"),
        (f"{errors.wrong:,}", "misread", f"most often {_words(kinds.most_common(1)[0][0])}" if kinds else ""),
        (f"{wrong_case:,}", "right but for case", f"{percent(wrong_case, errors.right)} % of the right ones"),
        ("-" if error is None else f"{100 * error:.1f} %", "calibration error", "expected, over all sets"),
    ]
    tiles = "".join(f"<div><dt>{name}</dt><dd><b>{value}</b> {told}</dd></div>" for value, name, told in facts)
    return f'<header><h1>{_text(title)}</h1><dl class="facts">{tiles}</dl></header>'


def _section(name: str, heading: str, *content: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{heading}</h2>{"".join(content)}</section>'


def _scrollable(table: str, label: str) -> str:
    """A table that may be wider than a phone, and that the keyboard can move."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table}</div>'


def _sets(errors: Errors) -> str:
    if not errors.samples:
        return _section("sets", "Sets", "<p>There are no samples.</p>")
    kinds = [kind for kind in ErrorKind if any(one.kinds[kind] for one in errors.sets.values())]
    rows = [_set_row(_text(name), one, kinds) for name, one in errors.sets.items()]
    if len(errors.sets) > 1:
        rows.append(_set_row("all", _total(errors), kinds, "total"))
    heads = ["images", "right", "right&nbsp;%", "wrong case", "misread", *map(_words, kinds)]
    table = (
        '<table class="sets"><thead><tr>'
        '<th scope="col">set</th>' + "".join(f'<th scope="col">{head}</th>' for head in heads) + "</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    protocols = sorted({one.protocol for one in errors.sets.values()})
    notes = "".join(f"<dt>{_words(kind)}</dt><dd>{KINDS[kind]}</dd>" for kind in kinds)
    notes += "<dt>wrong case</dt><dd>right, but a capital for a small letter or the other way round</dd>"
    notes += "".join(
        f"<dt>protocol {protocol}</dt><dd>{PROTOCOLS[protocol]}: "
        + ", ".join(_text(name) for name, one in errors.sets.items() if one.protocol == protocol)
        + "</dd>"
        for protocol in protocols
    )
    notes = f'<dl class="notes">{notes}</dl>'
    text = "<p>Shaded: how much of the errors of its set is of this kind.</p>"
    return _section("sets", "Sets", text, _scrollable(table, "Sets"), notes)


def _total(errors: Errors) -> SetErrors:
    total = SetErrors("english")  # of no matter to the row
    for one in errors.sets.values():
        total.samples += one.samples
        total.right += one.right
        total.wrong_case += one.wrong_case
        total.kinds.update(one.kinds)
    return total


def _set_row(name: str, one: SetErrors, kinds: Sequence[ErrorKind], style: str = "one") -> str:
    cells = [f"<td>{one.samples:,}</td><td>{one.right:,}</td><td><b>{percent(one.right, one.samples)}</b></td>"]
    cells += [f"<td>{one.wrong_case:,}</td><td>{one.wrong:,}</td>"]
    for kind in kinds:
        count = one.kinds[kind]
        share = count / one.wrong if one.wrong else 0.0
        title = f"{_words(kind)}: {percent(count, one.wrong)} % of the errors"
        cells.append(f'<td class="heat" style="--s:{90 * share:.0f}%" title="{title}">{count or ""}</td>')
    return f'<tr class="{style}"><th scope="row" title="{name}">{name}</th>{"".join(cells)}</tr>'


def _calibration(errors: Errors) -> str:
    if not any(one.samples for one in errors.bins):
        return _section("calibration", "Scores", "<p>Nothing was read.</p>")
    rows = []
    samples, right = 0, 0
    total = sum(one.samples for one in errors.bins)
    for number, one in reversed(list(enumerate(errors.bins))):
        samples, right = samples + one.samples, right + one.right
        if one.samples:
            rows.append(
                f'<tr><th scope="row">{number / BINS:.2f}&ndash;{(number + 1) / BINS:.2f}</th><td>{one.samples:,}</td>'
                f"<td>{one.score / one.samples:.3f}</td><td>{percent(one.right, one.samples)}</td>"
                f"<td>{percent(samples, total)}</td><td>{percent(right, samples)}</td></tr>"
            )
    heads = ("score", "readings", "mean score", "right&nbsp;%", "kept&nbsp;%", "right of kept&nbsp;%")
    table = (
        '<table class="scores"><thead><tr>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    text = (
        "<p>A score that is calibrated says how often readings of this score are right: the points lie on the dashed "
        "line. Where they lie below it, the model is too sure. Kept: all readings of at least this score, if those of "
        "lower scores were left out or looked at by hand.</p>"
    )
    return _section(
        "calibration",
        "Scores and how far to trust them",
        text,
        f'<div class="two"><figure>{_curve(errors.bins)}</figure>{_scrollable(table, "Scores")}</div>',
    )


def _curve(bins: Sequence[Bin]) -> str:
    """Accuracy over score with 95 % intervals, and below it the numbers of readings, as SVG."""
    left, width, top, height, base, bars = 46, 380, 10, 240, 400, 76
    slot = width / len(bins)

    def x(score: float) -> float:
        return left + width * score

    def y(accuracy: float) -> float:
        return top + height * (1 - accuracy)

    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f}</text>')
        parts.append(f'<text x="{x(tick):.1f}" y="{base + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="ideal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    most = max(one.samples for one in bins)
    points = []
    for number, one in enumerate(bins):
        if not one.samples:
            continue
        told = f"{one.samples:,} readings of a score of {one.score / one.samples:.3f} on average, {one.right:,} right"
        place = left + slot * (number + 0.15)
        total, right = (bars * count / most for count in (one.samples, one.right))
        parts.append(
            f'<g><title>{told}</title><rect class="wrong" x="{place:.1f}" y="{base - total:.1f}" '
            f'width="{0.7 * slot:.1f}" height="{total - right:.1f}"/><rect class="right" x="{place:.1f}" '
            f'y="{base - right:.1f}" width="{0.7 * slot:.1f}" height="{right:.1f}"/></g>'
        )
        place += 0.35 * slot + 3.5
        parts.append(
            f'<text class="count" transform="translate({place:.1f} {base - total - 4:.1f}) rotate(-90)">'
            f"{one.samples:,}</text>"
        )
        low, high = wilson_interval(one.right, one.samples)
        centre, level = x(one.score / one.samples), y(one.right / one.samples)
        points.append(
            f'<g><title>{told}</title><line class="interval" x1="{centre:.1f}" x2="{centre:.1f}" y1="{y(low):.1f}" '
            f'y2="{y(high):.1f}"/><circle cx="{centre:.1f}" cy="{level:.1f}" r="4"/></g>'
        )
    middle = left + width / 2
    parts.append(f'<text x="{middle}" y="{base + 32}" text-anchor="middle">score</text>')
    parts.append(
        f'<text transform="translate(12 {top + height / 2}) rotate(-90)" text-anchor="middle">right, %</text>'
    )
    parts.append(f'<text transform="translate(12 {base - bars / 2}) rotate(-90)" text-anchor="middle">readings</text>')
    return (
        f'<svg viewBox="0 0 {left + width + 12} {base + 38}" role="img" aria-labelledby="curve">'
        '<title id="curve">Share of right readings, with 95 % intervals, over the score; and the number of readings of '
        f"each score. The table has the numbers.</title>{''.join([*parts, *points])}</svg>"
        '<figcaption><span class="key right"></span> right <span class="key wrong"></span> wrong '
        '<span class="key ideal"></span> calibrated; lines at the points: 95 % intervals</figcaption>'
    )


def _confusions(errors: Errors) -> str:
    if not errors.confusions:
        return _section("confusions", "Confused characters", "<p>There are none.</p>")
    ranked = list(errors.ranked_confusions())
    lists = [
        (
            "Taken for another",
            [(f"{_character(t)} <i>read as</i> {_character(r)}", n) for t, r, n in ranked if t and r],
        ),
        ("Missing", [(_character(t), n) for t, r, n in ranked if r is None]),
        ("Too many", [(_character(r), n) for t, r, n in ranked if t is None]),
    ]
    told = "".join(_list(heading, rows) for heading, rows in lists if rows) + _hardest(errors)
    compared = (
        "<p>Counted where a reading is right or close enough to say which characters were confused, so not where nothing "
        "or another text was read. Characters are as the protocol compares them, in lower case. Rows of the table: what "
        "the label says; columns: what was read; those that are confused most.</p>"
    )
    return _section(
        "confusions",
        "Confused characters",
        compared,
        f'<div class="confused">{_confusion_table(errors)}<div class="lists">{told}</div></div>',
    )


def _character(character: str | None) -> str:
    return f"<kbd>{_text(visible(character or ' '))}</kbd>"


def _list(heading: str, rows: Sequence[tuple[str, int]]) -> str:
    most = max(count for _, count in rows)
    items = "".join(
        f'<tr><th scope="row">{name}</th><td class="bar" style="--s:{100 * count / most:.0f}%">{count:,}</td></tr>'
        for name, count in rows[:LISTED]
    )
    rest = sum(count for _, count in rows[LISTED:])
    more = f"<tfoot><tr><td>{len(rows) - LISTED:,} more</td><td>{rest:,}</td></tr></tfoot>" if rest else ""
    return f'<table class="list"><caption>{heading}</caption><tbody>{items}</tbody>{more}</table>'


def _hardest(errors: Errors) -> str:
    """Characters by the share of their occurrences that were taken for others or missed."""
    wrong: Counter[str] = Counter()
    for (true, _), count in errors.confusions.items():
        if true is not None:
            wrong[true] += count
    shares = {c: wrong[c] / number for c, number in errors.characters.items() if number >= SELDOM and wrong[c]}
    hardest = islice(sorted(shares, key=lambda c: (-shares[c], c)), LISTED)
    rows = "".join(
        f'<tr><th scope="row">{_character(c)} <i>{wrong[c]:,} of {errors.characters[c]:,}</i></th>'
        f'<td class="bar" style="--s:{100 * shares[c]:.0f}%">{percent(wrong[c], errors.characters[c])}&nbsp;%</td></tr>'
        for c in hardest
    )
    if not rows:
        return ""
    caption = f"Hardest ({SELDOM} or more in labels)"
    return f'<table class="list"><caption>{caption}</caption><tbody>{rows}</tbody></table>'


def _confusion_table(errors: Errors) -> str:
    """The characters that are confused most, against each other."""
    involved: Counter[str] = Counter()
    for (true, read), count in errors.confusions.items():
        if true is not None and read is not None:
            involved.update({true: count, read: count})
    chosen = sorted(sorted(involved, key=lambda c: (-involved[c], c))[:CONFUSED])
    if not chosen:
        return ""
    places = [*chosen, None]
    most = max(errors.confusions[true, read] for true in places for read in places)
    rows = []
    for true in places:
        cells = []
        for read in places:
            count = errors.confusions[true, read]
            if true == read:
                cells.append('<td class="same"></td>')
            elif count:
                told = f"{_name(true)} read as {_name(read)}: {count:,}"
                shade = 90 * sqrt(count / most)
                cells.append(f'<td class="heat" style="--s:{shade:.0f}%" title="{told}">{count}</td>')
            else:
                cells.append("<td></td>")
        head = _character(true) if true else "too many"
        rows.append(f'<tr><th scope="row">{head}</th>{"".join(cells)}</tr>')
    heads = "".join(f'<th scope="col">{_character(read) if read else "missing"}</th>' for read in places)
    table = f'<table class="matrix"><thead><tr><td></td>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return _scrollable(table, "Confused characters")


def _name(character: str | None) -> str:
    return "nothing" if character is None else _text(visible(character))


def _gallery(errors: Errors) -> str:
    cards, sets = [], []
    for number, (name, one) in enumerate(errors.sets.items()):
        worst, typical = set(one.worst), set(one.typical)
        shown = one.shown
        if shown:
            sets.append((str(number), _text(name), len(shown)))
        cards += [_card(mistake, number, mistake in worst, mistake in typical) for mistake in shown]
    if not cards:
        return _section("gallery", "Misread images", "<p>There is none to show.</p>")
    kinds = Counter(mistake.kind for one in errors.sets.values() for mistake in one.shown)
    controls = [
        _select(
            "choice", "choice", [("", "all", None), ("worst", "most confident", None), ("typical", "random", None)]
        ),
        _select("set", "set", [("", "all", None), *sets]),
        _select("kind", "kind", [("", "all", None), *((k.value, _words(k), kinds[k]) for k in ErrorKind if kinds[k])]),
        _select(
            "order",
            "order",
            [
                ("", "by set", None),
                ("score", "most confident first", None),
                ("unsure", "least confident first", None),
                ("length", "longest text first", None),
                ("small", "smallest image first", None),
            ],
        ),
    ]
    text = (
        "<p>Of each set the most confident errors, which often are wrong labels, and errors drawn at random, which tell "
        "what is usual. Above what the label says, below what was read; "
        '<span class="example wrong">wrong</span> characters are marked, <span class="example ignored">ignored</span> '
        "ones are pale. The bar under a character is its confidence; point at it for the number.</p>"
    )
    return _section(
        "gallery",
        "Misread images",
        text,
        f'<form class="controls" hidden>{"".join(controls)}<output>{len(cards):,} shown</output></form>',
        f'<div class="cards">{"".join(cards)}</div><button type="button" class="more" hidden>Show more</button>',
    )


def _select(name: str, label: str, options: Iterable[tuple[str, str, int | None]]) -> str:
    told = "".join(
        f'<option value="{value}">{text}{"" if count is None else f" ({count:,})"}</option>'
        for value, text, count in options
    )
    return f'<label>{label} <select name="{name}" autocomplete="off">{told}</select></label>'


def _card(mistake: Mistake, number: int, is_worst: bool, is_typical: bool) -> str:
    reading = mistake.reading
    label, name, set_name = _text(reading.sample.text), _text(reading.sample.name), _text(mistake.set_name)
    image = load_rgb(reading.sample.image, reading.sample.name)
    width, height = image.size
    choices = [word for word, chosen in (("worst", is_worst), ("typical", is_typical)) if chosen]
    text = _text(reading.text)
    columns = "".join(map(_column, mistake.columns()))
    tags = "".join(
        f"<li>{tag}</li>"
        for tag in (_words(mistake.kind), set_name, f"{width}&times;{height}&nbsp;px", "random" if is_typical else "")
        if tag
    )
    style = "card wide" if width > WIDE * height else "card"
    return (
        f'<article class="{style}" data-set="{number}" data-kind="{mistake.kind}" data-choice="{" ".join(choices)}" '
        f'data-score="{reading.score:.6f}" data-length="{len(reading.sample.text)}" data-pixels="{width * height}">'
        f'<div class="image"><img alt="Image of the text {label}" src="{_data_url(image)}"></div>'
        f'<p class="spoken">Label: {label}. Read: {text or "nothing"}.</p>'
        f'<div class="columns" aria-hidden="true"><span class="column names"><b>label</b><b>read</b></span>'
        f"<div>{columns}</div></div>"
        f'<div class="facts"><strong title="score of the reading">{reading.score:.3f}</strong><ul>{tags}</ul></div>'
        f'<p class="name">{name.replace("/", "/<wbr>")}</p></article>'
    )


def _column(column: Column) -> str:
    true, read = (_text(visible(c)) if c is not None else "" for c in (column.true, column.read))
    style = "column" + (" wrong" if column.wrong else "" if column.compared else " ignored")
    bar = title = ""
    if column.score is not None:
        title = f' title="{read}: {column.score:.3f}"'
        unsure = ' class="unsure"' if column.score < 0.5 else ""
        bar = f'<i{unsure} style="--p:{100 * column.score:.0f}%"></i>'
    return f'<span class="{style}"{title}><b>{true}</b><b>{read}</b>{bar}</span>'


def _data_url(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail(LARGEST_IMAGE, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _unreadable(errors: Errors) -> str:
    rows = []
    for set_name, one in errors.sets.items():
        rows += [
            f'<tr><td>{_text(set_name)}</td><th scope="row">{_text(name)}</th><td>{_text(error)}</td></tr>'
            for name, error in one.unreadable
        ]
        if (rest := one.kinds[ErrorKind.UNREADABLE] - len(one.unreadable)) > 0:
            rows.append(f"<tr><td>{_text(set_name)}</td><td>and {rest:,} more</td><td></td></tr>")
    if not rows:
        return ""
    table = (
        '<table class="words"><thead><tr><th scope="col">set</th><th scope="col">image</th>'
        f'<th scope="col">error</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    text = "<p>They count as misread; correct or replace the files.</p>"
    return _section("unreadable", "Images that cannot be opened", text, _scrollable(table, "Unreadable images"))


STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --panel: #ffffff; --ink: #1b2430; --soft: #586474; --line: #d9dee5;
  --heat: #f08a4b; --right: #2f6fb5; --wrong: #c2410c; --wrong-ground: #fde3d5; --wrong-ink: #9a2f06;
  --stage: #e9ecf0; /* in the next fonts I and l, O and 0 do not look the same */
  --distinct: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --panel: #1b2128; --ink: #e6eaef; --soft: #a3aebb;
  --line: #343d48; --heat: #b4501c; --right: #6aa7e8; --wrong: #f0824a; --wrong-ground: #54260f; --wrong-ink: #ffc7a8;
  --stage: #262d36; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 16px; overflow-wrap: anywhere; text-wrap: balance; }
h2 { font-size: 19px; margin: 0 0 8px; }
p { margin: 0 0 12px; max-width: 78ch; color: var(--soft); }
section { margin: 36px 0; }
header .facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 0; }
header .facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
header .facts dt { color: var(--soft); font-size: 13px; }
header .facts dd { margin: 0; font-size: 13px; color: var(--soft); }
header .facts dd b { display: block; font-size: 22px; line-height: 1.3; color: var(--ink); font-weight: 650; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
caption { text-align: left; color: var(--soft); font-size: 13px; padding: 0 0 6px; }
th { font-weight: 500; text-align: left; }
td { text-align: right; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-size: 13px; text-align: right; vertical-align: bottom; }
thead th:first-child, .words th, .words td { text-align: left; }
.words th, .words td { overflow-wrap: anywhere; vertical-align: top; min-width: 9em; }
.total th, .total td { border-top: 2px solid var(--line); font-weight: 600; }
.sets tbody th { position: sticky; left: 0; background: var(--page); max-width: min(16em, 36vw); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.scores th { white-space: nowrap; }
.scores thead th { white-space: normal; }
.heat { background: color-mix(in srgb, var(--heat) var(--s), transparent); }
.notes { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 14px 0 0; font-size: 13px; }
.notes dt { font-weight: 500; }
.notes dd { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.two { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 28px; align-items: start; }
figure { margin: 0; }
svg { width: 100%; height: auto; max-width: 560px; display: block; font-size: 12px; }
svg text { fill: var(--soft); }
svg .count { font-size: 10.5px; }
svg .grid { stroke: var(--line); }
svg .ideal { stroke: var(--soft); stroke-dasharray: 5 4; stroke-width: 1.5; }
svg .interval { stroke: var(--right); stroke-width: 1.5; }
svg circle { fill: var(--right); }
svg rect.right, .key.right { fill: var(--right); background: var(--right); }
svg rect.wrong, .key.wrong { fill: var(--heat); background: var(--heat); }
figcaption { font-size: 13px; color: var(--soft); }
.key { display: inline-block; width: 11px; height: 11px; margin: 0 2px 0 8px; }
.key.ideal { width: 20px; height: 0; border-top: 2px dashed var(--soft); vertical-align: middle; }
kbd { font-family: var(--distinct); font-size: 15px; font-weight: 600; background: var(--panel);
  border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; unicode-bidi: isolate; }
.matrix th, .matrix td { padding: 2px; text-align: center; min-width: 30px; height: 30px; }
.matrix td { border: 1px solid var(--line); }
.matrix th { border: 0; font-size: 12px; color: var(--soft); }
.matrix tbody th { position: sticky; left: 0; background: var(--page); white-space: nowrap; padding-right: 6px; }
.matrix thead td { border: 0; }
.matrix .same { background: var(--line); }
.confused { display: flex; flex-wrap: wrap; gap: 28px 40px; align-items: flex-start; }
.lists { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 20px 36px; flex: 1 1 480px;
  align-items: start; }
.list { width: 100%; table-layout: fixed; }
.list caption { font-size: 14px; font-weight: 600; color: var(--ink); }
.list th { white-space: nowrap; width: 60%; padding-left: 0; }
.list i { color: var(--soft); font-size: 13px; font-style: normal; }
.list .bar { background: linear-gradient(to right, color-mix(in srgb, var(--heat) 55%, transparent) var(--s), transparent 0); }
.list tfoot td { color: var(--soft); border: 0; }
.list tfoot td:first-child { text-align: left; padding-left: 0; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; position: sticky; top: 0; z-index: 2;
  background: var(--page); padding: 10px 0; border-bottom: 1px solid var(--line); margin-bottom: 14px; font-size: 14px; }
.controls[hidden] { display: none; }
.controls label { color: var(--soft); }
.controls select { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 6px; max-width: 100%; }
.controls output { margin-left: auto; font-variant-numeric: tabular-nums; }
.example { padding: 0 3px; border-radius: 3px; }
.example.wrong { background: var(--wrong-ground); color: var(--wrong-ink); font-weight: 600; }
.example.ignored { opacity: .75; font-style: italic; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)); gap: 14px; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; display: flex;
  flex-direction: column; min-width: 0; }
.card .image { background: var(--stage); height: 112px; padding: 8px; display: flex; align-items: center;
  justify-content: center; }
.card img { height: 100%; width: 100%; object-fit: contain; }
.columns { display: flex; padding: 10px 12px 6px; font-size: 17px; line-height: 1.3; }
.columns div { display: flex; flex-wrap: wrap; row-gap: 8px; font-family: var(--distinct); }
.column { display: flex; flex-direction: column; min-width: 14px; padding: 0 1px; text-align: center; border-radius: 3px; }
.column b { font-weight: 500; min-height: 1.3em; unicode-bidi: isolate; white-space: pre; }
.column i { height: 4px; margin: 1px 0 2px; border-radius: 2px;
  background: linear-gradient(to right, var(--right) var(--p), var(--line) 0); }
.column i.unsure { background: linear-gradient(to right, var(--wrong) var(--p), var(--line) 0); }
.column.wrong { background: var(--wrong-ground); color: var(--wrong-ink); }
.column.wrong b { font-weight: 700; }
.column.wrong b:empty::after { content: ""; display: inline-block; width: 9px; height: .8em;
  border: 1.5px dashed currentColor; border-radius: 2px; }
.column.ignored b { opacity: .65; }
.column.names { flex: none; font-size: 12px; color: var(--soft); text-align: left; padding-right: 8px; }
.column.names b { font-weight: 400; min-height: 0; line-height: calc(17px * 1.3); }
.card .facts { display: flex; gap: 10px; align-items: baseline; padding: 4px 12px 0; margin-top: auto; font-size: 13px; }
.card strong { font-size: 15px; font-variant-numeric: tabular-nums; }
.card ul { list-style: none; margin: 0; padding: 0; color: var(--soft); min-width: 0; overflow-wrap: anywhere; }
.card li { display: inline; }
.card li:not(:last-child)::after { content: "\\a0· "; }
.name { font: 12px/1.4 var(--distinct); padding: 2px 12px 10px; margin: 0;
  overflow-wrap: anywhere; }
.more { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: 8px 20px; margin: 18px auto 0; display: block; cursor: pointer; }
.more[hidden] { display: none; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
:focus-visible { outline: 2px solid var(--right); outline-offset: 2px; }
@media (min-width: 660px) { .card.wide { grid-column: span 2; } .cards { grid-auto-flow: dense; } }
@media (min-width: 900px) { .notes { grid-template-columns: max-content 1fr max-content 1fr; } }
@media (max-width: 760px) { th, td { padding: 4px 6px; } .two { grid-template-columns: minmax(0, 1fr); }
  header, main { padding-left: 14px; padding-right: 14px; }
  .controls { position: static; } .controls label { flex: 1 1 40%; } .controls select { width: 100%; }
  header .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); } header .facts div:last-child { grid-column: 1 / -1; }
  .lists { grid-template-columns: minmax(0, 1fr); } }
"""

SCRIPT = """
const form = document.querySelector(".controls");
if (form) {
  const grid = document.querySelector(".cards"), more = document.querySelector(".more"), cards = [...grid.children];
  const orders = {
    score: (a, b) => b.score - a.score, unsure: (a, b) => a.score - b.score,
    length: (a, b) => b.length - a.length, small: (a, b) => a.pixels - b.pixels
  };
  const page = 60;
  let limit = page;
  const show = () => {
    const { set, kind, choice, order } = Object.fromEntries(new FormData(form));
    const chosen = cards.filter(({ dataset: data }) => (!set || data.set === set) && (!kind || data.kind === kind)
      && (!choice || data.choice.split(" ").includes(choice)));
    if (order) chosen.sort((a, b) => orders[order](a.dataset, b.dataset));
    const shown = chosen.slice(0, limit);
    grid.replaceChildren(...shown);
    more.hidden = shown.length === chosen.length;
    form.querySelector("output").textContent = shown.length + " of " + chosen.length + " shown";
  };
  form.addEventListener("change", () => { limit = page; show(); });
  more.addEventListener("click", () => { limit += page; show(); });
  form.hidden = false;
  show();
}
"""
