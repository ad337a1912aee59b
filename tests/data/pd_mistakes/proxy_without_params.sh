#!/bin/bash
cat > proxy.py <<'PY'
import aiohttp
async def complete(request, prefill, decode):
    body = await request.json()
    await prefill.post("/v1/completions", json=body | {"max_tokens": 1})
    return await decode.post("/v1/completions", json=body)
PY
VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve Qwen/Qwen3-32B --port 8100 \
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}' &
VLLM_NIXL_SIDE_CHANNEL_PORT=5601 vllm serve Qwen/Qwen3-32B --port 8200 \
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}' &
python3 proxy.py
