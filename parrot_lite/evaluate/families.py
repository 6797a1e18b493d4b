"""Which family a model is of, by its name, and whether a judge may favour what it judges for that.

Models recognise and favour what they write themselves (Panickssery et al., arXiv 2404.13076), and judges favour models
that were trained on what a relative of theirs wrote (Li et al., arXiv 2502.01534).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# How the name begins, or how that of a model begins which was trained from one of the family.
FAMILIES = {
    "llama": ("llama", "vicuna", "alpaca", "koala", "tulu", "selene", "codellama", "tinyllama", "hermes"),
    "qwen": ("qwen", "qwq"),
    "mistral": ("mistral", "mixtral", "ministral", "magistral", "zephyr", "prometheus", "openchat"),
    "gpt": ("gpt-3", "gpt-4", "gpt-5", "gpt-oss", "gpt3", "gpt4", "chatgpt", "text-davinci", "o1-", "o3-", "o4-"),
    "claude": ("claude",),
    "gemma": ("gemma", "gemini"),
    "smollm": ("smollm",),
    "phi": ("phi-", "phi2", "phi3", "phi4"),
    "deepseek": ("deepseek",),
    "command": ("command-r", "command-a", "c4ai", "aya"),
    "granite": ("granite",),
    "olmo": ("olmo",),
    "glm": ("glm", "chatglm"),
    "yi": ("yi-",),
}
_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
_NAMES = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(sorted(map(re.escape, _FAMILY), key=len, reverse=True))})")


def families(model: str) -> frozenset[str]:
    """The families that a model's name tells; none where it tells none, two where it is one taught by another.

    >>> [sorted(families(name)) for name in ("SmolLM2-135M-Instruct.Q4_1.gguf", "meta-llama/Llama-3.1-8B", "judge")]
    [['smollm'], ['llama'], []]
    >>> sorted(families("DeepSeek-R1-Distill-Qwen-7B"))
    ['deepseek', 'qwen']
    """
    return frozenset(_FAMILY[name] for name in _NAMES.findall(model.lower()))


def warnings(judge: str, compared: Mapping[str, str], wrote: Mapping[str, str]) -> list[str]:
    """What a reader must know who trusts this judge.

    ``compared`` names the models that it judges by what the table calls them, ``wrote`` those that wrote what they were
    trained on, by their place in the recipe.
    """
    found = []
    for family in sorted(families(judge)):
        judged = [name for name, model in compared.items() if family in families(model)]
        taught = [place for place, model in wrote.items() if family in families(model)]
        if judged:
            all_alike = len(judged) == len(compared) and len(compared) > 1
            who = "all compared models" if all_alike else ", ".join(judged)
            effect = "it may favour its family's style" if all_alike else "it may favour them"
            found.append(f"the judge {judge} is of the family {family}, as {who}: {effect}")
        if taught:
            found.append(
                f"the judge {judge} is of the family {family}, as {', '.join(taught)}, which wrote what is trained on: "
                "it may favour what was trained on it"
            )
    return found
