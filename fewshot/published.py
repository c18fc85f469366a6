"""The papers' numbers (published/*.csv) as one tidy table."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.errors import FewshotError, unknown
from fewshot.runs import ROOT

COLUMNS = ["source", "table", "method", "variant", "dataset", "classes", "shots", "top1", "remark"]

# The paper's name for a variant -> our method; `VARIANT_CONFIG` says which configuration makes a row comparable with it.
METHOD_OF = {"coop_ctx4": "coop", "coop_ctx16": "coop"}
VARIANT_CONFIG = {"coop_ctx4": {"n_ctx": 4}, "coop_ctx16": {"n_ctx": 16}}


@dataclass(frozen=True)
class Source:
    """A table of a paper: its file, its number in the paper, the shots of rows that name none."""

    file: str
    table: str
    shots: int | None = None
    method: str | None = None


SOURCES = {
    "clip_lora": Source("clip_lora_table2.csv", "2"),
    "cocoop": Source("cocoop_base_to_new.csv", "base-to-new", shots=16),
    "text_adapter": Source("llm_text_table1.csv", "1", method="text_adapter"),
}


def published(*sources: str):
    """Columns source, table, method (our name), variant (the paper's), dataset, classes (all, base, new), shots, top1, remark.

    `sources` narrows it to some of "clip_lora", "cocoop", "text_adapter"; default all.
    """
    import pandas as pd

    for source in sources:
        if source not in SOURCES:
            raise unknown("source", source, SOURCES)
    return pd.concat([_table(name, SOURCES[name]) for name in sources or SOURCES], ignore_index=True)


def zero_shot_values():
    """What zero-shot CLIP must give with OpenAI's weights: columns backbone, dataset, templates, top1, source.

    The ViT-B/16 values are those of the CLIP-LoRA paper (table 2), which were made with each data set's own template.
    """
    import pandas as pd

    table = published("clip_lora")
    table = table[(table["method"] == "zero_shot") & (table["dataset"] != "average")]
    table = table.assign(backbone="ViT-B-16-quickgelu", templates="task", source="CLIP-LoRA table 2")
    more = _read("zero_shot.csv")
    return pd.concat([table[list(more.columns)], more], ignore_index=True)


def training_times():
    """Minutes of training on 16-shot ImageNet as the CLIP-LoRA paper measured them (table 1): method, minutes, setting."""
    return _read("clip_lora_table1_training_time.csv").rename(columns={"training_time_minutes": "minutes"})


def per_image_times():
    """Milliseconds of training per image as KgCoOp's README lists them: method, ms_per_image, source, protocol."""
    return _read("kgcoop_training_time.csv")


def base_to_new_averages():
    """Averages over eleven data sets as two READMEs list them: method, name, base, new, harmonic, source, protocol.

    A method can stand there twice with different numbers (CoOp): `source` says whose runs they are.
    """
    return _read("base_to_new_averages.csv")


def domain_shift():
    """Trained on ImageNet, tested on it and on its four shifts: columns method, dataset, top1, source, protocol."""
    return _read("domain_shift.csv")


def tip_adapter_rn50():
    """Tip-Adapter, Tip-Adapter-F and zero-shot with RN50 as the log beside the authors' code lists them, eleven data sets:
    columns method, shots, dataset, top1, source, protocol (what was chosen on the test set)."""
    return _read("tip_adapter_rn50.csv")


def _table(name: str, source: Source):
    table = _read(source.file)
    if source.method:  # the text adapter's table names a setting (image, image+text) where the others name a method
        table["variant"] = table.pop("setting")
        table["method"] = table["variant"].where(table["variant"] == "zero_shot", source.method)
        table["remark"] = table["texts_per_class"].map(lambda m: f"{m} texts per class" if m else "")
    else:
        table["variant"] = table["method"]
        table["method"] = table["method"].replace(METHOD_OF)
    if "shots" not in table:
        table["shots"] = source.shots
        table.loc[table["method"] == "zero_shot", "shots"] = 0
    if "remark" not in table:
        table["remark"] = ""
    if "classes" not in table:
        table["classes"] = "all"
    table["remark"] = table["remark"].fillna("")
    return table.assign(source=name, table=source.table)[COLUMNS]


def _read(file: str):
    import pandas as pd

    path = ROOT / "published" / file
    if not path.is_file():
        raise FewshotError(f"{path} is missing; install the project from its repository (pip install -e .).")
    return pd.read_csv(path)
