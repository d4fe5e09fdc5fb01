"""
Which deployment a LiteLLM model of Amazon Bedrock or Google's Vertex AI stands for.

Both are asked by engines of their own here, and by credentials that are no plain key:
those in the file's parameters are carried over where they stand there whole, and have
to be set by hand where LiteLLM would have looked for them elsewhere.

Source: the proxy's published pages on both providers, looked up in November 2026.
"""

import json
import re
from collections.abc import Callable

from pilothouse.kit.secret import Secret
from pilothouse.wire.imports.carried import Fields
from pilothouse.wire.imports.litellm_providers import Upstream, is_plain

_REGION = re.compile(r"[a-z]{2}(-[a-z0-9]+){1,4}-\d")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}")
_LOCATION = re.compile(r"[a-z][a-z0-9-]{1,30}")
_BEARER = "AWS_BEARER_TOKEN_BEDROCK"
_VARIABLE = "os.environ/"

Take = Callable[[Fields, str], str]
"""The text of a parameter, or of the environment variable that it names."""


def cloud(model: str, provider: str, params: Fields, take: Take) -> Upstream | str | None:
    """
    What LiteLLM would ask of the two; why that cannot be asked from here; None for any other provider.

    Args:
        model: As in `litellm_params.model`, such as `bedrock/converse/us.amazon.nova-lite-v1:0`.
        provider: `custom_llm_provider`, empty where the prefix of `model` says it.
        params: Of the entry; those that only these two have are taken from it.
        take: Reads one of them.
    """
    first, _, rest = model.partition("/")
    name = rest if not provider or first == provider else model
    match provider or first:
        case "bedrock" | "bedrock_converse":
            return _bedrock(name, params, take)
        case "vertex_ai" | "vertex_ai_beta":
            return _vertex(name, params, take)
        case _:
            return None


def _bedrock(name: str, params: Fields, take: Take) -> Upstream | str:
    region = take(params, "aws_region_name")
    given = take(params, "aws_bedrock_runtime_endpoint") or take(params, "api_base")
    key_id, key = params.text("aws_access_key_id"), params.text("aws_secret_access_key")
    session = params.text("aws_session_token")
    way, slash, rest = name.partition("/")
    if slash and way == "converse":
        name = rest
    elif slash and _REGION.fullmatch(way):
        region, name = region or way, rest
    elif slash and not way.startswith("arn:"):
        return f"bedrock/{way} is not asked from here: models are asked by Converse"
    if not _REGION.fullmatch(region):
        return "bedrock needs aws_region_name, for which requests are signed"
    address = given or f"https://bedrock-runtime.{region}.amazonaws.com"
    if not is_plain(address):
        return "aws_bedrock_runtime_endpoint is not a plain http or https address"
    if "api_key" in params:
        auth, variable, credentials, how = "api_key", _BEARER, None, ""
    else:
        auth, variable, credentials = "access_key", "", _access_key(key_id, key, session)
        how = "the JSON of `aws configure export-credentials`"
    return Upstream(
        provider="bedrock",
        model=name,
        base_url=address,
        engine="bedrock",
        variable=variable,
        options={"region": region, "auth": auth},
        credentials=credentials,
        how=how,
    )


def _access_key(key_id: str, key: str, session: str) -> Secret | None:
    """None where the file has it not, or names variables: keys are read when they are set, not before."""
    if not key_id or not key or _VARIABLE in key_id + key + session:
        return None
    words = {"AccessKeyId": key_id, "SecretAccessKey": key}
    return Secret(json.dumps(words | ({"SessionToken": session} if session else {})))


def _vertex(name: str, params: Fields, take: Take) -> Upstream | str:
    project, location = take(params, "vertex_project"), take(params, "vertex_location") or "us-central1"
    account = params.text("vertex_credentials")
    name = name.removeprefix("gemini/")
    if "/" in name or not name.startswith(("gemini", "text-embedding", "text-multilingual-embedding")):
        return "only Google's own models are asked on Vertex AI from here"
    if not _PROJECT.fullmatch(project) or not _LOCATION.fullmatch(location):
        return "vertex_ai needs vertex_project, and vertex_location where it is not us-central1"
    host = "aiplatform.googleapis.com"
    return Upstream(
        provider="vertex",
        model=name,
        base_url=f"https://{host}" if location == "global" else f"https://{location}-{host}",
        engine="vertex",
        options={"project": project, "location": location},
        credentials=Secret(account) if account.startswith("{") else None,
        how="the key file of a service account",
    )
