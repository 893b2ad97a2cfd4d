"""Pictures of what a program becomes: JSON, DOT, SVG, and a page in HTML.

    stages --document--> plain data (docs/inspect.md has its schema)
    plain data --drawing--> boxes with texts, edges, groups --layout--> places
    places --svg, dot, html--> text

Nothing of this loads before the first picture is asked for.
"""

from .render import render

__all__ = ["render"]
