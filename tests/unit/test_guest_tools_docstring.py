import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge_worker.tools.docstring import parse_docstring

GOOGLE = """Summary line.

    More text: with a colon.

    Args:
        first (int): The first
            one, over two lines.
        second (Optional[List[int]], optional): The second.
        *rest: The rest: all of it.

    Returns:
        dict: What comes out.

    Raises:
        ValueError: If not.

    Example:
        >>> f(1)
    """
NUMPY = """Summary line.

    Parameters
    ----------
    first : int
        The first
        one.
    x, y : float, optional
        Both.
    bare

    Returns
    -------
    float
        What comes out.

    Notes
    -----
    Something.
    """
REST = """Summary line.

    :param first: The first
        one.
    :param int second: The second.
    :type first: int
    :returns: What comes out.
    :raises ValueError: If not.

    See :func:`other`.
    """


@pytest.mark.parametrize(
    ("doc", "text", "parameters"),
    [
        (
            GOOGLE,
            "Summary line.\n\nMore text: with a colon.\n\nExample:\n    >>> f(1)",
            {"first": "The first one, over two lines.", "second": "The second.", "rest": "The rest: all of it."},
        ),
        (
            NUMPY,
            "Summary line.\n\nNotes\n-----\nSomething.",
            {"first": "The first one.", "x": "Both.", "y": "Both."},
        ),
        (REST, "Summary line.\n\nSee :func:`other`.", {"first": "The first one.", "second": "The second."}),
        ("Only text.", "Only text.", {}),
        ("Args: are not a section here.", "Args: are not a section here.", {}),
        ("", "", {}),
        (None, "", {}),
    ],
    ids=["google", "numpy", "rest", "text", "no section", "empty", "none"],
)
def test_each_style_is_read(doc, text, parameters):
    found = parse_docstring(doc)
    assert found.text == text
    assert found.parameters == parameters


LINES = st.sampled_from(["", "Args:", "    x: a", "        b", "Parameters", "---", "x : int", ":param x: y", "text:"])


@given(st.lists(LINES, max_size=12) | st.lists(st.text(max_size=10), max_size=8))
def test_any_docstring_is_read(lines):
    found = parse_docstring("\n".join(lines))
    assert all(found.parameters.values())
