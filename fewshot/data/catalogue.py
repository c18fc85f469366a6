"""What is known about each data set: datasets.yaml beside this file, read once. No network and no data root is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files

from fewshot.errors import FewshotError, unknown


@dataclass(frozen=True)
class Layout:
    """A way in which a data set lies below a data root. `of` names whose custom it is; `moved` renames first folders."""

    folder: str
    images: str
    of: str
    needs: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    selection: bool = False


@dataclass(frozen=True)
class Download:
    """One file of a data set: `addresses` are tried in turn, `others` are (state, address) that fetch leaves alone."""

    file: str
    bytes: int | None = None
    about: int | None = None
    sha256: str | None = None
    md5: str | None = None
    addresses: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    take: str = "."
    into: str = "."
    inner: Download | None = None
    optional: bool = False

    @property
    def known_hash(self) -> str | None:
        """In pooch's words: "sha256:..." or "md5:...", None when nobody published one."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else None

    @property
    def size(self) -> int | None:
        """Bytes, exactly or about; None when nobody says."""
        return self.bytes or self.about


@dataclass(frozen=True)
class Entry:
    """One data set. `sizes` are the pictures in train, val and test; `names` the classes in label order (see classnames).

    folders[c] is what class c is called in the folders or file names of the pictures.
    """

    key: str
    title: str
    aliases: tuple[str, ...]
    template: str
    reader: str
    classes: int
    sizes: Mapping[str, int]
    licence: str
    home: str
    get: str
    layouts: tuple[Layout, ...]
    archives: tuple[Download, ...]
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    split: Download | None = None
    by_name: bool = False
    elsewhere: tuple[tuple[str, str], ...] = ()
    steps: tuple[str, ...] = ()

    @cached_property
    def classnames(self) -> tuple[str, ...]:
        """C names. Those of the ImageNets are open_clip's, the ones that CLIP's and CoOp's code use (imports torch)."""
        if self.names:
            return self.names
        from open_clip import IMAGENET_CLASSNAMES

        rank = {wnid: i for i, wnid in enumerate(entry("imagenet").folders)}
        return tuple(IMAGENET_CLASSNAMES[rank[wnid]] for wnid in self.folders)

    @property
    def size(self) -> int | None:
        """Bytes to download, None when one of the files does not say."""
        sizes = [one.size for one in self.archives if not one.optional]
        return None if None in sizes else sum(sizes)


def keys() -> tuple[str, ...]:
    """The names of the data sets, in the order of datasets.yaml."""
    return tuple(_read())


def entry(name: str) -> Entry:
    """The entry of a name or an alias; FewshotError for another word."""
    key = resolve(name)
    if key is None:
        raise unknown("data set", name, keys())
    return _entry(key)


def resolve(name: str) -> str | None:
    """The one name behind a name or an alias ("cars" -> "stanford_cars"), None for another word."""
    return _aliases().get(name.lower())


def known_as(dataset: str) -> str:
    """The data set whose constants apply to `dataset`: "oxford_pets" for "toy/oxford_pets", "OxfordPets" and "pets".

    A large stand-in counts as its original. Another name comes back as its last part, in lower case.
    """
    from fewshot.toy import LARGE

    last = dataset.rsplit("/", 1)[-1].lower()
    last = LARGE.get(last, last)
    return resolve(last) or resolve(last.replace("-", "_")) or last


@cache
def _read() -> dict:
    import yaml

    text = files(__package__).joinpath("datasets.yaml").read_bytes()
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # safe_load, in C where there is one


@cache
def _aliases() -> dict[str, str]:
    return {alias: key for key, value in _read().items() for alias in (*map(str.lower, value["aliases"]), key)}


@cache
def _entry(key: str) -> Entry:
    value = dict(_read()[key])
    folders, names = _names(key, value.pop("names", None), value.pop("wnids", None))
    split = value.pop("split", None)
    return Entry(
        key=key,
        names=names,
        folders=folders,
        aliases=tuple(value.pop("aliases")),
        layouts=tuple(_layout(one) for one in value.pop("layouts")),
        archives=tuple(_download(one) for one in value.pop("archives")),
        split=_download(split) if split else None,
        elsewhere=tuple((one["at"], one["what"]) for one in value.pop("elsewhere", ())),
        steps=tuple(value.pop("steps", ())),
        **value,
    )


def _names(key: str, names: str | None, wnids: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders and names from "folder = name; name; ...", or WordNet ids alone."""
    if names is not None:
        pairs = [one.strip().partition(" = ") for one in names.split(";")]
        return tuple(folder for folder, _, _ in pairs), tuple(name or folder for folder, _, name in pairs)
    if wnids is None:
        raise FewshotError(f"{key} has neither names nor wnids in datasets.yaml.")
    return (_entry(wnids).folders if wnids in _read() else tuple(wnids.split())), ()


def _layout(value: dict) -> Layout:
    return Layout(**{**value, "needs": tuple(value.get("needs", ()))})


def _download(value: dict) -> Download:
    value = dict(value)
    plain = [one for one in value.get("from", ()) if isinstance(one, str)]
    others = [pair for one in value.pop("from", ()) if isinstance(one, dict) for pair in one.items()]
    inner = value.pop("inner", None)
    return Download(addresses=tuple(plain), others=tuple(others), inner=_download(inner) if inner else None, **value)
