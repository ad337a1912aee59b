#!/bin/bash
export VLLM_NIXL_SIDE_CHANNEL_PORT=5600
vllm serve Qwen/Qwen3-32B --kv-cache-dtype fp8 --kv-transfer-config.kv_connector=NixlConnector --kv-transfer-config.kv_role=kv_producer &
export VLLM_NIXL_SIDE_CHANNEL_PORT=5601
vllm serve Qwen/Qwen3-32B --kv-transfer-config.kv_connector=NixlConnector --kv-transfer-config.kv_role=kv_consumer &
