"""Print the requirements of Headway and some of its extras, one a line.

An image installs these before it copies the code, so that a change of code rebuilds only a
small layer. Usage: ``python hack/requirements.py operator``.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """Requirements of the project itself and of the named extras."""
    project = tomllib.loads(pyproject)["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    return sorted({line for group in groups for line in group})


if __name__ == "__main__":
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    print("\n".join(requirements(text, sys.argv[1:])))
