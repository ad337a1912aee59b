"""The Chinese of faults: template for template. Keys, names and values stay as they are."""

from __future__ import annotations

FAULTS: dict[str, str] = {
    "workload: no rate is given; allowed: a load of so many requests a second, to count GPUs for": (
        "workload：没有给出速率；可用：每秒若干请求的负载，才能算 GPU 数量"
    ),
    # --- words of what is allowed ---
    "a section of keys": "含键的一节",
    "a section with keys {keys}": "含这些键的一节：{keys}",
    "a section with {key} {kinds}": "一节，{key} 为 {kinds}",
    "a section": "一节",
    "a list": "列表",
    "a list of {what}": "列表：{what}",
    "a value": "一个值",
    "true or false": "true 或 false",
    "text": "文本",
    "one model: a name in configs/models, a hub id or a folder; `planner sweep` compares several": (
        "一个模型：configs/models 中的名称、hub id 或文件夹；比较多个请用 `planner sweep`"
    ),
    "one GPU: a name in configs/hardware such as h100, or a path; `planner sweep` compares several": (
        "一种 GPU：configs/hardware 中的名称（如 h100）或路径；比较多种请用 `planner sweep`"
    ),
    "text of letters, digits, '.', '_' and '-', no spaces, at most {most} characters": (
        "由字母、数字、“.”、“_”和“-”组成的文本，无空格，最多 {most} 个字符"
    ),
    "whole numbers": "整数",
    "numbers": "数",
    "{numbers} {limits}": "{limits} 的{numbers}",
    "from {low}": "不小于 {low}",
    "above {low}": "大于 {low}",
    "below {high}": "小于 {high}",
    "up to {high}": "不超过 {high}",
    "{one}, or {two}": "{one}，或{two}",
    "{one} {two}": "{one} {two}",
    "{one}, {two}": "{one}、{two}",
    "{one} and {two}": "{one} 和 {two}",
    "a CSV file": "CSV 文件",
    "a YAML file": "YAML 文件",
    "the path of a trace file": "轨迹文件的路径",
    "a whole number, at least 1": "不小于 1 的整数",
    "a whole number, zero or more": "不小于 0 的整数",
    "seconds, zero or more": "不小于 0 的秒数",
    "milliseconds, zero or more": "不小于 0 的毫秒数",
    "nanoseconds, zero or more": "不小于 0 的纳秒数",
    "requests/s, zero or more": "不小于 0 的每秒请求数",
    "tokens, at least 1": "不小于 1 的 token 数",
    "at least {low:g}": "不小于 {low:g}",
    "none": "无",
    "{one}; {two}": "{one}；{two}",
    "missing": "缺失",
    "none chosen": "没有选择",
    # --- the system's ---
    "No such file or directory": "没有这个文件或文件夹",
    "Permission denied": "没有权限",
    "Is a directory": "是文件夹",
    "Not a directory": "不是文件夹",
    # --- a value of the YAML ---
    "{where}: {fault}": "{where}：{fault}",
    "{where}: {key}": "{where}：{key}",
    "{path}: a measured service is no law of steps; allowed: a calibrated profile of steps": (
        "{path}：实测服务不是引擎步的规律；可用：标定得到的步时间 profile"
    ),
    "{path}: {fault}": "{path}：{fault}",
    "{path}: {error}": "{path}：{error}",
    "{key}={value}: {fault}": "{key}={value}：{fault}",
    "{kind}: {fault}, or a path": "{kind}：{fault}，或一个路径",
    "unknown key; allowed: {choices}": "未知的键；可用：{choices}",
    "deployment.link: what a hand-over over {link} costs the workers was not measured and counts as nothing; where it "
    "was (nvlink_nixl) it delays first tokens": (
        "deployment.link：经 {link} 移交对 worker 的开销未经测量，按零计；测量过的（nvlink_nixl）会推迟首个 token"
    ),
    "run.warmup_requests: {warmup} leaves none of {count} requests to count; allowed: up to {most}": (
        "run.warmup_requests：{warmup} 使 {count} 个请求中没有一个可计入；可用：至多 {most}"
    ),
    "--set {key}: {fault}": "--set {key}：{fault}",
    "is not of kind {kind}: {instead}; allowed: {choices}": "不属于 kind {kind}：{instead}；可用：{choices}",
    "rate (new sessions a second) x how long one lasts is how many there are at once": (
        "同时进行的会话数 = rate（每秒新会话数）× 一个会话的时长"
    ),
    "sessions x turns is how many requests there are": "请求总数为 sessions × turns",
    "num_users is how many there are at once": "num_users 为同时在线的用户数",
    "qps is how many requests there are a second": "qps 为每秒请求数",
    "num_rounds is how many requests a user sends": "num_rounds 为每个用户发送的请求数",
    "concurrency is how many there are at once": "concurrency 为同时进行的请求数",
    "a request is sent when another ends, concurrency says how many there are at once": (
        "一个请求结束才发下一个，concurrency 为同时进行的请求数"
    ),
    "rate says how often requests come; kind concurrency keeps so many at once": (
        "rate 为请求到达的频率；kind concurrency 才保持固定的并发数"
    ),
    "belongs to {kinds}; allowed: {choices}": "属于 {kinds}；可用：{choices}",
    "{key} {kinds}": "{key} {kinds}",
    "unknown key; did you mean {places}? allowed: {choices}": "未知的键；是否想写 {places}？可用：{choices}",
    "unknown key; did you mean '{near}'? allowed: {choices}": "未知的键；是否想写“{near}”？可用：{choices}",
    "{value} is unknown; allowed: {choices}": "{value} 未知；可用：{choices}",
    "{names} and {count} more": "{names} 以及另外 {count} 个",
    "{value} is unknown; did you mean '{near}'? allowed: {choices}": "{value} 未知；是否想写“{near}”？可用：{choices}",
    "{where}.policy: {policy!r} is unknown;{near} allowed: {policies}": (
        "{where}.policy：{policy!r} 未知；{near}可用：{policies}"
    ),
    " did you mean '{near}'?": "是否想写“{near}”？",
    "--slo {name}: is unknown; {hint}allowed: {mlperf}": "--slo {name}：未知；{hint}可用：{mlperf}",
    "did you mean {near}? ": "是否想写 {near}？",
    "{value} cannot be used; allowed: {takes}": "{value} 不能使用；可用：{takes}",
    "{value} is too small; allowed: {takes}": "{value} 太小；可用：{takes}",
    "{value} is too large; allowed: {takes}": "{value} 太大；可用：{takes}",
    "{value} is too large; allowed: whole numbers up to {most}": "{value} 太大；可用：不超过 {most} 的整数",
    "{value:g} is too large; allowed: numbers up to {most:g}": "{value:g} 太大；可用：不超过 {most:g} 的数",
    "{value:g} is too small; allowed: numbers from {least:g}": "{value:g} 太小；可用：不小于 {least:g} 的数",
    "{value} is too long; allowed: {takes}": "{value} 太长；可用：{takes}",
    "{value} is not finite; allowed: {takes}": "{value} 不是有限数；可用：{takes}",
    "{where}: {value} is not finite; allowed: finite numbers": "{where}：{value} 不是有限数；可用：有限数",
    "{value} is not a whole number; allowed: {takes}": "{value} 不是整数；可用：{takes}",
    "{value} is not a number; allowed: {takes}": "{value} 不是数字；可用：{takes}",
    "{value} is not true or false; allowed: {takes}": "{value} 不是 true 或 false；可用：{takes}",
    "{value} is not text; allowed: {takes}": "{value} 不是文本；可用：{takes}",
    "{value} is not a section; allowed: {takes}": "{value} 不是一节；可用：{takes}",
    "{value} is not a list; allowed: {takes}": "{value} 不是列表；可用：{takes}",
    "{value} does not fit; allowed: {takes}": "{value} 不符合；可用：{takes}",
    "is empty; allowed: {takes}": "为空；可用：{takes}",
    "is missing; allowed: {takes}": "缺失；可用：{takes}",
    "high {high:g} is below low; allowed: numbers from {low:g}": "high {high:g} 小于 low；可用：不小于 {low:g} 的数",
    "max {max:g} is below min; allowed: numbers from {min:g}": "max {max:g} 小于 min；可用：不小于 {min:g} 的数",
    "time {time:g} is too many of tick_s; allowed: up to {most} ticks": (
        "time {time:g} 的 tick_s 太多；可用：不超过 {most} 个"
    ),
    "{weights} weights for {values} values; allowed: one each": "{values} 个值有 {weights} 个权重；可用：每个值一个",
    "end_s {end:g} is not after start_s; allowed: numbers above {start:g}": (
        "end_s {end:g} 不在 start_s 之后；可用：大于 {start:g} 的数"
    ),
    "rate {rate:g} beside a speedup; allowed: one of the two": "rate {rate:g} 与 speedup 同时给出；可用：其中之一",
    "shared_prefix_tokens {tokens} is above prompt_tokens; allowed: up to {longest:g}": (
        "shared_prefix_tokens {tokens} 大于 prompt_tokens；可用：不超过 {longest:g}"
    ),
    "all weights are zero; allowed: at least one above 0": "权重全为零；可用：至少一个大于 0",
    "{seconds:g} is too small; allowed: 0, or numbers from {least:g}": (
        "{seconds:g} 太小；可用：0，或不小于 {least:g} 的数"
    ),
    "workload.kind: 'rag' has no retrieval stage; allowed: with a section `retrieval: {{}}`": (
        "workload.kind：'rag' 没有检索环节；可用：带有 `retrieval: {{}}` 一节"
    ),
    # --- a file ---
    "{name}: is no deployment but a name for {key}; allowed: --set {set}, or the path of a YAML file": (
        "{name}：不是部署，而是 {key} 的取值；可用：--set {set}，或 YAML 文件的路径"
    ),
    "{where}: line {line}, column {column}": "{where}：第 {line} 行第 {column} 列",
    "{where}: not valid YAML ({problem}); allowed: `key: value` lines": (
        "{where}：不是合法的 YAML（{problem}）；可用：“键: 值”形式的行"
    ),
    "{where}: {key}: an alias contains itself; allowed: aliases of finished values": (
        "{where}：{key}：别名包含自身；可用：已完成的值的别名"
    ),
    "{where}: more than {most} values, aliases written out; allowed: up to {most}": (
        "{where}：超过 {most} 个值（别名已展开）；可用：不超过 {most}"
    ),
    "{where}: {count} characters; allowed: up to {most}": "{where}：{count} 个字符；可用：不超过 {most}",
    "{where}: the file is empty; allowed: YAML keys and values": "{where}：文件为空；可用：YAML 的键与值",
    "{where}: holds {what}, not keys; allowed: `key: value` lines": (
        "{where}：内容是 {what}，而不是键；可用：“键: 值”形式的行"
    ),
    "{where}: nested too deeply; allowed: sections in sections, a few levels": (
        "{where}：嵌套太深；可用：几层以内的嵌套"
    ),
    "{where}: a value that cannot be read ({error}); allowed: plain YAML scalars": (
        "{where}：无法读取的值（{error}）；可用：普通的 YAML 标量"
    ),
    "{where}: line {line}: a key that is no text; allowed: text keys": (
        "{where}：第 {line} 行：键不是文本；可用：文本键"
    ),
    "{where}: {key}: given twice (line {line}); allowed: each key once": (
        "{where}：{key}：重复给出（第 {line} 行）；可用：每个键一次"
    ),
    "{path}: no such file; allowed: the path of {wanted}": "{path}：没有这个文件；可用：{wanted}的路径",
    "{path}: cannot be read ({fault}); allowed: {wanted} that can be read": (
        "{path}：无法读取（{fault}）；可用：可读取的{wanted}"
    ),
    "{path}: not UTF-8 text; allowed: {wanted}": "{path}：不是 UTF-8 文本；可用：{wanted}",
    "{where}: is a table of requests, not a deployment; allowed: a YAML file, and `planner replay` for a trace": (
        "{where}：是请求的表格，不是部署；可用：YAML 文件；轨迹请用 `planner replay`"
    ),
    "{where}: is another stack's file; allowed: the YAML that `planner import` makes of it": (
        "{where}：是其他系统的文件；可用：由 `planner import` 转换成的 YAML"
    ),
    "{name}: is a folder; allowed: the path of a YAML file": "{name}：是文件夹；可用：YAML 文件的路径",
    "{name}: no such file: {fault}, or the path of a YAML file": ("{name}：没有这个文件：{fault}，或 YAML 文件的路径"),
    "--set {text}: not an assignment; allowed: --set key.inner=value": (
        "--set {text}：不是赋值；可用：--set key.inner=value"
    ),
    # --- a model, a GPU, an engine ---
    "{path}: config or source is missing; allowed: Hugging Face keys, and where they are from": (
        "{path}：缺少 config 或 source；可用：Hugging Face 的键及其来源"
    ),
    "{where}: {key}: {value} is too large; allowed: up to {most}": "{where}：{key}：{value} 太大；可用：不超过 {most}",
    "{where}: {count} layers; allowed: up to {most}": "{where}：{count} 层；可用：不超过 {most}",
    "{file}: not JSON that can be read ({fault}); allowed: a {kind}": (
        "{file}：无法读取的 JSON（{fault}）；可用：{kind}"
    ),
    "{file}: line {line}: not valid JSON ({fault}); allowed: a {kind}": (
        "{file}：第 {line} 行：不是合法的 JSON（{fault}）；可用：{kind}"
    ),
    "{file}: config is missing; allowed: Hugging Face keys": "{file}：缺少 config；可用：Hugging Face 的键",
    "{file}: holds no JSON object; allowed: a Hugging Face {kind}": (
        "{file}：内容不是 JSON 对象；可用：Hugging Face 的 {kind}"
    ),
    "a Hugging Face {file}": "Hugging Face 的 {file}",
    "model: {fault}": "model：{fault}",
    "{fault}, or a folder with a config.json": "{fault}，或含 config.json 的文件夹",
    "{fault}, or a folder with a config.json; a hub id once `{command}` has fetched its figures": (
        "{fault}，或含 config.json 的文件夹；先用 `{command}` 取得参数后，也可用 hub 上的名称"
    ),
    "{model} with engine.quantization: {bits}": "{model} 加 engine.quantization: {bits}",
    "the figures of {name} do not ship; allowed: {shape}, as its name says, or the id itself once `{command}` has "
    "fetched them": "未附带 {name} 的参数；可用：如其名称所示的 {shape}，或先用 `{command}` 取得参数后用该名称本身",
    "{where}: model_type: {kind!r} is not covered; allowed: {families}": (
        "{where}：model_type：不支持 {kind!r}；可用：{families}"
    ),
    "{where}: num_key_value_heads: {kv_heads} does not divide {heads} heads; allowed: a divisor": (
        "{where}：num_key_value_heads：{kv_heads} 不能整除 {heads} 个头；可用：其约数"
    ),
    "{where}: torch_dtype: {fault}": "{where}：torch_dtype：{fault}",
    "{where}: {key}: is missing; allowed: whole numbers from 1": "{where}：{key}：缺失；可用：不小于 1 的整数",
    "{where}: {key}: {value!r} is not a positive whole number; allowed: whole numbers from 1": (
        "{where}：{key}：{value!r} 不是正整数；可用：不小于 1 的整数"
    ),
    "{where}: {key}: {value!r} is not a whole number; allowed: whole numbers": (
        "{where}：{key}：{value!r} 不是整数；可用：整数"
    ),
    "{where}: {key}: {value!r} is not a section; allowed: a section of keys": (
        "{where}：{key}：{value!r} 不是一节；可用：含键的一节"
    ),
    "{where}: {key}: {value!r} is not a section; allowed: a section with quant_method": (
        "{where}：{key}：{value!r} 不是一节；可用：含 quant_method 的一节"
    ),
    "{where}: {key}: {value!r} is not covered; allowed: {allowed}": (
        "{where}：{key}：不支持 {value!r}；可用：{allowed}"
    ),
    "fp8_e4m3, int8 or fp4 beside the same input_tensors, int4 beside none": (
        "fp8_e4m3、int8 或 fp4，input_tensors 与之相同；int4 则无 input_tensors"
    ),
    "num_bits 8 of type float, or none": "num_bits 为 8 的 float，或不设",
    "{where}: holds no group; allowed: config_groups with num_bits": (
        "{where}：不含任何组；可用：带 num_bits 的 config_groups"
    ),
    "{where}: {key}: {method!r} is not covered; allowed: {methods}": (
        "{where}：{key}：不支持 {method!r}；可用：{methods}"
    ),
    "{where}: {key}: is no list of names; allowed: a list of modules": (
        "{where}：{key}：不是名称的列表；可用：模块的列表"
    ),
    "{where}: {key}: is missing; allowed: one value a layer": "{where}：{key}：缺失；可用：每层一个值",
    "{where}: {key}: is no list of {length} values; allowed: one value a layer": (
        "{where}：{key}：不是 {length} 个值的列表；可用：每层一个值"
    ),
    "two whole numbers from 1": "两个不小于 1 的整数",
    "8 beside 8, 4 beside 8 or 4 of the inputs": "输入为 8 时用 8，输入为 8 或 4 时用 4",
    "engine.quantization: {quantization!r} on {name}, whose weights are quantised already; allowed: leave it out": (
        "engine.quantization：{name} 的权重已量化，不能再设 {quantization!r}；可用：不设此键"
    ),
    "model: {model} keeps a state instead of KV in {states} of its {layers} layers, whose step time is not "
    "covered; allowed: models with attention in every layer, or `planner memory` for its sizes": (
        "model：{model} 的 {layers} 层中有 {states} 层保存状态而不是 KV，其步时尚不支持；可用：每层都有注意力的模型"
        "，或用 `planner memory` 查看大小"
    ),
    "{key}.enable_expert_parallel: {model} has no experts; allowed: with mixtures of experts": (
        "{key}.enable_expert_parallel：{model} 没有专家；可用：混合专家模型"
    ),
    "{key}.expert_imbalance: every GPU has a share of every expert; allowed: with enable_expert_parallel: true": (
        "{key}.expert_imbalance：每个 GPU 都有每个专家的一份；可用：与 enable_expert_parallel: true 一起"
    ),
    "pipeline parallelism is not modelled; allowed: tp": "流水线并行没有建模；可用：tp",
    "is `dp` of the pool, beside its tp; allowed: deployment.dp, deployment.prefill.dp, ...": (
        "就是工作池中 tp 旁边的 `dp`；可用：deployment.dp、deployment.prefill.dp 等"
    ),
    "is the worker's tp x dp where experts are whole; allowed: enable_expert_parallel: true in engine": (
        "在专家完整时就是工作进程的 tp x dp；可用：engine 中的 enable_expert_parallel: true"
    ),
    "deployment.router.policy: {policy} looks into caches, and vLLM alone chooses among its ranks; allowed "
    "live with dp: policies that count requests": (
        "deployment.router.policy：{policy} 要查看缓存，而 rank 只由 vLLM 选择；dp 实际运行时可用：按请求数选择的策略"
    ),
    "deployment: dp {dp} is not supported on the CPU; allowed: 1": "deployment：CPU 不支持 dp {dp}；可用：1",
    "profile {name} was measured on one rank; {ranks} in lockstep are an estimate": (
        "配置 {name} 是在一个 rank 上测得的；{ranks} 个同步的 rank 是估计"
    ),
    "{gpus} GPUs do not divide {model}'s expert width {width}": "{gpus} 个 GPU 不能整除 {model} 的专家宽度 {width}",
    "{key}.dp: optimizations.{name} is not modelled for ranks of one server; allowed: dp 1, or without it": (
        "{key}.dp：同一服务器的多个 rank 没有对 optimizations.{name} 建模；可用：dp 1，或不设它"
    ),
    "{key}.dp: profile {name} is of a worker as a whole, whatever its ranks; allowed: 1": (
        "{key}.dp：配置 {name} 描述的是整个工作进程，不论其 rank；可用：1"
    ),
    "{key}.dp: {ranks} ranks in lockstep; what that adds was measured with one model on two H200s": (
        "{key}.dp：{ranks} 个步调一致的 rank；其额外开销仅用一个模型在两块 H200 上实测过"
    ),
    "sources: no source for {missing}; allowed: one line of text each": (
        "sources：{missing} 没有来源；可用：每项一行文本"
    ),
    "{where}.tp: {model} does not fit at tp {tp}: {needed} of weights and working memory a GPU, "
    "{usable} usable on {gpu}; allowed: {remedy}": (
        "{where}.tp：{model} 在 TP {tp} 下放不下：每 GPU 的权重与工作显存为 {needed}，{gpu} 上可用 {usable}；"
        "可用：{remedy}"
    ),
    "GPUs: {gpus} is too few for {model} on {hardware}, whose smallest engine takes {enough}; "
    "allowed: {enough} or more (--gpus {enough})": (
        "GPU：{gpus} 个不够，{hardware} 上的 {model} 每个引擎至少要 {enough} 个；"
        "可用：{enough} 或更多（--gpus {enough}）"
    ),
    "tp {tp} or more": "tp 不小于 {tp}",
    "a smaller model, quantization or larger GPUs": "更小的模型、量化或更大的 GPU",
    "{key}.tp: {why}; allowed: {sizes}": "{key}.tp：{why}；可用：{sizes}",
    "{sizes}; {tp} with engine.enable_expert_parallel: true": (
        "{sizes}；{tp} 与 engine.enable_expert_parallel: true 一起"
    ),
    "{tp} leaves {part} of {model}'s {name} {width} to a GPU, no multiple of its quantised {what} of {size}": (
        "{tp} 使每个 GPU 得到 {model} 的{name} {width} 中的 {part}，不是其量化{what} {size} 的倍数"
    ),
    "{tp} does not divide {model}'s {heads} heads, {kv_heads} KV heads and intermediate size {width}": (
        "{tp} 不能整除 {model} 的 {heads} 个头、{kv_heads} 个 KV 头与中间层宽度 {width}"
    ),
    "intermediate size": "中间层宽度",
    "expert width": "专家宽度",
    "attention width": "注意力宽度",
    "K and V width": "K 与 V 的宽度",
    "groups": "组",
    "blocks": "块",
    "another checkpoint": "另一个检查点",
    "engine.block_size: {size} is no multiple of {kernel}, as vLLM's attention on {gpu} needs; allowed: {near}": (
        "engine.block_size：{size} 不是 {kernel} 的倍数，而 vLLM 在 {gpu} 上的注意力要求如此；可用：{near}"
    ),
    "engine.max_num_batched_tokens: {budget} is below max_num_seqs {seqs}; allowed: at least max_num_seqs": (
        "engine.max_num_batched_tokens：{budget} 小于 max_num_seqs {seqs}；可用：不小于 max_num_seqs"
    ),
    "engine.{key}: {value} gives {total} KV blocks, one of them vLLM's own; allowed: 2 or more": (
        "engine.{key}：{value} 只得到 {total} 个 KV 块，其中一个归 vLLM；可用：2 个以上"
    ),
    "engine.max_model_len: {longest} is beyond {name}'s {most} positions; allowed: up to {most}": (
        "engine.max_model_len：{longest} 超过 {name} 的 {most} 个位置；可用：不超过 {most}"
    ),
    "engine.max_model_len: one request of {longest} tokens does not fit the KV cache of {room} tokens "
    "({usable} blocks of {block_size}, {where}); allowed: up to {room}, or more KV memory": (
        "engine.max_model_len：一个 {longest} token 的请求放不进 {room} token 的 KV 缓存"
        "（{usable} 个 {block_size} 的块，{where}）；可用：不超过 {room}，或更多 KV 显存"
    ),
    "engine.max_num_batched_tokens: {budget} is below max_model_len {longest} without chunked prefill; "
    "allowed: at least {longest}, or enable_chunked_prefill: true": (
        "engine.max_num_batched_tokens：未启用分块预填充时，{budget} 小于 max_model_len {longest}；"
        "可用：不小于 {longest}，或 enable_chunked_prefill: true"
    ),
    # --- the deployment ---
    "workload.prompt_tokens: {prompt} prompt and {output} output tokens exceed the {role} pool's max_model_len {most}; "
    "allowed: together up to {most}": (
        "workload.prompt_tokens：{prompt} 个提示词 token 加 {output} 个输出 token 超过 {role} 池的 max_model_len {most}"
        "；可用：合计不超过 {most}"
    ),
    "{key}.tp: {tp} exceeds the {most} GPUs of a node; allowed: up to {most}": (
        "{key}.tp：{tp} 超过每个节点的 {most} 个 GPU；可用：不超过 {most}"
    ),
    "{key}.tp: {tp} exceeds gpus_per_node {gpus_per_node} (a worker stays on one node); "
    "allowed: up to {gpus_per_node}": (
        "{key}.tp：{tp} 超过 gpus_per_node {gpus_per_node}（一个实例只在一个节点上）；可用：不超过 {gpus_per_node}"
    ),
    "cluster.nodes[{index}].name: {name!r} is given twice; allowed: one name a node": (
        "cluster.nodes[{index}].name：{name!r} 重复；可用：每个节点一个名称"
    ),
    "cluster.nodes: {left} of {replicas} {role} workers have no place: each needs {tp} free {name} GPUs on one node, "
    "free are {there}; allowed: {more} more GPUs, or fewer replicas": (
        "cluster.nodes：{replicas} 个 {role} 实例中有 {left} 个没有位置：每个需要同一节点上 {tp} 个空闲的 {name} GPU，"
        "空闲的有 {there}；可用：再加 {more} 个 GPU，或更少的 replicas"
    ),
    "{count} on {node}": "{node} 上 {count} 个",
    "no {gpu} node": "没有 {gpu} 节点",
    "deployment.decode.engine: its KV cache type differs from the prefill pool's; "
    "allowed: the same dtype and kv_cache_dtype in both": (
        "deployment.decode.engine：其 KV 缓存类型与预填充池不同；可用：两者相同的 dtype 与 kv_cache_dtype"
    ),
    "optimizations.decode.key_only: {name} keeps one latent vector, not keys and values; "
    "allowed: models with a KV cache of both": (
        "optimizations.decode.key_only：{name} 只保存一个潜在向量，没有键与值；可用：KV 缓存含两者的模型"
    ),
    "optimizations.prefill.sparse_attention: the profile has no law; allowed: fitted profiles": (
        "optimizations.prefill.sparse_attention：性能档案没有规律；可用：拟合的性能档案"
    ),
    "optimizations.separation.role_switch: a worker chosen at arrival could leave before its prompt comes; "
    "allowed: with router.decode_choice: after_prefill": (
        "optimizations.separation.role_switch：到达时选定的实例可能在提示词到来之前离开；"
        "可用：与 router.decode_choice: after_prefill 一起"
    ),
    "optimizations.separation.role_switch: a decode worker has no retrieval stage to bring along; "
    "allowed: with retrieval.at: frontend": (
        "optimizations.separation.role_switch：解码实例没有可带走的检索环节；可用：与 retrieval.at: frontend 一起"
    ),
    # --- runs ---
    "{folder}: damaged ({fault}); allowed: a folder as a run wrote it": (
        "{folder}：已损坏（{fault}）；可用：运行所写的文件夹"
    ),
    "manifest.json: {fault}": "manifest.json：{fault}",
    "manifest.json: key 'spec' is missing; allowed: a manifest written by planner": (
        "manifest.json：缺少键 'spec'；可用：planner 所写的 manifest"
    ),
    "{folder}: not a run folder that can be read ({detail}); allowed: another one": (
        "{folder}：不是可读取的运行文件夹（{detail}）；可用：另一个"
    ),
    "{folder}: the run was cut off before a request had ended; allowed: a run with requests": (
        "{folder}：运行在任何请求结束之前就中断了；可用：有请求的运行"
    ),
    "{path}: damaged ({what}); allowed: a file as a run wrote it": "{path}：已损坏（{what}）；可用：运行所写的文件",
    "cut off: {count} requests had ended; those in flight, engine steps and samples are not here": (
        "运行中断：已结束 {count} 个请求；未完成的请求、引擎步与采样不在其中"
    ),
    "not JSON": ("不是 JSON"),
    "not CSV": ("不是 CSV"),
    "{path}: {kind} ({error}); allowed: {allowed}": ("{path}：{kind}（{error}）；可用：{allowed}"),
    "{path}: no benchmarks; allowed: {title}": ("{path}：没有 benchmarks；可用：{title}"),
    "{path}: {count} benchmarks; allowed: one of them, {path}#0 to {path}#{last}": (
        "{path}：有 {count} 个 benchmark；可用：其中之一，{path}#0 至 {path}#{last}"
    ),
    "{path}#{number}: no such benchmark; allowed: #0 to #{last}": (
        "{path}#{number}：没有这个 benchmark；可用：#0 至 #{last}"
    ),
    "{path}: {number!r} is no number; allowed: FILE#0, FILE#1, ...": (
        "{path}：{number!r} 不是数字；可用：FILE#0、FILE#1……"
    ),
    "{file}: not UTF-8 text; allowed: {allowed}": ("{file}：不是 UTF-8 文本；可用：{allowed}"),
    "{file}: {fault}; allowed: {allowed}": ("{file}：{fault}；可用：{allowed}"),
    "{file}: totals alone, no requests; allowed: a result of vllm bench serve with --save-detailed": (
        "{file}：只有总量，没有各请求；可用：以 --save-detailed 运行 vllm bench serve 的结果"
    ),
    "{path}: the file holds one result; allowed: {file}": "{path}：该文件只有一个结果；可用：{file}",
    "{file}: no known result; allowed: {allowed}": ("{file}：不是已知的结果；可用：{allowed}"),
    "{file}: not as {title} writes it ({error}); allowed: {allowed}": (
        "{file}：不是 {title} 所写的样子（{error}）；可用：{allowed}"
    ),
    "{file}: no request was answered; allowed: a result with finished requests": (
        "{file}：没有请求得到回答；可用：有已完成请求的结果"
    ),
    "{key}: {value!r} is no number; allowed: numbers": ("{key}：{value!r} 不是数字；可用：数字"),
    "no {keys}; allowed: a result with details of each request": ("没有 {keys}；可用：含每个请求细节的结果"),
    "{one} or {two}": ("{one} 或 {two}"),
    "{key}: {value:g} is no number of tokens; allowed: whole numbers from 0": (
        "{key}：{value:g} 不是 token 数；可用：不小于 0 的整数"
    ),
    "no list {key}; allowed: a result saved with --save-result --save-detailed": (
        "没有列表 {key}；可用：用 --save-result --save-detailed 保存的结果"
    ),
    "{counts}; allowed: equally many": ("{counts}；可用：个数相同"),
    "a benchmark without requests; allowed: GuideLLM's JSON with its requests": (
        "没有请求的 benchmark；可用：GuideLLM 含请求的 JSON"
    ),
    "a record without metadata; allowed: AIPerf's profile_export.jsonl": (
        "没有 metadata 的记录；可用：AIPerf 的 profile_export.jsonl"
    ),
    "an entry that is no request; allowed: per_request_lifecycle_metrics.json": (
        "有一项不是请求；可用：per_request_lifecycle_metrics.json"
    ),
    "no request_end_time or request_latency; allowed: GuideLLM's JSON with its requests": (
        "没有 request_end_time 或 request_latency；可用：GuideLLM 含请求的 JSON"
    ),
    # --- pages ---
    "{where}: {value:.7g} is too large; allowed: up to {most} in the browser": (
        "{where}：{value:.7g} 太大；可用：在浏览器中不超过 {most}"
    ),
    "GPUs of the deployment": "部署的 GPU 数",
    "seconds of the run": "运行的秒数",
    "trace: {name}; allowed: {known}, or an uploaded file": "轨迹：{name}；可用：{known}，或上传的文件",
    "allowed: {allowed}": "可用：{allowed}",
    "allowed: a number from {low:g} to {high:g}": "可用：{low:g} 到 {high:g} 之间的数",
    "sweep: {count} values; allowed: up to {most}": "扫描：{count} 个取值；可用：不超过 {most}",
    "sweep: no key or no values; allowed: a key as in workload.rate and values with commas": (
        "扫描：没有键或没有取值；可用：workload.rate 这样的键和以逗号分隔的取值"
    ),
    "{name}: needs {gpus} GPUs, {found} are here; allowed: fewer": (
        "{name}：需要 {gpus} 个 GPU，这里有 {found} 个；可用：更少"
    ),
    "{url}: not an address; allowed: http://HOST:PORT or https://...": (
        "{url}：不是地址；可用：http://HOST:PORT 或 https://..."
    ),
    "another check has just been started": "刚刚已启动另一个检查",
    "another check is running; stop it first, or wait until it has ended": (
        "另一个检查正在运行；请先停止它，或等它结束"
    ),
    "{fault} ({count} more unknown)": "{fault}（另有 {count} 个未知）",
    "a worker process was killed, perhaps for want of memory; try again": "工作进程被终止，可能内存不足；请重试",
}
