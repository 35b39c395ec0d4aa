"""Where problems come from: files, TFDS data sets, and the named sets of gin/problems, on disk or from the hub."""

import dataclasses
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from etils import epath

from rstar_jax.problems import datasets, rows
from rstar_jax.problems.fields import Fields, collect
from rstar_jax.problems.problem import Problem

FOLDER = "RSTAR_PROBLEMS"  # the environment variable that names the folder of local copies

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Problems that can be read."""

    def read(self, *, blind: bool = False) -> list[Problem]:
        """The problems, the same ones in the same order each time; `blind`, without answers and solutions.

        Raises FileNotFoundError, or ValueError, in one line that names file, line and column.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileProblems:
    """The problems of files.

    files: `.jsonl`, `.jsonl.gz`, `.json` (a list), `.parquet`; local or remote.
    name: of the set: the problems' `source`, and before each id; None has ids as the rows have them.
    only: {column: its values}: rows with others are none of this set.
    limit: the first so many problems.
    Of several files, the name of each stands before its ids.
    """

    files: tuple[str, ...]
    name: str | None = None
    fields: Fields = Fields()
    only: Mapping[str, tuple[str, ...]] | None = None
    limit: int | None = None

    def read(self, *, blind: bool = False) -> list[Problem]:
        """As `Source.read`; says how many rows are left out because no answer was found in them."""
        paths = [epath.Path(file) for file in self.files]
        own = f"{self.name}/" if self.name else ""
        problems: list[Problem] = []
        for path, stem in zip(paths, _stems(paths), strict=True):
            left = None if self.limit is None else self.limit - len(problems)
            found = self.fields.read(rows.read(path), name=self.name, only=self.only, blind=blind)
            prefix = f"{own}{stem}/" if len(paths) > 1 else own
            problems += collect(found, str(path), prefix=prefix, limit=left)
        if not any(blind or problem.answers for problem in problems):
            raise ValueError(f"{', '.join(self.files)}: no problem with an answer there")
        return problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsProblems:
    """The problems of one split of a TFDS data set that was prepared in its array_record form, read without TensorFlow.

    folder: that of the data set, such as ~/tensorflow_datasets/gsm8k. name, fields: as of `FileProblems`.
    """

    folder: str
    split: str
    name: str | None = None
    fields: Fields = Fields()

    def read(self, *, blind: bool = False) -> list[Problem]:
        """As `Source.read`; by id, where rows have one, since TFDS shuffles."""
        problems = datasets.read_problems(self.folder, self.split, self.fields, self.name)
        return [problem.blind() for problem in problems] if blind else problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """A set with a name: a local copy where there is one, else what the hub has.

    name: also that of its file in gin/problems.
    repository, revision, files: the data set's id on huggingface.co, a commit of it, and paths there.
    fields, only: as of `FileProblems`, of the hub's rows. license: as the hub says it. size: problems, where known.
    folder: where local copies are: NAME.jsonl (or .jsonl.gz, .json, .parquet) or NAME/ with the hub's files; None is
        the folder RSTAR_PROBLEMS. They have the hub's columns, or ours, as `rstar problems` writes them: the first row
        says which.
    limit: the first so many problems.
    """

    name: str
    repository: str
    files: tuple[str, ...]
    license: str
    revision: str = "main"
    size: int | None = None
    fields: Fields = Fields()
    only: Mapping[str, tuple[str, ...]] | None = None
    folder: str | None = None
    limit: int | None = None

    def read(self, *, blind: bool = False) -> list[Problem]:
        """As `Source.read`."""
        files = self._local() or self._downloaded()
        fields, only = self.fields, self.only
        if not self._fits(files[0]):
            fields = Fields(source="source" if self.fields.source else None)
            only = {"source" if own == self.fields.source else own: wanted for own, wanted in (only or {}).items()}
        source = FileProblems(files=files, name=self.name, fields=fields, only=only, limit=self.limit)
        problems = source.read(blind=blind)
        if self.size not in (None, len(problems)) and not (self.only or self.limit):
            _log.info("%s: %d problems, the set is known to have %d", self.name, len(problems), self.size)
        return problems

    def _local(self) -> tuple[str, ...]:
        folder = self.folder or os.environ.get(FOLDER)
        if not folder:
            return ()
        own = epath.Path(folder) / self.name
        if own.is_dir():
            return tuple(str(own / file) for file in self.files)
        copies = (epath.Path(folder) / f"{self.name}{suffix}" for suffix in rows.SUFFIXES)
        return tuple(str(copy) for copy in copies if copy.exists())[:1]

    def _downloaded(self) -> tuple[str, ...]:
        import huggingface_hub

        try:
            return tuple(
                huggingface_hub.hf_hub_download(self.repository, file, repo_type="dataset", revision=self.revision)
                for file in self.files
            )
        except Exception as error:  # of many libraries: names, networks, permissions
            folder = self.folder or os.environ.get(FOLDER)
            looked = f"not in {folder}" if folder else f"{FOLDER} names no folder"
            cause = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
            raise FileNotFoundError(
                f"{self.name}: no copy here ({looked}), and none came from {self.repository} on huggingface.co "
                f"({cause}); put {self.name}.jsonl into a folder that {FOLDER} names, or go where there is a network"
            ) from error

    def _fits(self, file: str) -> bool:
        """Whether the first row of a file has the columns, and the answer, of the hub's rows."""
        first = itertools.islice(rows.read(file), 1)
        try:
            return all(problem is not None for _, _, problem in self.fields.read(first))
        except ValueError:
            return False


def _stems(paths: Sequence[epath.Path]) -> list[str]:
    """What tells files apart, wherever they lie: their names, and the folders that they do not share."""
    shared = len(os.path.commonprefix([path.parts[:-1] for path in paths]))
    return ["/".join([*path.parts[shared:-1], path.name.partition(".")[0]]) for path in paths]
