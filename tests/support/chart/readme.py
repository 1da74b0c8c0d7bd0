"""The table of keys in the chart's README, made of values.yaml: each key, its default, and the comment above it."""

from collections.abc import Iterator

import yaml

from tests.support.chart.render import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"


def with_table(text: str) -> str:
    """Return the README's text with the present table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, f"{README} has lost its marks"
    rows = "".join(f"| `{key}` | {default} | {meaning} |\n" for key, default, meaning in keys())
    return f"{before}{BEGIN}| key | default | meaning |\n|---|---|---|\n{rows}{END}{after}"


def keys() -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default as Markdown, comment) of every leaf, in the file's order; a section without a default of its own,
    but with a comment, comes before its keys with an empty default.
    """
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    root = yaml.compose("\n".join(lines))
    assert isinstance(root, yaml.MappingNode)
    yield from _below(root, "", lines)


def _below(node: yaml.MappingNode, path: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        own = f"{path}{key.value}"
        meaning = _comment(lines, key.start_mark.line)
        is_section = isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
        if not is_section:
            yield own, _default(value), meaning
            continue
        if meaning:
            yield own, "", meaning
        yield from _below(value, f"{own}.", lines)


def _comment(lines: list[str], at: int) -> str:
    """The comment that ends right above a line."""
    found: list[str] = []
    while at > 0 and lines[at - 1].lstrip().startswith("#"):
        at -= 1
        found.insert(0, lines[at].lstrip().removeprefix("#").strip())
    return " ".join(found).replace("|", "\\|").replace("<", "&lt;")


def _default(node: yaml.Node) -> str:
    text = yaml.serialize(node, Dumper=_Flow, width=10_000).strip().removesuffix("...").strip()
    return f"`{text}`".replace("|", "\\|")


class _Flow(yaml.SafeDumper):
    """One line, whatever the value."""

    def serialize_node(self, node: yaml.Node, parent: yaml.Node | None, index: int) -> None:
        if isinstance(node, yaml.CollectionNode):
            node.flow_style = True
        super().serialize_node(node, parent, index)
