#!/bin/bash
KV='{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}'
VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve Qwen/Qwen3-32B --port 8100 --kv-transfer-config "$KV" &
VLLM_NIXL_SIDE_CHANNEL_PORT=5601 vllm serve Qwen/Qwen3-32B --port 8200 --kv-transfer-config "$KV" &
