"""The whole course as a person runs it: each notebook in JupyterLab, in a real browser, by "Run All", at full size.

Usage: python benchmarks/course.py [--write] [number …]
Without a network: unshare -n sh -c 'ip link set lo up && python benchmarks/course.py'
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import test_browser as browser  # noqa: E402  (how JupyterLab is started and driven)

from cnnlab import _report  # noqa: E402

LONGEST = 1800  # seconds for one notebook


def run(page, lab, course, name):
    """Runs one notebook; minutes, GiB and the notebook as JupyterLab saved it."""
    began = time.perf_counter()
    browser.open_and_run_all(page, lab, name)
    idle = 0
    while time.perf_counter() - began < LONGEST:
        page.wait_for_timeout(1000)
        idle = idle + 1 if browser.sessions(lab)[0]["kernel"]["execution_state"] == "idle" else 0
        if idle >= 3:
            seconds = time.perf_counter() - began - idle
            notebook = browser.saved(page, course, name)
            if all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"):
                break
            idle = 0
    else:
        raise SystemExit(f"{name} did not end within {LONGEST / 60:.0f} minutes.")
    return seconds / 60, max(map(highest, kernels())), notebook


def kernels():
    return [child for child in psutil.Process().children(recursive=True) if "ipykernel_launcher" in child.cmdline()]


def highest(process):
    """The most memory that a process ever had, in GiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def problems(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("numbers", nargs="*", help="such as 00 07; all notebooks where none is named")
    parser.add_argument("--write", action="store_true", help="put the outputs into notebooks/; needs pictures only")
    options = parser.parse_args()
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    chosen = [path for path in paths if not options.numbers or path.stem[:2] in options.numbers]
    whole = 0.0
    print(
        "| notebook | minutes | largest memory of its kernel, GiB | errors and warnings |\n|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        course, home = Path(folder, "course"), Path(folder, "home")
        shutil.copytree(ROOT / "notebooks", course / "notebooks")
        home.mkdir()
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=browser.FLAGS)
        with browser.jupyterlab(course, home, CNNLAB_QUIET="1" if options.write else "0") as lab:
            for path in chosen:
                context, page = browser.new_page(chromium)
                minutes, memory, notebook = run(page, lab, course, path.stem)
                whole += minutes
                print(f"| {path.stem} | {minutes:.1f} | {memory:.2f} | {problems(notebook)} |", flush=True)
                if options.write and not problems(notebook):
                    nbformat.write(_report.described(_report.lighter(notebook)), path)
                browser.shut_down_kernels(lab)
                context.close()
    print(f"| all | {whole:.1f} | | |")


if __name__ == "__main__":
    main()
