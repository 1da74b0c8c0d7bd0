"""Any number of seeds by command; `--help` says how."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from itertools import chain
from random import Random

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from services.simulator.faults.script import write_script
from tests.simulation.combined import SHORT, short_cases, try_random
from tests.simulation.heard import KINDS as KINDS_OF_CUTS
from tests.simulation.plan import HEAD_S, LATER_MOVES, MERGER_MOVES, MOVES, plan_of
from tests.simulation.script import FAULT_KINDS
from tests.simulation.trial import Trial, try_plan
from tests.simulation.united import judge, unite

KINDS = (*FAULT_KINDS, *MOVES, *LATER_MOVES, *MERGER_MOVES, "lost_dial")
USES = """\
python -m tests.simulation --seeds 5000                 seeds 0 to 4999; stops at the first that fails
python -m tests.simulation --seed 17 --verbose          one seed, with everything it was told
python -m tests.simulation --seeds 0 --unions 1000      what is heard in spans, united: tests/simulation/test_union.py
python -m tests.simulation --seeds 500 --kinds drop,kill --keep-going
"""
FINDINGS_SHOWN = 20
EXIT_HOLDS, EXIT_FAILS = 0, 1


def main() -> int:
    """Try the seeds that the command line asks for; 1 when one failed."""
    args = _arguments()
    console = Console(soft_wrap=True)
    kinds = None if args.kinds is None else frozenset(filter(None, args.kinds.split(",")))
    if kinds is not None and not kinds <= set(KINDS):
        console.print(
            f"no kind {', '.join(sorted(kinds - set(KINDS)))}; there are {', '.join(KINDS)}"
        )
        return 2
    seeds = [args.seed] if args.seed is not None else range(args.start, args.start + args.seeds)
    failed = _try(seeds, kinds, args, console)
    if failed:
        console.print(f"[bold red]{len(failed)} of {len(seeds)} seeds fail:[/] {failed[:50]}")
        return EXIT_FAILS
    console.print(f"[bold green]{len(seeds)} seeds hold[/]")
    return _try_unions(args, console) if args.unions else EXIT_HOLDS


def _try_unions(args: argparse.Namespace, console: Console) -> int:
    """Try random unions, and every combination of cuts of the short truth; 1 when one failed."""
    cases = chain(
        ((f"union {seed}", try_random(seed)) for seed in range(args.start, args.start + args.unions)),
        ((case, judge(SHORT, heard, unite(heard, Random(case))))
         for case, heard in short_cases(range(len(KINDS_OF_CUTS)))),
    )  # fmt: skip
    tried = 0
    for name, findings in cases:
        tried += 1
        if findings:
            console.print(f"[bold red]{escape(name)} fails:[/]")
            console.print(escape("\n".join(map(str, findings[:FINDINGS_SHOWN]))))
            return EXIT_FAILS
    console.print(f"[bold green]{tried} unions hold[/]")
    return EXIT_HOLDS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=USES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first (0)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument(
        "--unions", type=int, default=0, help="so many random unions too, and every short one (0)"
    )
    parser.add_argument("--kinds", help="only these kinds of trouble, with commas; empty: none")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    parser.add_argument("--verbose", action="store_true", help="show what each seed was told")
    return parser.parse_args()


def _try(
    seeds: Iterable[int],
    kinds: frozenset[str] | None,
    args: argparse.Namespace,
    console: Console,
) -> list[int]:
    failed: list[int] = []
    columns = (TextColumn("seed {task.fields[seed]}"), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[failed]} failed"))  # fmt: skip
    numbers = list(seeds)
    with Progress(*columns, console=console, transient=True, disable=len(numbers) == 1) as progress:
        task = progress.add_task("seeds", total=len(numbers), seed=0, failed=0)
        for seed in numbers:
            progress.update(task, seed=seed, failed=len(failed))
            trial = try_plan(plan_of(seed, kinds))
            progress.advance(task)
            if args.verbose or not trial.holds:
                show(trial, args.kinds, console)
            if not trial.holds:
                failed.append(seed)
                if not args.keep_going:
                    break
    return failed


def show(trial: Trial, kinds: str | None, console: Console) -> None:
    """Print a seed: what it was told, what came of it, and how to have it again."""
    plan, outcome = trial.plan, trial.outcome
    console.rule(f"seed {plan.seed} {'holds' if trial.holds else 'FAILS'}")
    said = Table(
        "from",
        "to",
        "what",
        "whom",
        "how",
        title="What it was told (seconds since the exchange's epoch)",
    )
    for entry in write_script(plan.faults):
        start, length = entry.pop("at_s"), entry.pop("for_s", 0.0)
        on = entry.pop("on", {})
        said.add_row(_s(start), _s(start + length) if length else "", entry.pop("fault"),
                     " ".join(map(str, on.values())) or "everyone", _facts(entry))  # fmt: skip
    for move in plan.moves:
        start = move.at_s - HEAD_S
        facts = {
            name: value for name, value in (("slot", move.slot), ("amount", move.amount)) if value
        }
        said.add_row(
            _s(start),
            _s(start + move.for_s),
            move.kind,
            move.zone or "those who merge",
            _facts(facts),
        )
    console.print(said)
    tables = Table("facts", "truth", "stored", "missing", "extra", "unsound")
    for table in outcome.tables:
        numbers = (table.truth, table.stored, table.missing, table.extra, table.unsound)
        tables.add_row(table.table, *map(str, numbers))
    console.print(tables)
    for kind, what in outcome.findings[:FINDINGS_SHOWN]:
        console.print(f"[red]{kind}[/] {escape(what)}")
    if len(outcome.findings) > FINDINGS_SHOWN:
        console.print(f"... and {len(outcome.findings) - FINDINGS_SHOWN} more")
    again = "" if kinds is None else f" --kinds '{kinds}'"
    console.print(f"again: python -m tests.simulation --seed {plan.seed}{again} --verbose\n")


def _s(seconds: float) -> str:
    return f"{seconds:.3f}"


def _facts(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


if __name__ == "__main__":
    sys.exit(main())
