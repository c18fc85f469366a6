"""The `fewshot` command: `fewshot --help`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fewshot.errors import FewshotError, on_one_line, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0, 2 for a user's mistake (one line on stderr), 130 after Ctrl-C."""
    try:
        options = _parser().parse_args(arguments)
        options.command(options)
    except FewshotError as error:
        print(f"fewshot: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\nfewshot: {interrupt}" if str(interrupt) else "\nfewshot: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `fewshot rows x.jsonl | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # what nobody foresaw
        where = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
        print(
            f"fewshot: {where} ({error.strerror or error}); check the path, its permissions and the room on the disk.",
            file=sys.stderr,
        )
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """One whose complaints are the one line that every mistake gets; argparse's own are a page."""

    def add_subparsers(self, **options):
        self.commands = super().add_subparsers(**options)
        return self.commands

    def error(self, message: str):
        if found := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
            raise unknown("command", found[1], self.commands.choices)
        raise FewshotError(f"{' '.join(message.split())}; `{self.prog} --help` says what it takes.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fewshot", description="Few-shot adaptation of CLIP: run, look, predict.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    command("methods", _methods, "list the methods")
    command("datasets", _datasets, "list the data sets that have a name")
    _data_parser(commands.add_parser("data", help="the real data sets: list, fetch, check, export-split"))
    _texts_parser(commands.add_parser("texts", help="sentences about classes: generate, show, check"))

    sub = command("plan", _plan, "say what a grid needs: runs to do, hours, memory, disk, and what is missing")
    _grid_options(sub)
    sub.add_argument("--rows", metavar="FILE", help="also look into this file for what is done (always: results/)")

    sub = command("run", _run, "run a grid of experiments; what is done already is not run again")
    _grid_options(sub)
    sub.add_argument("--rows", required=True, metavar="FILE", help="JSON lines file to append to")
    _engine_options(sub)

    sub = command("reproduce", _reproduce, "run a whole experiment of the book; what is done already is not run again")
    sub.add_argument("experiments", nargs="+", metavar="NAME", help="experiments of the book, or all")
    sub.add_argument("--profile", default="toy", help="toy, paper, smoke or a YAML file (default: toy)")
    sub.add_argument("--rows", metavar="FILE", help="file for one experiment (default: where its notebook keeps rows)")
    _engine_options(sub)
    sub.add_argument("--recompute", action="store_true", help="also run what the project's own rows hold")

    sub = command("rows", _rows, "show a file of rows: means over seeds")
    sub.add_argument("file")
    sub.add_argument("--csv", action="store_true", help="print every row as CSV instead")

    command("status", _status, "show versions, hardware, folders and the rows at hand")

    sub = command("predict", _predict, "name the class of images with a saved model")
    sub.add_argument("model", help="a file written by model.save()")
    sub.add_argument("images", nargs="+")
    sub.add_argument("--backbone", default="toy", help="the CLIP that the model was fitted on (default: toy)")
    sub.add_argument("--pretrained", help="its weights: a tag such as openai, or a file")
    sub.add_argument("--top", type=int, default=1, metavar="N", help="show the N most likely classes (default: 1)")

    sub = command("notebook", _notebook, "run a notebook with other parameters, checked before anything starts")
    sub.add_argument("name", help="a notebook of notebooks/, or a path")
    sub.add_argument("-p", dest="parameters", action="append", default=[], metavar="K=V", help="set a parameter")
    sub.add_argument("-o", dest="output", metavar="FILE", help="executed copy (default: _build/runs/NAME.ipynb)")
    return parser


def _grid_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--methods", nargs="+", required=True, metavar="NAME")
    sub.add_argument("--datasets", nargs="+", required=True, metavar="NAME", help="names, or folders of images")
    sub.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="K", help="images per class")
    sub.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="S")
    sub.add_argument("--profile", default="toy", help="toy, paper, smoke or a YAML file (default: toy)")
    sub.add_argument("--selection", help="fixed, fewval or oracle (default: the method's own)")
    sub.add_argument("--test-images", type=int, metavar="N", help="test on at most N pictures (default: on all)")
    sub.add_argument("--experiment", default="cli", help="a name for these rows (default: cli)")


def _engine_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: 0, run here)")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers run it: tcp://host:8786")


def _data_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = "The real data sets: what they are, whether they are on this disk, and how to get them."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, names: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=_data, action=name)
        if names:
            sub.add_argument("names", nargs=names, metavar="NAME")
            sub.add_argument("--root", metavar="FOLDER", help="the data root (default: $FEWSHOT_DATA, else the cache)")
        return sub

    command("list", "a line per data set, or everything about the named ones", "*")
    sub = command("check", "compare the files on this disk with what they should be", "*")
    sub.add_argument("--pictures", action="store_true", help="also open every picture's header")
    sub = command("fetch", "download, check and install data sets, or say what to do by hand", "+")
    sub.add_argument("--from", dest="source", metavar="PATH", help="a folder with the official files, or one archive")
    sub.add_argument("--keep", action="store_true", help="keep the downloaded archives")
    sub = command("export-split", "write the few shots of a draw as JSON lines", None)
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("--shots", type=int, required=True, metavar="K", help="images per class")
    sub.add_argument("--seed", type=int, default=1, metavar="S")
    sub.add_argument("--order", default="coop", help="coop or clip_lora (default: coop)")
    sub.add_argument("-o", dest="output", metavar="FILE", help="default: NAME-Kshots-seedS.jsonl")


def _texts_parser(parser: argparse.ArgumentParser) -> None:
    from fewshot.texts.commands import options_of

    options_of(parser)


def _data(options) -> None:
    from fewshot.data import commands

    if options.action == "list":
        commands.list_(options.names, options.root)
    elif options.action == "check":
        commands.check_(options.names, options.root, options.pictures)
    elif options.action == "fetch":
        commands.fetch_(options.names, options.root, options.source, options.keep)
    else:
        commands.export_split(options.name, options.shots, options.seed, options.order, options.output)


def _methods(options) -> None:
    from fewshot.methods import METHODS
    from fewshot.report import TITLES

    for name in METHODS:
        print(f"{name:<16} {TITLES.get(name, '')}".rstrip())


def _datasets(options) -> None:
    from fewshot.data import dataset_names

    print("\n".join(dataset_names()))
    print("or the path of a folder with one sub-folder of images per class")


def _grid(options) -> list:
    from fewshot.grids import grid

    return grid(
        options.experiment,
        options.methods,
        options.datasets,
        options.shots,
        options.seeds,
        options.profile,
        options.selection,
        limit=options.test_images,
    )


def _plan(options) -> None:
    from fewshot.plan import command

    command(options, _grid(options))


def _run(options) -> None:
    from fewshot.grids import complete

    _print_means(complete(_grid(options), options.rows, executor=_executor(options)))


def _executor(options) -> int | str | None:
    if options.workers < 0:
        raise FewshotError("--workers must be 0 or more.")
    if options.workers and options.scheduler:
        raise FewshotError("--workers are processes here and --scheduler has workers of its own; give one of the two.")
    return options.workers or options.scheduler


def _reproduce(options) -> None:
    from fewshot.grids import complete
    from fewshot.rows import Rows
    from fewshot.runs import load_profile, run
    from fewshot.studies import STUDIES, rows_file, runs_of, stored_files, study

    executor = _executor(options)
    profile = load_profile(options.profile)
    names = list(STUDIES) if options.experiments == ["all"] else options.experiments
    modules = [study(name) for name in names]
    if options.rows and len(names) > 1:
        raise FewshotError("--rows names the file of one experiment; give one, or leave --rows out.")
    for name, module in zip(names, modules, strict=True):
        stored = [] if options.recompute else stored_files(name, profile)
        rows = Rows(options.rows or rows_file(name, profile))
        rows.keys()  # a file that holds something else is refused before anything is said
        here = options.scheduler and getattr(module, "HERE", False)
        print(f"{name}: {rows.path}" + (", run here, because its seconds are compared" if here else ""), file=sys.stderr)
        runs = runs_of(module.arms(profile))
        complete(runs, rows.path, stored, None if here else executor, run_one=getattr(module, "run_one", run))


def _rows(options) -> None:
    from fewshot.rows import Rows

    if not Path(options.file).exists():
        raise FewshotError(f"there is no file {options.file}; `fewshot run --rows {options.file}` makes one.")
    frame = Rows(options.file).frame()
    if lacking := [name for name in ("method", "dataset", "shots", "seed") if frame[name].isna().any()]:
        raise FewshotError(
            f"{options.file} has rows without {', '.join(lacking)}; give a file that `fewshot run --rows` wrote."
        )
    if options.csv:
        print(frame.to_csv(index=False), end="")
    else:
        _print_means(frame)


def _print_means(frame) -> None:
    from fewshot.report import summary

    if frame.empty:
        print("no rows yet")
        return
    by = ["profile", "dataset", "method", "shots"]
    mixed = frame.duplicated([*by, "seed"]).any()  # the same run with other options: show each by itself
    means = summary(frame, [*by, "selection", "key"] if mixed else by)
    print(means.sort_values(by).to_string(index=False, float_format="{:.2f}".format))


def _status(options) -> None:
    from fewshot.cache import cache_dir
    from fewshot.rows import Rows
    from fewshot.runs import hardware, results_folder, versions

    for name, version in versions().items():
        print(f"{name:<10} {version}")
    import torch

    print(f"{'hardware':<10} {hardware(0 if torch.cuda.is_available() else None)}")
    print(f"{'cache':<10} {cache_dir()}")
    for path in sorted(results_folder().glob("*.jsonl")):
        frame = Rows(path).frame()
        seconds = frame.reindex(columns=["seconds_fit", "seconds_evaluate"]).sum().sum()
        print(f"{'rows':<10} {path.name}: {len(frame)} rows, {seconds / 60:.1f} minutes of runs")


def _predict(options) -> None:
    if options.top < 1:
        raise FewshotError("--top must be 1 or more.")
    for path, what in ((options.model, "that model.save() wrote"), *((p, "of a picture") for p in options.images)):
        if Path(path).is_dir():
            raise FewshotError(f"{path} is a folder; give the name of a file {what}.")
        if not Path(path).is_file():
            raise FewshotError(f"there is no file {path}; give the name of one {what}.")
    from fewshot.clip import load_clip
    from fewshot.methods.method import load_method

    model = load_method(options.model, load_clip(options.backbone, options.pretrained))
    for image, chances in zip(options.images, model.predict_proba(options.images), strict=True):
        best = chances.argsort(descending=True)[: options.top]
        print(f"{on_one_line(image)}: {', '.join(f'{model.classnames[i]} {100 * float(chances[i]):.1f} %' for i in best)}")


def _notebook(options) -> None:
    import nbformat
    import papermill
    import yaml

    from fewshot.parameters import KINDS, coerce
    from fewshot.runs import ROOT

    path = Path(options.name)
    if path.suffix != ".ipynb":
        path = ROOT / "notebooks" / f"{options.name}.ipynb"
    if not path.is_file():
        raise unknown("notebook", options.name, [p.stem for p in (ROOT / "notebooks").glob("*.ipynb")])
    try:
        known = papermill.inspect_notebook(str(path))
    except (ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        reason = (str(error).strip().splitlines() or ["it is no notebook"])[0][:120].rstrip(".")
        raise FewshotError(f"{path} cannot be read as a notebook ({reason}); save it again from Jupyter.") from error
    if not known:
        raise FewshotError(f"{path} has no cell with the tag 'parameters'; give it one.")
    values = {}
    for parameter in options.parameters:
        name, equals, text = parameter.partition("=")
        if not equals:
            raise FewshotError(f"-p {parameter!r} is not name=value.")
        if name not in known:
            raise unknown("parameter", name, known)
        kind = known[name]["inferred_type_name"]
        if kind and kind != "None":
            if kind not in KINDS:
                raise FewshotError(
                    f"{path.name} annotates {name} with {kind}, and only {', '.join(KINDS)} are understood."
                )
            values[name] = coerce(name, text, KINDS[kind])
        else:
            try:
                values[name] = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise FewshotError(f"the value of {name} is not valid YAML, {text!r}; put text into quotes.") from error
    output = Path(options.output) if options.output else ROOT / "_build" / "runs" / path.name
    _check_copy(output)
    partial = output.with_name(f".{output.stem}.partial.ipynb")  # papermill writes after every cell, and not atomically
    try:
        papermill.execute_notebook(
            str(path),
            str(partial),
            values,
            kernel_name="python3",  # in the caller's folder, so that paths mean what they mean in the shell
            progress_bar=sys.stderr.isatty(),
        )
        partial.replace(output)
    except OSError as error:
        raise FewshotError(
            f"{output} cannot be written ({error.strerror or error}); choose another place, or free some space."
        ) from error
    except papermill.PapermillExecutionError as error:
        partial.replace(output)  # with the cell that stopped
        reason = f"{error.ename}: {error.evalue}".splitlines()[0].rstrip(".")
        raise FewshotError(f"{path.name} stopped in its cell {error.exec_count} ({reason}); see {output}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    print(output)


def _check_copy(path: Path) -> None:
    """Can the executed notebook be written there? Found out before it runs."""
    if path.is_dir():
        raise FewshotError(f"{path} is a folder; give the name of a file in it, such as {path / 'out.ipynb'}.")
    if path.suffix != ".ipynb":
        raise FewshotError(f"{path} is no name for a notebook; give one that ends in .ipynb.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FewshotError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


if __name__ == "__main__":
    sys.exit(main())
