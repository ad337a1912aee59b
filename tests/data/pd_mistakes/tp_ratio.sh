#!/bin/bash
serve() {  # GPUS PORT SIDE_PORT TP ROLE
  CUDA_VISIBLE_DEVICES=$1 VLLM_NIXL_SIDE_CHANNEL_PORT=$3 vllm serve Qwen/Qwen3-32B --port "$2" \
    --tensor-parallel-size "$4" --kv-transfer-config "{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"$5\"}" &
}
serve 0,1,2,3 8100 5600 4 kv_producer
serve 4,5,6 8200 5700 3 kv_consumer
