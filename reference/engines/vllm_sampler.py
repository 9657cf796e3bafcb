"""Rollouts with vLLM, the paper's rollout engine (Table 6). The only file that imports it, and only to build an engine.

The engine lives in the process that trains: one for each process, or one for `tensor_parallel` neighbouring ones. It is
built once; later weights are streamed into it, tensor by tensor. As in `HFSampler`, temperature and top-p are the only
things that shape the distribution, and token ids go in and come out; the random numbers are vLLM's own.

vLLM leaves its mark on the process: it brings up the default process group where there is none (create the Accelerator
first), and on a CPU it makes `torch.set_num_threads` do nothing from then on.
"""

import gc
import importlib.util
import logging
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerBase

from reference.engines.chat import text_of
from reference.interfaces import Sampling, Share
from reference.records import Completion

# What the cache of keys and values may take on a CPU, in bytes, beyond one response of full length. Requests that find
# no room wait. On a GPU `gpu_memory_utilization` rules.
CPU_CACHE_BYTES = 2 << 30
# Tokens that one forward may take: prompts, or one for each row.
FORWARD_TOKENS = 8192
# The positions that vLLM's CPU attention reserves at a time.
CPU_BLOCK = 128
# What two checkpoints of one model may differ in.
NOT_ARCHITECTURE = {"_name_or_path", "architectures", "dtype", "transformers_version", "use_cache"}


@dataclass(frozen=True)
class VLLMSettings:
    """Table 6, and the sizes that the run implies.

    `max_length` counts prompt and response together; the model's positions when not given. `max_rows` responses are
    drawn side by side.
    """

    tensor_parallel: int = 1
    gpu_memory_utilization: float = 0.4
    prefix_caching: bool = False
    enforce_eager: bool = True
    max_length: int | None = None
    max_rows: int = 512


def check_installed() -> None:
    """Raises ValueError, with the ways on, where vLLM is not installed. Its CPU build is another distribution."""
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "--sampler vllm needs vLLM, which is not installed; install it with `pip install -c constraints.txt "
            "-e '.[vllm]'` for a GPU, with `.ci/install_vllm_cpu` for a CPU, or take --sampler hf, which serves as well"
        )


def check_tensor_parallel(heads: int, kv_heads: int, tensor_parallel: int, processes: int) -> None:
    """Can `processes` be cut into engines of `tensor_parallel`, and the model's heads among those?

    Raises:
        ValueError: no; the sentence names the sizes that can.
    """
    sizes = [
        size
        for size in range(1, processes + 1)
        if processes % size == 0 and heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)
    ]
    if tensor_parallel not in sizes:
        raise ValueError(
            f"--vllm.tensor-parallel {tensor_parallel} must divide the {processes} processes and the model's {heads} "
            f"attention heads, and divide its {kv_heads} key-value heads or be a multiple of them; "
            f"take one of {', '.join(map(str, sizes))}"
        )


class VLLMSampler:
    """Implements `interfaces.Sampler` with an engine in this process, the `rank`-th of `size` that train.

    With `tensor_parallel` above 1, neighbouring processes work as one engine: they have the same share, and each must
    make the same calls. `load` and `sync` are made by all processes together.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        dtype: torch.dtype,
        settings: VLLMSettings = VLLMSettings(),
        rank: int = 0,
        size: int = 1,
    ):
        check_installed()
        group = settings.tensor_parallel
        self.share = Share(rank // group, size // group, writes=rank % group == 0)
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self.dtype = dtype
        self.settings = settings
        self.size = size
        self._engine: Any = None  # vllm.LLM
        self._config: PretrainedConfig | None = None
        self._names: frozenset[str] = frozenset()

    def load(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint directory; an engine is built for the first one of an architecture.

        Raises:
            ValueError: no such model, weights that are missing, or no room for the engine.
        """
        config = _read_config(checkpoint)
        names = _weight_names(config)
        stored = _stored_in(checkpoint, names)
        same = self._config is not None and _architecture(config) == _architecture(self._config)
        if self._engine is not None and same:
            self._reload(_read_weights(stored))
            return
        self.close()
        check_tensor_parallel(
            config.num_attention_heads, config.num_key_value_heads, self.settings.tensor_parallel, self.size
        )
        self._engine, self._config, self._names = self._build(checkpoint, config), config, names

    def sync(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over the trainer's weights, named as in the checkpoint; whole tensors, read once and one at a time."""
        self._check_loaded()
        self._reload(weights)

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """See `interfaces.Sampler.sample`.

        Raises:
            ValueError: no checkpoint loaded, an empty prompt, or a prompt too long for the engine.
        """
        self._check_loaded()
        self._check_lengths(prompts, sampling)
        from vllm import TokensPrompt

        rows = [(prompt, seed) for prompt, group in zip(prompts, seeds, strict=True) for seed in group]
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt, _ in rows]
        parameters = [self._parameters(seed, sampling) for _, seed in rows]
        outputs = self._engine.generate(requests, parameters, use_tqdm=False) if rows else []
        completions = iter([self._completion(output.outputs[0]) for output in outputs])
        return [[next(completions) for _ in group] for group in seeds]

    def close(self) -> None:
        """Free the engine and its memory. The default process group stays: vLLM's own way would take it along."""
        if self._engine is None:
            return
        from vllm.distributed.parallel_state import destroy_model_parallel

        client, self._engine = self._engine.llm_engine.engine_core, None
        client._finalizer.detach()
        client.engine_core.model_executor.shutdown()
        client.engine_core.scheduler.shutdown()
        del client
        destroy_model_parallel()
        gc.unfreeze()  # vLLM hid what it built from the collector
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check_loaded(self) -> None:
        if self._engine is None:
            raise ValueError("the sampler has no weights yet; call load(checkpoint) first")

    def _check_lengths(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        limit = self._engine.model_config.max_model_len
        for prompt in prompts:
            if not 0 < len(prompt) <= limit - sampling.max_new_tokens:
                raise ValueError(
                    f"a prompt of {len(prompt)} tokens and {sampling.max_new_tokens} new ones do not fit the engine's "
                    f"{limit} positions; lower --data.max-prompt-tokens or the max-new-tokens of this stage"
                )

    def _build(self, checkpoint: Path, config: PretrainedConfig) -> Any:
        """A new engine with the checkpoint's weights. torch's random numbers go on as if there were none."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")  # an error prints every request; it is raised anyway
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of its own calls into torch
            from vllm import LLM
            from vllm.platforms import current_platform

            if current_platform.is_cpu():
                _check_head_width(config)
                if self.settings.tensor_parallel > 1:
                    _name_shared_memory()
            max_length = self.settings.max_length or config.max_position_embeddings
            try:
                return LLM(
                    str(checkpoint),
                    skip_tokenizer_init=True,
                    generation_config="vllm",  # nothing of the checkpoint's: no top-k, no repetition penalty
                    logprobs_mode="raw_logprobs",
                    dtype=str(self.dtype).removeprefix("torch."),
                    max_model_len=max_length,
                    max_num_seqs=self.settings.max_rows,
                    max_num_batched_tokens=max(FORWARD_TOKENS, self.settings.max_rows, max_length),
                    enable_chunked_prefill=False,  # part of a prompt draws a word too: on a CPU that cannot be undone
                    tensor_parallel_size=self.settings.tensor_parallel,
                    distributed_executor_backend="uni" if self.size == 1 else "external_launcher",
                    gpu_memory_utilization=self.settings.gpu_memory_utilization,
                    kv_cache_memory_bytes=self._cache_bytes(config, max_length) if current_platform.is_cpu() else None,
                    enforce_eager=self.settings.enforce_eager,
                    enable_prefix_caching=self.settings.prefix_caching,
                    use_tqdm_on_load=False,
                )
            except (ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"vLLM could not be started on {str(checkpoint)!r}: {reason}; if memory is short, change "
                    "--vllm.gpu-memory-utilization or lower the max-new-tokens of the stages, or take --sampler hf"
                ) from error

    def _cache_bytes(self, config: PretrainedConfig, max_length: int) -> int:
        """Room for `max_rows` responses of full length where that is little, else what a CPU gives; always for one."""
        heads = max(1, config.num_key_value_heads // self.settings.tensor_parallel)
        of_position = 2 * config.num_hidden_layers * heads * _head_width(config) * self.dtype.itemsize
        of_row = (max_length // CPU_BLOCK + 2) * CPU_BLOCK * of_position
        return max(2 * of_row, min(self.settings.max_rows * of_row, CPU_CACHE_BYTES))

    @torch.no_grad()
    def _reload(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        given = set()

        def noted() -> Iterator[tuple[str, torch.Tensor]]:
            for name, weight in weights:
                given.add(name)
                yield name, weight

        stream = noted()
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": stream})
        assert next(stream, None) is None and given == self._names, f"other weights: {sorted(given ^ self._names)}"
        assert self._config is not None  # the engine's
        if self._config.tie_word_embeddings:
            self._engine.apply_model(_renew_tied_head)
        self._engine.reset_prefix_cache()  # its keys and values are those of the old weights

    def _parameters(self, seed: int, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=seed % 2**63,  # vLLM's are signed, -1 means none; on a CPU the lowest 32 bits count
            stop_token_ids=list(self.end_ids),
            ignore_eos=True,  # no end but ours
            logprobs=0 if sampling.with_logprobs else None,  # 0: of the chosen token alone
            detokenize=False,
        )

    def _completion(self, output: Any) -> Completion:
        ids = tuple(output.token_ids)
        finished = ids[-1] in self.end_ids
        text = text_of(self.tokenizer, ids[:-1] if finished else ids)
        if output.logprobs is None:
            return Completion(ids, text, finished)
        logprobs = tuple(position[token].logprob for position, token in zip(output.logprobs, ids, strict=True))
        return Completion(ids, text, finished, logprobs)


def _renew_tied_head(model: Any) -> None:
    """On a CPU the head computes with a packed copy of the embedding it is tied to, which a reload leaves stale.

    On a GPU both read the same memory; there this does nothing.
    """
    model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def _head_width(config: PretrainedConfig) -> int:
    return config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads


def _check_head_width(config: PretrainedConfig) -> None:
    """vLLM itself finds out only in the first forward."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    width, known = _head_width(config), CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise ValueError(
            f"vLLM's CPU build has no attention for heads {width} wide, only for {', '.join(map(str, known))}; "
            "take another model or --sampler hf"
        )


def _name_shared_memory() -> None:
    """On a CPU the processes of one engine share memory under a name with a count in it, which vLLM begins at 0.

    The memory of a killed run, or of one beside this, would be in the way; so the processes agree on another beginning.
    """
    from vllm.distributed import parallel_state

    first = [secrets.randbelow(1 << 62)]
    dist.broadcast_object_list(first)
    parallel_state._group_name_counter["tp"] = first[0]


def _read_config(checkpoint: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load a model from {str(checkpoint)!r}: no readable config.json ({error})") from error


def _architecture(config: PretrainedConfig) -> dict:
    return {name: value for name, value in config.to_dict().items() if name not in NOT_ARCHITECTURE}


def _weight_names(config: PretrainedConfig) -> frozenset[str]:
    """The names that the model's weights have in a checkpoint; a tied head has none of its own."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return frozenset(name for name, _ in model.named_parameters())


def _stored_in(checkpoint: Path, names: frozenset[str]) -> dict[Path, list[str]]:
    """Which of these weights lie in which file of the folder. Raises ValueError if any is nowhere."""
    stored = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                stored[path] = [name for name in file.keys() if name in names]  # noqa: SIM118  # it is no dictionary
        except (OSError, SafetensorError) as error:
            raise ValueError(f"cannot read the weights in {str(path)!r} ({error}); the file is damaged") from error
    missing = sorted(names.difference(*stored.values()))
    if missing:
        raise ValueError(f"the weights in {str(checkpoint)!r} lack {missing[:3]}; complete them")
    return stored


def _read_weights(stored: dict[Path, list[str]]) -> Iterator[tuple[str, torch.Tensor]]:
    """One tensor at a time."""
    for path, names in stored.items():
        with safe_open(path, "pt") as file:
            for name in names:
                yield name, file.get_tensor(name)
