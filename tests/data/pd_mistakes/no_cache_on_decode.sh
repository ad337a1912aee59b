#!/bin/bash
P='{"kv_connector":"NixlConnector","kv_role":"kv_producer"}'
D='{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}'
VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve Qwen/Qwen3-32B --kv-transfer-config "$P" &
VLLM_NIXL_SIDE_CHANNEL_PORT=5601 vllm serve Qwen/Qwen3-32B --kv-transfer-config "$D" --no-enable-prefix-caching &
