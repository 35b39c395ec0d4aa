"""gin: the only file that knows it. Configurations are frozen dataclasses; a gin file says what is in them."""

import contextlib
import logging
import pathlib
import tokenize
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin

DEFAULT_FILE = "local.gin"

_log = logging.getLogger(__name__)


def gin_folders() -> list[str]:
    """Where gin files are looked for: as they are named, in the wheel, in the checkout."""
    package = pathlib.Path(__file__).resolve().parent
    return ["", str(package / "gin"), str(package.parent / "gin"), str(package.parent)]


def find(file: str) -> pathlib.Path:
    """A file by its name or path, there or in a gin folder. Raises FileNotFoundError."""
    for folder in gin_folders():
        path = pathlib.Path(folder) / file
        if path.is_file():
            return path.resolve()
    raise FileNotFoundError(f"{file}: no such file")


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Reads gin files and `NAME=VALUE` bindings. Raises FileNotFoundError or ValueError with one clear line."""
    gin.clear_config()
    try:
        paths = [find(file) for file in files or [DEFAULT_FILE]]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--gin_file={error}") from error
    for folder in [*(str(path.parent) for path in paths), *gin_folders()]:  # for includes, from wherever they are
        gin.add_config_file_search_path(folder)
    for path in paths:
        _parse(f"--gin_file={path}", lambda path=path: gin.parse_config_file(str(path)))
    for binding in bindings:
        if "=" not in binding:
            raise ValueError(f"--gin.{binding}: expected --gin.NAME=VALUE")
        _parse(f"--gin.{binding}", lambda binding=binding: gin.parse_config(binding))


def value(file: str, name: str) -> Any:
    """What a gin file calls `name`, a macro, of a file that stands for itself; what was parsed before is forgotten.

    Raises as `parse` does, or ValueError where the file has no such name.
    """
    parse([file], [])
    with contextlib.suppress(ValueError):  # known since an earlier call
        gin.external_configurable(_value, "value")
    try:
        gin.bind_parameter("value.own", gin.query_parameter(f"{name}/macro.value"))
        return gin.get_configurable(_value)()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _value(own: Any) -> Any:
    return own


def _parse(flag: str, parse_config: Callable[[], object]) -> None:
    """Parses what one flag gives, and names it where that is not gin."""
    root = logging.getLogger()
    said, root.disabled = root.disabled, True  # gin tells the root logger where else it looked for an included file
    try:
        parse_config()
    except (ValueError, SyntaxError, ImportError, AttributeError, NameError, OSError, tokenize.TokenError) as error:
        raise ValueError(f"{flag}: {error}") from error
    finally:
        root.disabled = said


def operative(root: Any, name: str | None = None) -> str:
    """What a configuration holds, one field a line: the text that a run folder keeps and compares.

    name: of the root, instead of its type's.
    """
    return "".join(f"{name} = {value!r}\n" for name, value in _fields(name or type(root).__name__, root))


def _fields(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a configuration, those of its parts among them, each with its whole name."""
    if hasattr(value, "__dataclass_fields__"):
        for field in value.__dataclass_fields__:
            yield from _fields(f"{name}.{field}", getattr(value, field))
    elif isinstance(value, tuple) and any(hasattr(item, "__dataclass_fields__") for item in value):
        for index, item in enumerate(value):
            yield from _fields(f"{name}[{index}]", item)
    else:
        yield name, value


def _refuse_missing(config: Any) -> None:
    """gin itself sees a `%gin.REQUIRED` in a field, but not one that came through a macro."""
    for name, value in _fields(type(config).__name__, config):
        if value is gin.REQUIRED:
            raise ValueError(f"{name} must be set; the head of the gin file says by which name")


def run(mode: Callable[..., None], files: Sequence[str], bindings: Sequence[str], flags: dict[str, Any]) -> None:
    """Calls a mode with its flags; what it takes as `config` or `limits`, of the class it is annotated with, is gin's.

    Raises ValueError for gin flags of a mode that takes neither; says which `bindings` change nothing, as those of a
    class that the mode has not.
    """
    taken = [name for name in ("config", "limits") if name in mode.__annotations__]
    if not taken and (files or bindings):
        first = f"--gin_file={files[0]}" if files else f"--gin.{bindings[0]}"
        raise ValueError(f"{first}: this mode has nothing to configure")
    if "limits" in taken:  # gin knows what its files name, and the files of runs name no limits
        with contextlib.suppress(ValueError):  # known since an earlier call
            gin.external_configurable(mode.__annotations__["limits"], module="verifier")
    for name in taken:
        kind = mode.__annotations__[name]
        flags = flags | {name: _made(kind, files, bindings)}
        told = operative(flags[name])
        for place, binding in enumerate(bindings):
            with contextlib.suppress(ValueError):  # what cannot be left out has an effect
                others = [*bindings[:place], *bindings[place + 1 :]]
                if operative(_made(kind, files, others)) == told:
                    _log.warning("--gin.%s changes nothing in this mode", binding)
    mode(**flags)


def _made(kind: type, files: Sequence[str], bindings: Sequence[str]) -> Any:
    """A configuration of a class."""
    parse(files, bindings)
    try:
        config = gin.get_configurable(kind)()
        _refuse_missing(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"gin: {error}") from error
    return config
