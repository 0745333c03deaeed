"""Commands about folders and exports: `cnnlab predict`, `validate`, `audit` and `demo`."""

import base64
import html
import io
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnlab import images, tables
from cnnlab._common import atomic_path

SHOWN = 200  # images of one kind on the page of an audit
LARGEST_UPLOAD = "20mb"


def predict(export: str, source: Path, csv: Path | None) -> None:
    """Labels the images of a folder, or one image, and writes the answers as CSV for a spreadsheet."""
    from cnnlab.serving import Predictor

    if csv is not None and csv.exists():
        raise FileExistsError(f"{csv} is there already and stays as it is. Name another file after --csv.")
    if csv is not None and csv.suffix.lower() != ".csv":
        raise ValueError(f"Answers are CSV: name a file that ends in .csv after --csv. Received: {csv}.")
    predictor = Predictor(export)
    table = pd.DataFrame({"path": [str(source)]}) if source.is_file() else tables.from_folder(source, labelled=False)
    if csv is not None:
        _require_writable(csv.parent)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unreadable files are counted below
        answers = predictor.table(table)
    seconds = time.perf_counter() - began
    if csv is not None:
        tables.save(answers, csv, spreadsheet=True)
    broken = answers[answers["problem"] != ""]
    counts = answers["predicted"].value_counts()
    print(f"{len(answers):,} images in {seconds:.1f} s, {len(broken):,} of them unreadable.")
    print("\n".join(f"{count:8,}  {name}" for name, count in counts.items() if count))
    for path, problem in broken[["path", "problem"]].head(5).itertuples(index=False):
        print(problem if path in problem else f"{path}: {problem}")
    if len(answers) == 1 and broken.empty:
        print(f"{answers['predicted'].iloc[0]} with {answers['confidence'].iloc[0]:.1%}")
    if csv is not None:
        print(f"Answers: {csv}   (tables.read({str(csv)!r}) reads them in Python)")


def validate(export: str, folder: Path) -> None:
    """Scores an export on a folder of labelled images; of one with splits, on its test images."""
    from cnnlab import serving

    table = tables.from_folder(folder)
    if "split" in table and (table["split"] == "test").any():
        table = table[table["split"] == "test"]
        print(f"The folder has splits: scored on its {len(table):,} test images.")
    scores = serving.validate(export, table)
    print(scores.round(3).to_string(index=False, na_rep=""))


def audit(folder: Path, out: Path) -> None:
    """Scans a folder; writes the table as `audit.csv` and what was found, with pictures, as `audit.html`."""
    from cnnlab import audit as room

    there = [path for path in (out / "audit.csv", out / "audit.html") if path.exists()]
    if there:
        raise FileExistsError(f"{there[0]} is there already and stays as it is. Name another folder after --out.")
    table = tables.from_folder(folder)
    _require_writable(out)
    table = room.scan(table)
    tables.save(table, out / "audit.csv", spreadsheet=True)
    copies = table[table["group"].duplicated(keep=False) & (table["problem"] == "")].sort_values("group")
    parts = {
        "Problems: not to be trained on": (table[table["problem"] != ""], "problem"),
        "Copies: one picture several times": (copies.assign(group=copies["group"].map("group {}".format)), "group"),
        "Worth a look": (table[(table["note"] != "") & (table["problem"] == "")], "note"),
    }
    with atomic_path(out / "audit.html") as temporary:
        temporary.write_text(_page(folder, table, parts), encoding="utf-8")
    print(f"{len(table):,} images of {table['label'].nunique()} classes.")
    for title, (rows, _) in parts.items():
        print(f"{len(rows):8,}  {title}")
    print(f"Page:    {out / 'audit.html'}\nTable:   {out / 'audit.csv'}")


def _require_writable(folder: Path) -> None:
    """Makes the folder, and refuses one that takes no files before the work that would be lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = f"Nothing can be written to {str(folder)!r} ({error.strerror}). Name another folder"
        raise OSError(error.errno, problem) from error


def _page(folder: Path, table: pd.DataFrame, parts: dict[str, tuple[pd.DataFrame, str]]) -> str:
    """One HTML file that needs no network."""
    counts = "".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{count:,}</td></tr>"
        for name, count in table["label"].value_counts().items()
    )
    body = [f"<h1>{html.escape(str(folder))}</h1><p>{len(table):,} images</p><table>{counts}</table>"]
    for title, (rows, column) in parts.items():
        body.append(f"<h2>{title} ({len(rows):,})</h2>")
        body += [_figure(path, words) for path, words in rows[["path", column]].head(SHOWN).itertuples(index=False)]
        body.append(f"<p>… and {len(rows) - SHOWN:,} more in audit.csv</p>" if len(rows) > SHOWN else "")
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>"
        "body{font-family:sans-serif;margin:2em auto;max-width:70em}td{padding:0 1em 0 0}"
        "figure{display:inline-block;width:10em;margin:.5em;vertical-align:top;font-size:.8em;overflow-wrap:anywhere}"
        f"</style>{''.join(body)}</html>"
    )


def _figure(path: str, words: str) -> str:
    name = html.escape(Path(path).name)
    caption = f"<figcaption>{html.escape(Path(path).parent.name)}/{name}<br>{html.escape(str(words))}</figcaption>"
    try:
        pixels = images.prepare(path, images.Preparation((128, 128), resize="pad"))
    except (ValueError, OSError):
        return f"<figure>{caption}</figure>"
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}">{caption}</figure>'


def demo(export: str, port: int | None) -> None:
    """A page on this machine where an image is dropped, or taken by the camera, and answered."""
    try:
        import gradio
    except ModuleNotFoundError:
        raise ValueError("`cnnlab demo` needs gradio: pip install 'cnnlab[demo]'.") from None
    app = interface(export, gradio)
    app.launch(server_name="127.0.0.1", server_port=port, share=False, max_file_size=LARGEST_UPLOAD, show_error=True)


def interface(export: str, gradio: Any) -> Any:
    """The page of `demo`."""
    from cnnlab.serving import Predictor

    predictor = Predictor(export)

    def answer(path: str | None) -> dict[str, float]:
        if path is None:
            raise gradio.Error("Choose an image first.")
        try:
            return predictor(path).probabilities
        except images.UnreadableImageError as error:
            raise gradio.Error(str(error).replace(path, Path(path).name)) from None

    upload = gradio.Image(type="filepath", sources=["upload", "webcam", "clipboard"], label="An image")
    # The file as it came: gradio would convert it to RGB in its own way, and fail on what is not an image.
    upload.preprocess = lambda sent: None if sent is None else sent.path
    return gradio.Interface(
        answer,
        upload,
        gradio.Label(num_top_classes=5, label="The network's answer"),
        title=f"{', '.join(predictor.classes[:6])}{' …' if predictor.classes[6:] else ''}",
        flagging_mode="never",
        analytics_enabled=False,
    )
