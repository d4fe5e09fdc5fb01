"""
What becomes of every field, item, tool and event of the Responses protocol.

`docs/reference/responses.md` prints it. Read off the shapes that decide about them where
there are some; tests hold all of it against the types of OpenAI's client.
"""

from collections.abc import Mapping

from pilothouse.wire.responses import answers, inbound, items, shown

_AT_OPENAI = "runs at OpenAI"
_REFUSED = f"refused with 501: of a tool that {_AT_OPENAI}"
_ELSEWHERE = "refused with 501: it lies at OpenAI"


def fields() -> dict[str, str]:
    """Of a request."""
    carried = dict.fromkeys(inbound.Create.__struct_fields__, "carried")
    return {
        **carried,
        **dict.fromkeys(inbound.FATES.harmless, "taken, changes no answer"),
        **dict.fromkeys(inbound.FATES.not_built, "refused with 501"),
        "background": "only `false`; `true` is refused with 501",
        "truncation": "only `disabled`; `auto` is refused with 501",
        "tools": "functions; tools that run at OpenAI are refused with 501",
        "reasoning": "`effort` is carried; `summary` is taken, and the reasoning itself is given",
        "text": "`format` is carried; `verbosity` only as `medium`",
        "previous_response_id": "carried: what was said before is looked up",
        "store": "`false` keeps nothing; unset means what the endpoint says",
    }


def kinds_of_items() -> dict[str, str]:
    return dict.fromkeys(items.ITEMS, "carried") | {
        "item_reference": _ELSEWHERE,
        "compaction": _ELSEWHERE,
        "compaction_trigger": "refused with 501: a conversation is never shortened here",
        "configuration_update": "refused with 501: send the new settings with the next request",
        "additional_tools": "refused with 501: send `tools`",
        "custom_tool_call": "refused with 501: tools are functions",
        "custom_tool_call_output": "refused with 501: tools are functions",
        **dict.fromkeys(
            (
                "apply_patch_call",
                "apply_patch_call_output",
                "code_interpreter_call",
                "computer_call",
                "computer_call_output",
                "file_search_call",
                "image_generation_call",
                "local_shell_call",
                "local_shell_call_output",
                "mcp_approval_request",
                "mcp_approval_response",
                "mcp_call",
                "mcp_list_tools",
                "program",
                "program_output",
                "shell_call",
                "shell_call_output",
                "tool_search_call",
                "tool_search_output",
                "web_search_call",
            ),
            _REFUSED,
        ),
    }


def kinds_of_tools() -> dict[str, str]:
    hosted = (
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    )
    return {
        "function": "carried",
        "custom": "refused with 501: tools are functions",
        "namespace": "refused with 501: offer its functions",
        **dict.fromkeys(hosted, f"refused with 501: it {_AT_OPENAI}"),
    }


def fields_of_a_function() -> dict[str, str]:
    named = dict.fromkeys(inbound.Function.__struct_fields__, "carried")
    return {
        "type": "carried",
        **named,
        "allowed_callers": "refused with 400",
        "async": "refused with 400",
        "defer_loading": "refused with 400",
        "output_schema": "refused with 400",
    }


def includes() -> dict[str, str]:
    elsewhere = (
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "web_search_call.action.sources",
        "web_search_call.results",
    )
    return {
        "message.output_text.logprobs": "carried",
        "reasoning.encrypted_content": "taken: reasoning is given openly, and nothing is encrypted",
        **dict.fromkeys(elsewhere, "refused with 501"),
    }


def fields_of_an_answer() -> Mapping[str, str]:
    own = dict.fromkeys(shown.Response.__struct_fields__, "given")
    repeated = dict.fromkeys(inbound.ECHOED, "given, as the request had it")
    never = {
        "access_programs": "never: refused in requests",
        "completed_at": "never: the record has the times",
        "conversation": "never: refused in requests",
        "image": "never: refused in requests",
        "input_transformations": "never: a prompt is sent as it came",
        "max_tool_calls": "never: refused in requests",
        "moderation": "never: ask `/v1/moderations`",
        "prompt": "never: refused in requests",
        "prompt_cache_diagnostics": "never: the engine's cache is not taken apart",
        "prompt_cache_key": "never: it changes no answer",
        "prompt_cache_options": "never: it changes no answer",
        "prompt_cache_retention": "never: it changes no answer",
        "service_tier": "never: tells of OpenAI's own service",
        "tool_usage": "never: no tool runs here",
    }
    return own | repeated | {"store": "given, as the request had it; beyond OpenAI's own"} | never


def events() -> dict[str, str]:
    sent = {f"`{name}`": "sent" for name in answers.SENT}
    return sent | {f"`{name}...`": f"never: {why}" for name, why in answers.NEVER_SENT.items()}
