"""Feeds mutated checkpoint files to the reader and counts what comes of it.

    python tests/weights/fuzz_checkpoints.py --count 10000 --seed 0

Small files of every format are bent in many ways, and each is read, described and loaded into a
model, in a child process that may take 8 GB of addresses and 20 s of work a file. Right are only
two outcomes: the file is accepted, or refused with a `UserError` of one line. Anything else, a
crash or a canary file that hostile code would leave, is a failure: it is printed, the exit code is
1, and with --keep its file stays. A case depends on the seed and its number alone, but for the
older format of torch.save, which writes addresses of memory.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a run as a script

from mutations import CANARY, make_case, make_seeds

BATCH = 250  # cases a child process
SECONDS, PATIENCE = 20, 600  # a case: of the processor, and on the clock of a busy machine
ADDRESSES = 8 * 2**30


# A child process: reads cases, and writes a line before and after each.


def run_child(seeds: Path, seed: int, first: int, last: int) -> None:
    import signal
    import warnings

    import torch

    from foreign import tiny_model
    from pyramidvit import load_weights, read_checkpoint
    from pyramidvit.errors import UserError
    from pyramidvit.weights.describe import describe_checkpoint

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    models = {family: tiny_model(family) for family in ("v1", "v2")}
    origins = sorted(seeds.iterdir())
    for origin in origins:  # unchanged, all but one are accepted
        if origin.name != "protocol4.pth":
            load_weights(models[family_of(origin)], origin, new_head=False)
    for number in range(first, last):
        what, path = make_case(origins, Path.cwd(), seed, number)
        say({"number": number, "what": what, "origin": origins[number % len(origins)].name})
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its end ends the process: a hang is a crash
        signal.alarm(PATIENCE)
        outcome, text = "accepted", ""
        try:
            checkpoint = read_checkpoint(path)
            describe_checkpoint(checkpoint, str(path))
            load_weights(models[family_of(origins[number % len(origins)])], path)
        except UserError as error:
            outcome, text = "refused", str(error)
            if "\n" in text or len(text) > 2000:
                outcome = "refused in many words"
        except BaseException as error:
            outcome, text = "exception", f"{type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        if Path(CANARY).exists():
            outcome = "canary"
            Path(CANARY).unlink()
        say({"outcome": outcome, "text": text[:300]})
        if outcome in ("accepted", "refused"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def family_of(origin: Path) -> str:
    return "v1" if "v1" in origin.stem or origin.stem == "half" else "v2"


def say(record: dict) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


# The parent: starts children one after another, and after a crash goes on behind the case.


def run_all(count: int, seed: int, folder: Path) -> Counter:
    tally: Counter = Counter()
    (folder / "seeds").mkdir(exist_ok=True)
    make_seeds(folder / "seeds")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    number = 0
    while number < count:
        number = run_batch(folder / "seeds", work, seed, number, min(number + BATCH, count), tally)
    return tally


def run_batch(seeds: Path, work: Path, seed: int, first: int, last: int, tally: Counter) -> int:
    """Runs cases in one child; returns the number of the next case."""
    words = (
        "--child",
        str(seeds),
        "--first",
        str(first),
        "--count",
        str(last),
        "--seed",
        str(seed),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *words],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=work,
        env=environment,
    )
    case: dict = {}
    for line in done.stdout.splitlines():
        record = {}
        with contextlib.suppress(ValueError):
            record = json.loads(line)
        if "number" in record:
            case = record
        elif "outcome" in record:
            tally[case["origin"], record["outcome"]] += 1
            if record["outcome"] not in ("accepted", "refused"):
                sys.stdout.write(f"case {case}: {record}\n")
            case = case | record
    if done.returncode == 0:
        return last
    if not case:
        raise SystemExit(f"a child could not start: {done.stderr[-2000:]}")
    if "outcome" in case:
        raise SystemExit(f"a child ended between cases, after {case}: {done.stderr[-2000:]}")
    tally[case["origin"], "crash"] += 1
    sys.stdout.write(f"case {case}: exit code {done.returncode}: {done.stderr[-500:]}\n")
    return int(case["number"]) + 1


OUTCOMES = ("accepted", "refused", "refused in many words", "exception", "crash", "canary")


def write_table(tally: Counter) -> None:
    sys.stdout.write(f"{'file':<20}" + "".join(f"{o[:14]:>15}" for o in OUTCOMES) + "\n")
    for origin in [*sorted({origin for origin, _ in tally}), "all"]:
        counts = [
            sum(n for (o, kind), n in tally.items() if kind == outcome and origin in (o, "all"))
            for outcome in OUTCOMES
        ]
        sys.stdout.write(f"{origin:<20}" + "".join(f"{n:>15}" for n in counts) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Folder for the files, among them all failures.")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        run_child(options.child, options.seed, options.first, options.count)
        return 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tally = run_all(options.count, options.seed, folder.resolve())
    write_table(tally)
    bad = sum(n for (_, outcome), n in tally.items() if outcome not in ("accepted", "refused"))
    seconds = time.monotonic() - started
    sys.stdout.write(f"{tally.total()} files, {bad} failures, {seconds:.0f} s\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
