"""``<table>.svg``: a table's differences as one picture, for a README or a slide."""

from __future__ import annotations

from markupsafe import Markup

from parrot_lite.evaluate import charts
from parrot_lite.evaluate.charts import Point
from parrot_lite.evaluate.estimates import probability, written
from parrot_lite.evaluate.page import Difference, Forest
from parrot_lite.tables.page import forest
from parrot_lite.tables.results import Outcome

WIDTH, NAMES, NUMBERS = 980, 300, 300  # pixels: of the picture, of the names on its left and the figures on its right
PLOT = WIDTH - NAMES - NUMBERS
LINE, TITLE = 26, 40
# Colours are for a white ground: a picture does not know the page that it stands on.
STYLE = """
text { font: 13px system-ui, "Segoe UI", "Noto Sans", Arial, sans-serif; fill: #1d2226 }
.head { font-size: 15px; font-weight: 700 } .soft { fill: #5b646c; font-size: 12px }
svg { overflow: visible } .grid { stroke: #e7e9eb } .zero { stroke: #1d2226; stroke-width: 1.5 } .band { fill: #e9e9f4 }
g > line { stroke: currentColor; stroke-width: 2 } path { fill: currentColor }
.s0 { color: #0068a8 } .s1 { color: #c14a00 } .s2 { color: #007a5c }
.s3 { color: #9a3f86 } .s4 { color: #7a6400 } .s5 { color: #4c4c4c }
"""


def draw(title: str, outcome: Outcome) -> str:
    """Every comparison in the primary measures, with 95% intervals and the smallest differences to rely on."""
    wanted = (outcome.measures.primary, *outcome.measures.co_primary)
    made = [one for measure in wanted if (one := forest(outcome, measure)) is not None]
    y, parts = 28, [_text(16, 28, title, "head")]
    for one in made:
        part, y = _forest(one, y + TITLE)
        parts.append(part)
    note = "Right of zero: the first row has more. Whiskers: 95% interval. Shaded: too small to be shown reliably."
    parts.append(_text(16, y + 34, note if made else "No comparison has a result.", "soft"))
    shape = Markup('<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">')
    ground = Markup('<style>{}</style><rect width="100%" height="100%" fill="#fff"/>').format(Markup(STYLE))
    return str(shape.format(w=WIDTH, h=y + 50) + ground + Markup("").join(parts) + Markup("</svg>\n"))


def _forest(one: Forest, top: int) -> tuple[Markup, int]:
    """One measure's differences, from ``top`` on, and where they end."""
    parts = [_text(16, top, f"{one.title}, difference in {one.unit}", "head")]
    y = top + 12
    for row in one.rows:
        parts += [_text(16, y + 17, row.name), _strip(one, row, y), *_figures(one, row, y + 17)]
        y += LINE
    labels = Markup('<svg x="{}" y="{}" width="{}">{}</svg>')
    parts.append(labels.format(NAMES, y, PLOT, charts.scale(one.axis)))
    return Markup("").join(parts), y + 20


def _strip(one: Forest, row: Difference, y: int) -> Markup:
    difference = row.contrast.difference
    drawn = charts.strip(
        [Point(row.series, row.name, difference)], one.axis, f"+{one.form}", one.title, difference.detectable
    )
    return Markup('<svg x="{}" y="{}" width="{}" height="{}">{}</svg>').format(NAMES, y, PLOT, LINE, drawn)


def _figures(one: Forest, row: Difference, y: int) -> list[Markup]:
    adjusted, left = row.contrast.adjusted, WIDTH - NUMBERS + 24
    p = f"p {probability(row.contrast.p)}" if adjusted is None else f"Holm p {probability(adjusted)}"
    return [_text(left, y, written(row.contrast.difference, f"+{one.form}")), _text(left + 175, y, p, "soft")]


def _text(x: int, y: int, text: str, kind: str = "") -> Markup:
    return Markup('<text x="{}" y="{}"{}>{}</text>').format(
        x, y, Markup(' class="{}"').format(kind) if kind else Markup(""), text
    )
