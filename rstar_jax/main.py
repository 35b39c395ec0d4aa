"""`rstar MODE --gin_file=... --gin.NAME=VALUE ... --run_dir=DIR`: one mode, one function."""

import argparse
import errno
import importlib
import importlib.metadata
import logging
import os
import signal
import sys

_TRAINING = ("run_dir", "policy", "data", "output!", "coordinator", "process")

# mode: (module, function, its flags; one that ends in "!" is required)
MODES = {
    "evolve": (
        "rstar_jax.evolution.commands",
        "evolve",
        ("run_dir", "redo", "phase", "worker", "dry_run"),
    ),
    "status": ("rstar_jax.evolution.commands", "status", ("run_dir",)),
    "search": ("rstar_jax.evolution.commands", "search", ("run_dir", "policy", "ppm", "problems", "output!")),
    "evaluate": (
        "rstar_jax.evolution.commands",
        "evaluate",
        ("run_dir", "policy", "ppm", "problems", "limit", "output"),
    ),
    "import": ("rstar_jax.evolution.exchange", "import_model", ("model!", "run_dir!", "kind", "dtype")),
    "train_policy": ("rstar_jax.evolution.training_commands", "train_policy", _TRAINING),
    "train_ppm": ("rstar_jax.evolution.training_commands", "train_ppm", _TRAINING),
    "train_orm": ("rstar_jax.evolution.training_commands", "train_orm", _TRAINING),
    "train_pqm": ("rstar_jax.evolution.training_commands", "train_pqm", _TRAINING),
    "report": ("rstar_jax.evolution.commands", "report", ("run_dir",)),
    "problems": ("rstar_jax.problems.commands", "write", ("problems!", "output!")),
    "convert": ("rstar_jax.search.released_format", "convert", ("input!", "output!")),
    "verify": ("rstar_jax.verifier.commands", "verify", ("input!", "output!")),
    "grade": ("rstar_jax.verifier.commands", "grade", ("input!", "output!")),
}
SUMMARIES = {
    "evolve": "all rounds of search and training; a run that was cut off goes on",
    "status": "what of a run is done, and what is left",
    "search": "test-time search: trees and answers for problems",
    "evaluate": "accuracy on problems: greedy, votes, best of N, search, pass@k",
    "import": "a Hugging Face checkpoint becomes the base of a run",
    "train_policy": "one training of the policy on given rows",
    "train_ppm": "one training of the PPM on given pairs of steps and solutions",
    "train_orm": "one training of an outcome reward model on given pairs of solutions",
    "train_pqm": "one training of a model that regresses on the Q of steps",
    "report": "the pages of a run",
    "problems": "writes a set of problems as JSONL, mixed and decontaminated",
    "convert": "trees between our shards and the released JSONL",
    "verify": "runs programs in the sandbox",
    "grade": "compares answers with golds",
}
HELP = {
    "run_dir": "the run folder",
    "phase": "the only phase that is done, such as 2_search_1",
    "worker": "which of several processes on one run this is, such as 3/8, counted from 0",
    "dry_run": "prints the phases, what is missing of them and what it will cost, and does nothing",
    "redo": "a phase that is made again, such as 2_policy, with all that depends on it",
    "problems": 'a file of {"question", "answer"}, a folder, or a set of gin/problems; default: the held-out problems',
    "data": "JSONL file, or a data set folder of a run; default: of the run's last round",
    "policy": "a model folder of a run, a Hugging Face folder, or a name on the hub; default: of the run",
    "ppm": "the same of a PPM; default: that of the run's policy",
    "limit": "the first so many problems",
    "input": "JSONL file, - for standard input; of convert, also a folder",
    "output": "where the result goes",
    "model": "a Hugging Face folder, or a model's name on the hub",
    "coordinator": "of a training in several processes: HOST:PORT of the first, or auto on a TPU pod or a cluster",
    "process": "which of them this is, such as 0/4, counted from 0; not with auto",
    "dtype": "of the parameters; default: what they are stored in",
    "kind": "which model",
}
DEFAULTS = {"run_dir": "runs/local", "kind": "policy"}
SWITCHES = ("dry_run",)
CHOICES = {"dtype": ("bfloat16", "float32"), "kind": ("policy", "ppm")}
BAD_INPUT = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The flags; `--gin.NAME=VALUE` and `--gin_file` may stand anywhere and come more than once."""
    parser = argparse.ArgumentParser(prog="rstar", description="rStar-Math in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"rstar {importlib.metadata.version('rstar_jax')}")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="MODE")
    for mode, (_, _, names) in MODES.items():
        sub = modes.add_parser(mode, allow_abbrev=False, help=SUMMARIES[mode], description=f"{SUMMARIES[mode]}.")
        sub.add_argument("--gin_file", action="append", default=[], help="configuration (default: gin/local.gin)")
        sub.add_argument("--gin.NAME", metavar="VALUE", dest="_binding", help="a field of it, as Class.field=VALUE")
        for flag in names:
            name = flag.rstrip("!")
            if name in SWITCHES:
                sub.add_argument(f"--{name}", action="store_true", help=HELP[name])
                continue
            told = f"{HELP[name]} (default: {DEFAULTS[name]})" if name in DEFAULTS and "!" not in flag else HELP[name]
            sub.add_argument(
                f"--{name}",
                required="!" in flag,
                choices=CHOICES.get(name),
                default=DEFAULTS.get(name),
                help=told,
            )
    flags = parser.parse_args([argument for argument in arguments if not argument.startswith("--gin.")])
    flags.gin_bindings = [argument.removeprefix("--gin.") for argument in arguments if argument.startswith("--gin.")]
    return flags


def show_log() -> None:
    """Shows what the package has to say on the standard error stream; what other packages log stays as it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rstar: %(message)s"))
    logger = logging.getLogger("rstar_jax")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False  # TFDS gives the root logger a handler of its own


def _end(number: int, frame: object) -> None:
    """What a signal to end does: the same as Ctrl-C, so that nothing half-written stays."""
    sys.exit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Runs a mode. Bad input is one line and exit status 2; a disk that is full, 1."""
    given = vars(parse(sys.argv[1:] if arguments is None else arguments))
    module, function, names = MODES[given["mode"]]
    flags = {name.rstrip("!"): given[name.rstrip("!")] for name in names}
    goes_on = "" if given["mode"] in ("verify", "grade", "convert") else "; the same command goes on from here"
    show_log()
    signal.signal(signal.SIGTERM, _end)
    try:
        from rstar_jax import configuration

        configuration.run(
            getattr(importlib.import_module(module), function), given["gin_file"], given["gin_bindings"], flags
        )
        return 0
    except BrokenPipeError:  # what read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as ended:  # by a signal
        if told := getattr(ended, "message", None):
            print(f"rstar: {told}{goes_on}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print(f"rstar: interrupted{goes_on}", file=sys.stderr)
        return 130
    except Exception as error:
        # Orbax and TFDS raise errors of their own when the disk is full.
        full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
        if os.environ.get("RSTAR_TRACEBACK") or not (full or isinstance(error, BAD_INPUT)):
            print("rstar: a defect of rstar_jax, not of its input; what follows is for its developers", file=sys.stderr)
            raise
        told = " ".join(str(error).split())
        if full:
            print(f"rstar: {os.strerror(errno.ENOSPC)}{goes_on}: {told:.300}", file=sys.stderr)
            return 1
        print(f"rstar: {told}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
