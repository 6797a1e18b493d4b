"""Base models and adapters: where weights come from, how they are held, what they continue from."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from parrot_lite.errors import UserError
from parrot_lite.lm.tokens import Renderer
from parrot_lite.progress import say
from parrot_lite.recipe import Lora, Model
from parrot_lite.store import fingerprint, locate

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for optional CPU kernels from a hub
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl)\.")


def device_of(model: Model) -> torch.device:
    """The device that ``model.device`` names. Raises UserError where it asks for a card that is not there."""
    if model.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is visible", "model.device", "Set model.device=auto or cpu")
    if model.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # With its index: accelerate takes a 4-bit model on "cuda" to lie elsewhere than on the "cuda:0" it trains on.
    return torch.device("cuda", torch.cuda.current_device())


def dtype_of(model: Model) -> torch.dtype:
    """The dtype that ``model.dtype`` names; auto is bfloat16 where the device computes in it."""
    if model.dtype != "auto":
        dtype: torch.dtype = getattr(torch, model.dtype)
        return dtype
    if device_of(model).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def attention_of(model: Model) -> str:
    """The attention implementation that ``model.attention`` names."""
    if model.attention != "auto":
        return model.attention
    on_card = device_of(model).type == "cuda" and dtype_of(model).itemsize == 2  # it computes in 16 bits alone
    flash = on_card and transformers.utils.is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def source(model: Model) -> str:
    """What ``from_pretrained`` reads: a hub id, a folder, or the folder a GGUF file was converted into.

    A GGUF takes many seconds to dequantise, so that is done once, into ``$XDG_CACHE_HOME/parrot_lite``.
    """
    path = locate(model.base)
    if model.gguf_file is not None:
        path = path / model.gguf_file
    if path.suffix != ".gguf":
        return model.base
    if not path.exists():
        raise UserError("no such GGUF file", str(path), "Mend model.base")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrot_lite" / fingerprint(path)
    if not cache.exists():
        _sweep(cache)
        say(f"{path.name}: converting to safetensors once, into {cache}")
        beside = cache.with_name(f"{cache.name}.{os.getpid()}.part")
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        # Without dequantize=True it loads but cannot be saved.
        config = transformers.GgufConfig(dequantize=True)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar ignores disable_progress_bar
            converted = AutoModelForCausalLM.from_pretrained(**where, quantization_config=config, dtype=torch.float32)
        converted.save_pretrained(beside)
        AutoTokenizer.from_pretrained(**where).save_pretrained(beside)
        try:
            beside.rename(cache)
        except OSError:  # another process was first
            shutil.rmtree(beside)
    return str(cache)


def _sweep(cache: Path) -> None:
    """Remove what killed conversions left beside ``cache``: as large as the model in float32."""
    for left in cache.parent.glob(f"{cache.name}.*.part"):
        pid = int(left.name.split(".")[-2])
        try:
            os.kill(pid, 0)
            alive = pid != os.getpid()  # in a container the same few ids come again
        except ProcessLookupError:
            alive = False
        except PermissionError:
            alive = True
        if not alive:
            shutil.rmtree(left, ignore_errors=True)


def load_renderer(model: Model) -> Renderer:
    """The tokenizer with the template that the recipe names."""
    return Renderer(_from_pretrained(AutoTokenizer, model), model.template)


def skeleton(model: Model) -> Any:
    """The base model without its weights, in a moment and no memory: to ask what its architecture can."""
    config = _from_pretrained(AutoConfig, model)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def load_base(model: Model) -> Any:
    """The base model on its device, in NF4 where the recipe says so."""
    options: dict[str, Any] = {
        "dtype": dtype_of(model),
        "attn_implementation": attention_of(model),
        "device_map": {"": device_of(model)},
    }
    if model.load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=model.double_quant,
            bnb_4bit_compute_dtype=dtype_of(model),
        )
    return _from_pretrained(AutoModelForCausalLM, model, **options)


def _from_pretrained(kind: Any, model: Model, **options: Any) -> Any:
    where = source(model)
    try:
        return kind.from_pretrained(where, revision=model.revision or "main", **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:300]
        raise UserError(
            f"the base model cannot be loaded: {first}", f"model.base = {model.base}", "Name a folder or a hub id"
        ) from error


def load_trainable(model: Model, adapter: Path | None, lora: Lora, checkpointing: bool) -> Any:
    """Base with a trainable adapter: a new one, or ``adapter`` continued. Raises UserError for float16 on a CPU."""
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if device_of(model).type == "cpu" and dtype_of(model) == torch.float16:
        raise UserError("float16 does not train on a CPU", "model.dtype", "Set auto, bfloat16 or float32")
    base = load_base(model)
    if model.load_in_4bit:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=checkpointing)
        for module in base.modules():
            # On CPUs with AVX-512 BF16 a 4-bit layer repacks its weights for good in the first forward pass outside
            # training mode, and the packed kernel has no backward: gradients of later steps would be silently wrong.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    if adapter is not None:
        return PeftModel.from_pretrained(base, adapter, is_trainable=True)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(base, config)


def load_for_inference(model: Model, adapter: Path | None, merge: bool = False) -> Any:
    """Base and adapter for generation and scoring, on the weights the adapter was trained over.

    NF4 is kept on a card; on a CPU the NF4 weights are dequantised once, which computes the same function faster.
    ``merge`` adds the adapter to those weights in float32 and rounds once, for generation on a CPU, where a token's
    time goes into the number of small products. It is never added to the unquantised base: that is another model.
    """
    from peft import PeftModel

    base, dtype = load_base(model), dtype_of(model)
    on_cpu = device_of(model).type == "cpu"
    merge = merge and on_cpu and adapter is not None
    if model.load_in_4bit and on_cpu:
        base = base.dequantize(dtype=torch.float32 if merge else dtype)
    loaded = base if adapter is None else PeftModel.from_pretrained(base, adapter)
    if merge:
        loaded = loaded.to(torch.float32).merge_and_unload().to(dtype)
    return loaded.eval()
