"""Tiny traces in the original layouts, with invented rows, and what they must be read as."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """A file, its format, and the requests in it by arrival: client, arrival in microseconds, input, output tokens."""

    name: str
    trace_format: str
    text: str
    expected: tuple[tuple[str, str, int, int, int], ...]
    clients: str
    dropped: int = 0
    raised: int = 0


MOONCAKE = Sample(
    name="mooncake",
    trace_format="mooncake",
    clients="one",
    text='{"timestamp": 3000, "input_length": 1025, "output_length": 7, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 3000, "input_length": 1024, "output_length": 1, "hash_ids": [0, 3]}\n'
    '{"timestamp": 6001, "input_length": 600, "output_length": 20, "hash_ids": [0, 1]}\n',
    expected=(("r1", "all", 0, 1025, 7), ("r2", "all", 0, 1024, 1), ("r3", "all", 3_001_000, 600, 20)),
)

BAILIAN = Sample(
    name="bailian",
    trace_format="bailian",
    clients="chain",
    text='{"chat_id": 5, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 33, "output_length": 4,'
    ' "type": "text", "turn": 1, "hash_ids": [10, 11, 12]}\n'
    '{"chat_id": 6, "parent_chat_id": 2, "timestamp": 1.75, "input_length": 16, "output_length": 2, "type": "file",'
    ' "turn": 3, "hash_ids": [20]}\n'
    '{"chat_id": 7, "parent_chat_id": 5, "timestamp": 2.5, "input_length": 48, "output_length": 9, "type": "text",'
    ' "turn": 2, "hash_ids": [10, 11, 13]}\n'
    '{"chat_id": 8, "parent_chat_id": 7, "timestamp": 9.25, "input_length": 80, "output_length": 1, "type": "text",'
    ' "turn": 3, "hash_ids": [10, 11, 13, 14, 15]}\n',
    expected=(
        ("5", "5", 0, 33, 4),
        ("6", "2", 250_000, 16, 2),
        ("7", "5", 1_000_000, 48, 9),
        ("8", "5", 7_750_000, 80, 1),
    ),
)

AZURE = Sample(
    name="azure",
    trace_format="azure",
    clients="roundrobin:2",
    # CR LF, seven fractional digits, no final line end.
    text="TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.0000004,100,5\r\n"
    "2023-11-16 23:59:59.9999995,40,6\r\n2023-11-17 00:00:01,16,7",
    expected=(
        ("r1", "tenant-0", 0, 100, 5),
        ("r2", "tenant-1", 1_000_000, 40, 6),
        ("r3", "tenant-0", 2_000_000, 16, 7),
    ),
)

AZURE_WITH_OFFSETS = Sample(
    name="azure-with-offsets",
    trace_format="azure",
    clients="one",
    text="TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 02:00:00.5+02:00,3,5\n2024-05-10 00:00:01.25Z,4,6\n",
    expected=(("r1", "all", 0, 3, 5), ("r2", "all", 750_000, 4, 6)),
)

BURSTGPT_1 = Sample(
    name="burstgpt-1",
    trace_format="burstgpt",
    clients="field:Model",
    text="Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n118,GPT-4,417,276,693,API log\n",
    expected=(("r1", "ChatGPT", 0, 472, 18), ("r3", "GPT-4", 113_000_000, 417, 276)),
    dropped=1,
)

BURSTGPT_2 = Sample(
    name="burstgpt-2",
    trace_format="burstgpt",
    clients="field:Log Type",
    text="Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n"
    "5270402.0,ChatGPT,12,18,30,API log\r\n5270402.5,GPT-4,0,0,0,API log\r\n",
    expected=(("r1", "API log", 0, 12, 18),),
    dropped=1,
)

BURSTGPT_3 = Sample(
    name="burstgpt-3",
    trace_format="burstgpt",
    clients="session",
    text="Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "10.25,s-1,2.0,GPT-4,30,40,70,Conversation log\n11.0,s-2,1.0,GPT-4,31,41,72,Conversation log\n"
    "12.5,s-1,3.5,GPT-4,32,42,74,Conversation log\n",
    expected=(("r1", "s-1", 0, 30, 40), ("r2", "s-2", 750_000, 31, 41), ("r3", "s-1", 2_250_000, 32, 42)),
)

VTC_ARENA = Sample(
    name="vtc-arena",
    trace_format="vtc-arena",
    clients="field:adapter_dir",
    text='{"req_id": 0, "model_dir": "m", "adapter_dir": "lora-3", "prompt_len": 13, "output_len": 199,'
    ' "req_time": 0.0}\n'
    '{"req_id": 1, "model_dir": "m", "adapter_dir": "lora-2", "prompt_len": 36, "output_len": 137,'
    ' "req_time": 0.20793754160099873}\n',
    expected=(("0", "lora-3", 0, 13, 199), ("1", "lora-2", 207_938, 36, 137)),
)

SERVEGEN_DRAWN = Sample(
    name="servegen-drawn",
    trace_format="servegen",
    clients="field:client_id",
    text='{"timestamp": 0.0019, "client_id": 29, "input_tokens": 769, "output_tokens": 289}\n'
    '{"timestamp": 0.0022, "client_id": 3, "input_tokens": 8, "output_tokens": 1}\n',
    expected=(("r1", "29", 0, 769, 289), ("r2", "3", 300, 8, 1)),
)

CODING_AGENT = Sample(
    name="coding-agent",
    trace_format="coding-agent",
    clients="session",
    text='{"id": "trace_1", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 64,'
    ' "system_tokens": 64, "requests": ['
    '{"t": 0.0, "type": "n", "model": "m", "in": 130, "out": 5, "hash_ids": [1, 2], "api_time": 2.0,'
    ' "think_time": 0.0},'
    ' {"t": 3.0, "type": "subagent", "agent_id": "a", "requests": ['
    '{"t": 0.0, "type": "s", "model": "m", "in": 64, "out": 6, "hash_ids": [7]},'
    ' {"t": 1.5, "type": "n", "model": "m", "in": 128, "out": 7, "hash_ids": [7, 8], "think_time": 0.5}]},'
    ' {"t": 4.0, "type": "n", "model": "m", "in": 192, "out": 0, "hash_ids": [1, 2, 3], "think_time": 2.0}],'
    ' "totals": {}}\n',
    expected=(
        ("trace_1/0", "trace_1", 0, 130, 5),
        ("trace_1/1.0", "trace_1", 3_000_000, 64, 6),
        ("trace_1/2", "trace_1", 4_000_000, 192, 1),
        ("trace_1/1.1", "trace_1", 4_500_000, 128, 7),
    ),
    raised=1,
)

ALL = (
    MOONCAKE,
    BAILIAN,
    AZURE,
    AZURE_WITH_OFFSETS,
    BURSTGPT_1,
    BURSTGPT_2,
    BURSTGPT_3,
    VTC_ARENA,
    SERVEGEN_DRAWN,
    CODING_AGENT,
)
