"""Small traces as public ones are written. Shared by the tests and by benchmarks/fuzz_cases.py."""

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,9\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n118,GPT-4,417,276,693,API log\n"
)
BAILIAN = [
    {"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 20, "output_length": 3, "hash_ids": [7, 8]},
    {
        "chat_id": 9,
        "parent_chat_id": 1,
        "timestamp": 4.5,
        "input_length": 40,
        "output_length": 3,
        "hash_ids": [7, 9, 5],
    },
]
