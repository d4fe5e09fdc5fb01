"""
LiteLLM's proxy configuration, read as a spec.

Source: the published reference of the proxy's config.yaml (docs.litellm.ai, "All
settings"), looked up in November 2026. A model group (all entries of one
`model_name`) becomes an endpoint, each entry of it a deployment.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from pilothouse.domain.balance import Balance
from pilothouse.domain.options import AttachOptions, written
from pilothouse.domain.price import PriceRow
from pilothouse.domain.provider_secret import host_of
from pilothouse.domain.spec import (
    CacheSpec,
    DeploymentSpec,
    EndpointSpec,
    LimitsSpec,
    RetriesSpec,
    RouteSpec,
    TimeoutsSpec,
)
from pilothouse.domain.speccheck import is_alias, shares_of_whole
from pilothouse.kit.secret import Secret
from pilothouse.wire.imports import litellm_notes as notes
from pilothouse.wire.imports.carried import Carried, Fields, WantedSecret, free_name, is_name, is_near
from pilothouse.wire.imports.litellm_clouds import cloud
from pilothouse.wire.imports.litellm_providers import Upstream, upstream

TIMEOUT_S = 600
"""The proxy's own default for a whole answer, where the file names none."""
MAX_TOKENS = 32_768
"""Where the file names no bound of an answer: the proxy has none, and an endpoint here needs one."""
MOST_RETRIES = 10
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")


def read(config: object, *, variables: Mapping[str, str]) -> Carried:
    """
    Args:
        config: The parsed file.
        variables: Of the environment, for values such as `os.environ/AZURE_API_BASE`; never for keys.
    """
    return _Reader(variables).read(config)


class _Group:
    """The entries of one `model_name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.deployments: list[str] = []
        self.weights: list[float] = []
        self.timeout_s = 0.0
        self.first_byte_s = 0.0
        self.max_tokens = 0
        self.retries: int | None = None


class _Reader:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._carried = Carried()
        self._groups: dict[str, _Group] = {}
        self._fallbacks: dict[str, list[str]] = {}
        self._fallback_of_all: list[str] = []
        self._aliases: dict[str, list[str]] = {}
        self._timeout_s = 0.0
        self._retries: int | None = None
        self._balance: Balance = "least_load"
        self._cache = CacheSpec()

    def read(self, config: object) -> Carried:
        fields = Fields(config, "", self._carried)
        for entry in fields.items("model_list"):
            self._entry(entry)
        self._settings(fields.inner("litellm_settings"))
        self._router(fields.inner("router_settings"))
        general = fields.inner("general_settings")
        general.refuse_known(notes.GENERAL)
        general.rest()
        fields.refuse_known(notes.FILE)
        fields.rest()
        endpoints: dict[str, str] = {name: name for name in self._groups if is_name(name)}
        for name in self._groups:
            endpoints.setdefault(name, free_name(name, endpoints.values()))
        for group in self._groups.values():
            self._carried.endpoints[endpoints[group.name]] = self._endpoint(group, endpoints)
        for alias, target in self._lost_aliases():
            self._carried.note(f"router_settings.model_group_alias.{alias}", f"no model group {target!r}")
        return self._carried

    # Model groups

    def _entry(self, entry: Fields) -> None:
        name = entry.text("model_name")
        params = entry.inner("litellm_params")
        about = entry.inner("model_info")
        model = self._value(params, "model")
        provider = params.text("custom_llm_provider")
        found = cloud(model, provider, params, self._value) or upstream(
            model,
            provider=provider,
            api_base=self._value(params, "api_base") or self._value(params, "base_url"),
        )
        if not name or "*" in name:
            found = "a wildcard: here each model that may be called is declared by its name"
        if isinstance(found, str):
            self._carried.note(f"{entry.path} ({name or model})", found)
            return
        group = self._groups.setdefault(name, _Group(name))
        deployment = free_name(f"{name}-{found.provider}", self._carried.deployments)
        self._carried.deployments[deployment] = DeploymentSpec(
            engine=found.engine,
            provider_model=found.model,
            engine_options=written(
                AttachOptions(
                    base_url=found.base_url,
                    secret=self._secret(params, found),
                    allow_private_network=is_near(found.host),
                    max_inflight=params.whole("max_parallel_requests") or AttachOptions().max_inflight,
                )
            )
            | found.options,
        )
        group.deployments.append(deployment)
        group.weights.append(_weight(params))
        group.timeout_s = max(group.timeout_s, params.number("timeout") or 0)
        group.first_byte_s = max(group.first_byte_s, params.number("stream_timeout") or 0)
        if "num_retries" in params or "max_retries" in params:
            asked = max(params.whole("num_retries"), params.whole("max_retries"))
            group.retries = max(group.retries or 0, asked)
        longest = max(about.whole("max_output_tokens"), about.whole("max_tokens"))
        group.max_tokens = max(group.max_tokens, longest)
        self._price(deployment, params, about)
        params.refuse_known(notes.PARAMS)
        params.rest("a default of the request: let clients send it, or see the deployment's engine_options")
        about.refuse_known(notes.ABOUT)
        for silent in notes.ABOUT_SILENT:
            about.take(silent)
        about.rest()
        entry.rest()

    def _endpoint(self, group: _Group, endpoints: Mapping[str, str]) -> EndpointSpec:
        weights = [round(weight * 1000) for weight in group.weights]
        shares = shares_of_whole(weights if sum(weights) else [1] * len(weights))
        retries = self._retries if group.retries is None else group.retries
        names = [group.name, *self._aliases.pop(group.name, [])]
        aliases = [name for name in dict.fromkeys(names) if name not in endpoints.values()]
        for name in aliases:
            if not is_alias(name):
                self._carried.note(f"{name[:60]} of {endpoints[group.name]}", "it cannot be a name here")
        timeouts = TimeoutsSpec()
        if group.first_byte_s:
            timeouts = TimeoutsSpec(first_byte=_seconds(group.first_byte_s))
        return EndpointSpec(
            routes=[
                RouteSpec(deployment=name, weight=share)
                for name, share in zip(group.deployments, shares, strict=True)
            ],
            aliases=tuple([name for name in aliases if is_alias(name)]),
            limits=LimitsSpec(
                max_tokens=group.max_tokens or MAX_TOKENS,
                timeout=_seconds(group.timeout_s or self._timeout_s or TIMEOUT_S),
            ),
            retries=RetriesSpec() if retries is None else RetriesSpec(max=min(retries, MOST_RETRIES)),
            timeouts=timeouts,
            fallback=self._fallback(group),
            balance=self._balance,
            cache=self._cache,
        )

    def _fallback(self, group: _Group) -> tuple[str, ...]:
        named = self._fallbacks.get(group.name)
        found: dict[str, None] = {}
        for other in self._fallback_of_all if named is None else named:
            if other not in self._groups:
                self._carried.note(f"fallbacks of {group.name}", f"no model group {other!r} was carried over")
                continue
            found |= dict.fromkeys(self._groups[other].deployments)
        return tuple([name for name in found if name not in group.deployments])

    def _price(self, deployment: str, params: Fields, about: Fields) -> None:
        given: dict[str, Decimal] = {}
        for ours, theirs in notes.PRICES.items():
            for fields in (about, params):  # what stands in the parameters goes before
                if (usd := fields.number(theirs)) is not None:
                    given[ours] = Decimal(str(usd)) * 10**6
        if given:
            self._carried.prices[deployment] = PriceRow(**given)

    def _secret(self, params: Fields, found: Upstream) -> str:
        """The name that the key of that server will have; empty where it asks for none."""
        if found.how:
            return self._credentials(params, found)
        given = params.text("api_key")
        named = _VARIABLE.fullmatch(given)
        variable = named.group(1) if named else "" if given else found.variable
        if not variable and given.lower() in notes.NO_KEYS | {""}:
            return ""
        secret = WantedSecret(
            name=variable.lower().replace("_", "-") or f"{found.provider}-key",
            host=host_of(found.base_url),
            variable=variable,
            value=None if variable else Secret(given),
        )
        return self._wanted(secret)

    def _credentials(self, params: Fields, found: Upstream) -> str:
        """Likewise, of a server that asks for more than a key."""
        name, host = f"{found.provider}-credentials", host_of(found.base_url)
        if found.credentials is not None:
            return self._wanted(WantedSecret(name=name, host=host, value=found.credentials))
        self._carried.note(
            f"{params.path} ({found.model})",
            f"its credentials are not in the file: set {found.how} with"
            f" `pilothouse secret set {name} --host {host}`",
        )
        return name

    def _wanted(self, secret: WantedSecret) -> str:
        known = next((one for one in self._carried.secrets.values() if _same(one, secret)), None)
        if known is None:
            known = msgspec.structs.replace(secret, name=free_name(secret.name, self._carried.secrets))
            self._carried.secrets[known.name] = known
        return known.name

    # What holds for all

    def _settings(self, fields: Fields) -> None:
        self._common(fields, timeout="request_timeout")
        self._fallback_of_all = fields.texts("default_fallbacks")
        if fields.take("cache") is True:
            params = fields.inner("cache_params")
            ttl = params.number("ttl") or 3600
            self._cache = CacheSpec(exact_ttl=_seconds(ttl), when="always")
            params.rest("where the cache lies is a setting of up, not of the spec: see docs/howto/cache.md")
        fields.refuse_known(notes.SETTINGS)
        fields.rest()

    def _router(self, fields: Fields) -> None:
        self._common(fields, timeout="timeout")
        strategy = fields.text("routing_strategy") or "simple-shuffle"
        if strategy not in notes.STRATEGIES:
            self._carried.note(
                "router_settings.routing_strategy", f"{strategy}: weights, and the less loaded replica of two"
            )
        aliases = fields.take("model_group_alias")
        for alias, target in (aliases if isinstance(aliases, Mapping) else {}).items():
            group = target.get("model") if isinstance(target, Mapping) else target
            self._aliases.setdefault(str(group), []).append(str(alias))
        fields.refuse_known(notes.ROUTER)
        fields.rest()

    def _common(self, fields: Fields, *, timeout: str) -> None:
        if "num_retries" in fields:
            self._retries = fields.whole("num_retries")
        self._timeout_s = fields.number(timeout) or self._timeout_s
        for item in fields.items("fallbacks"):
            for name in item.names():
                self._fallbacks[name] = item.texts(name)

    def _lost_aliases(self) -> list[tuple[str, str]]:
        return [(alias, target) for target, aliases in self._aliases.items() for alias in aliases]

    def _value(self, fields: Fields, name: str) -> str:
        """Text, or that of the environment variable that it names."""
        text = fields.text(name)
        variable = _VARIABLE.fullmatch(text)
        if variable is None:
            return text
        found = self._variables.get(variable.group(1), "")
        if not found:
            self._carried.note(
                fields.at(name), f"environment variable {variable.group(1)} is not set; set it for the import"
            )
        return found


def _same(one: WantedSecret, other: WantedSecret) -> bool:
    values = [None if secret.value is None else secret.value.reveal() for secret in (one, other)]
    return (one.host, one.variable) == (other.host, other.variable) and values[0] == values[1]


def _weight(params: Fields) -> float:
    """As the proxy's shuffle: by `weight`, else by `rpm`, else by `tpm`, else alike."""
    found = [params.number(name) for name in ("weight", "rpm", "tpm")]
    return next((value for value in found if value), 1.0)


def _seconds(value: float) -> str:
    return f"{max(1, round(value))}s"
