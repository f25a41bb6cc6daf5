"""Directives that generate reference pages from the program, the templates and the schemas."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from pkgutil import walk_packages
from types import GenericAlias
from typing import Any, ClassVar

import click
import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import core
from infra.__main__ import program

Cell = str | nodes.literal | tuple[nodes.literal, str]
"""Text, code, or code with a note below it."""


def table(heads: Iterable[str], rows: Iterable[Iterable[Cell]]) -> nodes.table:
    """Return a table; cells are text, never markup: help texts contain ``*`` and ``_``."""
    heads = list(heads)
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=1) for _ in heads]
    group += nodes.thead("", _row(heads))
    group += nodes.tbody("", *(_row(row) for row in rows))
    return nodes.table("", group, classes=["fields"])


def _row(cells: Iterable[Cell]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        for part in cell if isinstance(cell, tuple) else (cell,):
            content = nodes.Text(part) if isinstance(part, str) else part
            entry += nodes.paragraph("", "", content)
        row += entry
    return row


def code(text: str) -> nodes.literal:
    """Return text in the font of code."""
    return nodes.literal(text, text)


class Commands(SphinxDirective):
    """A section for each command of ``dq-init``, from the parser of its options."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        root = click.Context(program, info_name="dq-init", max_content_width=100)
        names = program.list_commands(root)
        return [self._command(program.get_command(root, name), name, root) for name in names]

    def _command(self, command: click.Command, name: str, parent: click.Context) -> nodes.section:
        context = click.Context(command, info_name=name, parent=parent, show_default=True)
        path = context.command_path
        section = nodes.section(ids=[nodes.make_id(path)])
        section += nodes.title("", "", nodes.Text(path))
        self.state.document.note_implicit_target(section)
        usage = " ".join(command.collect_usage_pieces(context))
        section += nodes.literal_block("", f"{path} {usage}", language="none")
        for paragraph in (command.help or "").split("\n\n"):
            section += nodes.paragraph("", paragraph.replace("\b", "").strip())
        options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
        records = filter(None, (option.get_help_record(context) for option in options))
        rows = [(code(names.replace(" RANGE", "")), meaning) for names, meaning in records]
        if rows:
            section += table(("option", "meaning"), rows)
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                if found is not None:
                    section += self._command(found, inner, context)
        return section


_LONGEST_VALUE = 80  # characters
_MODULE = """
## {0}

```{{eval-rst}}
.. automodule:: {0}
   :members:
```
"""


class PythonApi(SphinxDirective):
    """A section for each module of `core`, from its docstrings."""

    required_arguments: ClassVar[int] = 1  # the module to begin with

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        names = [m.name for m in walk_packages(core.__path__, "core.") if not m.ispkg]
        names.sort(key=lambda name: (name != self.arguments[0], name))
        blocks = "\n".join(_MODULE.format(name) for name in names)
        return self.parse_text_to_nodes(blocks, allow_section_headings=True)


def _keep_tables(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Make the docstring of a module that has a text table a literal block, below its title."""
    if what == "module" and any("   " in line or line.startswith("|") for line in lines):
        lines[1:] = ["", "::", "", *(f"  {line}" for line in lines[1:]), ""]


def _skip_aliases(_app: Sphinx, _what: str, _name: str, member: object, *_: object) -> bool | None:
    """Skip aliases of types, which numpydoc takes for classes."""
    return True if isinstance(member, GenericAlias) else None


def _hide_long_values(
    _app: Sphinx, _domain: str, _type: str, content: addnodes.desc_content
) -> None:
    """Remove the values of constants that do not fit a line."""
    for value in list(content.parent.findall(addnodes.desc_annotation)):
        if len(value.astext()) > _LONGEST_VALUE:
            value.parent.remove(value)


class Template(SphinxDirective):
    """A table of a section of a SAM template: Parameters or Outputs."""

    required_arguments: ClassVar[int] = 2  # file, section

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        name, section = self.arguments
        _, path = self.env.relfn2path(name)
        self.env.note_dependency(path)
        entries = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)[section]  # noqa: S506
        if section == "Outputs":
            rows = [(code(name), entry["Description"]) for name, entry in entries.items()]
            return [table(("output", "meaning"), rows)]
        parameters = [
            ((code(name), _default(entry)), f"{entry['Description']} {_allowed(entry)}".strip())
            for name, entry in entries.items()
        ]
        return [table(("parameter", "meaning"), parameters)]


class _Loader(yaml.SafeLoader):
    """A loader that replaces CloudFormation's functions, such as ``!Ref``, with None."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)  # noqa: ARG005


def _default(entry: dict[str, Any]) -> str:
    default = entry.get("Default")
    return "required" if default is None else f"default: {default}" if default != "" else "optional"


def _allowed(entry: dict[str, Any]) -> str:
    if "AllowedValues" in entry:
        return f"Values: {', '.join(str(value) for value in entry['AllowedValues'])}."
    if "MinValue" in entry:
        return f"Values: {entry['MinValue']} to {entry['MaxValue']}."
    return ""


class JsonSchema(SphinxDirective):
    """A table of the fields that a JSON Schema describes."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = list(_fields(schema, schema, ""))
        return [
            nodes.paragraph("", schema["description"]),
            table(("field", "meaning"), rows),
        ]


def _fields(node: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[Iterable[Cell]]:
    """Walk the properties of an object, and those of the objects in it."""
    required = node.get("required", [])
    for name, found in node.get("properties", {}).items():
        field = schema["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
        whole = f"{path}{name}"
        meaning = found.get("description") or field.get("description", "")
        is_optional = "" if name in required else ", optional"
        yield (code(whole), f"{_type(field)}{is_optional}"), meaning
        yield from _fields(field, schema, f"{whole}.")
        if isinstance(more := field.get("additionalProperties"), dict):
            yield from _fields(more, schema, f"{whole}.*.")
        if isinstance(items := field.get("items"), dict):
            yield from _fields(items, schema, f"{whole}[].")


def _type(field: dict[str, Any]) -> str:
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return ", ".join(json.dumps(value) for value in field["enum"])
    kinds = field.get("type", "")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("commands", Commands)
    app.add_directive("python-api", PythonApi)
    app.add_directive("template", Template)
    app.add_directive("json-schema", JsonSchema)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _keep_tables, priority=400)  # before numpydoc
    app.connect("object-description-transform", _hide_long_values)
    app.connect("autodoc-skip-member", _skip_aliases)
    return {"parallel_read_safe": True}
