"""Data sets of rows: shards of one `tf.train.Example` a row, with the description by which TFDS reads them as well.

    FOLDER/train-00002-of-00064.array_record, .done     written by any process, in any order
    FOLDER/features.json, dataset_info.json             written by `finish` when all shards are done

A row is a dict of texts and numbers. It is encoded and decoded here, from and to what TFDS would, some thirty times as
fast. TFDS itself reads a folder on a local disk (`tfds.builder_from_directory(FOLDER).as_data_source("train")`), though
not a split without rows; `Rows` reads both, and remote ones.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import dataset_info, naming, splits
from tensorflow_datasets.proto import tf_example_pb2

from rstar_jax.files import objects, shards

_INFO, _FEATURES = "dataset_info.json", "features.json"
_TEMPLATE = "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}"
_NOUN = "rows"
_TEXT, _INTEGER, _FLOAT = "bytes_list", "int64_list", "float_list"
_TEXTS = "texts"  # several, in a bytes_list
_LISTED = 5  # shards that are named in a message

T = TypeVar("T")
Row = dict[str, Any]


def write_shard(
    folder: epath.PathLike,
    shard: int,
    total: int,
    rows: Iterable[Mapping[str, Any]],
    features: Mapping[str, Any],
    split: str = "train",
) -> epath.Path:
    """Writes one shard of a split; returns its path. Rows are consumed one after another.

    features: as TFDS writes them; `tfds.features.Text()`, a `tfds.features.Sequence` of these, an integer type or
        np.float32 of every field.
    Raises ValueError where a row is none of these, OSError where the disk is full.
    """
    encode = _encoder(_fields(tfds.features.FeaturesDict(features)))
    path = shards.shard_path(folder, shard, total, split)
    with shards.writing_shard(path, noun=_NOUN, voids=[epath.Path(folder) / _INFO]) as writing:
        for index, row in enumerate(rows):
            try:
                writing.write(encode(row))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, row {index}: {error}") from error
    return path


def finish(folder: epath.PathLike, features: Mapping[str, Any], totals: Mapping[str, int], name: str = _NOUN) -> None:
    """Describes a data set whose shards are all done, so that `Rows` and TFDS read it. May be done again.

    features: as `write_shard` got them; totals: how many shards each split has, 0 of one without rows; name: what TFDS
    calls the data set.
    Raises FileNotFoundError that names the shards which are not done.
    """
    folder = epath.Path(folder)
    paths = {
        split: [shards.shard_path(folder, shard, total, split) for shard in range(total)]
        for split, total in totals.items()
    }
    wanted = [shards.marker_path(path).name for each in paths.values() for path in each]
    done = objects.markers(folder, ".done", also=wanted)
    if missing := [marker for marker in wanted if marker not in done]:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise FileNotFoundError(f"{folder}: not all shards are done, {', '.join(missing[:_LISTED])}{more} not there")
    infos = []
    for split, each in paths.items():
        facts = [json.loads(done[shards.marker_path(path).name]) for path in each]
        infos.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[fact[_NOUN] for fact in facts],
                num_bytes=sum(fact["bytes"] for fact in facts),
                filename_template=naming.ShardedFileTemplate(
                    data_dir=folder, template=_TEMPLATE, dataset_name=name, split=split, filetype_suffix="array_record"
                ),
            )
        )
    identity = dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=os.fspath(folder), module_name=""
    )
    description = dataset_info.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features), description="Written by rstar_jax."
    )
    description.set_file_format("array_record")
    description.set_splits(splits.SplitDict(infos))
    with tempfile.TemporaryDirectory() as local:
        description.write_to_directory(local)
        for file in (_FEATURES, _INFO):
            objects.publish(folder / file, objects.read(os.path.join(local, file)))


class Rows(shards.Records[T]):
    """The rows of a split, as dicts, read when they are asked for; see `Records`. TFDS's own folders are read too.

    transform: what becomes of each row as it is read, tokens for example.
    Raises FileNotFoundError where the data set was not finished, ValueError where it lacks the split, or is none.
    """

    def __init__(
        self, folder: epath.PathLike, split: str = "train", transform: Callable[[Row], T] | None = None, **limits: int
    ):
        folder = epath.Path(folder)
        try:
            info = json.loads(objects.read(folder / _INFO))
            features = tfds.features.FeatureConnector.from_json(json.loads(objects.read(folder / _FEATURES)))
            found = {each["name"]: each for each in info.get("splits", ())}
            name, suffix = info["name"], info["fileFormat"]
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{folder}: no finished data set ({error})") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / _INFO}: expected the description of a data set ({error!r})") from None
        if split not in found:
            raise ValueError(f"{folder}: has no split {split!r}, only {', '.join(sorted(found))}")
        template = naming.ShardedFileTemplate(
            data_dir=folder,
            template=found[split].get("filepathTemplate", naming.DEFAULT_FILENAME_TEMPLATE),
            dataset_name=name,
            split=split,
            filetype_suffix=suffix,
        )
        counts = [int(length) for length in found[split].get("shardLengths", ())]
        paths = [template.sharded_filepath(shard_index=i, num_shards=len(counts)) for i in range(len(counts))]
        self.features = features
        self._names = _fields(features)
        self._transform = transform
        super().__init__(paths, counts, decode=self._row, noun="row", source=_INFO, **limits)

    def _row(self, record: bytes) -> T:
        try:
            read = tf_example_pb2.Example.FromString(record).features.feature
        except DecodeError:
            raise ValueError("no row: no tf.train.Example") from None
        row = {}
        for name, kind, _ in self._names:
            if kind == _TEXTS:
                row[name] = tuple(text.decode("utf-8", "surrogatepass") for text in read[name].bytes_list.value)
                continue
            values = getattr(read[name], kind).value
            if len(values) != 1:
                raise ValueError(f"expected one value of {name!r}, got {len(values)}")
            row[name] = values[0].decode("utf-8", "surrogatepass") if kind == _TEXT else values[0]
        return self._transform(row) if self._transform else row


def _fields(features: tfds.features.FeaturesDict) -> list[tuple[str, str, tuple[int, int]]]:
    """(name, how tf.train.Example holds it, the range of an integer) of every field, by name."""
    fields = []
    for name, feature in sorted(features.items()):
        if isinstance(feature, tfds.features.Sequence) and isinstance(feature.feature, tfds.features.Text):
            fields.append((name, _TEXTS, (0, 0)))
            continue
        dtype = np.dtype(feature.np_dtype)
        if isinstance(feature, tfds.features.Text):
            fields.append((name, _TEXT, (0, 0)))
        elif feature.shape == () and np.issubdtype(dtype, np.integer):
            fields.append((name, _INTEGER, (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))))
        elif feature.shape == () and dtype == np.float32:
            fields.append((name, _FLOAT, (0, 0)))
        else:
            raise ValueError(f"field {name!r}: expected a text, several texts, an integer or a float32, got {feature}")
    return fields


def _encoder(fields: Sequence[tuple[str, str, tuple[int, int]]]) -> Callable[[Mapping[str, Any]], bytes]:
    """What makes the record of a row. Equal rows give equal bytes."""
    names = {name for name, _, _ in fields}

    def encode(row: Mapping[str, Any]) -> bytes:
        if row.keys() != names:
            raise ValueError(f"expected the fields {', '.join(sorted(names))}, got {', '.join(sorted(row))}")
        example = tf_example_pb2.Example()
        written = example.features.feature
        for name, kind, (least, most) in fields:
            value = row[name]
            if kind == _TEXTS:
                if isinstance(value, str) or not all(isinstance(text, str) for text in value):
                    raise ValueError(f"field {name!r}: expected a list of texts, got {value!r:.80}")
                written[name].bytes_list.value.extend(text.encode("utf-8", "surrogatepass") for text in value)
            elif kind == _TEXT:
                if not isinstance(value, str):
                    raise ValueError(f"field {name!r}: expected a text, got {value!r:.80}")
                # The output of programs may hold lone surrogates, which UTF-8 cannot.
                written[name].bytes_list.value.append(value.encode("utf-8", "surrogatepass"))
            elif kind == _INTEGER:
                if not least <= value <= most:
                    raise ValueError(f"field {name!r}: expected a number in [{least}, {most}], got {value!r:.80}")
                written[name].int64_list.value.append(value)
            else:
                written[name].float_list.value.append(value)
        return example.SerializeToString(deterministic=True)

    return encode
