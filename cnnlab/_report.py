"""A notebook as a command: run without a browser, turned into one HTML file that needs no network."""

import base64
import html
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cnnlab import tables
from cnnlab._common import atomic_path, locked, put_aside
from cnnlab._stderr import native_stderr_held

# What one run leaves in its folder; an earlier run's is moved aside, never written over.
LEFT_BEHIND = (
    "report.html", "report.ipynb", "export", "run.json", "history.csv", "best.keras", "checkpoint", "tensorboard",
)  # fmt: skip


class NotebookError(RuntimeError):
    """A notebook did not run to its end; the message is for the person who started it."""


def run(
    notebook: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str],
    parameters: Sequence[str] = (),
) -> Path:
    """Runs a notebook with papermill and turns it into `folder/report.html` with nbconvert.

    The images are read before anything is started or moved, so that a wrong folder is reported at once. Only one
    report at a time is made in a folder.

    Args:
        notebook: One that has a cell tagged `parameters`.
        data: A folder with one subfolder of images per class; the notebook's own default where None.
        folder: Where the notebook puts what it makes; passed on to it as `folder`.
        parameters: Other values, each as "name=value"; numbers and the like are understood, the rest is text.

    Returns:
        Path of the report.
    """
    notebook, folder = Path(notebook).resolve(), Path(folder).expanduser().resolve()
    if not notebook.is_file():
        raise FileNotFoundError(
            f"Expected a notebook, such as notebooks/00_quickstart.ipynb. There is none at {notebook}."
        )
    values: dict[str, Any] = {"folder": str(folder)} | dict(_parameter(text) for text in parameters)
    _require_own(folder, None if data is None else Path(data).expanduser().resolve())
    if data is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notebook says it again, in its place
            tables.from_folder(data)
        values["data"] = str(Path(data).expanduser().resolve())
    values = _known(notebook, values)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "report.html", timeout=0):  # the run itself may lock the folder, in the kernel
        put_aside(folder, LEFT_BEHIND)
        _execute(notebook, folder / "report.ipynb", values)
        return _to_html(folder / "report.ipynb", folder / "report.html")


def _require_own(folder: Path, data: Path | None) -> None:
    """Refuses a folder in which making room for the report would move what is not a report's."""
    for path in filter(None, (folder, data)):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"The name of the folder {str(path)!a} is not valid UTF-8, so no notebook can hold it. Rename the "
                "folder, or reach it by a link with another name."
            ) from None
    made = [folder / name for name in LEFT_BEHIND]
    if data and (folder.is_relative_to(data) or any(data.is_relative_to(path) for path in made)):
        raise ValueError(
            f"The report must lie outside the images, whose folders it would mistake for its own. Received the images "
            f"{data} and the folder {folder}. Use for example --folder runs/report, with make: FOLDER=runs/report."
        )
    there = [path.name for path in made if path.exists()]
    if there and not {"report.ipynb", "run.json"} & set(there):
        raise ValueError(
            f"{folder} holds {', '.join(there)}, which no report left there: a new report would move it aside. Choose "
            "another folder, for example --folder runs/report, with make: FOLDER=runs/report."
        )


def refresh(notebook: str | os.PathLike[str]) -> Path:
    """Runs a notebook with its own parameters and writes it back with its outputs, small and free of timings.

    Raises:
        NotebookError: If a cell failed; the notebook is then left as it was.
    """
    import nbformat

    notebook = Path(notebook).resolve()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / notebook.name
        _execute(notebook, result, {})
        content = described(lighter(nbformat.read(result, as_version=4)))
    content.metadata.pop("papermill", None)
    for cell in content.cells:
        for noise in ("papermill", "execution", "exception"):
            cell.metadata.pop(noise, None)
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
    with atomic_path(notebook) as temporary:
        nbformat.write(content, temporary)
    return notebook


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"Expected a parameter as name=value, such as epochs=20. Received: {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _known(notebook: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The values that the notebook has parameters for; `folder` may be missing, others may not."""
    import papermill

    known = papermill.inspect_notebook(_literal(notebook))
    unknown = [name for name in values if name not in known and name != "folder"]
    if unknown:
        raise ValueError(f"{notebook.name} has the parameters {', '.join(known)}. Received: {unknown[0]!r}.")
    return {name: value for name, value in values.items() if name in known}


def _literal(path: Path) -> str:
    """A path for papermill, which would fill in {names} that stand in it."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _execute(notebook: Path, result: Path, values: dict[str, Any]) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError

    print(f"Running {notebook.name} …", flush=True)  # noqa: T201
    # A kernel that stops may write of sockets already closed. On a terminal papermill's progress bar needs stderr.
    quiet = nullcontext() if sys.stderr.isatty() else native_stderr_held(shown_on_error=False)
    try:
        with environment(KERNEL_ENVIRONMENT), quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Jupyter's own, about paths and event loops
            papermill.execute_notebook(
                _literal(notebook),
                _literal(result),
                parameters=values,
                cwd=str(notebook.parent),
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # else it warns of sockets of this machine
            )
    except papermill.PapermillExecutionError as error:
        if error.ename in PLAIN_SENTENCES:
            raise NotebookError(error.evalue) from None
        raise NotebookError(
            f"{notebook.name} stopped in cell {error.exec_count} with {error.ename}: {error.evalue} "
            f"The notebook as far as it came is {result}."
        ) from None
    except DeadKernelError as error:
        raise NotebookError(
            f"{notebook.name} stopped because its Python process died, most often for want of memory. Close other "
            "programs, or use a smaller `image_size` or fewer images."
        ) from error
    except RuntimeError as error:
        if "respond" not in str(error):
            raise
        raise NotebookError(
            f"{notebook.name} could not start: its Python process did not answer within a minute. Jupyter talks to it "
            "over this machine's own loopback network, which must be up; else the machine is too busy: try again."
        ) from error


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables, which a kernel started meanwhile inherits, and puts the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


KERNEL_ENVIRONMENT = {
    # No bars and widgets in a report; figures in it, whatever the person's own setting.
    "CNNLAB_QUIET": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}

# Errors whose text is written for the person; anything else is reported with its name and place.
PLAIN_SENTENCES = (
    "ValueError", "TypeError", "ColumnError", "FileNotFoundError", "NotADirectoryError", "FileExistsError",
    "PermissionError", "ConnectionError", "UnreadableImageError",
)  # fmt: skip


def _to_html(notebook: Path, target: Path) -> Path:
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = {"parameters", "injected-parameters", "exercise", "remove"}
    exporter = HTMLExporter(config=config, exclude_input=True, exclude_output_prompt=True, embed_images=True)
    # The page must open without a network: no script is fetched, and none is needed.
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    content = lighter(nbformat.read(notebook, as_version=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page, _ = exporter.from_notebook_node(content, {"metadata": {"name": "report"}})
    title = html.escape(f"cnnlab · {notebook.parent.name}")
    page = SCRIPTS.sub("", page).replace("<title>report</title>", f"<title>{title}</title>{STYLE}")
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


# What the template brings for formulas, widgets and diagrams, mostly from elsewhere; a report has none of them.
SCRIPTS = re.compile(r"<script\b(?![^>]*application/json).*?</script>", re.DOTALL)

# Code is left out of a report: its column goes too, and what remains stands in the middle.
STYLE = """<style>
main { max-width: 860px; margin: 0 auto; }
body .jp-InputPrompt, body .jp-OutputPrompt { display: none; }
body .jp-Cell, body .jp-Notebook { padding-left: 0; padding-right: 0; }
body .jp-OutputArea-output { padding-left: 0; overflow-x: auto; }
body .jp-RenderedHTMLCommon h2 { margin-top: 1.2em; }
</style>"""


def lighter(notebook: Any) -> Any:
    """The notebook with its figures stored small: grids of photographs as JPEG, drawings as PNG of few colours."""
    from PIL import Image

    notebook.metadata.pop("widgets", None)  # the state of every slider and picture; a picture stands in its place
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            png = data.get("image/png")
            if not png:
                continue
            picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
            photographs = len(png) > LARGE_FIGURE
            buffer = io.BytesIO()
            if photographs:
                picture.save(buffer, "JPEG", quality=60, optimize=True)
            else:
                picture.quantize(DRAWING_COLOURS).save(buffer, "PNG", optimize=True)
            if len(buffer.getvalue()) * 4 / 3 < len(png):
                del data["image/png"]
                data["image/jpeg" if photographs else "image/png"] = base64.b64encode(buffer.getvalue()).decode()
    return notebook


def described(notebook: Any) -> Any:
    """The notebook with alternative text on each figure whose cell holds a comment `# alt: what it shows`."""
    for cell in notebook.cells:
        for words in re.findall(r"^# alt: (.+)$", cell.source, re.MULTILINE):
            for output in cell.get("outputs", []):
                kinds = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
                output.get("metadata", {}).update({kind: {"alt": words} for kind in kinds})
    return notebook


LARGE_FIGURE = 60_000  # characters; drawings are smaller than this, photographs larger
DRAWING_COLOURS = 128  # enough for lines, bars and the edges of letters
