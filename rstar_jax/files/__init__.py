"""Files of a run, on a local disk or in a bucket (`gs://`): whole files, leases, shards of records, data sets of rows.

Everything that a run writes goes through here, so that one place knows what a bucket can do: an object appears whole,
and can be made only if it is not there. There is no rename, no appending, and a listing may be old.

Data sets are in `rstar_jax.files.rows`, by that name: it needs TFDS, which takes a second to import.
"""

from rstar_jax.files.lease import Held, Lease, Lost
from rstar_jax.files.objects import (
    create,
    exists,
    fetched,
    markers,
    names,
    publish,
    publish_file,
    read,
    read_all,
    remove,
    remove_tree,
    size,
    staged,
)
from rstar_jax.files.shards import (
    Records,
    Shard,
    done_shards,
    marker_path,
    missing_shards,
    shard_path,
    write_shard,
    writing_shard,
)

__all__ = [
    "Held",
    "Lease",
    "Lost",
    "Records",
    "Shard",
    "create",
    "done_shards",
    "exists",
    "fetched",
    "marker_path",
    "markers",
    "missing_shards",
    "names",
    "publish",
    "publish_file",
    "read",
    "read_all",
    "remove",
    "remove_tree",
    "shard_path",
    "size",
    "staged",
    "write_shard",
    "writing_shard",
]
