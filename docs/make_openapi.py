"""Writes docs/openapi.json, the server's interface, from the server itself.

python docs/make_openapi.py            writes the file
python docs/make_openapi.py --check    exits 1 when a route, a field or a status is not the server's

Another version of pydantic writes the same in other words, so the check compares names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("openapi.json")


def document() -> str:
    from autodeco_edge.server import schema
    from autodeco_edge.server.app import House, make_app
    from autodeco_edge.server.guard import Hosts, Keys
    from autodeco_edge.server.limits import ServerLimits

    house = House(lambda: None, ["model"], ServerLimits())
    found = schema.document(make_app(house, Keys(), Hosts()))
    found["info"]["version"] = "1"  # of the interface, not of the program
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def outline(text: str) -> dict[str, list[str]]:
    """Statuses of each route, properties of each schema, the required ones marked."""
    found = json.loads(text)
    routes = {
        f"{method} {path}": sorted(operation["responses"])
        for path, operations in found["paths"].items()
        for method, operation in operations.items()
    }
    schemas = {
        name: sorted(f"{p}{'!' if p in schema.get('required', []) else ''}" for p in schema.get("properties", {}))
        for name, schema in found["components"]["schemas"].items()
    }
    return {**routes, **schemas}


def main() -> int:
    text = document()
    if "--check" in sys.argv:
        return int(not TARGET.exists() or outline(TARGET.read_text(encoding="utf-8")) != outline(text))
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
