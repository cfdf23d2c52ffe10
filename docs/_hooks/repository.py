"""What the pages link to beside docs/: documents of the repository become pages, and its other files pages of source text.

So a link is written once, as a forge shows it, and leads to the same file on the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "lightning_logs/README.md": "run-folder.md",
}
START = {"README.md": "index.md"}                                   # the site has a first page of its own
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".cfg": "ini"}
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")


def on_files(files, config):
    """Add the documents, and the source of every file that a page links to."""
    for document, uri in DOCUMENTS.items():
        files.append(File.generated(config, uri, content=(ROOT / document).read_text()))
    pages = [(_path(file.src_uri), file.content_string) for file in files.documentation_pages()]
    linked = {_resolved(path, target) for path, text in pages for target in LINK.findall(text)}
    for path in sorted(linked):
        uri = _uri(path)
        if uri.startswith("source/") and (ROOT / path).is_file():
            language = LANGUAGES.get(Path(path).suffix, "text")
            text = f"# {path}\n\n````{language}\n{(ROOT / path).read_text()}\n````\n"
            files.append(File.generated(config, uri, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links between files of the repository become links between pages."""
    here = page.file.src_uri

    def on_the_site(found):
        path = _resolved(_path(here), found[0])
        uri = _uri(path)
        if files.get_file_from_path(uri) is None:
            return found[0]                                         # --strict says that it leads nowhere
        return posixpath.relpath(uri, posixpath.dirname(here) or ".")

    return markdown if here.startswith("source/") else LINK.sub(on_the_site, markdown)


def _path(uri):
    """Where in the repository a page of the site lies."""
    return next((path for path, page in DOCUMENTS.items() if page == uri), f"docs/{uri}")


def _uri(path):
    """Where on the site a file of the repository lies."""
    known = DOCUMENTS | START
    return known.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md")


def _resolved(path, target):
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
