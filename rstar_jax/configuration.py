"""gin: the only file that knows it. Configurations are frozen dataclasses; a gin file says what is in them."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import gin

DEFAULT_FILE = "local.gin"


def gin_folders() -> list[str]:
    """Where gin files are looked for: as they are named, in the wheel, in the checkout."""
    package = pathlib.Path(__file__).resolve().parent
    return ["", str(package / "gin"), str(package.parent / "gin"), str(package.parent)]


def find(file: str) -> pathlib.Path:
    """A file by its name or path, there or in a gin folder. Raises FileNotFoundError."""
    for folder in gin_folders():
        path = pathlib.Path(folder) / file
        if path.is_file():
            gin.add_config_file_search_path(folder)  # for its includes
            return path.resolve()
    raise FileNotFoundError(f"{file}: no such file")


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Reads gin files and `NAME=VALUE` bindings. Raises FileNotFoundError or ValueError with one clear line."""
    gin.clear_config()
    try:
        paths = [str(find(file)) for file in files or [DEFAULT_FILE]]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--gin_file={error}") from error
    for binding in bindings:
        if "=" not in binding:
            raise ValueError(f"--gin.{binding}: expected --gin.NAME=VALUE")
    try:
        gin.parse_config_files_and_bindings(paths, list(bindings), finalize_config=False)
    except (ValueError, SyntaxError, ImportError, AttributeError, NameError) as error:
        raise ValueError(f"gin: {error}") from error


def operative(root: Any) -> str:
    """What a configuration holds, one field a line: the text that a run folder keeps and compares."""
    lines: list[str] = []

    def walk(name: str, value: Any) -> None:
        if hasattr(value, "__dataclass_fields__"):
            for field in value.__dataclass_fields__:
                walk(f"{name}.{field}", getattr(value, field))
        elif isinstance(value, tuple) and any(hasattr(item, "__dataclass_fields__") for item in value):
            for index, item in enumerate(value):
                walk(f"{name}[{index}]", item)
        else:
            lines.append(f"{name} = {value!r}\n")

    walk(type(root).__name__, root)
    return "".join(lines)


def run(mode: Callable[..., None], files: Sequence[str], bindings: Sequence[str], flags: dict[str, Any]) -> None:
    """Calls a mode with its flags; one that takes a `config` gets it, of the class it is annotated with, from gin."""
    if "config" not in mode.__annotations__:
        mode(**flags)
        return
    parse(files, bindings)
    try:
        config = gin.get_configurable(mode.__annotations__["config"])()
    except (TypeError, ValueError) as error:
        raise ValueError(f"gin: {error}") from error
    mode(config=config, **flags)
