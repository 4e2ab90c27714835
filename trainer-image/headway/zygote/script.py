"""Running a Python program in this process as `python train.py` would in one of its own."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["file", "module", "code"]


@dataclass(frozen=True)
class Program:
    """What follows the interpreter and its options on a command line.

    Attributes:
        kind: `file` for a path, `module` for `-m`, `code` for `-c`.
        target: The path, the module's name, or the code.
        arguments: What the program finds in `sys.argv` after its own name.
    """

    kind: Kind
    target: str
    arguments: Sequence[str]


def set_path(program: Program) -> None:
    """Make the modules beside the program importable, as the interpreter would have."""
    if sys.flags.safe_path:
        return
    first = {"file": str(Path(program.target).resolve().parent), "module": str(Path.cwd())}
    sys.path[0] = first.get(program.kind, "")


def source(program: Program) -> bytes:
    """The program's source as far as it can be found without running anything of it."""
    if program.kind == "code":
        return program.target.encode()
    if program.kind == "file":
        path: Path | None = Path(program.target)
    else:
        top = importlib.util.find_spec(program.target.partition(".")[0])
        folder = Path(top.origin).parent if top is not None and top.origin else None
        path = folder and folder.parent.joinpath(*program.target.split("."))
        path = path and (path / "__main__.py" if path.is_dir() else path.with_suffix(".py"))
    try:
        return path.read_bytes() if path is not None else b""
    except OSError:
        return b""


def run(program: Program) -> None:
    """Run the program as `__main__`; ends as it does, by returning or by an exception."""
    sys.argv = [_name(program), *program.arguments]
    if program.kind == "module":
        sys.modules["__main__"] = _fresh_main()
        # The very function behind `python -m`: there is no public one that runs as `__main__`.
        run_module: Any = runpy._run_module_as_main  # type: ignore[attr-defined]
        run_module(program.target, alter_argv=True)
        return
    main = _fresh_main()
    if program.kind == "file":
        main.__file__ = program.target
    sys.modules["__main__"] = main
    filename = program.target if program.kind == "file" else "<string>"
    exec(compile(source(program), filename, "exec", dont_inherit=True), main.__dict__)  # noqa: S102


def _fresh_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=__builtins__, __spec__=None, __annotations__={})
    return main


def _name(program: Program) -> str:
    return {"file": program.target, "module": "-m", "code": "-c"}[program.kind]


def preload(modules: Sequence[str]) -> list[str]:
    """Import modules that later children need; returns those that could not be imported."""
    failed = []
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 (a user's module may raise anything)
            failed.append(f"{name}: {error!r}")
    return failed
