"""`fewshot texts generate | show | check`."""

from __future__ import annotations

import math
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.paths import path_of


def options_of(parser) -> None:
    """The three commands and their options."""
    parser.description = "Sentences about classes: ask a language model for them, look at them, measure them."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function, text: str):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    sub = command("generate", generate_, "ask any OpenAI-compatible server; the key comes from OPENAI_API_KEY alone")
    sub.add_argument("--classes", required=True, metavar="FILE|DATASET", help="a file of names, or a data set's name")
    sub.add_argument("--model", required=True, metavar="NAME")
    sub.add_argument("-o", dest="output", required=True, metavar="FILE.json")
    sub.add_argument("--base-url", metavar="URL", help="the server (default: $OPENAI_BASE_URL)")
    sub.add_argument("--prompt", default="visual10", metavar="ID", help="visual10, visual10_domain, features ...")
    sub.add_argument("--domain", metavar="WORD", help="what the classes are, such as bird (default: the data set's)")
    sub.add_argument("--calls", type=int, default=3, metavar="N", help="answers per class (default: 3)")
    sub.add_argument("--sentences", type=int, metavar="N", help="so many per class, neither more nor fewer")
    sub.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default: 1")
    sub.add_argument("--seed", type=int, metavar="S", help="sent with the first answer, S + 1 with the second ...")
    sub.add_argument("--max-calls", type=int, metavar="N", help="never make more calls than this")
    sub.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one answer (default: 60)")
    sub.add_argument("--price-in", type=float, metavar="P", help="price of a million tokens sent: shows the cost")
    sub.add_argument("--price-out", type=float, metavar="P", help="price of a million tokens received")

    sub = command("show", show_, "counts and examples of what ships for a data set, or of a file")
    sub.add_argument("name", metavar="DATASET|FILE")

    sub = command("check", check_, "measure a file of sentences and name what is wrong with it")
    sub.add_argument("file", metavar="FILE")


def generate_(options) -> None:
    from fewshot.texts.chat import Chat
    from fewshot.texts.generate import Request, check_output, classes_of, generate

    request = Request(
        options.prompt,
        options.calls,
        options.temperature,
        options.seed,
        options.max_calls,
        options.sentences,
    )
    if not 0 < options.timeout < math.inf:
        raise FewshotError("--timeout must be more than 0 seconds.")
    output = path_of(options.output)
    check_output(output)
    chat = Chat(options.model, options.base_url, timeout=options.timeout)
    classes = classes_of(options.classes, options.domain)
    generate(classes, request, chat, output, prices=(options.price_in, options.price_out))


def show_(options) -> None:
    import json

    path = _file(options.name)
    table = json.loads(path.read_text(encoding="utf-8"))
    counts = sorted({len(lines) for lines in table.values()})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    print(f"{path.name}: {len(table)} classes, {each} sentences each, {sum(map(len, table.values()))} in all")
    names = list(table)
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        print(f"\n{name}")
        for line in table[name][:3]:
            print(f"  {line}")


def check_(options) -> None:
    from fewshot.texts.quality import faults, report, table

    measured = report(_file(options.file))
    print(table([measured]))
    found = faults(measured)
    for fault in found:
        print(f"- {fault}")
    if found:
        raise FewshotError(f"{options.file} has {len(found)} faults, listed above; correct them or generate it again.")
    print("no fault")


def _file(name: str) -> Path:
    """A file of sentences: a path, or what ships under a data set's name. Its contents are checked."""
    from fewshot.texts import read, shipped

    path = path_of(name)
    if not path.is_file():
        if path.suffix == ".json":
            raise FewshotError(f"there is no file {path}; `fewshot texts generate -o {path}` makes one.")
        path = shipped(name)
    if not read(path):
        raise FewshotError(f"{path} holds no class; generate it again.")
    return path
