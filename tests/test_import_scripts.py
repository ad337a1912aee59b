"""Scripts and command lines that people bring: what each becomes, and what is refused rather than changed."""

# ruff: noqa: E501 - command lines and YAML as people write them

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import planner
from import_cases import NIXL, read, said, shape
from planner.interop.import_file import import_text
from planner.spec import Disaggregated, SpecError
from planner.system.resolve import resolve

PAIR = f"""#!/bin/bash
# {{0}}
CUDA_VISIBLE_DEVICES=0 VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve Qwen/Qwen3-32B --port 8100 --kv-transfer-config '{NIXL}' &
# {{1}}
CUDA_VISIBLE_DEVICES=1 VLLM_NIXL_SIDE_CHANNEL_PORT=5601 vllm serve Qwen/Qwen3-32B --port 8200 --kv-transfer-config '{NIXL}' &
"""


def pair(first: str, second: str) -> str:
    return PAIR.replace("{0}", first).replace("{1}", second)


def test_kv_both_is_a_pair_where_something_names_the_roles() -> None:
    assert shape(read(pair("prefill instance", "decode instance"))) == ((1, 1), (1, 1))
    proxy = "python3 toy_proxy.py --prefiller-ports 8200 --decoder-ports 8100\n"
    found = read(
        pair("one", "other")
        + proxy
        + pair("", "").replace("8100", "8101").replace("8200", "8201").replace("#", "# decode")
    )
    assert isinstance(found.spec.deployment, Disaggregated)
    swapped = import_text(pair("one", "other").replace("8200 ", "8200 --tensor-parallel-size 1 ") + proxy, "f", "n")
    assert isinstance(swapped.spec.deployment, Disaggregated)


def test_kv_both_without_names_asks() -> None:
    with pytest.raises(
        SpecError, match="command 1, command 2: kv_both, and nothing names the one that prefills; allowed: --roles"
    ):
        read(pair("one", "other"))
    assert shape(read(pair("one", "other"), roles=("decode", "prefill"))) == ((1, 1), (1, 1))
    with pytest.raises(SpecError, match="--roles names 1; allowed: one for each of 2"):
        read(pair("one", "other"), roles=("decode",))


def test_a_server_without_a_role_beside_a_pair_is_refused() -> None:
    with pytest.raises(SpecError, match="command 1: neither prefill nor decode, beside servers that are"):
        read("#!/bin/bash\nvllm serve Qwen/Qwen3-32B --port 8000 &\n" + pair("prefill", "decode"))


def test_a_loop_of_four_servers_is_four() -> None:
    text = "for i in 0 1 2 3; do\n  CUDA_VISIBLE_DEVICES=$i vllm serve Qwen/Qwen3-32B --port $((8000+i)) &\ndone\n"
    assert shape(read(text)) == ((4, 1),)
    with pytest.raises(SpecError, match=r"for i in \$\(nvidia-smi -L\).*how many servers it starts is not known"):
        read("for i in $(nvidia-smi -L); do vllm serve Qwen/Qwen3-32B & done\n")
    with pytest.raises(SpecError, match="several branches of `if`"):
        read('if [ -n "$BIG" ]; then vllm serve a/b -tp 8; else vllm serve a/b -tp 1; fi\n')


def test_variables_and_functions_are_followed() -> None:
    text = """#!/bin/sh
    MODEL=${MODEL:-meta-llama/Llama-3.1-8B-Instruct}
    export TP=2
    ARGS="--max-num-seqs 64"
    start() { vllm serve "$MODEL" -tp $TP $ARGS --port "$1" "$@" > "server-$1.log" 2>&1 & }
    start 8000
    """.replace('"$@" ', "")
    found = read(text)
    assert (found.spec.model, shape(found)) == ("llama-3.1-8b", ((1, 2),))
    assert found.spec.engine.max_num_seqs == 64
    with pytest.raises(SpecError, match=r"'\$MODEL' is no model; allowed: a model in the file, or --set model=NAME"):
        read("vllm serve $MODEL\n")
    assert import_text("vllm serve $MODEL\n", "f", "n", ["model=qwen3-32b"]).spec.model == "qwen3-32b"


def test_dotted_options_are_keys_of_json() -> None:
    role = "--kv-transfer-config.kv_connector=NixlPushConnector --kv-transfer-config.kv_role {}"
    lines = [f"VLLM_NIXL_SIDE_CHANNEL_PORT={port} vllm serve Qwen/Qwen3-32B {role.format(kind)} &"
             for port, kind in ((5600, "kv_producer"), (5601, "kv_consumer"))]  # fmt: skip
    deployment = read("\n".join(lines)).spec.deployment
    assert isinstance(deployment, Disaggregated)
    assert deployment.link.connector == "NixlPushConnector"


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ("""--hf-overrides '{"max_position_embeddings": 262144}' --max-model-len 200000""", 262144),
        ("""--rope-scaling '{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":40960}'""", 163840),
        ("""--hf-overrides.rope_parameters.factor=4 --hf-overrides.rope_parameters.rope_type=yarn""", 163840),
        ("--max-model-len 100000", 100000),
        ("""--hf-overrides '{"max_position_embeddings": 4096}'""", 4096),
    ],
)
def test_longer_contexts_run_after_the_import(options: str, positions: int) -> None:
    text = f"VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 vllm serve Qwen/Qwen3-32B -tp 4 {options}\n"
    found = import_text(text, "f", "n", ["workload.requests=3"])
    assert found.spec.engine.max_position_embeddings == positions
    assert resolve(found.spec).pools[0].limits.max_model_len <= positions
    assert len(planner.simulate(found.spec).requests) == 3


def test_nothing_grave_is_left_out_unasked() -> None:
    grave = {
        "-pp 2 -tp 4": "8 GPUs would be one worker of tp 8",
        "-dp 8 --data-parallel-hybrid-lb --enable-expert-parallel": "experts spread over ranks with addresses",
        "-tp 8 -dcp 4": "KV sharded over a TP group",
        "--quantization gguf-x": "gguf-x is not modelled",
        "--kv-cache-dtype nvfp4": "nvfp4 is not modelled",
        "--config more.yaml": "options in another file",
        """--hf-overrides '{"num_hidden_layers": 4}'""": "changes the model",
    }  # fmt: skip
    for options, part in grave.items():
        text = f"vllm serve meta-llama/Llama-3.1-8B-Instruct {options}\n"
        with pytest.raises(SpecError, match="--accept-loss") as caught:
            read(text)
        assert part in str(caught.value)
        assert part in said(read(text, accept=True), "loss")
    assert shape(read("vllm serve meta-llama/Llama-3.1-8B-Instruct -pp 2 -tp 4\n", accept=True)) == ((1, 8),)


def test_what_takes_no_time_is_ignored_and_what_does_is_a_loss() -> None:
    found = read(
        "vllm serve Qwen/Qwen3-32B --tool-call-parser hermes --enable-lora --speculative-config '{}' --foo 1\n"
    )
    assert "tool-call-parser" in said(found, "no counterpart")
    for part in ("enable-lora", "speculative", "--foo"):
        assert part in said(found, "loss")
    assert read("vllm serve Qwen/Qwen3-32B --tool-call-parser hermes --trust-remote-code\n").losses == ()


def test_an_option_on_a_line_of_its_own_is_noticed() -> None:
    with pytest.raises(SpecError, match="an option on a line of its own"):
        read("vllm serve Qwen/Qwen3-32B  # no continuation\n  --tensor-parallel-size 4\n")


def test_a_comment_ends_a_command_although_a_backslash_follows_it() -> None:
    text = "vllm serve Qwen/Qwen3-32B \\\n  --tensor-parallel-size 4 \\\n  # --max-model-len 8192 \\\n  --kv-cache-dtype fp8\n"
    with pytest.raises(SpecError, match="--kv-cache-dtype fp8: an option on a line of its own: .* or is a comment"):
        read(text)
    assert shape(read(text.replace("  --kv-cache-dtype fp8\n", ""))) == ((1, 4),)


def test_comments_in_an_array_end_with_their_lines() -> None:
    lines = [
        "args=(",
        "--tensor-parallel-size 4   # four GPUs, don't change",
        "# --kv-cache-dtype fp8",
        "--max-num-seqs 64",
        ")",
    ]
    found = read("\n".join(lines) + '\nvllm serve Qwen/Qwen3-32B "${args[@]}"\n')
    assert shape(found) == ((1, 4),)
    assert (found.spec.engine.max_num_seqs, found.spec.engine.kv_cache_dtype) == (64, "auto")


def test_options_beside_the_script_are_read_and_its_own_win(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("model: Qwen/Qwen3-32B\ntensor-parallel-size: 2\nmax_num_seqs: 64\n")
    text = "vllm serve --config serve.yaml --tensor-parallel-size 4\n"
    found = read(text, folder=tmp_path)
    assert (shape(found), found.spec.model, found.spec.engine.max_num_seqs) == (((1, 4),), "qwen3-32b", 64)
    for elsewhere in (None, tmp_path / "other"):
        with pytest.raises(SpecError, match=r"--config: serve\.yaml: options in another file"):
            read(text, folder=elsewhere)
    (tmp_path / "serve.yaml").write_text("a: [\n")
    with pytest.raises(SpecError, match=r"serve\.yaml: line 2, column 1: not valid YAML"):
        read(text, folder=tmp_path)


@pytest.mark.parametrize("start", ['ssh -p 22 {} "{}"', "srun -N1 -w {} {}", 'srun --nodelist={} bash -c "{}"'])
def test_servers_of_two_machines_share_neither_ports_nor_gpus(start: str) -> None:
    def both(first: str, second: str, host: str = "") -> str:
        serve = f"{host}CUDA_VISIBLE_DEVICES=0 vllm serve Qwen/Qwen3-32B --kv-transfer-config "
        serve += '\'{{\\"kv_connector\\":\\"NixlConnector\\",\\"kv_role\\":\\"kv_{}\\"}}\''
        if '"' not in start:
            serve = "env " + serve.replace("\\", "")
        roles = ((first, "producer"), (second, "consumer"))
        return "\n".join(start.format(machine, serve.format(role)) + " &" for machine, role in roles)

    notes = read("#!/bin/bash\n" + both("node1", "node2")).notes
    assert (
        sorted(note.text for note in notes if note.kind == "mistake")
        == ["VLLM_NIXL_SIDE_CHANNEL_HOST is not set: other machines are told to shake hands with localhost"] * 2
    )
    assert not [note for note in notes if "has GPU 0 too" in note.text]
    one = read("#!/bin/bash\n" + both("node1", "node1")).notes
    assert [note.text for note in one if note.kind == "mistake"] == [
        "VLLM_NIXL_SIDE_CHANNEL_PORT 5600 is command 1's too: the second server does not start"
    ]


def test_other_nodes_of_an_engine_are_no_servers() -> None:
    text = "vllm serve Qwen/Qwen3-32B -dp 4 --data-parallel-size-local 2\nvllm serve Qwen/Qwen3-32B -dp 4 --headless --data-parallel-start-rank 2\n"
    assert shape(read(text)) == ((4, 1),)
    ranks = "".join(f"vllm serve Qwen/Qwen3-32B -dp 2 --data-parallel-rank {rank}\n" for rank in (0, 1))
    assert shape(read(ranks)) == ((2, 1),)


def test_ranks_that_share_experts_are_one_worker() -> None:
    """As in vLLM: ranks of a mixture take every step together, those of a dense model go their own way."""
    found = read("vllm serve Qwen/Qwen3-30B-A3B -dp 4 -tp 2 --enable-expert-parallel\n")
    assert found.spec.deployment.model_dump(include={"replicas", "tp", "dp"}) == {"replicas": 1, "tp": 2, "dp": 4}
    assert found.spec.engine.enable_expert_parallel
    assert read("vllm serve Qwen/Qwen3-30B-A3B -dp 4\n").spec.deployment.dp == 4
    assert shape(read("vllm serve Qwen/Qwen3-32B -dp 4\n")) == ((4, 1),)
    assert "2 ranks are 2 workers" in said(read("vllm serve Qwen/Qwen3-32B -dp 2\n"), "assumed")


@pytest.mark.parametrize(
    ("name", "model", "quantization"),
    [
        ("nvidia/Llama-3.1-70B-Instruct-FP8", "llama-3.1-70b", "fp8"),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "llama-3.1-70b", "fp8"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "llama-3.1-8b", "int4"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "llama-3.1-8b", "int8"),
        ("Qwen/Qwen3-32B-AWQ", "qwen3-32b", "int4"),
        ("Qwen/Qwen3-30B-A3B-FP8", "Qwen/Qwen3-30B-A3B-FP8", None),  # its config.json's own figures ship
        ("RedHatAI/Qwen3-4B-Instruct-2507-FP8-dynamic", "Qwen/Qwen3-4B-Instruct-2507", "fp8"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "qwen2.5-7b", "int4"),
        ("openai/gpt-oss-20b", "gpt-oss-20b", None),
    ],
)
def test_a_quantised_id_is_quantised_with_a_warning(name: str, model: str, quantization: str | None) -> None:
    found = read(f"vllm serve {name}\n")
    assert (found.spec.model, found.spec.engine.quantization) == (model, quantization)
    assert ("read from its name" in said(found, "warning")) == (quantization is not None)


def test_bits_that_no_key_says_are_refused() -> None:
    with pytest.raises(SpecError, match="4 bits or fewer in its name"):
        read("vllm serve nvidia/Llama-3.1-8B-Instruct-NVFP4\n")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("nvidia/DeepSeek-R1-FP4", False),
        ("nvidia/DeepSeek-R1-0528-FP4-v2", False),
        ("cognitivecomputations/DeepSeek-V3-AWQ", False),
        ("unsloth/DeepSeek-V3-FP8", True),
        ("unsloth/gpt-oss-20b-MXFP4", True),
    ],
)
def test_a_model_stored_in_other_bits_than_its_name_says_is_refused(name: str, fits: bool) -> None:
    text = f"vllm serve {name} -tp 8\n"
    if fits:
        assert read(text).spec.engine.quantization is None
    else:
        with pytest.raises(SpecError, match="in its name; the weights of deepseek-v3 are fp8"):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        "$ vllm serve Qwen/Qwen3-8B \\\n>   --tensor-parallel-size 2 \\\n>   --max-num-seqs 32\n",
        "vllm serve Qwen/Qwen3-8B ^\r\n  --tensor-parallel-size 2 ^\r\n  --max-num-seqs 32\r\n",
        "vllm serve Qwen/Qwen3-8B --max-num-seqs 32 \\\n  -tp 2 \\\n> /tmp/log\n",
    ],
)
def test_lines_go_on_as_they_were_pasted(text: str) -> None:
    found = read(text).spec
    assert (found.deployment.tp, found.engine.max_num_seqs) == (2, 32)


def test_the_environment_of_a_graph_is_that_of_its_services() -> None:
    def service(role: str) -> dict[str, Any]:
        main = {"command": ["python3", "-m", "dynamo.vllm"], "args": ["--model", "$(MODEL)"]}
        return {"componentType": "worker", "subComponentType": role, "extraPodSpec": {"mainContainer": main}}

    given = [{"name": "MODEL", "value": "Qwen/Qwen3-8B"}, {"name": "DYN_ROUTER_MODE", "value": "kv"}]
    services = {role: service(role) for role in ("prefill", "decode")} | {"Frontend": {"componentType": "frontend"}}
    graph = {"kind": "DynamoGraphDeployment", "spec": {"envs": given, "services": services}}
    found = read(yaml.safe_dump(graph)).spec
    assert (found.model, found.deployment.router.policy) == ("qwen3-8b", "prefix_aware")
    container = {"args": ["--router-mode", "kv", "--router-session-affinity-ttl-secs=900"]}
    services["Frontend"] = {"componentType": "frontend", "extraPodSpec": {"mainContainer": container}}
    assert read(yaml.safe_dump(graph)).spec.deployment.router.policy == "session_affinity"


def test_a_batch_script_has_the_gpus_of_a_node_that_it_asks_for() -> None:
    """Slurm sets them for what runs in it; the kind of GPU may stand at the srun."""
    head = "#!/bin/bash\n#SBATCH --nodes=1 --gpus-per-node=8\n"
    serve = "vllm serve meta-llama/Llama-3.1-70B-Instruct -tp $SLURM_GPUS_ON_NODE"
    found = read(f"{head}srun --gres=gpu:h100:8 {serve}\n")
    assert (found.spec.deployment.tp, found.spec.hardware) == (8, "h100")
    assert read(f"#!/bin/bash\n#SBATCH --gres=gpu:a100:4\n{serve}\n").spec.deployment.tp == 4
    with pytest.raises(SpecError, match=r"SLURM_GPUS_ON_NODE is set nowhere"):
        read(f"#!/bin/bash\n#SBATCH --nodes=1\n{serve}\n")


def test_a_gpu_that_is_named_is_never_silently_another() -> None:
    def service(gpu: str) -> str:
        model = {"modelFormat": {"name": "huggingface"}, "args": ["--model_id=Qwen/Qwen3-8B"]}
        predictor = {"model": model, "nodeSelector": {"cloud.google.com/gke-accelerator": gpu}}
        return yaml.safe_dump({"kind": "InferenceService", "spec": {"predictor": predictor}})

    assert read(service("nvidia-l4")).spec.hardware == "l4"
    assert "nvidia-tesla-t4: is not in the catalogue, h200 is taken" in said(
        read(service("nvidia-tesla-t4")), "warning"
    )
    slurm = "#!/bin/bash\n#SBATCH --gres=gpu:v100:2\nvllm serve Qwen/Qwen3-8B\n"
    assert "v100: is not in the catalogue" in said(read(slurm), "warning")


def test_kv_on_the_host_is_a_tier() -> None:
    serve = "vllm serve meta-llama/Llama-3.1-8B-Instruct"
    extra = '{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"cpu_bytes_to_use":2000000000}}'
    lmcache = '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}'
    sizes = {
        f"{serve} --kv-offloading-size 64 --kv-offloading-backend native": 68.719477,
        f"{serve} --kv-transfer-config '{extra}'": 2.0,
        "DYN_KVBM_CPU_CACHE_GB=100 python3 -m dynamo.vllm --model Qwen/Qwen3-32B": 100.0,
        f"LMCACHE_MAX_LOCAL_CPU_SIZE=5 {serve} -tp 2 --kv-transfer-config '{lmcache}'": 10.0,
    }
    for text, size in sizes.items():
        found = read(text + "\n")
        assert [tier.capacity_gb for tier in found.spec.optimizations.decode.offload] == [size]
        assert found.losses == ()
    assert "does not say how much" in said(read(f"{serve} --kv-transfer-config '{lmcache}'\n"), "loss")


def test_other_engines_are_read_as_far_as_they_go() -> None:
    line = "python3 -m sglang.launch_server --model-path Qwen/Qwen3-32B --tp {} --disaggregation-mode {} --page-size 64 &\n"
    found = read(line.format(2, "prefill") + line.format(4, "decode"))
    assert (found.dialect, shape(found), found.spec.engine.block_size) == ("SGLang", ((1, 2), (1, 4)), 64)
    assert "times are those of vLLM" in said(found, "loss")
    pages = read("python3 -m sglang.launch_server --model-path Qwen/Qwen3-32B --page-size 1\n")
    assert pages.spec.engine.block_size is None and "--page-size: 1" in said(pages, "loss")
    other = read("trtllm-serve Qwen/Qwen3-32B --tp_size 2 --max_batch_size 64 --max_num_tokens 4096\n")
    assert (other.dialect, shape(other), other.spec.engine.max_num_seqs) == ("TensorRT-LLM", ((1, 2),), 64)


def test_docker_run_is_a_server() -> None:
    text = "docker run --gpus all -p 8000:8000 --ipc=host vllm/vllm-openai:latest --model Qwen/Qwen3-32B -tp 2\n"
    assert shape(read(text)) == ((1, 2),)


def test_ranks_of_sglangs_attention_share_the_gpus_of_tp() -> None:
    line = "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8 --dp {} {}\n"
    found = read(line.format(4, "--enable-dp-attention --chunked-prefill-size 32768"))
    assert found.spec.engine.max_num_batched_tokens == 8192
    assert (shape(found), found.spec.deployment.dp) == (((1, 2),), 4)
    assert shape(read(line.format(2, ""))) == ((2, 8),)  # engines of their own
    assert shape(read(line.format(2, "").replace("sglang.", "sglang_router."))) == ((2, 8),)
    assert read(line.format(8, "--enable-dp-attention --moe-a2a-backend deepep")).spec.engine.enable_expert_parallel
    with pytest.raises(SpecError, match="does not divide --tp-size 8"):
        read(line.format(3, "--enable-dp-attention"))


def test_tensorrt_llms_pair_and_options_in_its_other_files() -> None:
    sides = "model: Qwen/Qwen3-32B\ncontext_servers: {num_instances: 2, tensor_parallel_size: 1}\n"
    found = read(sides + "generation_servers: {tensor_parallel_size: 4, max_batch_size: 64}\n")
    assert (found.dialect, shape(found)) == ("TensorRT-LLM", ((2, 1), (1, 4)))
    line = "trtllm-serve Qwen/Qwen3-32B --extra_llm_api_options more.yaml {}\n"
    assert "more.yaml: options in another file" in said(read(line.format("--tp_size 2")), "loss")
    with pytest.raises(SpecError, match="options in another file"):
        read(line.format(""))


def test_the_load_of_a_script_is_its_workload() -> None:
    script = "vllm serve Qwen/Qwen3-32B -tp 2 &\nvllm bench serve --model Qwen/Qwen3-32B --dataset-name {}\n"
    load = read(
        script.format("random --random-input-len 2000 --random-output-len 100 --request-rate 4 --num-prompts 50")
    ).spec.workload
    assert (load.kind, load.rate, load.requests, load.prompt_tokens, load.output_tokens) == (
        "poisson",
        4,
        50,
        2000,
        100,
    )
    closed = read(
        script.format("random --max-concurrency 8 --random-prefix-len 100 --random-range-ratio 0.5")
    ).spec.workload
    assert (closed.kind, closed.concurrency, closed.shared_prefix_tokens) == ("concurrency", 8, 100)
    assert (closed.prompt_tokens.low, closed.prompt_tokens.high) == (612, 1636)
    assert "sharegpt: its lengths are in another file" in said(read(script.format("sharegpt --dataset-path x")), "loss")


def test_a_misspelt_option_is_no_option() -> None:
    with pytest.raises(SpecError, match=r"--tensor-paralel-size: vLLM has no such option \(perhaps --tensor-parallel"):
        read("vllm serve Qwen/Qwen3-32B --tensor-paralel-size 4\n")
    assert read("vllm serve Qwen/Qwen3-32B --max-num-seq 7\n").spec.engine.max_num_seqs == 7  # abbreviated, as argparse
    assert "perhaps" not in said(read("vllm serve Qwen/Qwen3-32B --swap-space 16\n"), "mistake")  # an older release's
    with pytest.raises(SpecError, match=r"\$GPUS is set nowhere"):
        read("vllm serve Qwen/Qwen3-32B -tp $GPUS\n")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffvllm serve Qwen/Qwen3-32B -tp 2\n",
        "# How\n\n```bash\nvllm serve Qwen/Qwen3-32B -tp 2\n```\n\n```bash\ncurl localhost\n```\n",
        "docker run --gpus all `\r\n  vllm/vllm-openai `\r\n  --model Qwen/Qwen3-32B `\r\n  -tp 2\r\n",
        "podman run --name vllm -v /a/vllm:/b quay.io/x/vllm-cuda-rhel9:3 --model Qwen/Qwen3-32B -tp 2\n",
        "[Unit]\n[Service]\nEnvironment=TP=2\nExecStart=/bin/vllm serve Qwen/Qwen3-32B \\\n  -tp ${TP}\n",
        '; x\n[program:a]\nenvironment=CUDA_VISIBLE_DEVICES="0,1",HF_HOME="/a,b"\ncommand=vllm serve Qwen/Qwen3-32B\n  -tp 2 ; two GPUs\n[group:b]\n',
        'FROM vllm/vllm-openai:v1\nENV TP=2\nCMD ["--model", "Qwen/Qwen3-32B", "-tp", "2"]\n',
        "resources: {accelerators: H100:2}\nrun: |\n  vllm serve Qwen/Qwen3-32B -tp $SKYPILOT_NUM_GPUS_PER_NODE\n",
    ],
)
def test_commands_inside_other_texts(text: str) -> None:
    assert shape(read(text)) == ((1, 2),)


def test_programs_of_supervisor_are_servers() -> None:
    program = "[program:{}]\ncommand=vllm serve Qwen/Qwen3-32B --port 80%(process_num)02d\nnumprocs={}\n"
    assert shape(read(program.format("a", 3) + program.format("b", 1))) == ((4, 1),)


def test_a_manifest_that_a_script_applies_is_read() -> None:
    pod = "containers: [{name: v, image: vllm/vllm-openai, args: [--model=Qwen/Qwen3-32B, -tp, '2']}]"
    manifest = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\nspec: {{replicas: 3, template: {{spec: {{{pod}}}}}}}\n"
    for start in ("kubectl apply -f - <<EOF\n", "#!/bin/bash\nset -e\ncat <<'EOF' | kubectl apply -f -\n"):
        assert shape(read(f"{start}{manifest}EOF\n")) == ((3, 2),)


def test_texts_that_hold_no_deployment_say_so() -> None:
    two = "```\nvllm serve a/b\n```\nor\n```\nvllm serve a/b -tp 2\n```\n"
    for text, fault in (
        (two, "2 blocks that start servers"),
        ("kind: Deployment\nname: {{ .Values.x }}\n", "a template with {{ }}"),
        ("docker run ghcr.io/huggingface/text-generation-inference:3 --model-id a/b\n", "is Text Generation Inference"),
        ('import modal\n\ncmd = ["vllm", "serve", "a/b"]\n', "is a Python program, which is not read"),
        ("hello there\n", "none of the known forms"),
        (" \n", "is empty"),
    ):
        with pytest.raises(SpecError, match=re.escape(fault)):
            read(text)


def test_a_path_that_ends_in_a_known_name_says_which_model_that_is() -> None:
    found = read("vllm serve /data/Qwen3-32B-FP8-dynamic\n")
    assert found.spec.model == "/data/Qwen3-32B-FP8-dynamic"
    assert "by its name it is --set model=qwen3-32b --set engine.quantization=fp8" in said(found, "warning")


@pytest.mark.parametrize("line", ["--gres=gpu:h100:8", "--gpus-per-node=h100:8", "-C h100", "--nodes=1"])
def test_a_job_of_slurm_says_which_gpu_it_asks_for(line: str) -> None:
    found = read(f"#!/bin/bash\n#SBATCH {line}\nsrun vllm serve Qwen/Qwen3-32B -tp 8\n")
    assert found.spec.hardware == ("h100" if "h100" in line else "h200")
    assert ("as the job asks for" in said(found, "assumed")) == ("h100" in line)
