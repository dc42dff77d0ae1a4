"""What the source of a class says that Python forgets: docstrings of attributes, annotations as written."""

import ast
import inspect
import itertools
import textwrap
from typing import Any, cast

__all__ = ["annotations", "attribute_docs"]


def annotations(kind: type) -> dict[str, str]:
    """Return the annotations of a class's attributes, as they are written."""
    body = _class_body(kind)
    found = (each for each in body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name))
    return {cast("ast.Name", each.target).id: ast.unparse(each.annotation) for each in found}


def attribute_docs(kind: type) -> dict[str, str]:
    """Return the docstrings that follow a class's attributes."""
    body = _class_body(kind)
    docs = {}
    for each, after in itertools.pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and is_text:
            docs[each.target.id] = inspect.cleandoc(str(cast("Any", after).value.value))
    return docs


def _class_body(kind: type) -> list[ast.stmt]:
    found = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(found, ast.ClassDef)
    return found.body
