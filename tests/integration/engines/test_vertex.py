"""
Vertex AI, as the engine port has it: what differs from the Gemini API, and its tokens.

No account was to be had: servers that answer by script follow the published protocol,
and Google's own clients, where they are installed, say what must be sent and whether
what is signed can be verified.
"""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from msgspec import Raw

from pilothouse.adapters.engines._google_token import (
    PAUSE_S,
    RENEW_BEFORE_S,
    SCOPE,
    GoogleToken,
    ServiceAccount,
)
from pilothouse.adapters.engines.vertex import VertexDriver, VertexEngine
from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.errors import DeadlineExceeded, OperationFailed, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import Placement
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream, whole

EMAIL = "writer@my-project.iam.gserviceaccount.com"
TOKEN_URI = "https://oauth2.googleapis.com/token"
PLACE = "/v1/projects/my-project/locations/europe-west4/publishers/google/models/gemini-x"
ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "Ahoy"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
}
STREAM = CHUNKED_HEAD + chunked(f"data: {json.dumps(ANSWER)}\r\n\r\n".encode())
Script = Callable[[Upstream, int], Awaitable[None]]


@pytest.fixture(scope="module")
def pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def account(pem: str, token_uri: str = TOKEN_URI, **more: Any) -> Secret:
    file = {"type": "service_account", "project_id": "my-project", "private_key_id": "key-1"}
    file |= {"private_key": pem, "client_email": EMAIL, "token_uri": token_uri, **more}
    return Secret(json.dumps(file, indent=2))


def ask(**more: Any) -> GenerateRequest:
    prompt = b'[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}]'
    return GenerateRequest("chat", "m", Raw(prompt), len(prompt)).changed(**{"max_tokens": 8, **more})


class Tokens:
    """A token endpoint: what it was asked, and what it says next."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.expires_in = 3600
        self.status = b"200 OK"
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.port = 0

    async def script(self, talk: Upstream, _: int) -> None:
        while True:
            _, _, body = (await talk.request()).partition(b"\r\n\r\n")
            self.asked.append({name: values[0] for name, values in parse_qs(body.decode()).items()})
            await self.may_answer.wait()
            granted = {"access_token": f"token-{len(self.asked)}", "expires_in": self.expires_in}
            await talk.say(whole(json.dumps(granted).encode(), status=self.status))

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"


@pytest.fixture
async def tokens() -> AsyncIterator[Tokens]:
    made = Tokens()
    async with upstream(made.script) as server:
        made.port = server.port
        yield made


@asynccontextmanager
async def vertex(script: Script, secret: Secret) -> AsyncIterator[VertexEngine]:
    async with upstream(script) as server:
        engine = VertexDriver().connect(
            f"http://127.0.0.1:{server.port}",
            model="gemini-x",
            context_tokens=0,
            secret=secret,
            allow_private=True,
            options={"project": "my-project", "location": "europe-west4"},
        )
        try:
            yield engine
        finally:
            await engine.aclose()


def answering(data: bytes, seen: list[bytes]) -> Script:
    async def script(talk: Upstream, _: int) -> None:
        while True:
            seen.append(await talk.request())
            await talk.say(data)

    return script


def head_of(request: bytes) -> tuple[str, dict[str, str]]:
    """Target and headers."""
    line, *headers = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return line.split(" ")[1], dict(header.split(": ", 1) for header in headers)


async def text_of(engine: VertexEngine, request: GenerateRequest) -> str:
    async with aclosing(engine.stream(request, Placement(), deadline_s=5)) as stream:
        return "".join([delta.text async for chunk in stream for delta in chunk.deltas])


def asked_by_google(call: Callable[[Any, Any], object], body: bytes) -> httpx.Request:
    genai = pytest.importorskip("google.genai", reason="Google's client is not installed here")
    from google.oauth2.credentials import Credentials

    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        kind = "text/event-stream" if body.startswith(b"data:") else "application/json"
        return httpx.Response(200, content=body, headers={"content-type": kind})

    http = httpx.Client(transport=httpx.MockTransport(reply))
    options = genai.types.HttpOptions(api_version="v1", httpx_client=http)
    client = genai.Client(
        vertexai=True,
        project="my-project",
        location="europe-west4",
        credentials=Credentials(token="token-1"),
        http_options=options,
    )
    call(client, genai.types)
    return seen[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_asked_is_what_googles_client_asks(tokens: Tokens, pem: str, stream: bool) -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": schema}}

    def call(client: Any, types: Any) -> None:
        declared = types.FunctionDeclaration(name="look_up", parameters_json_schema=schema)
        config = types.GenerateContentConfig(
            system_instruction=types.Content(parts=[types.Part(text="Be brief.")]),
            temperature=0.5,
            max_output_tokens=8,
            tools=[types.Tool(function_declarations=[declared])],
            thinking_config=types.ThinkingConfig(thinking_budget=1024, include_thoughts=True),
        )
        asked = {"model": "gemini-x", "contents": "hi", "config": config}
        if stream:
            list(client.models.generate_content_stream(**asked))
        else:
            client.models.generate_content(**asked)

    body = f"data: {json.dumps(ANSWER)}\n\n".encode() if stream else json.dumps(ANSWER).encode()
    theirs = asked_by_google(call, body)
    seen: list[bytes] = []
    sampling = Sampling(temperature=0.5, tools=Raw(json.dumps([tool]).encode()), reasoning_effort="low")

    data = STREAM if stream else whole(json.dumps(ANSWER).encode())
    async with vertex(answering(data, seen), account(pem, tokens.uri)) as engine:
        if stream:
            await text_of(engine, ask(sampling=sampling))
        else:
            await engine.complete(ask(sampling=sampling), Placement(), deadline_s=5)

    target, headers = head_of(seen[0])
    assert target == theirs.url.raw_path.decode()
    assert headers["authorization"] == theirs.headers["authorization"]
    ours = json.loads(seen[0].partition(b"\r\n\r\n")[2])
    assert ours == camel(json.loads(theirs.content))


def camel(value: Any) -> Any:
    """The JSON of protobuf has each name in two spellings; the client mixes them."""
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    words = {name: name.split("_") for name in value}
    return {
        first + "".join(word.title() for word in rest): camel(value[name])
        for name, (first, *rest) in words.items()
    }


async def test_vectors_are_asked_for_and_read_as_by_googles_client(tokens: Tokens, pem: str) -> None:
    vectors = [{"embeddings": {"values": [1.0, 0.0], "statistics": {"token_count": 2}}}]
    body = json.dumps({"predictions": vectors}).encode()
    seen: list[bytes] = []

    async with vertex(answering(whole(body), seen), account(pem, tokens.uri)) as engine:
        found = await engine.embed(EmbedRequest(endpoint="m", inputs=["a"]), deadline_s=5)

    assert (found.vectors, found.usage) == ([[1.0, 0.0]], Usage(2))
    theirs = asked_by_google(
        lambda client, _: client.models.embed_content(model="gemini-x", contents="a"), body
    )
    assert head_of(seen[0])[0].rpartition(":")[0] == PLACE
    if b"predict" in theirs.url.raw_path:
        assert json.loads(seen[0].partition(b"\r\n\r\n")[2]) == json.loads(theirs.content)


def parts_of(statement: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, claims, _ = [urlsafe_b64decode(part + "==") for part in statement.split(".")]
    return json.loads(head), json.loads(claims)


def test_what_is_signed_can_be_verified(pem: str) -> None:
    statement = ServiceAccount(account(pem)).statement(1_000)

    said, _, signature = statement.encode().rpartition(b".")
    public = load_pem_private_key(pem.encode(), password=None).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(urlsafe_b64decode(signature + b"=="), said, PKCS1v15(), SHA256())
    wanted = {"iss": EMAIL, "scope": SCOPE, "aud": TOKEN_URI, "iat": 1_000, "exp": 4_600}
    assert parts_of(statement) == ({"typ": "JWT", "alg": "RS256", "kid": "key-1"}, wanted)


def test_what_is_signed_is_what_googles_library_signs_and_takes(pem: str) -> None:
    jwt = pytest.importorskip("google.auth.jwt", reason="Google's client is not installed here")
    from google.oauth2.service_account import Credentials

    public = load_pem_private_key(pem.encode(), password=None).public_key()
    shown = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    google = Credentials.from_service_account_info(json.loads(account(pem).reveal()), scopes=[SCOPE])
    theirs = google._make_authorization_grant_assertion().decode()
    now = parts_of(theirs)[1]["iat"]

    ours = ServiceAccount(account(pem)).statement(now)

    assert parts_of(ours) == parts_of(theirs)
    assert jwt.decode(ours, certs=shown, audience=TOKEN_URI) == jwt.decode(
        theirs, certs=shown, audience=TOKEN_URI
    )


async def test_one_token_serves_all_requests_and_only_a_statement_is_sent(tokens: Tokens, pem: str) -> None:
    seen: list[bytes] = []

    async with vertex(answering(STREAM, seen), account(pem, tokens.uri)) as engine:
        texts = await asyncio.gather(*(text_of(engine, ask()) for _ in range(5)))
        texts.append(await text_of(engine, ask()))

    assert texts == ["Ahoy"] * 6
    assert {head_of(one)[1]["authorization"] for one in seen} == {"Bearer token-1"}
    assert [sorted(one) for one in tokens.asked] == [["assertion", "grant_type"]]
    assert tokens.asked[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert tokens.asked[0]["assertion"].count(".") == 2


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def token_of(tokens: Tokens, pem: str) -> AsyncIterator[tuple[GoogleToken, Ticks]]:
    async def pin() -> str:
        return "127.0.0.1"

    ticks = Ticks()
    token = GoogleToken(ServiceAccount(account(pem, tokens.uri)), pin=pin, monotonic=ticks)
    try:
        yield token, ticks
    finally:
        await token.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_token_is_renewed_before_its_end_while_requests_go_on_with_it(
    tokens: Tokens, pem: str
) -> None:
    async with token_of(tokens, pem) as (token, ticks):
        first = await token.line(timeout_s=5)
        ticks.now += 3600 - RENEW_BEFORE_S - 1
        assert await token.line(timeout_s=5) == first
        tokens.may_answer.clear()
        ticks.now += 2

        assert await token.line(timeout_s=5) == first
        await until(lambda: len(tokens.asked) == 2)
        assert await token.line(timeout_s=5) == first
        tokens.may_answer.set()
        async with asyncio.timeout(10):
            while (renewed := await token.line(timeout_s=5)) == first:
                await asyncio.sleep(0.01)

    assert (first, renewed) == (
        b"authorization: Bearer token-1\r\n",
        b"authorization: Bearer token-2\r\n",
    )
    assert len(tokens.asked) == 2


async def test_an_endpoint_that_refuses_is_not_asked_by_every_request(tokens: Tokens, pem: str) -> None:
    tokens.status = b"400 Bad Request"

    async with token_of(tokens, pem) as (token, ticks):
        for _ in range(3):
            with pytest.raises(UpstreamError, match="refused the service account"):
                await token.line(timeout_s=5)
        assert len(tokens.asked) == 1
        ticks.now += PAUSE_S
        tokens.status = b"200 OK"

        assert await token.line(timeout_s=5) == b"authorization: Bearer token-2\r\n"


async def test_an_endpoint_that_is_silent_is_waited_for_so_long_and_no_longer(
    tokens: Tokens, pem: str
) -> None:
    tokens.may_answer.clear()

    async with token_of(tokens, pem) as (token, _):
        with pytest.raises(DeadlineExceeded):
            await token.line(timeout_s=0.05)
        tokens.may_answer.set()

        assert await token.line(timeout_s=5) == b"authorization: Bearer token-1\r\n"
    assert len(tokens.asked) == 1


async def test_a_token_that_the_provider_refuses_is_fetched_anew(tokens: Tokens, pem: str) -> None:
    async with token_of(tokens, pem) as (token, ticks):
        await token.line(timeout_s=5)
        token.forget()
        ticks.now += PAUSE_S

        assert await token.line(timeout_s=5) == b"authorization: Bearer token-2\r\n"


async def test_a_401_of_the_provider_forgets_the_token(tokens: Tokens, pem: str) -> None:
    refusal = whole(b'{"error":{"code":401,"status":"UNAUTHENTICATED"}}', status=b"401 Unauthorized")

    async with vertex(answering(refusal, []), account(pem, tokens.uri)) as engine:
        with pytest.raises(UpstreamError, match="refused the key"):
            await text_of(engine, ask())

        assert engine._token is not None
        assert engine._token._ends_at < 0


@pytest.mark.parametrize(
    "file",
    [
        "no json",
        '{"type":"authorized_user","client_email":"a@b","private_key":"x","private_key_id":"1"}',
        '{"type":"service_account","client_email":"a@b","private_key":"x","private_key_id":"1"}',
    ],
)
def test_a_secret_that_is_no_service_account_is_refused_without_its_text(file: str) -> None:
    with pytest.raises(OperationFailed, match="service account") as caught:
        ServiceAccount(Secret(file))

    assert file not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_key_of_another_kind_or_too_small_is_refused() -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 1024)):  # noqa: S505 - it is refused
        shown = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        with pytest.raises(OperationFailed, match="2048"):
            ServiceAccount(account(shown))


def test_a_token_endpoint_goes_where_requests_may_go(pem: str) -> None:
    with pytest.raises(OperationFailed, match="base_url"):
        VertexDriver().connect(
            "https://europe-west4-aiplatform.googleapis.com",
            model="m",
            context_tokens=0,
            secret=account(pem, "http://127.0.0.1:9/token"),
            options={"project": "p", "location": "europe-west4"},
        )
