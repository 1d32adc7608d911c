"""The page in HTML: one file that needs no other, with some rows drawn.

Everything from outside is text: escaped, its control characters made visible. A policy in the page
itself keeps a browser from fetching or running anything.
"""

from collections.abc import Sequence
from html import escape

from adapt.data.check.drawn import Shown
from adapt.data.check.sections import Figures, sections, verdict
from adapt.params import plain

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
th { text-align: left; font-weight: 500; padding: .1rem 1rem .1rem 0; vertical-align: top;
     min-width: 8rem; white-space: nowrap; } td { overflow-wrap: anywhere; }
article { border-top: 1px solid #8886; padding: .8rem 0; }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0; }
.sides { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 1.2rem; }
h3 { font-size: .85rem; opacity: .75; margin: 0; }
p { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0 .8rem; }
"""


def html(figures: Figures, rows: Sequence[Shown]) -> str:
    """The whole file."""
    title = f"{visible(figures['source'])}: {verdict(figures)}"
    parts = [f"<h1>{title}</h1>"]
    for name, facts in sections(figures):
        lines = (
            f"<tr><th>{visible(one.label)}</th><td>{visible(one.text)}</td></tr>" for one in facts
        )
        parts += [f"<h2>{escape(name)}</h2>", "<table>", *lines, "</table>"]
    if rows:
        parts += ["<h2>Some rows</h2>", *map(_row, rows)]
    head = (
        '<meta charset="utf-8"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def visible(text: str) -> str:
    """A text from outside as HTML: ends of lines are kept, what cannot be printed is written out.

    >>> visible("<b>\\x1b[31m & \\u202e")
    '&lt;b&gt;\\\\x1b[31m &amp; \\\\u202e'
    """
    return "\n".join(escape(plain(line)) for line in text.split("\n"))


def _row(row: Shown) -> str:
    parts = [f"<h3>{visible(row.place)}</h3>", _pictures("picture", row.pictures)]
    if row.rejected_pictures:
        parts.append("<h3>pictures of the rejected answer</h3>")
        parts.append(_pictures("picture of the rejected answer", row.rejected_pictures))
    parts += [_text(name, text) for name, text in row.texts]
    sides = "".join(f"<div>{_text(name, text)}</div>" for name, text in row.sides)
    return f'<article>{"".join(parts)}<div class="sides">{sides}</div></article>'


def _text(name: str, text: str) -> str:
    return f"<h3>{escape(name)}</h3><p>{visible(text)}</p>"


def _pictures(name: str, addresses: Sequence[str]) -> str:
    figures = (f'<img src="{one}" alt="{escape(name)}"/>' for one in addresses)
    return f'<div class="pictures">{"".join(figures)}</div>'
