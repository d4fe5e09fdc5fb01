"""What of LiteLLM's settings has no place in a spec, and what to do instead."""

_CALLBACK = "calls of other services at each request are not made; metrics and records are kept here"
_BREAKER = "replicas that fail are left alone by rules of our own: see docs/howto/routing-and-fallback.md"
_REDIS = "limits and caches shared by several machines are settings of up, not of the spec"
_LIMIT = "used as the weight of its route only; limits are those of endpoint, key, team and subject"

PRICES = {
    "input_usd": "input_cost_per_token",
    "output_usd": "output_cost_per_token",
    "cached_input_usd": "cache_read_input_token_cost",
}
"""Our field of a price by the proxy's, whose unit is dollars for one token."""
STRATEGIES = frozenset({"simple-shuffle", "least-busy"})
NO_KEYS = frozenset({"none", "empty", "dummy", "fake", "fake-key", "not-needed", "anything", "no-key"})
"""What people write where a server asks for no key."""
PARAMS = {
    "rpm": _LIMIT,
    "tpm": _LIMIT,
    "api_version": "not needed: Azure's v1 API takes none",
    "organization": "the header openai-organization is not sent; use a key of that organization",
    "extra_headers": "headers are not added to requests of a provider",
    "drop_params": "a field that cannot be carried is refused by its name, never dropped",
    "additional_drop_params": "a field that cannot be carried is refused by its name, never dropped",
    "tags": "requests are routed by endpoint, not by tag",
    "max_budget": "budgets are those of endpoint, key, team and subject",
    "budget_duration": "budgets are those of endpoint, key, team and subject",
}
ABOUT = {
    "base_model": "prices are looked up by the deployment: see docs/howto/limits-and-budgets.md",
    "access_groups": "a key names the endpoints that it may call: pilothouse key create --endpoint NAME",
    "health_check_model": "health is seen on the requests themselves",
}
ABOUT_SILENT = (
    "id", "mode", "description", "litellm_provider", "max_input_tokens", "db_model", "key",
    "supports_function_calling", "supports_vision", "supports_parallel_function_calling",
    "supports_response_schema", "supports_system_messages", "supports_prompt_caching",
)  # fmt: skip
"""Descriptions that nothing depends on."""
SETTINGS = {
    "drop_params": "a field that cannot be carried is refused by its name, never dropped",
    "modify_params": "requests are not rewritten",
    "callbacks": _CALLBACK,
    "success_callback": _CALLBACK,
    "failure_callback": _CALLBACK,
    "service_callback": _CALLBACK,
    "turn_off_message_logging": "say records.content: none at each endpoint",
    "set_verbose": "see pilothouse logs",
    "json_logs": "logs are JSON always",
    "context_window_fallbacks": "a prompt that is too long is refused with context_length_exceeded",
    "content_policy_fallbacks": "a refusal by a provider is given to the caller",
    "max_budget": "there is no budget over all teams: set one for each team or endpoint",
    "budget_duration": "there is no budget over all teams: set one for each team or endpoint",
    "max_internal_user_budget": "set a limit for each subject: endpoints.NAME.limits.per_subject",
    "default_internal_user_params": "roles are those of pilothouse role list",
    "default_team_settings": _CALLBACK,
    "allowed_fails": _BREAKER,
    "cooldown_time": _BREAKER,
    "cache_params": "cache is not true, so nothing was cached",
    "cache": "only true turns it on",
    "ssl_verify": "certificates are always checked",
}
ROUTER = {
    "allowed_fails": _BREAKER,
    "cooldown_time": _BREAKER,
    "allowed_fails_policy": _BREAKER,
    "retry_policy": "what is retried is decided by our own rules: see docs/howto/routing-and-fallback.md",
    "model_group_retry_policy": "what is retried is decided by our own rules",
    "retry_after": "between attempts is a random pause that grows",
    "context_window_fallbacks": SETTINGS["context_window_fallbacks"],
    "content_policy_fallbacks": SETTINGS["content_policy_fallbacks"],
    "redis_host": _REDIS,
    "redis_port": _REDIS,
    "redis_password": _REDIS,
    "redis_url": _REDIS,
    "enable_pre_call_checks": "prompts are checked against the model's context always",
    "routing_strategy_args": "routes go by weight",
    "enable_tag_filtering": "requests are routed by endpoint, not by tag",
    "provider_budget_config": "budgets are those of endpoint, key, team and subject",
}
GENERAL = {
    "master_key": "an admin key of our own is made at the first start, in the keys folder",
    "database_url": "keys and teams that lie there: see --key-export and --team-export",
    "store_model_in_db": "models that lie in the database only: write them into a file first",
    "alerting": "alerts are made from the metrics",
    "custom_auth": "requests are let in by key",
    "pass_through_endpoints": "only what is declared is forwarded",
}
FILE = {
    "environment_variables": "set them where the import runs; their values were not read",
    "include": "import the included files one by one",
    "guardrails": "content rules are not imported",
    "mcp_servers": "tool servers are not served",
    "vector_store_registry": "vector stores are not served",
    "finetune_settings": "provider jobs are not proxied",
    "files_settings": "provider files are not proxied",
    "credential_list": "name the key at each model: api_key: os.environ/NAME",
}
