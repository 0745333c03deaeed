"""How Sphinx makes the documentation: `make docs`. Pages of the notebooks and of the API are written at each build."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cnnlab

HERE = Path(__file__).parent
ROOT = HERE.parent
ROOMS = {
    "The data": ("tables", "audit", "samples", "images"),
    "Into the network": ("augment", "pipelines", "models"),
    "Training": ("training", "experiments"),
    "What the numbers mean": ("metrics", "fairness", "plots", "explain"),
    "Use, and the notebook": ("serving", "widgets", "doctor", "exercises"),
}

ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}

project, author, version, release = "cnnlab", "the cnnlab contributors", cnnlab.__version__, cnnlab.__version__
project_copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build", "course/files"]
default_role = "code"
suppress_warnings = ["config.cache"]

nb_execution_mode = "off"  # pages show the outputs that are stored in the notebooks
nb_ipywidgets_js = {}  # nothing is fetched: a picture stands in the place of each widget
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source", "Returns"]  # in whole sentences, not "type: words"

html_theme = "pydata_sphinx_theme"
html_title = f"cnnlab {release}"
html_static_path = ["_static"]
html_css_files = ["cnnlab.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "cnnlab"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def write_course() -> None:
    """Each notebook as a page: its own file to download, and alternative text on every figure."""
    folder = HERE / "course"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        (folder / "files").mkdir(exist_ok=True)
        shutil.copy(path, folder / "files" / path.name)
        button = f"\n\n{{download}}`Download this notebook <files/{path.name}>`\n"
        heading = ""
        for number, cell in enumerate(notebook["cells"]):
            source = "".join(cell["source"])
            if number == 0:
                cell["source"] = source + button
            if cell["cell_type"] == "markdown" and (found := re.findall(r"^#+ (.+)$", source, re.MULTILINE)):
                heading = found[-1]
            for output in cell.get("outputs", []):
                kind = next((kind for kind in output.get("data", {}) if kind.startswith("image/")), None)
                if kind:
                    words = output.get("metadata", {}).get(kind, {}).get("alt") or f"Figure of the section: {heading}"
                    cell["metadata"]["mystnb"] = {"image": {"alt": words.replace('"', "'")}}
        (folder / path.name).write_text(json.dumps(notebook), encoding="utf-8")


def write_api() -> None:
    """A page for each room: its own first words, then every public name."""
    folder = HERE / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    index = ["# API reference\n\nOne page for each module; `from cnnlab import tables, metrics` brings it.\n"]
    for title, rooms in ROOMS.items():
        index.append(f"```{{toctree}}\n:caption: {title}\n:maxdepth: 1\n\n" + "\n".join(rooms) + "\n```\n")
        for room in rooms:
            heading = f"cnnlab.{room}"
            lines = [heading, "=" * len(heading), "", f".. automodule:: cnnlab.{room}", ""]
            for name in getattr(cnnlab, room).__all__:
                value = getattr(getattr(cnnlab, room), name)
                if isinstance(value, type) or hasattr(value, "__name__"):
                    kind, options = ("class", ["   :members:"]) if isinstance(value, type) else ("function", [])
                    lines += [f".. auto{kind}:: cnnlab.{room}.{name}", *options, ""]
                else:  # a ready-made value, whose own words are those of its class
                    lines += [f".. py:data:: {name}", f"   :type: {type(value).__name__}", ""]
            (folder / f"{room}.rst").write_text("\n".join(lines), encoding="utf-8")
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def write_pages() -> None:
    """Pages that lie elsewhere in the repository."""
    for source, target in ELSEWHERE.items():
        (HERE / target).write_text(relinked((ROOT / source).read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(ROOT / ".github" / "report.jpg", HERE / "_static" / "report.jpg")


def relinked(text: str) -> str:
    """The text of a page with links to the pages as they lie here."""
    for source, target in ELSEWHERE.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(source)}(#[\w-]+)?\)", rf"]({target}\1)", text)
    return re.sub(r"\]\(docs/", "](", re.sub(r"\]\(\.\./notebooks/", "](course/", text))


def setup(app: Any) -> None:
    """Has Sphinx read every page with its links as they lie here."""

    def read(app: Any, name: str, source: list[str]) -> None:
        source[0] = relinked(source[0]) if not name.startswith("course/") else source[0]

    app.connect("source-read", read)


write_course()
write_api()
write_pages()
