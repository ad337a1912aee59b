#!/bin/bash
# Nothing is wrong here.
VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve Qwen/Qwen3-32B --port 8100 --tensor-parallel-size 2 --block-size 64 \
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}' &
VLLM_NIXL_SIDE_CHANNEL_PORT=5610 vllm serve Qwen/Qwen3-32B --port 8200 --tensor-parallel-size 4 --block-size 64 \
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}' &
