"""Text between marks in a page: what a script writes there, nobody types."""

from collections.abc import Callable, Mapping


def renewed(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with what each function gives now between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""
    for name, write in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{write()}\n{end}{rest.split(end)[1]}"
    return page
