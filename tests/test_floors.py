"""Holds the floors: a module imports only modules of lower floors, and floor 0 never loads TensorFlow."""

import ast
import graphlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlab

PACKAGE = Path(cnnlab.__file__).parent
FLOORS = {
    -1: {"images"},  # below the others of the ground floor, which all read files with it
    0: {"doctor", "samples", "tables", "audit", "metrics"},
    0.5: {"fairness", "plots"},  # built on the scores
    1: {"augment", "models"},
    2: {"pipelines", "explain"},  # ask models what they say of themselves
    3: {"training", "experiments", "serving"},
    4: {"widgets", "exercises"},
}
SHARED = dict.fromkeys(("_answers", "_common", "_csv", "_groups", "_quiet", "_stderr", "_upstream"), -1)
SHARED |= {"_report": 4, "_commands": 4, "__main__": 5}
SHARED |= {"__init__": 0}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms} | SHARED


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def cnnlab_imports(path: Path) -> set[str]:
    """The rooms that a file imports, at the top or inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "cnnlab":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnnlab."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cnnlab.")}
    return rooms


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_lower_floors_only(path):
    room = room_of(path)
    assert room in FLOOR_OF, f"{room} is on no floor: add it to docs/architecture.md and here"
    for other in cnnlab_imports(path) - {room}:
        floor = FLOOR_OF.get(other, 0)
        shared = other in SHARED
        assert floor < FLOOR_OF[room] or (shared and floor <= FLOOR_OF[room]), f"{room} imports {other}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "widgets").glob("*.py")), ids=lambda path: path.stem)
def test_widgets_use_public_names_of_other_rooms_only(path):
    """What starts with an underscore may change without notice; the helpers that all rooms share are the exception."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnnlab."):
            room, *inside = node.module.split(".")[1:]
            names = [*inside, *(alias.name for alias in node.names)]
            assert room in SHARED or not any(name.startswith("_") for name in names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in FLOOR_OF:
            assert not node.attr.startswith("_"), ast.unparse(node)


def files_imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """The files of the package that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inside & modules.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & modules.keys()


def test_no_files_import_each_other_in_a_circle():
    parts = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in FILES}
    modules = {".".join(names).removesuffix(".__init__"): path for path, names in parts.items()}
    graph = {name: files_imported(path, modules) - {name, "cnnlab"} for name, path in modules.items()}
    assert graph["cnnlab.serving.predictor"] >= {"cnnlab.images", "cnnlab._common", "cnnlab.serving.engines"}
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_the_package_is_relative_import_free():
    """Relative imports would slip past the reading above."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_floor_0_and_the_package_never_load_tensorflow():
    present = sorted(FLOORS[-1] | FLOORS[0] | FLOORS[0.5])
    code = (
        "import sys, cnnlab, importlib\n"
        f"for room in {present}: importlib.import_module('cnnlab.' + room)\n"
        "print([name for name in ('tensorflow', 'keras', 'jax', 'torch') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def write_onnx(folder):
    """Adds an ONNX file to an export: a network that finds the three classes equally likely."""
    onnx = pytest.importorskip("onnx", reason="install the extra `onnx` to run this test")
    pytest.importorskip("onnxruntime", reason="install the extra `onnx` to run this test")
    number, helper = onnx.TensorProto.FLOAT, onnx.helper
    nodes = [
        helper.make_node("Flatten", ["images"], ["features"]),
        helper.make_node("MatMul", ["features", "kernel"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, number, ["n", size])
        for name, size in (("probabilities", 3), ("features", 192))
    ]
    image = helper.make_tensor_value_info("images", number, ["n", 8, 8, 3])
    kernel = helper.make_tensor("kernel", number, [192, 3], [0.0] * 192 * 3)
    graph = helper.make_graph(nodes, "equal", [image], ends, [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    about = json.loads((folder / "export.json").read_text())
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    about["formats"]["onnx"] = about["formats"]["litert"] | {"sha256": digest}
    (folder / "export.json").write_text(json.dumps(about))


@pytest.mark.parametrize(("format", "runtime"), [("litert", "ai_edge_litert"), ("onnx", "onnxruntime")])
def test_answering_loads_neither_keras_nor_scikit_learn(tmp_path, format, runtime):
    """What a small server needs: importing `serving`, opening an export, answering for a table and a stream."""
    shutil.copytree(Path(__file__).parent / "exports_0_1_0" / "colour", tmp_path / "export")
    if format == "onnx":
        write_onnx(tmp_path / "export")
    code = (
        "import sys, numpy as np, pandas as pd\n"
        "from PIL import Image\n"
        "from cnnlab import serving\n"
        f"predictor = serving.Predictor('export', format={format!r})\n"
        "Image.new('RGB', (9, 9), 'red').save('a.png')\n"
        "answers = [predictor('a.png').label, *predictor.table(pd.DataFrame({'path': ['a.png']}))['predicted']]\n"
        "answers += [frame.label for frame in serving.stream(['a.png'], predictor)]\n"
        f"assert answers[0] in predictor.classes and answers == answers[:1] * 3 and {runtime!r} in sys.modules\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch', 'sklearn', 'matplotlib', 'fairlearn', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]", result.stderr


def test_import_cnnlab_loads_nothing_heavy():
    code = "import sys, cnnlab; print(sorted({'numpy', 'pandas', 'matplotlib', 'tensorflow'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_unknown_room_is_named():
    with pytest.raises(AttributeError, match="no attribute 'tabels'"):
        cnnlab.tabels  # noqa: B018
    assert "tables" in dir(cnnlab)


# Names with one underscore that are public: of NamedTuple, and of IPython's protocol for display.
PUBLIC = {"_asdict", "_fields", "_replace", "_repr_html_", "_repr_mimebundle_"}
# Subclasses of KerasTuner's Oracle and Tuner, which use its hooks.
HOOKS = {f"experiments/{name}.py" for name in ("search", "tuning")}


def private_uses(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines that import a private module of Keras, KerasTuner or TensorFlow, or name a private attribute."""
    found = []
    for node in ast.walk(tree):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr", "delattr"):
            names = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        found += [(node.lineno, name) for name in names if name.startswith("_") and not name.endswith("__")]
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            if module.startswith(("keras.src", "keras_tuner.src", "tensorflow.python")):
                found.append((node.lineno, module))
    return found


def own_names(tree: ast.Module) -> set[str]:
    """What a file defines: functions, classes, variables, and attributes of its own objects."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def foreign_names(tree: ast.Module) -> list[tuple[int, str]]:
    """What a file uses of others' private names; those of this package are foreign to another file of it, too."""
    ours = PUBLIC | own_names(tree)
    return [(line, name) for line, name in private_uses(tree) if name not in ours and not name.startswith("_cnnlab")]


def test_private_names_of_keras_and_tensorflow_are_in_one_module():
    """Elsewhere nothing tells that upstream changed them; `tests/test_upstream.py` tries each in `_upstream.py`."""
    found = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path in FILES
        if path.name != "_upstream.py" and str(path.relative_to(PACKAGE)) not in HOOKS
        for line, name in foreign_names(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_a_private_name_would_be_found():
    code = "from keras.src import ops\nimport tensorflow.python.framework\nlayer._tracker\ngetattr(model, '_nodes')"
    assert [name for _, name in private_uses(ast.parse(code))] == [
        "keras.src.ops", "tensorflow.python.framework", "_tracker", "_nodes"
    ]  # fmt: skip
    assert own_names(ast.parse("def _f(): self._x = y = model._z = 1")) == {"_f", "_x", "y"}
    assert foreign_names(ast.parse("def _f(): layer._tracker._fields\nsearch._f()")) == [(1, "_tracker")]
    assert foreign_names(ast.parse("search._warn()")) == [(1, "_warn")]  # whatever another file defines


def test_no_file_is_long_and_functions_are_short():
    files = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert [path.name for path, text in files.items() if len(text.splitlines()) > 350] == []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for text in files.values() for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    lengths = [(node.end_lineno - node.lineno + 1, node.name) for node in functions]
    assert [found for found in lengths if found[0] > 70] == []
    assert sorted(lengths)[len(lengths) // 2][0] <= 10
