"""
Which server a LiteLLM model stands for, and how it is reached from here.

Addresses are those of the vendors' own documentation, of their OpenAI-compatible
APIs where they have one, looked up in November 2026. Azure is reached by its v1 API, which takes no
`api-version` and names the deployment as the model.
"""

from urllib.parse import urlsplit

from msgspec import Struct

from pilothouse.kit.secret import Secret

ADDRESSES = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
    "text-completion-openai": "https://api.openai.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "together_ai": "https://api.together.xyz/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "xai": "https://api.x.ai/v1",
    "perplexity": "https://api.perplexity.ai",
    "nvidia_nim": "https://integrate.api.nvidia.com/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "sambanova": "https://api.sambanova.ai/v1",
    "deepinfra": "https://api.deepinfra.com/v1/openai",
}
"""Base URL by LiteLLM's name of a provider."""
ENGINES = {"anthropic": "anthropic"}
"""The engine for a provider that has a protocol of its own; all others speak the OpenAI dialect."""
OWN_ADDRESS = frozenset(
    {"hosted_vllm", "vllm", "openai_like", "custom_openai", "litellm_proxy", "lm_studio", "llamafile",
     "xinference", "infinity", "text-generation-inference", "text-completion-custom_openai"}
)  # fmt: skip
"""Servers that speak the dialect and run wherever `api_base` says."""
VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "text-completion-openai": "OPENAI_API_KEY",
    "azure": "AZURE_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "together_ai": "TOGETHERAI_API_KEY",
    "fireworks_ai": "FIREWORKS_AI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "xai": "XAI_API_KEY",
    "perplexity": "PERPLEXITYAI_API_KEY",
    "nvidia_nim": "NVIDIA_NIM_API_KEY",
    "cerebras": "CEREBRAS_API_KEY",
    "sambanova": "SAMBANOVA_API_KEY",
    "deepinfra": "DEEPINFRA_API_KEY",
}
"""Where LiteLLM looks for a key that the file does not name."""
_BARE = (("gpt-", "openai"), ("chatgpt-", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"),
         ("text-embedding-", "openai"), ("claude-", "anthropic"), ("gemini-", "gemini"))  # fmt: skip
_OLLAMA = frozenset({"ollama", "ollama_chat"})


class Upstream(Struct, frozen=True, kw_only=True):
    """A server, the engine that speaks its protocol, and its name of the model."""

    provider: str
    model: str
    base_url: str
    engine: str = "openai"
    variable: str = ""
    """The environment variable of its key, where the file does not say."""
    options: dict[str, str] = {}
    """Of the engine, beside those that every attached one has."""
    how: str = ""
    """Where it asks for more than a key: what that is, in words."""
    credentials: Secret | None = None
    """And what the file has of it; None where that is elsewhere."""

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""


def upstream(model: str, *, provider: str = "", api_base: str = "") -> Upstream | str:
    """
    What LiteLLM would ask; or why that cannot be asked from here.

    Args:
        model: As in `litellm_params.model`, such as `azure/my-deployment` or `gpt-4o`.
        provider: `custom_llm_provider`, which goes before the prefix of `model`.
        api_base: Where the file says that the server is; empty for the provider's own address.
    """
    provider, name = _split(model, provider)
    if "*" in name:
        return "a wildcard: here each model that may be called is declared by its name"
    if provider == "azure":
        if not api_base:
            return "azure needs api_base, the address of the resource"
        address = f"{_origin(api_base)}/openai/v1"
    elif provider in _OLLAMA:
        address = f"{_origin(api_base or 'http://localhost:11434')}/v1"
    elif provider in OWN_ADDRESS:
        if not api_base:
            return f"{provider} needs api_base, the address of the server"
        address = api_base.rstrip("/")
    elif provider in ENGINES:
        address = _origin(api_base or ADDRESSES[provider])
    elif provider in ADDRESSES:
        address = (api_base or ADDRESSES[provider]).rstrip("/")
    elif not provider:
        return "no provider is named before the model, such as openai/NAME"
    else:
        return f"there is no engine for provider {provider!r} that an importer knows of"
    if not is_plain(address):
        return "api_base is not a plain http or https address"
    return Upstream(
        provider=provider,
        model=name,
        base_url=address,
        engine=ENGINES.get(provider, "openai"),
        variable=VARIABLES.get(provider, ""),
    )


def is_plain(address: str) -> bool:
    """Whether it is an address of a server and no more."""
    found = urlsplit(address)
    return found.scheme in ("http", "https") and bool(found.hostname) and not (found.username or found.query)


def _split(model: str, provider: str) -> tuple[str, str]:
    first, slash, rest = model.partition("/")
    if provider:
        return provider, rest if first == provider else model
    if slash:
        return first, rest
    return next((provider for start, provider in _BARE if model.startswith(start)), ""), model


def _origin(address: str) -> str:
    """Without a path: LiteLLM takes these with and without one."""
    found = urlsplit(address)
    return f"{found.scheme}://{found.netloc}"
