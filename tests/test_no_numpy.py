"""NumPy holds arrays for metaop, it does not compute: three nets under a training step; and what
the three packages may import.

    1. every ufunc and every function that computes is replaced by one that raises, wherever NumPy's
       own modules or metaop's hold it;
    2. a profiler sees each function called: of NumPy's only those that hold and describe arrays;
    3. metaop's modules are loaded with every operator rewritten to look at its operands first,
       because `a + b` on arrays passes both other nets.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest

import metaop as mo

REPOSITORY = Path(__file__).resolve().parents[1]

# --- the step, in a process of its own ------------------------------------------------------------

PRELUDE = '''
import ast, importlib.abc, importlib.util, sys, types
from pathlib import Path
import numpy as np
import numba, numba.core.codegen, numba.core.cpu, numba.extending    # to compile with

COMPUTING = """dot matmul einsum vdot inner outer tensordot kron cross sum prod mean var std min max
    amin amax cumsum cumprod argmax argmin sort argsort where clip round around convolve correlate
    trapezoid interp diff gradient median percentile quantile nansum nanmean average cov corrcoef
    searchsorted digitize bincount histogram unique allclose isclose array_equal any all trace
    linspace vectorize apply_along_axis""".split()


class Forbidden(Exception):
    """NumPy computed something."""


def raising(name):
    def raise_(*args, **kwargs):
        raise Forbidden(f"numpy.{name}")
    return raise_


def forbid():
    """Replaces what computes in every module of NumPy and metaop that holds it."""
    names = {}
    for name in dir(np):
        if isinstance(getattr(np, name), np.ufunc) or name in COMPUTING:
            names[id(getattr(np, name))] = f"{name}"
    for part in (np.linalg, np.random, np.fft):
        for name in part.__all__:
            item = getattr(part, name)
            if callable(item) and not (isinstance(item, type) and issubclass(item, Exception)):
                names[id(item)] = f"{part.__name__.partition('.')[2]}.{name}"
    for module in list(sys.modules.values()):
        if module.__name__.partition(".")[0] in ("numpy", "metaop"):
            for key, item in list(vars(module).items()):
                if id(item) in names:
                    setattr(module, key, raising(names[id(item)]))
    return len(names)


HARMLESS = {                                    # hold, describe and copy arrays
    "empty", "zeros", "array", "asarray", "ascontiguousarray", "frombuffer", "copyto", "dtype",
    "ndarray.view", "ndarray.reshape", "ndarray.tobytes", "ndarray.copy", "ndarray.item",
    "ndarray.ravel", "ndarray.astype", "ndarray.__array__", "ndarray.setflags", "ndarray.fill",
    "ndarray.tolist", "ndarray.flatten", "ndarray.__setitem__", "float32.item",
    "dtype.newbyteorder",
}
FOLDER = str(Path(np.__file__).parent)
HELPERS = ("multiarray.py", "_internal.py", "overrides.py", "_ctypes.py", "__init__.py",
           "_dtype.py")


def watch(event_log):
    def profile(frame, event, arg):
        if event == "c_call":
            owner = type(getattr(arg, "__self__", None))
            module = getattr(arg, "__module__", None) or ""
            if issubclass(owner, (np.ndarray, np.ufunc, np.generic)) or module.startswith("numpy"):
                event_log.add(getattr(arg, "__qualname__", repr(arg)))
        elif event == "call" and frame.f_code.co_filename.startswith(FOLDER):
            if not frame.f_code.co_filename.endswith(HELPERS):
                event_log.add(frame.f_code.co_filename[len(FOLDER):] + ":" + frame.f_code.co_name)
    sys.setprofile(profile)


class Operands(ast.NodeTransformer):
    """a + b -> plain(a) + plain(b), for every operator, comparison and augmented assignment."""

    def plain(self, node):
        return ast.copy_location(
            ast.Call(ast.Name("_plain_operand", ast.Load()), [node], []), node)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        node.left, node.right = self.plain(node.left), self.plain(node.right)
        return node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        node.operand = self.plain(node.operand)
        return node

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        node.value = self.plain(node.value)
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        if not any(isinstance(op, (ast.Is, ast.IsNot, ast.In, ast.NotIn)) for op in node.ops):
            node.left = self.plain(node.left)
            node.comparators = [self.plain(c) for c in node.comparators]
        return node

    visit_MatchValue = visit_JoinedStr = lambda self, node: node


operands_seen = 0


def plain_operand(value):
    global operands_seen
    operands_seen += 1
    if isinstance(value, (np.ndarray, np.generic)):
        raise Forbidden(f"an operator on {type(value).__name__}")
    return value


def instrumented(source, filename):
    tree = Operands().visit(ast.parse(source, filename))
    return compile(ast.fix_missing_locations(tree), filename, "exec")


class Loader(importlib.abc.SourceLoader):
    def __init__(self, path):
        self.path = path

    def get_filename(self, name):
        return self.path

    def get_data(self, path):
        return Path(path).read_bytes()

    def source_to_code(self, data, path, *, _optimization=-1):
        return instrumented(data, path)

    def exec_module(self, module):
        vars(module)["_plain_operand"] = plain_operand
        super().exec_module(module)

    def path_stats(self, path):
        raise OSError            # no cached bytecode


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] != "metaop":
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None and spec.origin and spec.origin.endswith(".py"):
                    places = spec.submodule_search_locations
                    return importlib.util.spec_from_file_location(
                        name, spec.origin, loader=Loader(spec.origin),
                        submodule_search_locations=places)
        return None


if OPERATORS:
    sys.meta_path.insert(0, Finder())
import metaop as mo
from metaop import nn

images = np.linspace(0, 1, 8 * 64, dtype=np.float32).reshape(8, 1, 8, 8)
labels = np.arange(8) % 3
mo.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(),
                    nn.Dropout(0.2), nn.Linear(72, 3))
optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def step():
    x, y = mo.array(images), mo.array(labels)
    loss = nn.CrossEntropyLoss()(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    mo.sync()
    return loss.item()
'''

REPLACED = """
count = forbid()
losses = [step(), step(), step()]         # records, compiles, runs; then from the cache
assert len(set(losses)) == 3, losses       # it learns something
print("replaced", count)
"""
PROFILED = """
step()
seen = set()
watch(seen)
step()
sys.setprofile(None)
assert seen, "the profiler saw nothing of NumPy at all"
assert seen <= HARMLESS, sorted(seen - HARMLESS)
print("seen", sorted(seen))
"""
WATCHED = """
forbid()
step(), step()
print("operands", operands_seen)
assert operands_seen > 1000
"""
# A fault in the execution path, before anything is compiled.
PLANT = """
from metaop import life
original = life.compute
def compute(*args, **options):
    {planted}
    return original(*args, **options)
life.compute = compute
"""
CALLS = [
    "np.add(1, 2)",
    "np.dot(images, 1)",
    "np.einsum('i->', images[0, 0, 0])",
    "np.sum(images)",
    "np.linalg.norm(images)",
    "np.random.default_rng(0)",
    "np._core.umath.multiply(2, 3)",
    "np.vectorize(abs)",
    "np.fft.fft(images)",
]
EACH_IS_FOUND = """
forbid()
for call in CALLS:
    source = f"def planted(*args, **options): {call}"
    exec(source, globals())
    life.compute = planted
    try:
        step()
    except Forbidden as error:
        print(call, error)
    else:
        raise AssertionError(f"{call} was not found")
"""


def run_step(what: str, operators: bool = False) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", f"OPERATORS = {operators}\n{PRELUDE}\n{what}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("what,operators", [(REPLACED, False), (PROFILED, False), (WATCHED, True)],
                         ids=["replaced", "profiled", "operators"])  # fmt: skip
def test_a_training_step_uses_no_arithmetic_of_numpy(what, operators):
    done = run_step(what, operators)
    assert done.returncode == 0, done.stderr


def test_every_planted_call_of_numpy_is_found():
    done = run_step(f"from metaop import life\nCALLS = {CALLS!r}\n{EACH_IS_FOUND}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(CALLS)


def test_a_planted_method_of_an_array_is_found():
    done = run_step(PLANT.format(planted="images.sum()") + PROFILED)
    assert done.returncode != 0
    assert "ndarray.sum" in done.stderr


def test_a_planted_operator_on_arrays_is_found():
    source = "result = array * 2"
    names = "dict(array=images, _plain_operand=plain_operand)"
    planted = f"exec(instrumented({source!r}, 'planted'), {names})"
    done = run_step(PLANT.format(planted=planted) + WATCHED, operators=True)
    assert done.returncode != 0
    assert "Forbidden: an operator on ndarray" in done.stderr


# --- imports point one way ------------------------------------------------------------------------


def modules(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def imported(path: Path, package: str) -> list[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import, absolute; `import a.b` has no names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                module = ".".join([*parts, *([module] if module else [])])
            found.append((module, tuple(alias.name for alias in node.names)))
    return found


def package_of(path: Path) -> str:
    """The package that relative imports in a file of compiler/, nn/ or metaop/ start from."""
    parts = path.relative_to(REPOSITORY).parent.parts
    return ".".join(parts if parts[0] == "metaop" else ("metaop", *parts))


BELOW_COMPILER = {
    "graph", "index", "recording", "extent", "show", "dtype", "errors", "config", "storage",
}  # fmt: skip


@pytest.mark.parametrize("path", modules("compiler"), ids=lambda p: p.name)
def test_the_compiler_imports_only_what_is_below_it(path):
    for module, names in imported(path, package_of(path)):
        if module == "metaop":
            assert set(names) <= BELOW_COMPILER | {"compiler"}, f"{path.name}: {module} {names}"
        elif module.startswith("metaop.") and not module.startswith("metaop.compiler"):
            assert module.split(".")[1] in BELOW_COMPILER, f"{path.name}: {module}"


@pytest.mark.parametrize("name", sorted(BELOW_COMPILER))
def test_what_is_below_the_compiler_imports_nothing_above(name):
    path = REPOSITORY / "metaop" / f"{name}.py"
    for module, names in imported(path, "metaop"):
        if module == "metaop":
            assert set(names) <= BELOW_COMPILER
        elif module.startswith("metaop."):
            assert module.split(".")[1] in BELOW_COMPILER, module


@pytest.mark.parametrize(
    "path", [p for p in modules("metaop") if p.parent.name == "metaop"], ids=lambda p: p.name
)
def test_the_language_does_not_import_layers(path):
    if path.name in ("__init__.py", "cli.py"):  # re-exports; the command line runs networks
        return
    for module, names in imported(path, "metaop"):
        assert not module.startswith("metaop.nn"), f"{path.name}: {module}"
        assert module != "metaop" or "nn" not in names


@pytest.mark.parametrize("path", modules("nn"), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_layers_use_public_names_of_metaop_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = {"mo"} if any(m == "metaop" for m, _ in imported(path, package_of(path))) else set()
    for module, names in imported(path, package_of(path)):
        if module == "metaop":
            assert all(public(name) for name in names), f"{path.name}: {names}"
        elif module.startswith("metaop."):
            assert module.startswith("metaop.nn"), f"{path.name} imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in aliases:
                assert public(node.attr), f"{path.name}:{node.lineno}: metaop.{node.attr}"


PRIVATE_MODULES = {p.stem for p in modules("metaop") if p.parent.name == "metaop"} - {
    "errors", "linalg", "random", "safetensors", "config", "support", "__init__"
}  # fmt: skip


def public(name: str) -> bool:
    """True for what `import metaop as mo` offers to users as mo.name."""
    item = getattr(mo, name, None)
    is_module = type(item).__name__ == "module" and name in PRIVATE_MODULES
    return not name.startswith("_") and hasattr(mo, name) and name != "compiler" and not is_module


def test_the_check_of_public_names_can_fail():
    assert public("exp")
    assert public("Var")
    assert not public("_node")
    assert not public("compiler")
    assert not public("graph")


# --- the compiler knows no layers -----------------------------------------------------------------

LAYER_WORDS = {"conv", "norm", "pool", "softmax", "relu", "linear", "dropout"}
# A pool of threads is what the threading layers themselves call it.
OTHER_MEANING = {name: {"pool"} for name in ("executor.py", "kernels.py", "threading_layer.py")}


def layer_words(source: str) -> set[str]:
    """The layer words among the identifiers of a source, also as parts: fuse_conv, ReluKernel."""
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", token.string)
            found |= {re.sub(r"\d+$", "", w).lower() for w in words} & LAYER_WORDS
    return found


@pytest.mark.parametrize("path", modules("compiler"), ids=lambda p: p.name)
def test_the_compiler_contains_no_layer_words(path):
    found = layer_words(path.read_text(encoding="utf-8"))
    assert found <= OTHER_MEANING.get(path.name, set()), f"{path.name}: {found}"


def test_layer_words_are_found_in_parts_of_names():
    assert layer_words("def fuse_conv2d(x): return ReluKernel(x, batch_norm)") == {
        "conv", "relu", "norm"
    }  # fmt: skip
    assert layer_words("convert(normal, pooled, nonlinear)") == set()


def test_numpy_is_imported_by_the_step_at_all():
    assert isinstance(mo.array([1.0]).numpy(), np.ndarray)


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_tests_can_be_read_without_pytorch(path):
    assert not re.search(r"^(import|from) torch\b", path.read_text(encoding="utf-8"), re.MULTILINE)
