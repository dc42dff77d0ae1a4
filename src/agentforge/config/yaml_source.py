"""Read YAML into a `Source`: values as PyYAML's safe loader makes them, with the position of every node."""

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agentforge.config.source import KeyPath, Mark, Place, Problem, Source, fault, quoted_line, shown
from agentforge.errors.config import FileSyntaxError, InvalidValueError

__all__ = ["parse_yaml"]

MAX_NODES = 100_000
MAX_DEPTH = 64
MAX_BITS = 1024
MERGE_TAG = "tag:yaml.org,2002:merge"


def parse_yaml(text: str, file: str) -> Source:
    """Return the mapping that a YAML document holds. Raises FileSyntaxError or InvalidValueError."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise _syntax_fault(text, file, what, mark) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        place = Place(file, Mark(line, error.position - text.rfind("\n", 0, error.position)))
        statement = f"the character `U+{ord(text[error.position]):04X}` is not allowed in YAML"
        raise fault([Problem(FileSyntaxError, place, "", statement, "Remove the character.")]) from None
    except RecursionError:
        raise fault([_nesting(file)]) from None
    if not isinstance(node, MappingNode):
        raise fault([_not_a_mapping(file, node)])
    return _Reader(file).read(node)


class _Reader:
    """Turns nodes into values. Aliases are expanded and counted, so that a small file can't become a huge value."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._construct = SafeConstructor()
        self._keys: dict[KeyPath, Mark] = {}
        self._values: dict[KeyPath, Mark] = {}
        self._nodes = 0

    def read(self, node: MappingNode) -> Source:
        try:
            data = self._mapping(node, ())
        except RecursionError:  # merges of merges: nothing else here recurses without growing the path
            raise fault([_nesting(self._file)]) from None
        return Source(self._file, data, self._keys, self._values)

    def _value(self, node: Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise fault([_nesting(self._file)])
        self._values[path] = _mark(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        self._values[path] = _mark(node)
        found: dict[str, Any] = {}
        for key_node, value_node, merged in self._pairs(node):
            key = self._key(key_node)
            where = (*path, key)
            if key in found:
                if merged:
                    continue
                raise self._fault(key_node, where, f"`{key}` is there twice", "Remove one of the two.")
            self._keys[where] = _mark(key_node)
            found[key] = self._value(value_node, where)
        return found

    def _pairs(self, node: MappingNode) -> Iterator[tuple[Node, Node, bool]]:
        """Yield a mapping's own pairs, then those that `<<` merges into it."""
        own = [pair for pair in node.value if pair[0].tag != MERGE_TAG]
        yield from ((key, value, False) for key, value in own)
        for key, value in node.value:
            if key.tag != MERGE_TAG:
                continue
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                self._nodes += 1
                if not isinstance(source, MappingNode) or self._nodes > MAX_NODES or source is node:
                    raise self._fault(source, (), "`<<` merges something else than a mapping", "")
                yield from ((inner, child, True) for inner, child, _ in self._pairs(source))

    def _key(self, node: Node) -> str:
        key = self._scalar(node) if isinstance(node, ScalarNode) else None
        if isinstance(key, str):
            return key
        written = node.value if isinstance(node, ScalarNode) else "..."
        statement = f"the key `{written}` is not text"
        raise self._fault(node, (), statement, f'Put it in quotes: `"{written}"`.')

    def _scalar(self, node: Node) -> Any:
        try:
            value = self._construct.construct_object(node)
            if isinstance(value, int) and value.bit_length() > MAX_BITS:
                raise ValueError("the number has too many digits")
            return value
        except ConstructorError:
            hint = "Remove the tag: agent files use plain YAML values."
            raise self._fault(node, (), f"the tag `{node.tag}` is not known", hint) from None
        except ValueError as error:
            statement = f"the value `{shown(node.value)}` can't be read: {error}"
            raise self._fault(node, (), statement, "Put it in quotes if it is text.") from None

    def _fault(self, node: Node, path: KeyPath, statement: str, hint: str) -> Exception:
        place = Place(self._file, _mark(node))
        return fault([Problem(FileSyntaxError, place, ".".join(map(str, path)), statement, hint)])


def _mark(node: Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax_fault(text: str, file: str, what: str, mark: Any) -> Exception:
    place = Place(file, Mark(mark.line + 1, mark.column + 1) if mark else None)
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    statement = f"not valid YAML: {what}{quoted_line(line)}"
    hint = "Check the indentation (spaces, no tabs), and quote text that has `: ` or ` #` in it."
    return fault([Problem(FileSyntaxError, place, "", statement, hint)])


def _nesting(file: str) -> Problem:
    statement = f"the file is nested more than {MAX_DEPTH} deep or its aliases expand to over {MAX_NODES} values"
    return Problem(FileSyntaxError, Place(file), "", statement, "Write the values out without aliases.")


def _not_a_mapping(file: str, node: Node | None) -> Problem:
    hint = "Begin with `name: ...` and `instructions: ...`, one key a line."
    if node is None:
        return Problem(InvalidValueError, Place(file, Mark(1, 1)), "", "the file is empty", hint)
    what = "a list" if isinstance(node, SequenceNode) else "plain text"
    return Problem(InvalidValueError, Place(file, _mark(node)), "", f"the file is {what}, not keys with values", hint)
