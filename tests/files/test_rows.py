"""Data sets: TFDS reads what is written here, and the other way round; rows are whole or not there."""

import json
import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rstar_jax import files
from rstar_jax.files import rows

from . import crash

FEATURES = {
    "id": tfds.features.Text(),
    "text": tfds.features.Text(),
    "level": np.int32,
    "big": np.int64,
    "weight": np.float32,
}

ROWS = st.fixed_dictionaries(
    {
        "id": st.text(max_size=5),
        "text": st.text(st.characters(), max_size=300),
        "level": st.integers(-(2**31), 2**31 - 1),
        "big": st.integers(-(2**63), 2**63 - 1),
        "weight": st.floats(width=32, allow_nan=False),
    }
)


def row(i, text=""):
    return {"id": f"p{i}", "text": text or f"text {i}", "level": i, "big": i << 40, "weight": i / 2}


def write(folder, lengths=(3, 0, 2), split="train", first=0):
    for shard, length in enumerate(lengths):
        start = first + sum(lengths[:shard])
        rows.write_shard(folder, shard, len(lengths), map(row, range(start, start + length)), FEATURES, split)


def test_rows_come_back(folder):
    write(folder)
    write(folder, (1,), "heldout", 10)
    with pytest.raises(FileNotFoundError, match="no finished data set"):
        rows.Rows(folder)
    rows.finish(folder, FEATURES, {"train": 3, "heldout": 1, "empty": 0})
    description = files.read(folder / "dataset_info.json")
    rows.finish(folder, FEATURES, {"train": 3, "heldout": 1, "empty": 0})
    assert files.read(folder / "dataset_info.json") == description
    with rows.Rows(folder) as read:
        assert list(read) == [row(i) for i in range(5)] and read[-1] == row(4)
        assert read.features.keys() == FEATURES.keys()
        assert read.__getitems__([4, 0]) == [row(4), row(0)]
    assert list(rows.Rows(folder, "heldout")) == [row(10)]
    assert list(rows.Rows(folder, "empty")) == [] and len(rows.Rows(folder, "empty")) == 0
    with rows.Rows(folder, transform=lambda row: len(row["text"])) as read:
        assert list(read) == [6] * 5
    with pytest.raises(ValueError, match="has no split 'test', only empty, heldout, train"):
        rows.Rows(folder, "test")


def test_tfds_reads_them(tmp_path, caplog):
    write(tmp_path)
    rows.finish(tmp_path, FEATURES, {"train": 3})
    with caplog.at_level(logging.CRITICAL, "absl"):  # that groups of 16 are not what Grain likes best
        builder = tfds.builder_from_directory(str(tmp_path))
        source = builder.as_data_source("train")
        assert builder.info.splits["train"].num_examples == 5 and len(source) == 5
        for i in range(5):
            assert {k: v.decode() if isinstance(v, bytes) else v for k, v in source[i].items()} == row(i)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, max_size=5))
def test_records_are_what_tfds_would_write(tmp_path, found):
    features = tfds.features.FeaturesDict(FEATURES)
    encode = rows._encoder(rows._fields(features))
    rows.write_shard(tmp_path, 0, 1, found, FEATURES)
    rows.finish(tmp_path, FEATURES, {"train": 1})
    with rows.Rows(tmp_path) as read:
        assert list(read) == found
        for each in found:
            try:
                theirs = features.serialize_example(each)
            except Exception:  # TFDS has no lone surrogates
                assert any("\ud800" <= character <= "\udfff" for character in each["id"] + each["text"])
                continue
            assert read._row(theirs) == each and features.deserialize_example_np(encode(each))["big"] == each["big"]


def test_folders_of_tfds_are_read(tmp_path):
    class Theirs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(FEATURES))

        def _split_generators(self, download_manager):
            return {"train": ((i, row(i)) for i in range(7))}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    builder = Theirs(data_dir=str(tmp_path))
    builder.download_and_prepare(file_format="array_record")
    with rows.Rows(builder.data_dir) as read:
        assert sorted(read, key=lambda each: each["level"]) == [row(i) for i in range(7)]


def test_killed_at_any_moment_the_second_process_finishes(folder):
    seen = set()

    def job():
        for shard in files.missing_shards(folder, 2, "train"):
            rows.write_shard(folder, shard, 2, [row(shard), row(shard, "again")], FEATURES)
        rows.finish(folder, FEATURES, {"train": 2})

    def rows_now():
        try:
            with rows.Rows(folder) as read:
                return list(read)
        except FileNotFoundError:
            return None

    whole = [row(0), row(0, "again"), row(1), row(1, "again")]

    def after():
        assert (found := rows_now()) in (None, whole)
        seen.add(found is None)
        job()
        assert rows_now() == whole

    assert crash.everywhere(job, "://" in str(folder), lambda: files.remove_tree(folder), after) >= 12
    assert seen == {True, False}


def test_a_data_set_that_is_written_anew_is_never_half_old(folder):
    """Its shards change one after another; the description goes first."""
    seen = set()

    def fill(text):
        for shard in range(2):
            rows.write_shard(folder, shard, 2, [row(shard, text)] * 3, FEATURES)
        rows.finish(folder, FEATURES, {"train": 2})

    def after():
        try:
            with rows.Rows(folder) as read:
                texts = {each["text"] for each in read}
            assert len(texts) == 1
            seen.add(texts.pop())
        except FileNotFoundError:
            seen.add("none")

    crash.everywhere(lambda: fill("new"), "://" in str(folder), lambda: fill("old"), after)
    assert seen == {"old", "new", "none"}


def test_what_is_missing_is_named(folder):
    write(folder, (1, 1))
    files.remove(folder / "train-00001-of-00002.done")
    with pytest.raises(FileNotFoundError, match="not all shards are done, train-00001-of-00002.done not there"):
        rows.finish(folder, FEATURES, {"train": 2})
    with pytest.raises(FileNotFoundError, match="and 4 more not there"):
        rows.finish(folder, FEATURES, {"train": 9})


def test_listings_that_lag_behind_do_not_matter(bucket, monkeypatch):
    monkeypatch.setenv("BUCKET_LAG", "5")
    write(bucket)
    assert files.missing_shards(bucket, 3, "train") == [0, 1, 2]
    rows.finish(bucket, FEATURES, {"train": 3})
    with rows.Rows(bucket) as read:
        assert list(read) == [row(i) for i in range(5)]


def test_bad_rows_and_bad_files_are_one_line(folder):
    def fault(**changes):
        with pytest.raises(ValueError) as raised:
            rows.write_shard(folder, 0, 1, [row(0), {**row(1), **changes}], FEATURES)
        assert "train-00000-of-00001.array_record, row 1: " in str(raised.value) and "\n" not in str(raised.value)
        assert files.names(folder) == []
        return str(raised.value)

    assert "expected the fields big, id, level, text, weight, got big, id, level, more, text" in fault(more=1)
    assert "field 'text': expected a text, got 3" in fault(text=3)
    assert "field 'level': expected a number in [-2147483648, 2147483647], got 2147483648" in fault(level=2**31)
    fault(weight="much")
    fault(level=None)
    with pytest.raises(ValueError, match="field 'x': expected a text, several texts, an integer or a float32, got"):
        rows.write_shard(folder, 0, 1, [], {"x": np.float64})
    write(folder)
    rows.finish(folder, FEATURES, {"train": 3})
    info = files.read(folder / "dataset_info.json")
    for broken in (b"", b"[]", b'{"splits": 3}', b'{"splits": [{"name": "train"}]}'):
        files.publish(folder / "dataset_info.json", broken)
        with pytest.raises(ValueError, match="dataset_info.json: expected the description of a data set"):
            rows.Rows(folder)
    files.publish(folder / "dataset_info.json", info.replace(b'"3"', b'"4"'))
    with pytest.raises(ValueError, match="train-00000-of-00003.array_record: holds 3 rows, dataset_info.json says 4"):
        list(rows.Rows(folder))
    files.publish(folder / "dataset_info.json", info)
    files.remove(folder / "train-00002-of-00003.array_record")
    with pytest.raises((ValueError, FileNotFoundError), match="train-00002-of-00003.array_record"):
        list(rows.Rows(folder))
    with files.writing_shard(folder / "train-00002-of-00003.array_record", noun="rows") as shard:
        shard.write(b"\xff")
        shard.write(b"")
    for index, message in ((3, "row 0: no row"), (4, "row 1: expected one value of 'big', got 0")):
        with pytest.raises(ValueError, match=message):
            rows.Rows(folder)[index]
    assert json.loads(info)["fileFormat"] == "array_record"


@pytest.mark.parametrize("given", [[(), ("",), ("a", "\u2028", "")], [("7",)], [()], []])
def test_a_field_of_several_texts(tmp_path, given):
    features = {"answer": tfds.features.Sequence(tfds.features.Text())}
    rows.write_shard(tmp_path, 0, 1, ({"answer": own} for own in given), features)
    rows.finish(tmp_path, features, {"train": 1})
    with rows.Rows(tmp_path) as read:
        assert [own["answer"] for own in read] == given
    if given:
        source = tfds.builder_from_directory(str(tmp_path)).as_data_source("train")
        assert [tuple(text.decode() for text in own["answer"]) for own in source] == given


@pytest.mark.parametrize("value", ["text", (3,), (None,)])
def test_what_is_no_list_of_texts_is_refused(tmp_path, value):
    features = {"answer": tfds.features.Sequence(tfds.features.Text())}
    with pytest.raises(ValueError, match=r"train-00000.*, row 0: field 'answer': expected a list of texts"):
        rows.write_shard(tmp_path, 0, 1, [{"answer": value}], features)
