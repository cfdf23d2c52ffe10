"""Pages that the program writes about itself: what --help prints of each command, what Python can import, the strategies."""

import contextlib
import functools
import io
import os
import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import lightning_bc
from lightning_bc.cli import COMMANDS, main
from lightning_bc.strategies import strategies

WIDTH = "100"
ROLE = re.compile(r":(?:class|meth|func|mod):<code>")


def on_files(files, config):
    """Add the pages."""
    pages = {"commands": commands(), "python": python(), "strategies": every_strategy()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_content(content, page, config, files):
    """Sphinx's roles, by which docstrings name other objects, are not shown."""
    return ROLE.sub("<code>", content)


@functools.cache
def commands():
    """What each command prints about itself."""
    parts = ["---\nhide: [toc]\n---", "# Command line", " · ".join(f"[{name}](#{name})" for name in COMMANDS)]
    parts.append(_fence(_printed("--help")))
    for name in COMMANDS:
        parts += [f"## {name}", _fence(_printed(name, "--help"))]
    return "\n\n".join(parts)


def python():
    """What ``lightning_bc`` itself offers to scripts."""
    names = [name for name in lightning_bc.__all__ if not name.startswith("__")]
    words = "Everything that scripts need, in `lightning_bc` itself; how to use it: [From Python](../python.md)."
    return "\n\n".join(["# Python", words, *(f"::: lightning_bc.{name}" for name in names)])


def every_strategy():
    """The module of each strategy of this package: idea, equations, paper, settings."""
    ours = [cls for cls in strategies().values() if cls.__module__.startswith("lightning_bc.")]
    parts = [
        "# Strategies",
        "Each argument but the first three is a flag, `--model.ARGUMENT VALUE`, and a key of the configuration. "
        "The first three come from the data and the environment.",
    ]
    options = "    options: {show_root_heading: false, show_root_toc_entry: false, members: false}"
    for cls in ours:
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
