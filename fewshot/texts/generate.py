"""Ask a language model for sentences about classes; a stopped run goes on where it stopped.

Every usable answer is a file of its own in the cache, named by the SHA-256 of the request; what is there is not asked
again. The sentences appear whole at the end, with a meta file beside them that says how they came about.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewshot.cache import CACHE_REMEDY, atomic_write, cache_dir, writing
from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of
from fewshot.texts.chat import Chat
from fewshot.texts.clean import POSITIONS, VERSION, Unusable, clean, distinct
from fewshot.texts.prompts import PROMPTS

TRIES = 3  # for one usable answer
MORE = 3  # further calls for a class whose answers repeat each other


@dataclass(frozen=True)
class Classes:
    """What to ask about: names in label order, how a name is spelt in the prompt, and what kind of thing they are."""

    names: tuple[str, ...]
    domain: str = "object"
    spelt: dict[str, str] = field(default_factory=dict)

    def asked(self, name: str) -> str:
        return self.spelt.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class Request:
    """The settings of a run: what every call has in common."""

    prompt: str = "visual10"
    calls: int = 3
    temperature: float = 1.0
    seed: int | None = None
    max_calls: int | None = None
    sentences: int | None = None  # wanted per class; None: as many as one good answer has, and all of them are kept

    def __post_init__(self):
        if self.prompt not in PROMPTS:
            raise unknown("prompt", self.prompt, PROMPTS)
        for name, value in (("calls", self.calls), ("max-calls", self.max_calls), ("sentences", self.sentences)):
            if value is not None and value < 1:
                raise FewshotError(f"--{name} is {value}; it must be 1 or more.")
        if not 0 <= self.temperature <= 2:
            raise FewshotError(f"--temperature is {self.temperature:g}; it must lie between 0 and 2.")


@dataclass
class Used:
    """What a run cost: calls and tokens, those of unusable answers included."""

    calls: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: dict) -> None:
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]

    def told(self, price_in: float | None, price_out: float | None) -> str:
        text = (
            f"{self.calls} calls, {self.prompt_tokens:,} tokens in, {self.completion_tokens:,} tokens out"
            f" ({self.kept} answers from the cache)"
        )
        if price_in is None and price_out is None:
            return text
        cost = (self.prompt_tokens * (price_in or 0) + self.completion_tokens * (price_out or 0)) / 1e6
        return f"{text}, cost {cost:.4f}"


def generate(classes: Classes, request: Request, chat: Chat, output: Path, say=print, prices=(None, None)) -> Path:
    """Ask, clean, write `output` and its meta file. Raises FewshotError, with everything answered so far kept."""
    check_output(output)
    run = _Run(classes, request, chat)
    needed, waiting = len(classes.names) * request.calls, run.missing()
    say(
        f"{needed} calls ({len(classes.names)} classes x {request.calls}) to {chat.model} at {chat.host}: "
        f"{needed - waiting} are answered, {waiting} to make"
    )
    if request.max_calls is not None and waiting > request.max_calls:
        raise FewshotError(
            f"{waiting} calls are to be made and --max-calls allows {request.max_calls}; raise it, or ask about fewer classes."
        )
    try:
        table = run.all()
    except KeyboardInterrupt:
        say(run.used.told(*prices))
        raise KeyboardInterrupt(f"stopped; {run.answered()} answers are kept, and the same command goes on.") from None
    except FewshotError:
        say(run.used.told(*prices))
        raise
    _write(output, table, run.meta())
    say(run.used.told(*prices))
    say(f"{output}: {len(table)} classes, {sum(map(len, table.values()))} sentences")
    return output


class _Run:
    def __init__(self, classes: Classes, request: Request, chat: Chat):
        self.classes, self.request, self.chat = classes, request, chat
        self.prompt = PROMPTS[request.prompt]
        self.folder = cache_dir() / "texts"
        self.used, self.models, self.asked = Used(), {}, 0

    def all(self) -> dict[str, list[str]]:
        from tqdm import tqdm

        bar = tqdm(self.classes.names, unit="class", disable=None, file=sys.stderr)
        return {name: self.one(name) for name in bar}

    def one(self, name: str) -> list[str]:
        """The sentences of a class: `calls` answers, and a few more where they say the same things."""
        wanted = self.request.sentences or self.prompt.lines
        lines: list[str] = []
        for sample in range(self.request.calls + MORE):
            if sample >= self.request.calls and len(lines) >= wanted:
                break
            lines = distinct([*lines, *self.answer(name, sample)])
        if len(lines) < wanted:
            raise FewshotError(
                f"{self.chat.model} wrote {len(lines)} different sentences about class {name!r} and {wanted} are wanted; "
                "raise --calls or --temperature, or take another --prompt."
            )
        return lines[: self.request.sentences]

    def answer(self, name: str, sample: int) -> list[str]:
        """The sentences of one answer, from the cache or from the model."""
        path = self.path(name, sample)
        if (kept := _kept(path)) is not None:
            try:
                lines = self.cleaned(kept)
            except Unusable:
                kept = None  # usable by the rules of an older version
        if kept is None:
            kept, lines = self.fresh(name, sample)
            _store(path, kept)
        else:
            self.used.kept += 1
        self.models[kept["model"]] = True
        self.asked += 1
        return lines

    def fresh(self, name: str, sample: int) -> tuple[dict, list[str]]:
        for attempt in range(TRIES):
            if self.request.max_calls is not None and self.used.calls >= self.request.max_calls:
                raise FewshotError(
                    f"--max-calls {self.request.max_calls} is used up at class {name!r}, because some answers had to be "
                    "asked for again; the answers are kept, run again."
                )
            self.used.calls += 1
            try:
                answer = self.chat.ask(self.messages(name), **self.settings(sample, attempt))
                self.used.add(answer["usage"])
                return answer, self.cleaned(answer)
            except Unusable as error:
                fault = str(error)
        raise FewshotError(
            f"{self.chat.model} gave no usable answer about class {name!r} in {TRIES} calls (the last: {fault}); take "
            "another --prompt or --model, the other answers are kept."
        )

    def cleaned(self, answer: dict) -> list[str]:
        lines = clean(answer["text"], cut=answer["finish_reason"] == "length", tokens=_tokens)
        if len(lines) < self.prompt.least:
            raise Unusable(f"{len(lines)} lines where {self.prompt.lines} are asked for")
        return lines

    def messages(self, name: str) -> list[dict]:
        return [{"role": "user", "content": self.prompt.about(self.classes.asked(name), self.classes.domain)}]

    def settings(self, sample: int, attempt: int = 0) -> dict:
        settings: dict = {"temperature": self.request.temperature}
        if self.request.seed is not None:  # another one for each repetition, or the answer would be the same
            settings["seed"] = self.request.seed + sample + 1000 * attempt
        return settings

    def path(self, name: str, sample: int) -> Path:
        request = {
            "host": self.chat.host,
            "model": self.chat.model,
            "messages": self.messages(name),
            "sample": sample,
            **self.settings(sample),
        }
        canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return self.folder / f"{hashlib.sha256(canonical.encode()).hexdigest()}.json"

    def missing(self) -> int:
        return self.request.calls * len(self.classes.names) - self.answered()

    def answered(self) -> int:
        return sum(
            _kept(self.path(name, i)) is not None for name in self.classes.names for i in range(self.request.calls)
        )

    def meta(self) -> dict:
        return {
            "origin": "generated with `fewshot texts generate`",
            "model": sorted(self.models),
            "model_asked": self.chat.model,
            "host": self.chat.host,
            "prompt_id": self.request.prompt,
            "prompt": self.prompt.text,
            "domain": self.classes.domain,
            "temperature": self.request.temperature,
            "seed": self.request.seed,
            "calls": self.asked,
            "date": datetime.date.today().isoformat(),
            "cleaner": VERSION,
            "names": {
                name: self.classes.asked(name) for name in self.classes.names if self.classes.asked(name) != name
            },
        }


def _tokens(sentence: str) -> int:
    """A sentence's tokens, or a bound that is low enough: a token has at least one byte. Short sentences need no torch."""
    if (most := len(sentence.encode()) + 2) <= POSITIONS:
        return most
    from fewshot.texts.quality import tokens

    return tokens(sentence)


def _kept(path: Path) -> dict | None:
    """A stored answer; None for none, or for a file that is damaged."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(answer[name], str) for name in ("text", "finish_reason", "model"))
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return answer if whole else None


def _store(path: Path, answer: dict) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with writing(path, CACHE_REMEDY) as temporary:
        temporary.write_text(json.dumps(answer | {"time": now}, ensure_ascii=False, indent=1), encoding="utf-8")


def meta_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.meta.json")


def check_output(path: Path) -> None:
    """Before anything is paid for: can the file be written?"""
    if path.suffix != ".json" or path.name.endswith(".meta.json"):
        raise FewshotError(f"{path} is no name for the sentences; give one that ends in .json.")
    if path.is_dir():
        raise FewshotError(f"{path} is a folder; give the name of a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path.with_name(f"{path.stem}.probe.json")) as probe:
            probe.write_text("{}")
        path.with_name(f"{path.stem}.probe.json").unlink()
    except OSError as error:
        raise FewshotError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def _write(path: Path, table: dict[str, list[str]], meta: dict) -> None:
    text = json.dumps(table, ensure_ascii=False, indent=1) + "\n"
    meta = meta | {"classes": len(table), "sentences": sum(map(len, table.values()))}
    meta["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with writing(meta_path(path)) as temporary:
        temporary.write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


# -- what to ask about --------------------------------------------------------------------------------------------------


def classes_of(source: str, domain: str | None = None) -> Classes:
    """The classes of a file (a name per line, a JSON list, or a JSON table whose keys they are) or of a named data set."""
    path = path_of(source)
    classes = _from_file(path) if path.is_file() else _from_dataset(source)
    return Classes(classes.names, domain or classes.domain, classes.spelt)


def _from_file(path: Path) -> Classes:
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise FewshotError(f"{path} cannot be read as class names; give a text file with a name per line.") from error
    names = list(found) if isinstance(found, list | dict) else []
    if not all(isinstance(name, str) for name in names):
        raise FewshotError(f"{path} should be a list of class names, or a table whose keys they are.")
    return Classes(_distinct_names([name.strip() for name in names if name.strip()], path))


def _distinct_names(names: Sequence[str], path: Path) -> tuple[str, ...]:
    if not names:
        raise FewshotError(f"{path} holds no class name; put one on each line.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise FewshotError(f"{path} names {min(twice)!r} twice; delete one of them.")
    return tuple(names)


def _from_dataset(name: str) -> Classes:
    from fewshot.texts import FOLDER, domain_of

    if name.startswith("toy/"):
        from fewshot import toy

        dataset = toy.load_dataset(toy.ALIASES.get(name[4:], name[4:]))
        return Classes(tuple(dataset.classnames), domain_of(dataset.template))
    from fewshot.data.catalogue import entry, resolve

    if resolve(name) is None:
        from fewshot.data import dataset_names

        raise unknown("data set or file of class names", name, dataset_names())
    one = entry(name)
    if not one.classnames:
        raise FewshotError(
            f"the class names of {one.key} come with its pictures; write them into a file, one per line."
        )
    meta = FOLDER / f"{one.key}.meta.json"
    spelt = json.loads(meta.read_text(encoding="utf-8")).get("names", {}) if meta.is_file() else {}
    known = {key: value for key, value in spelt.items() if isinstance(value, str) and value != key}
    return Classes(one.classnames, domain_of(one.template), known)
