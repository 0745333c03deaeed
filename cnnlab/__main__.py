"""The command line: `cnnlab predict`, `report`, `doctor` …; also as `python -m cnnlab`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; what a person can fix is one sentence and exit status 1, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["doctor"]:  # has its own options, and must work where nothing else does
        from cnnlab import doctor

        return doctor.main(arguments[1:])
    options = _parser().parse_args(_joined(arguments))
    from cnnlab._report import NotebookError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: print(f"cnnlab: {message}", file=sys.stderr)
            options.run(options)
    except (OSError, ValueError, NotebookError) as error:
        print(f"\ncnnlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncnnlab: interrupted; run the same command again.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    """Each command is a subparser whose default `run` is the function that does it."""
    parser = argparse.ArgumentParser(prog="cnnlab", description="Train convolutional networks on your own images.")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("doctor", help="what is this machine, what is broken, which command fixes it", add_help=False)
    report = commands.add_parser("report", help="run a notebook without a browser and make a report of it")
    report.add_argument("notebook", type=Path, help="such as notebooks/00_quickstart.ipynb")
    report.add_argument("--data", help="your folder, one subfolder of images per class (default: the notebook's own)")
    report.add_argument("--folder", type=Path, required=True, help="where model, export and report.html go")
    report.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value in the notebook's parameters"
    )
    report.set_defaults(run=_report)
    predict = commands.add_parser("predict", help="label the images of a folder with an export")
    predict.add_argument("export", help="the folder that serving.export wrote")
    predict.add_argument("source", type=Path, metavar="folder", help="of images, or one image")
    predict.add_argument("--csv", type=Path, metavar="FILE", help="where the answers go; a file that is there stays")
    predict.set_defaults(run=lambda options: _commands().predict(options.export, options.source, options.csv))
    validate = commands.add_parser("validate", help="score an export on a folder of labelled images")
    validate.add_argument("export", help="the folder that serving.export wrote")
    validate.add_argument("folder", type=Path, help="one subfolder of images per class")
    validate.set_defaults(run=lambda options: _commands().validate(options.export, options.folder))
    audit = commands.add_parser("audit", help="find broken images, copies and odd ones: a table and a page")
    audit.add_argument("folder", type=Path, help="one subfolder of images per class")
    audit.add_argument("--out", type=Path, default=Path("runs/audit"), help="where both go (runs/audit)")
    audit.set_defaults(run=lambda options: _commands().audit(options.folder, options.out))
    demo = commands.add_parser("demo", help="try an export in the browser; nothing leaves this machine")
    demo.add_argument("export", help="the folder that serving.export wrote")
    demo.add_argument("--port", type=int)
    demo.set_defaults(run=lambda options: _commands().demo(options.export, options.port))
    course = commands.add_parser("course", help="lay the notebooks out in a folder; what is there already stays")
    course.add_argument("folder", type=Path, help="such as my_course; then: jupyter lab my_course")
    course.set_defaults(run=_course)
    cache = commands.add_parser("cache", help="the decoded images that are kept on disk: where, and how large")
    cache.add_argument("--clear", action="store_true", help="remove them")
    cache.set_defaults(run=_cache)
    refresh = commands.add_parser("refresh", help="run notebooks at full size and write their outputs back")
    refresh.add_argument("notebooks", type=Path, nargs="+")
    refresh.set_defaults(run=_refresh)
    return parser


def _commands() -> Any:
    from cnnlab import _commands as commands

    return commands


def _report(options: argparse.Namespace) -> None:
    from cnnlab import _report as report

    html = report.run(options.notebook, data=options.data or None, folder=options.folder, parameters=options.set)
    print(f"\nReport:  {html}")
    if (html.parent / "export").is_dir():
        print(f"Model:   {html.parent / 'export'}")
    print("Go on:   make lab   (opens the notebooks in JupyterLab)")


def _course(options: argparse.Namespace) -> None:
    from cnnlab._common import atomic_path

    here = Path(__file__).parent
    source = here / "course" if (here / "course").is_dir() else here.parent / "notebooks"
    new, kept = 0, []
    for path in sorted(source.rglob("[0-9]*.ipynb")):
        target = options.folder / "notebooks" / path.relative_to(source)
        if target.exists():
            kept += [target] if target.read_bytes() != path.read_bytes() else []
            continue
        with atomic_path(target) as temporary:
            temporary.write_bytes(path.read_bytes())
        new += 1
    print(f"{new} notebooks copied to {options.folder / 'notebooks'}.")
    for path in kept:
        print(f"Yours stays: {path}. Rename it to get the original as well.")
    print(f"Go on:   jupyter lab {options.folder}   (opens them in JupyterLab; begin with 00_quickstart)")


def _cache(options: argparse.Namespace) -> None:
    from cnnlab.pipelines import cache

    if options.clear:
        print(f"{cache.clear():,} images removed.")
    print(cache.describe())


def _refresh(options: argparse.Namespace) -> None:
    from cnnlab import _report as report

    for notebook in options.notebooks:
        report.refresh(notebook)


def _joined(arguments: list[str]) -> list[str]:
    """`--data -photos` as `--data=-photos`: argparse takes a folder whose name begins with a dash for an option."""
    takes_name = ("--data", "--folder", "--set", "--csv", "--out")
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] in takes_name and word.startswith("-") and not word.startswith(takes_name):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


if __name__ == "__main__":
    sys.exit(main())
