"""`python -m classifier explain` and `python -m classifier evaluate`: what they are told, and do.

Exit codes: 0, 1 for figures below the floor, 2 with one line on stderr for what cannot be used.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from classifier.configuration import EXIT_CODE_BAD_SETTINGS, SettingsError, load
from classifier.evaluation import asked, explaining, figures, findings, plot, report, sources
from classifier.evaluation.comparison import compare
from classifier.evaluation.findings import Findings
from classifier.evaluation.measure import Measured, measure
from classifier.evaluation.samples import BadInputError, Sample, read_samples
from classifier.local_model import LocalModel
from classifier.settings import ClassifierSettings

EXIT_CODE_BELOW_FLOOR: Final = 1


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    given = _parser().parse_args(arguments)
    try:
        return _evaluate(given) if given.command == "evaluate" else _explain(given)
    except (BadInputError, SettingsError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_CODE_BAD_SETTINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m classifier", description="Without a command it serves POST /classify."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_explain(commands.add_parser("explain", help="why a request has its label"))
    _add_evaluate(commands.add_parser("evaluate", help="how well requests are labelled"))
    return parser


def _add_explain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "file",
        nargs="?",
        help="a raw HTTP request, rows (.jsonl) or flows (.flow, .mitm); - or nothing: stdin",
    )
    add("-X", "--method", help="HTTP method; GET, or POST with a body")
    add("-p", "--path", help="target or URL, query included")
    add("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'")
    add("-d", "--body", metavar="TEXT|@FILE|@-")
    add("-n", "--index", type=int, default=1, help="which request of the file, from 1")
    add("--filter", metavar="EXPR", help="one of mitmproxy's filter expressions, for flows")
    add("--service", metavar="URL", help="ask a running classifier, not the embedded model")
    add("--json", action="store_true", help="as POST /explain answers")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, help="rows with labels (JSONL), or flows (.flow, .mitm)")
    add("--source", default=sources.LOCAL, help=sources.KINDS)
    add("--against", metavar="SOURCE", help="compare with another source, or other settings (.env)")
    add("--floor", type=_share, metavar="F1", help="exit with 1 if macro-F1 is below")
    add(
        "--floor-on",
        choices=list(findings.SLICES),
        default=findings.ALL,
        help="the rows that the floor is for",
    )
    add("--plot", type=Path, metavar="FILE", help="write a picture, .svg or .png")
    add("--json", action="store_true", help="print everything as JSON")
    add("--filter", metavar="EXPR", help="one of mitmproxy's filter expressions, for flows")
    add("--mistakes", type=int, default=10, metavar="N", help="how many of the worst are shown")
    add("--resamples", type=int, default=figures.RESAMPLES, metavar="N")
    add("--seed", type=int, default=figures.SEED, metavar="N", help="of the resampling")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        msg = f"{text} is not between 0 and 1"
        raise argparse.ArgumentTypeError(msg)
    return value


def _explain(given: argparse.Namespace) -> int:
    told = given.method, given.path, given.header, given.body
    if any(told):
        if given.file is not None:
            msg = "give a file, or a request by --path and its like, not both"
            raise BadInputError(msg)
        sample = asked.from_arguments(*told)
    else:
        sample = asked.from_file(given.file or asked.STANDARD_INPUT, given.index, given.filter)
    if given.service is None:
        answer = explaining.ask_here(load(ClassifierSettings), sample)
    else:
        answer = asyncio.run(explaining.ask_service(given.service, sample.view))
    _print(
        [answer.model_dump_json(indent=2)]
        if given.json
        else list(explaining.as_text(sample.view, answer))
    )
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    if given.plot is not None:
        plot.require_plottable(given.plot)
    samples = read_samples(given.file, given.filter)
    if given.against is not None:
        return _compare(given, samples)
    if (given.floor is not None or given.plot) and all(one.truth is None for one in samples):
        msg = f"{given.file}: no request says what its right label is"
        raise BadInputError(msg)
    found = findings.find(
        str(given.file),
        asyncio.run(_measured(given.source, samples)),
        LocalModel.load(),
        seed=given.seed,
        resamples=given.resamples,
        shown_mistakes=given.mistakes,
    )
    _print([report.as_json(found)] if given.json else list(report.as_text(found)))
    if given.plot is not None:
        plot.draw(found, given.plot)
    return 0 if given.floor is None else _judge(found, given.floor, given.floor_on)


def _judge(found: Findings, floor: float, rows: str) -> int:
    reached = found.macro_f1(rows)
    if reached is None:
        msg = f"{found.file}: no row belongs to --floor-on {rows}"
        raise BadInputError(msg)
    if reached >= floor:
        return 0
    sys.stderr.write(f"macro-F1 {reached:.4f} is below the floor of {floor:g} ({rows})\n")
    return EXIT_CODE_BELOW_FLOOR


def _compare(given: argparse.Namespace, samples: list[Sample]) -> int:
    if given.floor is not None or given.plot is not None:
        msg = "--floor and --plot are for one source, without --against"
        raise BadInputError(msg)
    first = asyncio.run(_measured(given.source, samples))
    second = asyncio.run(_measured(given.against, samples))
    compared = compare(str(given.file), first, second)
    _print([report.as_json(compared)] if given.json else list(report.comparison_text(compared)))
    return 0


async def _measured(spec: str, samples: list[Sample]) -> Measured:
    async with sources.opened(spec, samples) as source:
        return await measure(source, samples)


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
