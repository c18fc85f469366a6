"""The methods by name. Nothing is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fewshot.errors import unknown

if TYPE_CHECKING:
    from fewshot.methods.method import Method

METHODS = {
    "zero_shot": "fewshot.methods.zero_shot:ZeroShot",
    "linear_probe": "fewshot.methods.linear_probe:LinearProbe",
    "cross_modal_probe": "fewshot.methods.cross_modal_probe:CrossModalProbe",
    "lpplusplus": "fewshot.methods.lpplusplus:LPPlusPlus",
    "gda": "fewshot.methods.gda:GDA",
    "tip_adapter": "fewshot.methods.tip_adapter:TipAdapter",
    "tip_adapter_f": "fewshot.methods.tip_adapter_f:TipAdapterF",
    "clip_adapter": "fewshot.methods.clip_adapter:CLIPAdapter",
    "taskres": "fewshot.methods.taskres:TaskRes",
    "coop": "fewshot.methods.coop:CoOp",
    "cocoop": "fewshot.methods.cocoop:CoCoOp",
    "kgcoop": "fewshot.methods.kgcoop:KgCoOp",
    "prograd": "fewshot.methods.prograd:ProGrad",
    "plotpp": "fewshot.methods.plotpp:PLOTpp",
    "maple": "fewshot.methods.maple:MaPLe",
    "clip_lora": "fewshot.methods.clip_lora:CLIPLoRA",
    "fine_tune": "fewshot.methods.fine_tune:FineTune",
    "text_adapter": "fewshot.methods.text_adapter:TextAdapter",
}


def get_method(name: str) -> type[Method]:
    """The class of a method. Raises FewshotError for an unknown name."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    module, attribute = METHODS[name].split(":")
    return getattr(import_module(module), attribute)
