"""What `--problems=` names: a file, a folder, or a set that has a file in gin/problems."""

import pathlib

from etils import epath

from rstar_jax import configuration
from rstar_jax.problems import datasets, rows
from rstar_jax.problems.sources import FileProblems, Source, TfdsProblems

_GIN = "problems"  # the folder among the gin files


def find(name: str) -> Source:
    """The source of that name.

    A file; a folder of such files, or of a TFDS data set, with `FOLDER:SPLIT` where it has several splits; a gin file;
    the name of one in gin/problems, which calls its source by its own name in capitals.
    Raises FileNotFoundError or ValueError with one line that says what there is.
    """
    path = epath.Path(name)
    if path.suffix == ".gin":
        return _of_gin(name)
    if path.is_file():
        return FileProblems(files=(name,))
    if path.is_dir():
        return _of_folder(name, "")
    folder, _, split = name.rpartition(":")
    if folder and epath.Path(folder).is_dir():
        return _of_folder(folder, split)
    if name in names():
        return _of_gin(f"{_GIN}/{name}.gin")
    raise FileNotFoundError(f"--problems={name}: no such file or folder; the sets with a name are {', '.join(names())}")


def names() -> list[str]:
    """The sets that have a file in a gin folder."""
    folders = (pathlib.Path(folder) / _GIN for folder in configuration.gin_folders())
    return sorted({file.stem for folder in folders for file in folder.glob("*.gin")})


def _of_gin(file: str) -> Source:
    source = configuration.value(file, pathlib.PurePath(file).stem.upper())
    if not callable(getattr(source, "read", None)):
        raise ValueError(f"{file}: expected a source of problems, got {source!r}")
    return source


def _of_folder(folder: str, split: str) -> Source:
    splits = datasets.splits(folder)
    if splits:
        if not split and len(splits) > 1:
            raise ValueError(
                f"--problems={folder}: has the splits {', '.join(splits)}; say one as {folder}:{splits[0]}"
            )
        return TfdsProblems(folder=folder, split=split or splits[0])
    files = sorted(str(file) for file in epath.Path(folder).iterdir() if file.name.endswith(rows.SUFFIXES))
    if not files or split:
        raise FileNotFoundError(
            f"--problems={folder}: neither a TFDS data set nor {', '.join(rows.SUFFIXES)} files there"
        )
    return FileProblems(files=tuple(files))
