"""The site's pages that stand beside `docs/` in the repository (README, CONTRIBUTING, …), and links between them, for MkDocs."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "THIRD_PARTY.md": "third_party.md",
    "examples/README.md": "examples.md",
    "requirements/README.md": "requirements.md",
}
"""Where it stands in the repository, and its page."""
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    source = {name: path for path, name in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return _LINK.sub(lambda link: _followed(link, source, page.file.src_uri), markdown)


def _followed(link: re.Match[str], source: str, page: str) -> str:
    """The link as the site has it; what only the repository has is named without a link."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
    if target in PAGES:
        there = PAGES[target]
    elif target.startswith("docs/"):
        there = target.removeprefix("docs/")
    else:
        return link[1]
    return f"[{link[1]}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{link[3] or ''})"
