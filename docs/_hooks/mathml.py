"""Equations of the pages become MathML while the site is built: a browser shows it without a script.

pymdownx.arithmatex finds $...$ and $$...$$ and keeps their LaTeX; latex2mathml translates it.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL)


def on_page_content(content, page, config, files):
    """Replace each equation of a page."""

    def translated(found):
        tag, latex = found[1], html.unescape(found[2]).strip()
        try:
            equation = convert(latex, display="block" if tag == "div" else "inline")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: not understood: {latex} ({error!r})") from error
        if "\\" in equation:                                        # a command that it does not know stands there as text
            raise PluginError(f"{page.file.src_uri}: not understood: {latex}")
        return f'<{tag} class="equation">{equation}</{tag}>'

    return EQUATION.sub(translated, content)
