"""
What becomes of every field of OpenAI's protocol; `docs/reference/openai.md` prints it, a test holds it true.

Requests are read off the shapes and fates that decide about them. Of answers, what is
given stands here, and the test compares it with answers that were written.
"""

from collections.abc import Mapping

from msgspec import Struct

from pilothouse.wire.openai import batches, moderation, shapes
from pilothouse.wire.openai.fields import Fates
from pilothouse.wire.openai.reference_parts import Mark, Table

_NOTES: dict[str, tuple[Mark, str]] = {
    "model": ("mapped", "an endpoint's name, or an alias of one"),
    "max_tokens": ("yes", "cut to the endpoint's own bound; 0 with `echo` alone"),
    "max_completion_tokens": ("yes", "cut to the endpoint's own bound"),
    "n": ("yes", "1 to 4"),
    "stop": ("yes", "at most 16, of 256 characters"),
    "user": ("mapped", "the subject of the record, as a keyed hash"),
    "safety_identifier": ("mapped", "as `user`, and goes before it"),
    "store": ("yes", "`false` keeps no content; unset is as the endpoint says"),
    "metadata": ("yes", "checked to OpenAI's bounds, kept in the record with the body"),
    "response_format": ("yes", "and every answer is checked against it, a `schema` beside `json_object` too"),
    "tools": ("yes", "functions; `custom` is refused. With `strict` their arguments are checked"),
    "tool_choice": ("yes", "for llama.cpp a forced tool becomes the form of the answer"),
    "logit_bias": ("yes", "where the engine takes it, else refused by name"),
    "stream_options": ("yes", "`include_usage`; `include_obfuscation` is taken and adds nothing"),
    "top_k": ("yes", "beyond OpenAI's own"),
    "min_p": ("yes", "beyond OpenAI's own"),
    "prompt": ("yes", "a text, token ids, or up to 64 of either; token ids where the engine takes them"),
    "echo": ("yes", "llama.cpp, which scores the prompt for `logprobs`; other engines refuse it"),
    "best_of": ("refused", "unless it is `n`"),
    "input": ("yes", "texts; token ids are refused, for they are another model's"),
    "encoding_format": ("yes", ""),
    "service_tier": ("dropped", "what goes first is `x-pilothouse-priority`"),
    "prompt_cache_key": ("dropped", "engines keep the longest prefix that they know, asked or not"),
    "prompt_cache_options": ("dropped", "likewise"),
    "prompt_cache_retention": ("dropped", "likewise"),
}
_WHY = {
    "functions": "send `tools`",
    "function_call": "send `tool_choice`",
    "moderation": "ask `/v1/moderations`",
    "modalities": "answers are text",
    "audio": "answers are text",
    "prediction": "no engine here has it",
    "verbosity": "no engine here has it",
    "web_search_options": "nothing is looked up for the model",
    "suffix": "put it into the prompt, in the words of your model",
    "dimensions": "vectors are as long as the model makes them",
}


def _of(shape: type[Struct], fates: Fates) -> Table:
    rows: dict[str, tuple[Mark, str]] = dict.fromkeys(shape.__struct_fields__, ("yes", ""))
    rows |= dict.fromkeys(fates.harmless, ("dropped", ""))
    rows |= dict.fromkeys(fates.not_built, ("refused", ""))
    return {
        name: (mark, _WHY.get(name, "")) if mark == "refused" else _NOTES.get(name, (mark, ""))
        for name, (mark, _) in sorted(rows.items())
    }


def _given(*names: str, never: Mapping[str, str], notes: Mapping[str, str] | None = None) -> Table:
    rows: dict[str, tuple[Mark, str]] = {name: ("yes", (notes or {}).get(name, "")) for name in names}
    return rows | {name: ("not given", why) for name, why in never.items()}


_TEXT_ALONE = "answers are text"
_OF_OPENAI = "tells of OpenAI's own service"

REQUESTS: dict[str, Table] = {
    "chat/completions: request (`CompletionCreateParams`)": _of(shapes.Chat, shapes.CHAT_FATES),
    "completions: request (`CompletionCreateParams` of `/v1/completions`)": _of(
        shapes.Completion, shapes.COMPLETION_FATES
    ),
    "embeddings: request (`EmbeddingCreateParams`)": _of(shapes.Embed, shapes.EMBED_FATES),
    "moderations: request (`ModerationCreateParams`)": {
        "input": ("yes", "a text, up to 32 texts, or one content of texts and pictures"),
        "model": ("mapped", "an endpoint's name; one of OpenAI's, or none, is the endpoint that judges"),
    },
    "files: request (`FileCreateParams`)": {
        "file": ("yes", "bounded by `max_body_bytes` and `file_bytes`"),
        "purpose": ("yes", "`batch`; others are refused"),
        "expires_after": ("yes", ""),
    },
    "batches: request (`BatchCreateParams`)": {
        "endpoint": ("yes", ", ".join(f"`{path}`" for path in batches.PATHS) + "; others are refused"),
        **{
            name: ("yes", "")
            for name in batches.BatchWish.__struct_fields__
            if name not in ("endpoint", "completion_window")
        },
        "completion_window": ("yes", "`1ms` to `7d`"),
    },
}
_USAGE = {"usage": "as the engine counted; counted here where it did not"}
ANSWERS: dict[str, Table] = {
    "chat/completions: answer (`ChatCompletion`)": _given(
        "id", "choices", "created", "model", "object", "usage",
        notes={"id": "leads to the record", "model": "the endpoint", **_USAGE},
        never={
            "metadata": "stands in the record",
            "moderation": "ask `/v1/moderations`",
            "service_tier": _OF_OPENAI,
            "system_fingerprint": "`x-pilothouse-deployment` says who answered",
        },
    ),
    "its choices (`Choice`)": _given("finish_reason", "index", "logprobs", "message", never={}),
    "its messages (`ChatCompletionMessage`)": _given(
        "content", "refusal", "role", "tool_calls",
        notes={"content": "`reasoning_content` beside it is beyond OpenAI's own"},
        never={
            "annotations": "nothing is looked up",
            "audio": _TEXT_ALONE,
            "function_call": "older form of tools",
        },
    ),
    "chat/completions: events of a stream (`ChatCompletionChunk`)": _given(
        "id", "choices", "created", "model", "object", "usage",
        notes={"usage": "in the last one, with `include_usage`"},
        never={
            "moderation": "ask `/v1/moderations`",
            "obfuscation": "adds nothing where the server is one's own",
            "service_tier": _OF_OPENAI,
            "system_fingerprint": "`x-pilothouse-deployment` says who answered",
        },
    ),
    "their choices (`Choice` of a chunk)": _given("delta", "index", "finish_reason", "logprobs", never={}),
    "their deltas (`ChoiceDelta`)": _given(
        "content", "refusal", "role", "tool_calls",
        never={"audio": _TEXT_ALONE, "function_call": "older form of tools"},
    ),
    "usage (`CompletionUsage`)": _given(
        "completion_tokens", "prompt_tokens", "total_tokens", "prompt_tokens_details",
        never={"completion_tokens_details": "engines do not tell them apart"},
    ),
    "completions: answer and events (`Completion`)": _given(
        "id", "choices", "created", "model", "object", "usage",
        never={"system_fingerprint": "`x-pilothouse-deployment` says who answered"},
    ),
    "its choices (`CompletionChoice`)": _given("finish_reason", "index", "logprobs", "text", never={}),
    "embeddings: answer (`CreateEmbeddingResponse`)": _given("data", "model", "object", "usage", never={}),
    "its vectors (`Embedding`)": _given("embedding", "index", "object", never={}),
    "moderations: answer (`ModerationCreateResponse`)": _given("id", "model", "results", never={}),
    "its results (`Moderation`)": _given(
        "categories", "category_applied_input_types", "category_scores", "flagged", never={}
    ),
    "its categories (`Categories`)": _given(*moderation.CATEGORIES, never={}),
    "files: object (`FileObject`)": _given(*batches.FileObject.__struct_fields__, never={}),
    "batches: object (`Batch`)": _given(
        *batches.BatchObject.__struct_fields__,
        never={"model": "each line has its own", "usage": "each record has its own; see `usage report`"},
    ),
    "models: object (`Model`)": _given(
        "id", "created", "object", "owned_by", never={"shutdown_date": "an endpoint has none"}
    ),
}  # fmt: skip
