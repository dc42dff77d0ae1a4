import sys

import pytest

from agentforge_worker.tools import (
    FileNotThereError,
    FunctionNotThereError,
    ImportFailedError,
    NotCallableError,
    describe,
    load_function,
)


@pytest.fixture
def root(tmp_path):
    path, modules = list(sys.path), dict(sys.modules)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def write(root, **files):
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(root, file="tool_a.py", name="f"):
    return load_function(str(root), file, name)


def test_a_function_is_loaded_with_its_siblings(root):
    write(root, tool_a="import sibling\ndef f() -> int: return sibling.value\n", sibling="value = 7\n")
    assert load(root)() == 7
    assert str(root) not in sys.path


def test_a_file_is_imported_once(root):
    write(root, tool_a="seen = []\nseen.append(1)\ndef f(): return seen\ndef g(): return seen\n")
    assert load(root)() is load(root, name="g")() == [1]


def test_an_import_inside_a_function_finds_the_folder_after_all_others(root):
    write(root, tool_a="def f():\n    import late_sibling\n    return late_sibling.value\n", late_sibling="value = 7\n")
    assert load(root)() == 7


def test_a_file_in_a_folder_is_a_module_of_a_package(root):
    write(root, pack__tool="from .near import value\nfrom top import other\ndef f(): return value, other\n")
    write(root, pack__near="value = 1\n", top="other = 2\n")
    function = load(root, "pack/tool.py")
    assert function() == (1, 2)
    assert function.__module__ == "pack.tool"


def test_relative_imports_work_beside_the_agent_file_too(root):
    write(root, tool_a="from .sibling import value\ndef f(): return value\n", sibling="value = 7\n")
    assert load(root)() == 7


@pytest.mark.parametrize("name", ["calendar", "json", "time", "pytest"])
def test_a_file_may_have_the_name_of_a_module_that_is_there_already(root, name):
    write(root, **{name: "def f(x: int) -> int: return x\n"})
    before = __import__(name)
    function = load(root, f"{name}.py")
    assert function(3) == 3
    assert describe(function)["parameters"]["required"] == ["x"]
    assert sys.modules[name] is before


def test_a_file_name_need_not_be_a_python_name(root):
    (root / "my-tool.v2.py").write_text("def f(): return 1\n")
    assert load(root, "my-tool.v2.py")() == 1


def test_agents_of_one_process_do_not_share_modules(root):
    first, second = root / "one", root / "two"
    for folder in (first, second):
        write(folder, tool_a="import sibling\ndef f(): return sibling.value\n", sibling=f"value = {folder.name!r}\n")
    one, two = load(first), load(second)
    assert (one(), two()) == ("one", "two")


def test_a_method_of_a_class_or_object_is_a_function(root):
    write(root, tool_a="class C:\n    @staticmethod\n    def m(): return 1\nf = C.m\n")
    assert load(root, name="C.m")() == load(root)() == 1


@pytest.mark.parametrize(
    ("text", "name", "error", "message"),
    [
        ("", "f", FunctionNotThereError, "the file `tool_a.py` has no function `f`"),
        (
            "def g(): ...\ndef _h(): ...\n",
            "f",
            FunctionNotThereError,
            "the file `tool_a.py` has no function `f` (it has `g`)",
        ),
        ("f = 3\n", "f", NotCallableError, "`f` in `tool_a.py` is of type `int`: name a function"),
        ("class f: ...\n", "f", NotCallableError, "`f` in `tool_a.py` is a class: name a function"),
        (
            "import no_such_module\n",
            "f",
            ImportFailedError,
            "importing `tool_a.py` failed: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("1 / 0\n", "f", ImportFailedError, "importing `tool_a.py` failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "f", ImportFailedError, "importing `tool_a.py` failed: SystemExit: 3"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(root, text, name, error, message):
    write(root, tool_a=text)
    with pytest.raises(error) as caught:
        load(root, name=name)
    assert str(caught.value) == message


def test_a_missing_file_is_told(root):
    with pytest.raises(FileNotThereError, match=r"the file `tool_a\.py` is not in the agent's folder"):
        load(root)


def test_a_file_that_failed_is_tried_again(root):
    write(root, tool_a="1 / 0\n")
    with pytest.raises(ImportFailedError) as caught:
        load(root)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    write(root, tool_a="def f(): return 'mended, and longer'\n")
    assert load(root)() == "mended, and longer"
