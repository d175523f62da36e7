"""What `mkdocs build` adds to docs/: pages that a command writes, and links out of docs/.

``<!-- live: gradprobe ARGUMENTS -->`` stands for the page of that command, which GitHub does not
show. The rules' pages are found in their folder.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
LIVE = re.compile(r"^<!-- live: gradprobe (.*) -->$", re.MULTILINE)
LINK = re.compile(r"\]\(([\w./-]+)\)")
TITLE = re.compile(r"^(```\w+ title=)(\S+)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """The line `rules/*` of the navigation becomes a line for each rule."""
    rules = [f"rules/{path.name}" for path in sorted((ROOT / "docs/rules").glob("GP*.md"))]
    [section] = [entry["Rules"] for entry in config.nav if "Rules" in entry]
    section[section.index("rules/*") :] = rules
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A page of docs/ as the site shows it."""

    def live(found: re.Match[str]) -> str:
        """The page that the command writes, in a frame and beside it."""
        name = f"{page.file.src_uri.removesuffix('.md')}.{len(pages)}.html"
        pages.append(name)
        files.append(File.generated(config, name, content=written(shlex.split(found[1]))))
        link = name.rpartition("/")[2]
        title = f"gradprobe {found[1]}"
        return (
            f'<iframe class="live" src="{link}" title="{title}" loading="lazy"></iframe>\n\n'
            f"[`{title} --html`, on a page of its own]({link})"
        )

    pages: list[str] = []
    return LIVE.sub(live, outward(markdown, page.file.src_uri, config.extra["repository"]))


def outward(markdown: str, source: str, repository: str) -> str:
    """Links to files outside of docs/, and to folders, lead to the repository."""

    def there(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), link[1]))
        kind = "tree" if link[1].endswith("/") else "blob"
        stays = path.startswith("docs/") and kind == "blob"
        return link[0] if stays else f"]({repository}/{kind}/main/{path})"

    return TITLE.sub(r'\1"\2"', LINK.sub(there, markdown))


def written(arguments: list[str]) -> str:
    """The page of a command of gradprobe."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        command = [sys.executable, "-m", "gradprobe", *arguments, "--html", str(page), "-q"]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True
        )
        if done.returncode > 1:
            raise RuntimeError(done.stderr.decode())
        return page.read_text("utf-8")
