"""The house in figures: modules a package, import circles, names defined twice, lines of source and tests.

    python scripts/house.py

The contract of imports is `lint-imports --no-cache`.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ("planner", "simulator", "live")


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def packages() -> dict[str, int]:
    """Modules of each package, `__init__` not counted."""
    return Counter(
        str(path.parent.relative_to(ROOT)).replace("/", ".") for path in modules(*SOURCE) if path.name != "__init__.py"
    )


def circle() -> list[str]:
    """A circle of imports, those inside of functions counted and those for types not; empty when there is none."""
    from grimp import build_graph  # import-linter's own

    graph = build_graph(*SOURCE, exclude_type_checking_imports=True)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def twice(kind: type | tuple[type, ...]) -> dict[str, int]:
    """Public names that the outermost level of more than one module defines, and of how many."""
    homes: dict[str, set[Path]] = defaultdict(set)
    for path in modules(*SOURCE):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                homes[node.name].add(path)  # type: ignore[attr-defined]
    return {name: len(paths) for name, paths in sorted(homes.items()) if len(paths) > 1}


def lines(*folders: str) -> int:
    return sum(len(path.read_text().splitlines()) for path in modules(*folders))


def main() -> None:
    print("modules:", ", ".join(f"{name} {count}" for name, count in sorted(packages().items())))
    print("import circle:", " -> ".join(circle()) or "none")
    for label, kind in (("classes", ast.ClassDef), ("functions", (ast.FunctionDef, ast.AsyncFunctionDef))):
        found = twice(kind)
        print(f"{label} of one name in several modules: {len(found)}:", ", ".join(found))
    print(f"lines: {lines(*SOURCE):,} of source, {lines('tests'):,} of tests")


if __name__ == "__main__":
    main()
