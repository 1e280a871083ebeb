"""Small pictures by hand: a page with a title, and text on it.

Knows SVG. Knows nothing of what is drawn, and needs no plotting library.
"""

from html import escape


def page(width: float, height: float, title: str, drawn: str) -> str:
    """A whole SVG document, white, with its title at the top left."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" fill="#333"><rect width="{width}" height="{height}" fill="#fff"/>'
        f"{text(16, 24, title, size=15)}{drawn}</svg>\n"
    )


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    """Words whose start, middle or end stands at a point."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
