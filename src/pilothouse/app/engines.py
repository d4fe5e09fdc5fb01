"""
Which engines there are: our own drivers, and those that packages bring.

The one idea: a driver is found by its name, as `module:attribute`, and loaded when
a deployment names it. Ours stand in a table and not in this package's own entry
points, so that a checkout that was never installed has them too.
"""

from collections.abc import Iterator, Mapping

from pilothouse.domain.options import EngineOptions
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.plugins import BrokenPlugin, Plugins
from pilothouse.ports.engine import EngineDriver

GROUP = "pilothouse.engine"
OWN = {
    "llama.cpp": "pilothouse.adapters.engines.llama_cpp:LlamaCppDriver",
    "anthropic": "pilothouse.adapters.engines.anthropic:AnthropicDriver",
    "azure-openai": "pilothouse.adapters.engines.azure_openai:AzureOpenAIDriver",
    "bedrock": "pilothouse.adapters.engines.bedrock:BedrockDriver",
    "gemini": "pilothouse.adapters.engines.gemini:GeminiDriver",
    "kserve": "pilothouse.adapters.engines.kserve:KServeDriver",
    "mlserver": "pilothouse.adapters.engines.mlserver:MLServerDriver",
    "openai": "pilothouse.adapters.engines.openai:OpenAIDriver",
    "sglang": "pilothouse.adapters.engines.sglang:SglangDriver",
    "tensorflow": "pilothouse.adapters.engines.tensorflow:TensorFlowDriver",
    "torchserve": "pilothouse.adapters.engines.torchserve:TorchServeDriver",
    "transformers": "pilothouse.adapters.engines.transformers:TransformersDriver",
    "triton": "pilothouse.adapters.engines.triton:TritonDriver",
    "vertex": "pilothouse.adapters.engines.vertex:VertexDriver",
    "vllm": "pilothouse.adapters.engines.vllm:VllmDriver",
}


def engine_drivers(cohort: Cohort | None = None) -> Plugins[EngineDriver]:
    return Plugins(GROUP, OWN, lambda driver: driver(cohort=cohort))


def own_drivers() -> dict[str, EngineDriver]:
    """Ours alone, for documents that must be the same on every machine."""
    drivers = engine_drivers()
    return {name: drivers[name] for name in OWN}


def usable(drivers: Mapping[str, EngineDriver]) -> Iterator[tuple[str, EngineDriver]]:
    """All whose module can be imported."""
    for name in drivers:
        try:
            yield name, drivers[name]
        except BrokenPlugin:
            continue


def option_types(drivers: Mapping[str, EngineDriver]) -> dict[str, type[EngineOptions]]:
    """What `engine_options` may hold, by the engine's name."""
    return {name: driver.options for name, driver in usable(drivers)}
