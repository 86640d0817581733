"""Where a mistake can be made, and which: the operators of `scripts/mutants.py`, for C and for Python.

Both languages are read by tree-sitter, so that one table of operators serves both, and comments, docstrings,
type annotations and preprocessor lines are known for what they are. Not touched: asserts and checks of the
debug build (they are tests), logging calls, decorators, `__all__`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tree_sitter
import tree_sitter_c
import tree_sitter_python
from tree_sitter import Node

LANGUAGES = {
    ".c": tree_sitter.Language(tree_sitter_c.language()),
    ".h": tree_sitter.Language(tree_sitter_c.language()),
    ".py": tree_sitter.Language(tree_sitter_python.language()),
}

BINARY = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
    "&&": ("||",),
    "||": ("&&",),
    "and": ("or",),
    "or": ("and",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "//": ("*",),
    "%": ("*",),
    "&": ("|",),
    "|": ("&",),
    "^": ("|",),
    "<<": (">>",),
    ">>": ("<<",),
    "+=": ("-=", "="),
    "-=": ("+=", "="),
    "*=": ("/=",),
    "/=": ("*=",),
    "|=": ("&=", "="),
    "&=": ("|=", "="),
    "++": ("--",),
    "--": ("++",),
}
NAMES = {"true": "false", "false": "true", "True": "False", "False": "True"}
WITH_OPERATOR = {
    "binary_expression",
    "binary_operator",
    "boolean_operator",
    "comparison_operator",
    "assignment_expression",
    "augmented_assignment",
    "update_expression",
}
STATEMENTS = {
    "expression_statement",
    "return_statement",
    "raise_statement",
    "break_statement",
    "continue_statement",
    "goto_statement",
    "delete_statement",
}
CONDITIONAL = {
    "if_statement",
    "elif_clause",
    "while_statement",
    "for_statement",
    "do_statement",
    "conditional_expression",
    "if_clause",
}
COLLECTIONS = {"list", "set", "tuple", "dictionary"}
# What is inside of these is no code, is itself a check, or is text for people.
CLOSED = {
    "comment",
    "type",
    "assert_statement",
    "decorator",
    "import_statement",
    "import_from_statement",
    "future_import_statement",
    "preproc_include",
    "preproc_def",
    "preproc_function_def",
    "string",
    "string_literal",
    "char_literal",
    "type_descriptor",
    "sizeof_expression",
    "attribute_specifier",
    "array_declarator",
    "field_declaration",
}
CLOSED_CALLS = re.compile(
    r"(?i:\w*assert\w*|PyErr_Format|PyErr_SetString|PyErr_WarnFormat"
    r"|(?:\w+\.)*_?log(?:ger)?\.\w+|warnings\.warn|TypeVar|overload|\w+_check|print)\Z"
)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mistake in one file.

    Attributes:
        path: of the file, from the root of the checkout.
        line: where the change begins, from 1.
        statement: the lines of the innermost statement around it, first and last.
        start, end: the bytes that are replaced.
        new: by what.
        operator: the kind of mistake.
        function: the function around it, "" outside of any.
    """

    path: str
    line: int
    statement: tuple[int, int]
    start: int
    end: int
    new: str
    operator: str
    function: str

    def apply(self, source: bytes) -> bytes:
        """The file with the mistake."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    def change(self, source: bytes) -> tuple[str, str]:
        """The lines that it changes, before and after, in one line each."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        last = len(source) if last < 0 else last
        before = source[first:last]
        after = source[first : self.start] + self.new.encode() + source[self.end : last]
        return _one_line(before), _one_line(after)


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())


def sites_of(path: str, source: bytes) -> list[list[Mutation]]:
    """The places in a file where a mistake can be made, each with the mistakes that can be made there."""
    finder = _Finder(path, source)
    finder.visit(tree_sitter.Parser(LANGUAGES[Path(path).suffix]).parse(source).root_node)
    return finder.sites


class _Finder:
    def __init__(self, path: str, source: bytes) -> None:
        self.sites: list[list[Mutation]] = []
        self._path = path
        self._source = source
        self._is_python = path.endswith(".py")
        self._function = ""
        self._statement = (0, 0)

    def visit(self, node: Node) -> None:
        """Walk through a node and what is in it."""
        if node.type in CLOSED or node.type == "ERROR" or self._is_closed(node):
            return
        function, statement = self._function, self._statement
        if node.type in {"function_definition", "class_definition"}:
            self._function = ".".join(filter(None, [function, self._name_of(node)]))
        if node.type.endswith(("_statement", "declaration", "_clause")) and node.type != "compound_statement":
            self._statement = (node.start_point.row + 1, self._end_of_head(node))
        for mutations in self._at(node):
            if mutations:
                self.sites.append(mutations)
        for child in node.children:
            self.visit(child)
        self._function, self._statement = function, statement

    def _text(self, node: Node) -> str:
        return self._source[node.start_byte : node.end_byte].decode()

    def _name_of(self, node: Node) -> str:
        name = node.child_by_field_name("name") or node.child_by_field_name("declarator")
        while name is not None and name.type not in {"identifier", "field_identifier"}:
            name = name.child_by_field_name("declarator")
        return "" if name is None else self._text(name)

    def _is_closed(self, node: Node) -> bool:
        if node.type in {"call", "call_expression"}:
            called = node.child_by_field_name("function")
            return called is not None and CLOSED_CALLS.match(self._text(called)) is not None
        if node.type == "preproc_ifdef":  # checks of the debug build
            return "DEBUG" in self._text(node).splitlines()[0]
        if node.type in {"assignment", "if_statement"} and self._is_python:
            return self._text(node).startswith(("__all__", "if TYPE_CHECKING", "if __name__ =="))
        return False

    @staticmethod
    def _end_of_head(node: Node) -> int:
        """The last line of a statement, without the block that it holds."""
        bodies = ("body", "consequence", "alternative")
        inner = [child for name in bodies if (child := node.child_by_field_name(name)) is not None]
        last = min((child.start_point.row for child in inner), default=node.end_point.row)
        return max(last, node.start_point.row) + 1

    def _mutation(self, start: int, end: int, new: str, operator: str) -> Mutation:
        line = self._source.count(b"\n", 0, start) + 1
        first, last = self._statement
        statement = (first, last) if first <= line <= last else (line, line)
        return Mutation(self._path, line, statement, start, end, new, operator, self._function)

    def _replace(self, node: Node, new: str, operator: str) -> Mutation:
        return self._mutation(node.start_byte, node.end_byte, new, operator)

    def _at(self, node: Node) -> Iterator[list[Mutation]]:
        kind = node.type
        if kind in WITH_OPERATOR:
            yield from self._operators(node)
        elif kind in {"true", "false"}:  # True and False of Python too
            yield [self._replace(node, NAMES[self._text(node)], "constant")]
        elif kind in {"number_literal", "integer", "float"}:
            yield self._number(node)
        elif kind in {"not_operator", "unary_expression"}:
            yield self._negation(node)
        elif kind in COLLECTIONS:
            yield from self._elements(node)
        if kind in CONDITIONAL:
            yield self._condition(node)
        if kind in STATEMENTS:
            yield self._statement_mutations(node)

    def _operators(self, node: Node) -> Iterator[list[Mutation]]:
        operators = (
            node.children_by_field_name("operators")
            if node.type == "comparison_operator"
            else node.children_by_field_name("operator")
        )
        for operator in operators:
            old = self._text(operator)
            yield [self._replace(operator, new, "operator") for new in BINARY.get(old, ())]

    def _number(self, node: Node) -> list[Mutation]:
        text = self._text(node)
        match = re.fullmatch(r"(0[xX][0-9a-fA-F']+|[0-9_]+)([uUlL]*)", text)
        if match is not None:
            value = int(match[1].replace("_", ""), 16 if match[1][:2].lower() == "0x" else 10)
            values = (value + 1, value - 1) if value > 0 else (1,)
            return [self._replace(node, f"{new}{match[2]}", "constant") for new in values]
        match = re.fullmatch(r"([0-9]*\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+)(e-?[0-9]+)?", text)
        if match is None:
            return []
        return [self._replace(node, "1.0" if float(text) == 0 else f"({text} * 2)", "constant")]

    def _negation(self, node: Node) -> list[Mutation]:
        argument = node.child_by_field_name("argument")
        text = self._text(node)
        if argument is None or not text.startswith(("!", "not", "-")) or text.startswith("!!"):
            return []
        if text.startswith("-") and argument.type not in {"number_literal", "integer", "identifier"}:
            return []
        return [self._replace(node, f"({self._text(argument)})", "negation")]

    def _elements(self, node: Node) -> Iterator[list[Mutation]]:
        elements = [child for child in node.named_children if child.type != "comment"]
        is_pattern = node.parent is not None and node.parent.child_by_field_name("left") == node
        if len(elements) < 2 or is_pattern or self._is_inside(node, {"subscript", "type", "for_statement"}):
            return
        if node.type == "tuple" and len(elements) == 2 and elements[1].type == "list_splat":
            return  # which is no expression alone
        for element in elements:
            end = element.end_byte
            rest = self._source[end : node.end_byte]
            comma = re.match(rb"\s*,", rest)
            if comma is None:
                continue  # the last of a line: to take it away would leave two commas, or a lone one
            yield [self._mutation(element.start_byte, end + comma.end(), "", "element")]

    @staticmethod
    def _is_inside(node: Node, kinds: set[str]) -> bool:
        return node.parent is not None and node.parent.type in kinds

    def _condition(self, node: Node) -> list[Mutation]:
        condition = node.child_by_field_name("condition")
        if node.type == "if_clause":
            condition = node.named_children[0]
        elif node.type == "conditional_expression" and self._is_python:
            condition = node.named_children[1]
        if condition is None or condition.type in {"not_operator", "named_expression", "true", "True"}:
            return []
        text = self._text(condition)
        if re.fullmatch(r"[^&|<>()]*\s(==|!=|is|is not|in|not in)\s[^&|<>()]*", text.strip("()")):
            return []  # its operator is a site of its own, with the same change
        if self._is_python:
            return [self._replace(condition, f"(not ({text}))", "condition")]
        if re.fullmatch(r"\(?\s*!.*\)?", text, re.DOTALL) and "&&" not in text and "||" not in text:
            return []  # the negation is a site of its own
        new = f"(!{text})" if condition.type == "parenthesized_expression" else f"!({text})"
        return [self._replace(condition, new, "condition")]

    def _statement_mutations(self, node: Node) -> list[Mutation]:
        empty = "pass" if self._is_python else ";"
        inner = node.named_children[0] if node.named_children else None
        kind = node.type
        if kind == "return_statement":
            if inner is None or self._text(inner) in {"None", "NULL", "0", *NAMES}:
                return []  # no change, or a site of its own
            return [self._replace(node, "return None" if self._is_python else "return 0;", "return")]
        if kind == "expression_statement" and (inner is None or not self._can_be_deleted(node, inner)):
            return []
        return [self._replace(node, empty, "deletion")]

    def _can_be_deleted(self, node: Node, inner: Node) -> bool:
        """Not what says nothing, nor a name that would then be missing: every test sees that."""
        if self._is_closed(inner) or inner.type in {"string", "ellipsis", "yield"}:
            return False
        if not self._is_python:
            return True
        left = inner.child_by_field_name("left")
        makes_name = inner.type == "assignment" and left is not None and left.type == "identifier"
        is_annotation = inner.type == "assignment" and inner.child_by_field_name("right") is None
        is_at_top = node.parent is not None and node.parent.type == "module"
        return not (makes_name or is_annotation or is_at_top or self._is_inside_class(node))

    @staticmethod
    def _is_inside_class(node: Node) -> bool:
        block = node.parent
        return block is not None and block.parent is not None and block.parent.type == "class_definition"


def all_sites(root: Path, folders: Sequence[str]) -> tuple[list[list[Mutation]], dict[str, bytes]]:
    """The sites of all C and Python files below folders, and the text of each file."""
    sources: dict[str, bytes] = {}
    sites: list[list[Mutation]] = []
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in LANGUAGES and "__pycache__" not in path.parts:
                name = str(path.relative_to(root))
                sources[name] = path.read_bytes()
                sites += sites_of(name, sources[name])
    return sites, sources
