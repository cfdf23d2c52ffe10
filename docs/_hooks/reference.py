"""What the program says about itself, put into the pages of the reference: --help of each command, and docstrings."""

import contextlib
import functools
import io
import os
import re

from mkdocs.exceptions import PluginError

import lightning_bc
from lightning_bc.cli import COMMANDS, main
from lightning_bc.strategies import strategies

WIDTH = "100"
MARKED = re.compile(r"<!-- generated: (\w+) -->.*?<!-- end -->", flags=re.DOTALL)
ROLE = re.compile(r":(?:class|meth|func|mod):<code>")


def on_page_markdown(markdown, page, config, files):
    """Replace what stands between the markers, which is for readers on a forge."""
    texts = {"commands": commands, "python": python, "strategies": every_strategy}
    return MARKED.sub(lambda found: texts[found[1]](), markdown)


def on_page_content(content, page, config, files):
    """Sphinx's roles, by which docstrings name other objects, are not shown."""
    return ROLE.sub("<code>", content)


@functools.cache
def commands():
    """What each command prints about itself."""
    parts = [" · ".join(f"[{name}](#{name})" for name in COMMANDS), _fence(_printed("--help"))]
    for name in COMMANDS:
        parts += [f"## {name}", _fence(_printed(name, "--help"))]
    return "\n\n".join(parts)


def python():
    """What ``lightning_bc`` itself offers to scripts."""
    return "\n\n".join(f"::: lightning_bc.{name}" for name in lightning_bc.__all__ if not name.startswith("__"))


def every_strategy():
    """Of each strategy of this package the module's docstring, with idea, equations and paper, and the arguments."""
    parts = []
    options = "    options: {show_root_heading: false, show_root_toc_entry: false, members: false}"
    for cls in strategies().values():
        if cls.__module__.startswith("lightning_bc."):
            parts += [f"## {cls.__name__}", f"::: {cls.__module__}\n{options}"]
            parts += [f"::: {cls.__module__}.{cls.__name__}\n{options}"]
    return "\n\n".join(parts)


def _printed(*arguments):
    printed, errors = io.StringIO(), io.StringIO()
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            main(arguments)
    except SystemExit as end:
        if end.code:
            raise PluginError(f"{' '.join(arguments)}: {errors.getvalue()}") from end
    return printed.getvalue()


def _fence(text):
    return f"```text\n{text.rstrip()}\n```"
