"""The Chinese of faults and of warnings: template for template. Keys, names and values stay as they are."""

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
    "a YAML file": "YAML 文件",
    "the path of a trace file": "轨迹文件的路径",
    "a whole number, at least 1": "不小于 1 的整数",
    "a whole number, zero or more": "不小于 0 的整数",
    "seconds, zero or more": "不小于 0 的秒数",
    "milliseconds, zero or more": "不小于 0 的毫秒数",
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
    "{path}: {fault}": "{path}：{fault}",
    "{path}: {error}": "{path}：{error}",
    "{key}={value}: {fault}": "{key}={value}：{fault}",
    "{kind}: {fault}, or a path": "{kind}：{fault}，或一个路径",
    "unknown key; allowed: {choices}": "未知的键；可用：{choices}",
    "unknown key; did you mean '{near}'? allowed: {choices}": "未知的键；是否想写“{near}”？可用：{choices}",
    "{value} is unknown; allowed: {choices}": "{value} 未知；可用：{choices}",
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
    "all weights are zero; allowed: at least one above 0": "权重全为零；可用：至少一个大于 0",
    "{seconds:g} is too small; allowed: 0, or numbers from {least:g}": (
        "{seconds:g} 太小；可用：0，或不小于 {least:g} 的数"
    ),
    "workload.kind: 'rag' has no retrieval stage; allowed: with a section `retrieval: {{}}`": (
        "workload.kind：'rag' 没有检索环节；可用：带有 `retrieval: {{}}` 一节"
    ),
    # --- a file ---
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
    "{name}: no such file: {fault}, or the path of a YAML file": ("{name}：没有这个文件：{fault}，或 YAML 文件的路径"),
    "--set {text}: not an assignment; allowed: --set key.inner=value": (
        "--set {text}：不是赋值；可用：--set key.inner=value"
    ),
    # --- a model, a GPU, an engine ---
    "{path}: config or source is missing; allowed: Hugging Face keys, and where they are from": (
        "{path}：缺少 config 或 source；可用：Hugging Face 的键及其来源"
    ),
    "{file}: line {line}: not valid JSON ({fault}); allowed: a {kind}": (
        "{file}：第 {line} 行：不是合法的 JSON（{fault}）；可用：{kind}"
    ),
    "{file}: holds no JSON object; allowed: a Hugging Face {kind}": (
        "{file}：内容不是 JSON 对象；可用：Hugging Face 的 {kind}"
    ),
    "a Hugging Face {file}": "Hugging Face 的 {file}",
    "model: {fault}, or a folder with a config.json{remedy}": "model：{fault}，或含 config.json 的文件夹{remedy}",
    "; a hub id once `{command}` has fetched its figures": "；先用 `{command}` 取得参数后，也可用 hub 上的名称",
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
    "{where}: {key}: {value!r} is not covered; allowed: {methods}": (
        "{where}：{key}：不支持 {value!r}；可用：{methods}"
    ),
    "{where}: holds {what}; allowed: config_groups of one type, with num_bits": (
        "{where}：含有{what}；可用：同一类型且带 num_bits 的 config_groups"
    ),
    "groups of different types": "类型不同的组",
    "no group": "零个组",
    "num_bits 8 of type float, or none": "num_bits 为 8 的 float，或不设",
    "FP8, or none": "FP8，或不设",
    "two whole numbers from 1": "两个不小于 1 的整数",
    "8 beside 8, 4 beside 8 or 4 of the inputs": "输入为 8 时用 8，输入为 8 或 4 时用 4",
    "engine.quantization: {quantization!r} on {name}, whose weights are quantised already; allowed: leave it out": (
        "engine.quantization：{name} 的权重已量化，不能再设 {quantization!r}；可用：不设此键"
    ),
    "model: {name} is a mixture of experts, whose step times the roofline does not cover; "
    "allowed: a dense model, or a profile measured on it": (
        "model：{name} 是混合专家模型，屋顶线模型不含其步时；可用：稠密模型，或在其上实测的性能档案"
    ),
    "model: {name} is a mixture of {experts} experts, whose step time is not covered; allowed: dense models": (
        "model：{name} 是 {experts} 个专家的混合模型，尚不支持；可用：稠密模型"
    ),
    "model: {name} cannot be split over up to {most} GPUs; allowed: more GPUs": (
        "model：{name} 无法分布到最多 {most} 个 GPU 上；可用：更多 GPU"
    ),
    "sources: no source for {missing}; allowed: one line of text each": (
        "sources：{missing} 没有来源；可用：每项一行文本"
    ),
    "{where}.tp: {model} does not fit at tp {tp}: {needed} of weights and working memory a GPU, "
    "{usable} usable on {gpu}; allowed: {remedy}": (
        "{where}.tp：{model} 在 TP {tp} 下放不下：每 GPU 的权重与工作显存为 {needed}，{gpu} 上可用 {usable}；"
        "可用：{remedy}"
    ),
    "tp {tp} or more": "tp 不小于 {tp}",
    "a smaller model, quantization or larger GPUs": "更小的模型、量化或更大的 GPU",
    "{key}.tp: {why}; allowed: {sizes}": "{key}.tp：{why}；可用：{sizes}",
    "{tp} leaves {part} of {model}'s {name} {width} to a GPU, no multiple of its quantised {what} of {size}": (
        "{tp} 使每个 GPU 得到 {model} 的{name} {width} 中的 {part}，不是其量化{what} {size} 的倍数"
    ),
    "{tp} does not divide {model}'s {heads} heads, {kv_heads} KV heads and intermediate size {width}": (
        "{tp} 不能整除 {model} 的 {heads} 个头、{kv_heads} 个 KV 头与中间层宽度 {width}"
    ),
    "intermediate size": "中间层宽度",
    "attention width": "注意力宽度",
    "K and V width": "K 与 V 的宽度",
    "groups": "组",
    "blocks": "块",
    "another checkpoint": "另一个检查点",
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
    # --- traffic ---
    "workload.path: is empty; allowed: the path of a trace file": "workload.path：为空；可用：轨迹文件的路径",
    "workload.path: {path}: no such file; allowed: the path of a trace file": (
        "workload.path：{path}：没有这个文件；可用：轨迹文件的路径"
    ),
    "workload.format: {name!r} is unknown; must be auto or one of {formats}": (
        "workload.format：{name!r} 未知；须为 auto 或其中之一：{formats}"
    ),
    "workload.kind: {kind!r} has no request rate to vary; must be one that has": (
        "workload.kind：{kind!r} 没有可改变的请求速率；须为有速率的类型"
    ),
    "workload.rate: {rate} requests/s; must be a positive number": "workload.rate：每秒 {rate} 个请求；须为正数",
    "workload.rate: {rate:g} is too small; allowed: rates at which the run ends": (
        "workload.rate：{rate:g} 太小；可用：能使运行结束的速率"
    ),
    "{where}: no whole number of at least 1 in [{low:g}, {high:g}]": (
        "{where}：[{low:g}, {high:g}] 中没有不小于 1 的整数"
    ),
    "retrieval: missing; workload kind 'rag' needs it (top_k, chunk_tokens, popularity)": (
        "retrieval：缺失；workload 的类型 'rag' 需要它（top_k、chunk_tokens、popularity）"
    ),
    "retrieval.top_k: {top_k} chunks of {documents} documents; at most one chunk each": (
        "retrieval.top_k：从 {documents} 个文档取 {top_k} 块；每个文档最多一块"
    ),
    "{path}: line {line}: unknown format; workload.format must be one of {formats}": (
        "{path}：第 {line} 行：无法识别的格式；workload.format 须为其中之一：{formats}"
    ),
    "{path}: the trace is empty; it must hold at least one request": "{path}：轨迹为空；至少须有一个请求",
    "{path}: only {count} of {all} requests have their own send time; a closed loop or sessions cannot be written as a "
    "trace": "{path}：{all} 个请求中只有 {count} 个有自己的发送时间；闭环或会话不能写成轨迹",
    "{path}: a line of more than {most} bytes; must be at most that": "{path}：一行超过 {most} 字节；不得更多",
    "{path}: more than {most} bytes of text; must be at most that": "{path}：文本超过 {most} 字节；不得更多",
    "{path}: damaged gzip file ({error})": "{path}：gzip 文件已损坏（{error}）",
    "{path}: {fault}; workload.path must be a readable trace file": (
        "{path}：{fault}；workload.path 须为可读取的轨迹文件"
    ),
    "{path}: byte {place} is not UTF-8; must be CSV or JSON text, plain or gzip": (
        "{path}：第 {place} 字节不是 UTF-8；须为 CSV 或 JSON 文本，可用 gzip 压缩"
    ),
    "{path}: line {number}: first request of session {session!r} needs a timestamp": (
        "{path}：第 {number} 行：会话 {session!r} 的首个请求须有 timestamp"
    ),
    "{key} is {shown}; must be {allowed}": "{key} 是 {shown}；须为 {allowed}",
    "{key} is {value}; must be at most {most:g}": "{key} 是 {value}；不得超过 {most:g}",
    "{key} is {value}; must be a whole number, at least 1": "{key} 是 {value}；须为不小于 1 的整数",
    "{key} is {value}; must be a number or text": "{key} 是 {value}；须为数字或文本",
    "hash_ids must be a list of whole numbers, zero or more, of 63 bits": "hash_ids 须为不小于 0 的 63 位整数的列表",
    "{count} hash_ids for {prompt_tokens} prompt tokens; with blocks of {block_tokens} tokens there must be {right} "
    "(other block sizes: workload.block_tokens)": (
        "{prompt_tokens} 个提示词 token 有 {count} 个 hash_ids；块为 {block_tokens} token 时须有 {right} 个"
        "（其他块大小：workload.block_tokens）"
    ),
    "a JSON {what}; must be one object a line": "是 JSON 的 {what}；须为每行一个对象",
    "not JSON ({error}); must be one object a line": "不是 JSON（{error}）；须为每行一个对象",
    "nested too deeply; must be one object a line": "嵌套太深；须为每行一个对象",
    "{counts}; must be equally many": "{counts}；个数须相同",
    "TIMESTAMP is {text}; must be a date and time such as 2023-11-16 18:15:46.68": (
        "TIMESTAMP 是 {text}；须为日期和时间，如 2023-11-16 18:15:46.68"
    ),
    "no list {key!r}; must be the result of `vllm bench serve --save-result --save-detailed`": (
        "没有列表 {key!r}；须为 `vllm bench serve --save-result --save-detailed` 的结果"
    ),
    "line {number}: {error}": "第 {number} 行：{error}",
    "line {number}: not CSV ({error}); must be cells of at most {most} characters": (
        "第 {number} 行：不是 CSV（{error}）；每个单元格最多 {most} 个字符"
    ),
    "line {number}: no column {missing!r}; the header must have {columns}": (
        "第 {number} 行：缺少列 {missing!r}；表头须有 {columns}"
    ),
    "line {number}: {count} cells; must be {right} as in the header": (
        "第 {number} 行：{count} 个单元格；须为 {right} 个，与表头一致"
    ),
    "request {number}: {error}": "第 {number} 个请求：{error}",
    # --- runs ---
    "{folder}: damaged (manifest.json: {fault}); allowed: a folder as a run wrote it": (
        "{folder}：已损坏（manifest.json：{fault}）；可用：运行所写的文件夹"
    ),
    "no section 'spec'": "没有 'spec' 一节",
    "spec.{key} is not a section": "spec.{key} 不是一节",
    "manifest.json: key 'spec' is missing; allowed: a manifest written by planner": (
        "manifest.json：缺少键 'spec'；可用：planner 所写的 manifest"
    ),
    "{folder}: not a run folder that can be read ({detail}); allowed: another one": (
        "{folder}：不是可读取的运行文件夹（{detail}）；可用：另一个"
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
    "a worker process was killed, perhaps for want of memory; try again": "工作进程被终止，可能内存不足；请重试",
    # --- warnings of profiles and deployments ---
    "profile {name}: {composed}": "性能档案 {name}：{composed}",
    "profile {name}: {what} reach {value}, measured only from {low} to {high}; this is an extrapolation": (
        "性能档案 {name}：{what}达到 {value}，只实测过 {low} 至 {high}；这是外推"
    ),
    "batch": "批大小",
    "context tokens of a sequence": "一条序列的上下文 token",
    "prompt tokens of a step": "一步的提示词 token",
    "profile {name} is for {what} {mine}, used for {yours}; times are not to be trusted": (
        "性能档案 {name} 的{what}是 {mine}，却用于 {yours}；时间不可信"
    ),
    "profile {name} is for {theirs}, used for {ours}; times are not to be trusted": (
        "性能档案 {name} 用于 {theirs}，却用在 {ours}；时间不可信"
    ),
    "model": "模型",
    "hardware": "硬件",
    "tp": "TP",
    "profile {name} was measured on vLLM {mine}, and {here} is installed here; times may differ": (
        "性能档案 {name} 在 vLLM {mine} 上实测，而本机安装的是 {here}；时间可能不同"
    ),
    "profile {name} was measured on vLLM {mine}, the run on {served}; times may differ": (
        "性能档案 {name} 在 vLLM {mine} 上实测，此次运行用的是 {served}；时间可能不同"
    ),
    "profile {name} was measured on {gpu}, the run on {other}; times are not to be trusted": (
        "性能档案 {name} 在 {gpu} 上实测，此次运行在 {other} 上；时间不可信"
    ),
    "profile {name} was measured with CUDA graphs; eager steps are an estimate": (
        "性能档案 {name} 实测时使用 CUDA graph；不用时的步时是估计"
    ),
    "profile {name} was measured without CUDA graphs; with them steps may be shorter": (
        "性能档案 {name} 实测时未用 CUDA graph；使用时步时可能更短"
    ),
    "profile {name} was measured at TP {measured}; TP {tp} is scaled from it by the roofline": (
        "性能档案 {name} 在 TP {measured} 下实测；TP {tp} 由屋顶线模型换算"
    ),
    "{model}: attention windows are not modelled; KV and attention are counted in full": (
        "{model}：未模拟注意力窗口；KV 与注意力按全长计"
    ),
    "workers share one host's CPU, and profile {name} does not say how they slow each other: times are those of a "
    "worker alone": "多个实例共用一台主机的 CPU，而性能档案 {name} 没有说明它们互相拖慢多少：时间按单个实例计",
    "optimizations.{name} changes what the model answers": "optimizations.{name} 会改变模型的回答",
    "optimizations.{name}: nothing to do in an aggregated deployment": "optimizations.{name}：在聚合部署中不起作用",
    "link.inter_node: not given, yet KV crosses nodes; a nominal link is assumed between them": (
        "link.inter_node：未给出，但 KV 要跨节点；按标称链路假定"
    ),
    # --- warnings of a measurement ---
    "the client was late: p99 of its schedule lag is {lag:.2f} s": "客户端发送滞后：p99 为 {lag:.2f} 秒",
    "prompt or output lengths differ from the plan (see tokens in the manifest)": (
        "提示词或输出长度与计划不同（见 manifest 中的 tokens）"
    ),
    "{name} ended during the run: {why}": "{name} 在运行中结束：{why}",
    "{name} did not answer at the end: its counters are missing": "{name} 在结束时没有应答：缺少其计数",
    "{name}: {lines} lines of its step trace are broken": "{name}：步记录中有 {lines} 行已损坏",
    "endpoints of others: engine steps, queues and transfers are not visible and stay null": (
        "他人的服务器：引擎步、队列与传输不可见，留空"
    ),
    "the spec says {gpu}, but {found} serves here: a prediction is for other hardware": (
        "文件中是 {gpu}，而这里是 {found}：预测针对的是其他硬件"
    ),
    "engine steps are not recorded: vLLM {version} is not one of {low} to {high}, whose scheduler interface is known": (
        "没有记录引擎步：vLLM {version} 不在已知其调度器接口的 {low} 至 {high} 之内"
    ),
}
