"""The Chinese of what real servers report: template for template. Keys, names and values stay as they are."""

from __future__ import annotations

SERVERS: dict[str, str] = {
    # --- the stack of NVIDIA Dynamo ---
    "engine steps are not recorded on Dynamo, which numbers requests in its own way": (
        "在 Dynamo 上没有记录引擎步：它按自己的方式给请求编号"
    ),
    "the engines are Dynamo's mocker: their steps last as the profile says, and no model answers": (
        "引擎是 Dynamo 的 mocker：每步的时长取自配置档案，没有模型作答"
    ),
    "--stack dynamo: {key}: {why}; allowed: {allowed}": "--stack dynamo：{key}：{why}；允许：{allowed}",
    "--stack dynamo={python}: is no Python that runs ({error})": (
        "--stack dynamo={python}：不是可运行的 Python（{error}）"
    ),
    "a GPU is visible, but Dynamo has no vLLM: `pip install 'ai-dynamo[vllm]=={version}'`, or hide the GPUs "
    "(CUDA_VISIBLE_DEVICES=) for its mocker": (
        "有可见的 GPU，但 Dynamo 没有 vLLM：`pip install 'ai-dynamo[vllm]=={version}'`，"
        "或隐藏 GPU（CUDA_VISIBLE_DEVICES=）以使用其 mocker"
    ),
    "deployment.router.policy: Dynamo has no {policy!r}; allowed: {modes}": (
        "deployment.router.policy：Dynamo 没有 {policy!r}；允许：{modes}"
    ),
    "it chooses after prefill": "它在预填充之后选择",
    "its frontend retrieves nothing": "其前端不做检索",
    "its frontend sheds by other measures": "其前端按别的标准拒绝请求",
    "its queue went with v0.3": "它的队列随 v0.3 一同去掉了",
    "the rule went with v0.3": "该规则随 v0.3 一同去掉了",
    "one router serves both pools": "两个池由同一个路由器服务",
    "vLLM V0's is gone": "vLLM V0 的调度器已不存在",
    "{name} does not tell its number in /metrics (worker_id)": "{name} 在 /metrics 中没有给出其编号（worker_id）",
    "{name} ended: {why}": "{name} 已结束：{why}",
    # --- a check with real servers ---
    "its port is in use by another program": "其端口被另一个程序占用",
    "the model does not fit": "模型放不下",
    "vLLM refused an option": "vLLM 拒绝了一个选项",
    "{meaning} ({detail})": "{meaning}（{detail}）",
    "its engine process died and wrote no error (killed from outside?)": (
        "其引擎进程中途退出，没有写下错误（被外部终止？）"
    ),
    "it wrote nothing": "没有任何输出",
    "killed by {signal}": "被 {signal} 终止",
    "its watchdog was killed by {signal}": "其看护进程被 {signal} 终止",
    "signal {number}": "信号 {number}",
    "{why} (exit code {code})": "{why}（退出码 {code}）",
    "{why}; the kernel ended {count} process(es) here because memory ran out": (
        "{why}；因内存耗尽，内核在这里终止了 {count} 个进程"
    ),
    "no {role} server is left: {name} ended: {why}": "没有剩下 {role} 服务器：{name} 已结束：{why}",
    "{name} did not start: {why}; log: {log}": "{name} 未能启动：{why}；日志：{log}",
    "{name}: {address} was taken by another program while it started; start again": (
        "{name}：启动期间 {address} 被另一个程序占用；请重新启动"
    ),
    "{name} was not healthy within {timeout:.0f} s (--start-timeout); it wrote last: {why}; log: {log}": (
        "{name} 在 {timeout:.0f} 秒（--start-timeout）内没有就绪；最后的输出：{why}；日志：{log}"
    ),
    "{name}: port {port} is in use by another program; choose another": (
        "{name}：端口 {port} 被另一个程序占用；请另选一个"
    ),
    "{name} does not report its KV blocks in /metrics (vllm:cache_config_info)": (
        "{name} 没有在 /metrics 中报告其 KV 块（vllm:cache_config_info）"
    ),
    "{name} failed while warming up: {reason}; log: {log}": "{name} 在预热时失败：{reason}；日志：{log}",
    "{name} died while it warmed up: {why}; log: {log}": "{name} 在预热时中途退出：{why}；日志：{log}",
    "{name} was stopped by a signal while it warmed up": "{name} 在预热时被信号暂停",
    "endpoint {url}: /v1/models is not answered within {seconds:.0f} s; {allowed}": (
        "端点 {url}：/v1/models 在 {seconds:.0f} 秒内没有应答；{allowed}"
    ),
    "{name} refused a warm-up request: {status} {text}; log: {log}": (
        "{name} 拒绝了预热请求：{status} {text}；日志：{log}"
    ),
    "the model does not fit: the KV caches ask for {needed:.1f} GiB of memory, {available:.1f} GiB are available; "
    "set engine.kv_cache_memory_bytes lower": (
        "模型放不下：KV 缓存需要 {needed:.1f} GiB 内存，可用 {available:.1f} GiB；请调低 engine.kv_cache_memory_bytes"
    ),
    "{count} ports are needed for {count} servers; {given} given": (
        "{count} 个服务器需要 {count} 个端口；给出了 {given} 个"
    ),
    "no Ray cluster at {address!r}: {error}; start one with `ray start --head`": (
        "{address!r} 处没有 Ray 集群：{error}；可用 `ray start --head` 启动"
    ),
    "--cluster ray: servers on {host} can be reached from elsewhere; give a --token": (
        "--cluster ray：从别处可以访问 {host} 上的服务器；请给出 --token"
    ),
    "the Ray cluster has no room for {nodes} nodes with {bundles}; its nodes: {there}": (
        "Ray 集群容纳不下 {nodes} 个带 {bundles} 的节点；其节点：{there}"
    ),
    "vllm {version} is the GPU build, but no NVIDIA GPU is visible (nvidia-ml-py must be installed); on a CPU "
    "host: `python -m live.install_cpu`": (
        "vllm {version} 是 GPU 版本，但看不到 NVIDIA GPU（须安装 nvidia-ml-py）；在 CPU 主机上：`python -m "
        "live.install_cpu`"
    ),
    "prefill/decode disaggregation needs NIXL for the KV transfer; `pip install nixl`": (
        "P/D 拆分需要 NIXL 来传输 KV；`pip install nixl`"
    ),
    "the deployment needs {gpus} GPUs; {there} are visible here": "部署需要 {gpus} 个 GPU；这里可见 {there} 个",
    "engine.scheduler: prefill_first was vLLM V0's; only the simulator has it; allowed live: v1": (
        "engine.scheduler：prefill_first 属于 vLLM V0；只有模拟器支持；实测可用：v1"
    ),
    "engine.quantization: {quantization} needs a checkpoint made for it; allowed with dummies: fp8": (
        "engine.quantization：{quantization} 需要为其制作的检查点；虚设权重可用：fp8"
    ),
    "hardware: {hardware} is a GPU, and vLLM's CPU build serves here; allowed: cpu, with a small model (as in "
    "configs/cpu-agg.yaml)": (
        "hardware：{hardware} 是 GPU，而这里是 vLLM 的 CPU 版本；可用：cpu 与小模型（如 configs/cpu-agg.yaml）"
    ),
    "deployment: tp {tp} is not supported on the CPU; allowed: 1": "deployment：CPU 上不支持 tp {tp}；可用：1",
    "engine.async_scheduling: vLLM's CPU build schedules synchronously; allowed: false": (
        "engine.async_scheduling：vLLM 的 CPU 版本同步调度；可用：false"
    ),
    "model: vocab_size {size} is too small for byte-level tokens; at least {symbols}": (
        "model：vocab_size {size} 不够字节级 token 使用；至少 {symbols}"
    ),
    "model: seeded weights are made for LlamaForCausalLM only, not {architecture}": (
        "model：只能为 LlamaForCausalLM 按种子生成权重，不能为 {architecture}"
    ),
    "model: seeded weights are for small models, not for {parameters:.1f} billion parameters": (
        "model：按种子生成的权重只用于小模型，不能有 {parameters:.1f} 十亿参数"
    ),
    "optimizations.decode.offload: vLLM's KV offloading needs a GPU; allowed live on a CPU: none": (
        "optimizations.decode.offload：vLLM 的 KV 卸载需要 GPU；CPU 实测可用：none"
    ),
    "optimizations.{name}: only the simulator has it; allowed live: {real}": (
        "optimizations.{name}：只有模拟器支持；实测可用：{real}"
    ),
    "router.policy {policy!r} needs the KV events of {blind}; start them with --kv-events-config, or take a policy "
    "that needs none (least_loaded)": (
        "router.policy {policy!r} 需要 {blind} 的 KV 事件；请用 --kv-events-config 启动它们，或选不需要的策略（"
        "least_loaded）"
    ),
    "frontend: no worker of role {role!r} was given; the deployment needs one": (
        "frontend：没有给出角色为 {role!r} 的实例；部署需要一个"
    ),
    "frontend: cannot listen on {host}:{port}: {fault}": "frontend：不能在 {host}:{port} 上监听：{fault}",
    "frontend: listening on {host} lets others in; give a token, or listen on 127.0.0.1": (
        "frontend：在 {host} 上监听会让他人进入；请给出 token，或在 127.0.0.1 上监听"
    ),
    "frontend: {worker} at {url} does not list its models: {error}": (
        "frontend：{url} 处的 {worker} 没有列出其模型：{error}"
    ),
    "endpoint {url}: refuses every form of request; the last answer: {refusal}": (
        "endpoint {url}：拒绝一切形式的请求；最后的应答：{refusal}"
    ),
    "endpoint {url}: is no URL; {allowed}": "endpoint {url}：不是 URL；{allowed}",
    "allowed: the address of an OpenAI-compatible server, http://HOST:PORT": (
        "可用：兼容 OpenAI 的服务器的地址，http://HOST:PORT"
    ),
    "endpoint {url}: {status} {reason}; give its token: --token or PLANNER_TOKEN": (
        "endpoint {url}：{status} {reason}；请给出其 token：--token 或 PLANNER_TOKEN"
    ),
    "endpoint {url}: {status} {reason}; give its token: {said}": (
        "endpoint {url}：{status} {reason}；请给出其 token：{said}"
    ),
    "endpoint {url}: answered {status} before any load: {said}": "endpoint {url}：在加载之前就应答 {status}：{said}",
    "endpoint {url}: cannot be reached ({error}); {allowed}": "endpoint {url}：无法连接（{error}）；{allowed}",
    "endpoint {url}: /v1/models names no model (it answers {status}); {allowed}": (
        "endpoint {url}：/v1/models 没有给出模型（应答 {status}）；{allowed}"
    ),
    "--metrics {url}: does not answer; allowed: addresses of engines, http://HOST:PORT": (
        "--metrics {url}：没有应答；可用：引擎的地址，http://HOST:PORT"
    ),
    "--metrics {url}: has no samples named vllm:*; allowed: the /metrics of vLLM engines": (
        "--metrics {url}：没有名为 vllm:* 的样本；可用：vLLM 引擎的 /metrics"
    ),
    "--endpoint {endpoint}: is no URL; allowed: http://HOST:PORT": (
        "--endpoint {endpoint}：不是 URL；可用：http://HOST:PORT"
    ),
    "--endpoint {endpoint}: cannot be reached ({error}); allowed: http://HOST:PORT": (
        "--endpoint {endpoint}：无法连接（{error}）；可用：http://HOST:PORT"
    ),
    "--endpoint {endpoint}: /v1/models answers {status} {reason}; give its token": (
        "--endpoint {endpoint}：/v1/models 应答 {status} {reason}；请给出其 token"
    ),
    "endpoint {url}: {kind}: {error}": "endpoint {url}：{kind}：{error}",
    "retrieval.corpus: {folder} is not a folder; allowed: a folder of .txt/.md files, 'synthetic'": (
        "retrieval.corpus：{folder} 不是文件夹；可用：含 .txt/.md 文件的文件夹，'synthetic'"
    ),
    "retrieval.corpus: {folder} holds more than {most} bytes of text": (
        "retrieval.corpus：{folder} 的文本超过 {most} 字节"
    ),
    "retrieval.corpus: {folder} holds no .txt or .md file with text": (
        "retrieval.corpus：{folder} 中没有带文本的 .txt 或 .md 文件"
    ),
    "retrieval.index: faiss is not installed; `pip install faiss-cpu`, or use 'numpy'": (
        "retrieval.index：未安装 faiss；`pip install faiss-cpu`，或用 'numpy'"
    ),
    "{key}: {url} did not answer with a JSON object": "{key}：{url} 的应答不是 JSON 对象",
    "{key}: {url} failed: {error}": "{key}：{url} 失败：{error}",
    "{key}: {base}/models names no model; give it after #": "{key}：{base}/models 没有给出模型；请写在 # 之后",
    "retrieval.embedder: {value!r} is unknown; allowed: {allowed}": (
        "retrieval.embedder：{value!r} 未知；可用：{allowed}"
    ),
    "retrieval.embedder: sentence-transformers is not installed; `pip install sentence-transformers`, or use "
    "'hashing'": (
        "retrieval.embedder：未安装 sentence-transformers；`pip install sentence-transformers`，或用 'hashing'"
    ),
    "{key}: {value!r} is unknown; allowed: overlap, none, rerank:<url>[#model]": (
        "{key}：{value!r} 未知；可用：overlap, none, rerank:<url>[#model]"
    ),
    "retrieval.embedder: {url} gave no {count} vectors of one length": (
        "retrieval.embedder：{url} 没有给出 {count} 个等长的向量"
    ),
    "{key}: {url} gave no results with index and relevance_score": "{key}：{url} 的结果没有 index 与 relevance_score",
}
