"""The Chinese of faults of traffic and its traces: template for template. Keys, names and values stay as they are."""

from __future__ import annotations

TRAFFIC: dict[str, str] = {
    "workload.path: is empty; allowed: the path of a trace file": "workload.path：为空；可用：轨迹文件的路径",
    "workload.path: {path}: no such file; allowed: the path of a trace file": (
        "workload.path：{path}：没有这个文件；可用：轨迹文件的路径"
    ),
    "workload.path: a path with a null byte; must be a readable trace file": (
        "workload.path：路径含空字节；须为可读取的轨迹文件"
    ),
    "workload.format: {name} is unknown; must be auto or one of {formats}": (
        "workload.format：{name} 未知；须为 auto 或其中之一：{formats}"
    ),
    "workload.start_s: {path} has no send times; allowed: without start_s and end_s": (
        "workload.start_s：{path} 没有发送时间；可用：不设 start_s 与 end_s"
    ),
    "workload.rate: missing; {path} has no send times; allowed: requests per second": (
        "workload.rate：缺失；{path} 没有发送时间；可用：每秒请求数"
    ),
    "workload.rate: all requests of {path} come at once; allowed: without rate, or another trace": (
        "workload.rate：{path} 的请求全部同时到达；可用：不设 rate，或另一个轨迹"
    ),
    "workload.turns: {total} turns in {count} sessions; allowed: {most} in all, and at most {history} when every "
    "turn is counted as often as it is repeated": (
        "workload.turns：{count} 个会话共 {total} 轮；可用：总共 {most} 轮，每轮按其重复次数计时不超过 {history}"
    ),
    "workload.kind: {kind!r} has no request rate to vary; allowed: {kinds}": (
        "workload.kind：{kind!r} 没有可改变的请求速率；可用：{kinds}"
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
    " with the columns {names}": "（列：{names}）",
    "{path}: line {line}: unknown format{columns}; workload.format must be one of {formats} (CSV or JSON lines with a "
    "time, prompt_tokens and output_tokens)": (
        "{path}：第 {line} 行：无法识别的格式{columns}；workload.format 须为其中之一：{formats}（含时间、prompt_tokens "
        "和 output_tokens 的 CSV 或 JSON 行）"
    ),
    "{path}: the trace is empty; it must hold at least one request": "{path}：轨迹为空；至少须有一个请求",
    "{path}: only {count} of {all} requests have their own send time; a closed loop or sessions cannot be written as a "
    "trace": "{path}：{all} 个请求中只有 {count} 个有自己的发送时间；闭环或会话不能写成轨迹",
    "{path}: a line of more than {most} bytes; must be at most that": "{path}：一行超过 {most} 字节；不得更多",
    "{path}: more than {most} bytes in one value; must be at most that": "{path}：一个值超过 {most} 字节；不得更多",
    "{path}: unpacks to more than {most} times its size; must be at most that, or plain text": (
        "{path}：解压后超过其大小的 {most} 倍；不得更多，或改用纯文本"
    ),
    "{path}: more than {what}; must be at most that: choose with workload.requests, start_s and end_s, or sample": (
        "{path}：多于 {what}；不得更多：请用 workload.requests、start_s 与 end_s 或 sample 选取"
    ),
    "{count} requests": "{count} 个请求",
    "{count} hash ids": "{count} 个 hash id",
    "{path}: the trace is empty in what was chosen of it; it must hold at least one request": (
        "{path}：轨迹中所选的部分为空；至少须有一个请求"
    ),
    "{path}: {fault} ({count} such rows)": "{path}：{fault}（这样的行有 {count} 行）",
    "{path}: a folder that holds no trace; must be one of {formats}": (
        "{path}：文件夹中没有轨迹；须为其中之一：{formats}"
    ),
    "{path}: damaged gzip file ({error})": "{path}：gzip 文件已损坏（{error}）",
    "{path}: {fault}; workload.path must be a readable trace file": (
        "{path}：{fault}；workload.path 须为可读取的轨迹文件"
    ),
    "{path}: byte {place} is not UTF-8; must be CSV or JSON text, plain or gzip": (
        "{path}：第 {place} 字节不是 UTF-8；须为 CSV 或 JSON 文本，可用 gzip 压缩"
    ),
    "{key} is {shown}; must be {allowed}": "{key} 是 {shown}；须为 {allowed}",
    "{key} is {value}; must be at most {most:g}": "{key} 是 {value}；不得超过 {most:g}",
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
    "{key} is {text}; must be a date and time such as 2023-11-16 18:15:46.68": (
        "{key} 是 {text}；须为日期和时间，如 2023-11-16 18:15:46.68"
    ),
    "no columns of a time, prompt tokens and output tokens; must have all three": (
        "没有时间、提示词词元数和输出词元数这三列；三列都须有"
    ),
    "{key}: rows that are sums of many requests; must be a row a request": (
        "{key}：每行是许多请求之和；须为每个请求一行"
    ),
    "{key} is missing; must be in every row": "缺少 {key}；每一行都须有",
    "no list {key!r}; must be the result of `vllm bench serve --save-result --save-detailed`": (
        "没有列表 {key!r}；须为 `vllm bench serve --save-result --save-detailed` 的结果"
    ),
    "line {line}: {error}": "第 {line} 行：{error}",
    "line {line}: no column {missing!r}; the header must have {columns}": (
        "第 {line} 行：缺少列 {missing!r}；表头须有 {columns}"
    ),
    "line {line}: first request of session {session!r} needs a timestamp": (
        "第 {line} 行：会话 {session!r} 的首个请求须有 timestamp"
    ),
    "not CSV ({error}); must be cells of at most {most} characters": (
        "不是 CSV（{error}）；每个单元格最多 {most} 个字符"
    ),
    "{count} cells; must be {right} as in the header": "{count} 个单元格；须为 {right} 个，与表头一致",
    "{count} cells; must be {right}: {names}": "{count} 个单元格；须为 {right} 个：{names}",
    "{count} hash_ids; must be at most {most}": "{count} 个 hash_ids；不得超过 {most} 个",
    "{key} is {value}; must be an object": "{key} 是 {value}；须为对象",
    "{value}; must be an object": "{value}；须为对象",
    "a JSON {what}; must be one object": "是 JSON 的 {what}；须为一个对象",
    "not JSON ({error}); must be one object": "不是 JSON（{error}）；须为一个对象",
    "not JSON ({error}); must be one JSON value": "不是 JSON（{error}）；须为一个 JSON 值",
    "nested too deeply; must be one object": "嵌套太深；须为一个对象",
    "no column {missing!r}; must be the requests.parquet of a run": "缺少列 {missing!r}；须为运行的 requests.parquet",
    "damaged ({error}); must be the table of a run": "已损坏（{error}）；须为运行的表",
    "request {index}: {error}": "第 {index} 个请求：{error}",
    "session {index}: {error}": "第 {index} 个会话：{error}",
    "session {index}: requests is no list; must be a list of requests": (
        "第 {index} 个会话：requests 不是列表；须为请求的列表"
    ),
    "requests of a sub-agent are no list; must be a list": "子代理的 requests 不是列表；须为列表",
    "conversation {index}: no list 'conversations'; must be one of turns": (
        "第 {index} 个对话：没有列表 'conversations'；须为各轮的列表"
    ),
    "conversation {index}: a turn without text; must have 'from' and 'value'": (
        "第 {index} 个对话：有一轮没有文本；须有 'from' 与 'value'"
    ),
    "not named ...-trace.csv; must lie beside its ...-dataset.json": (
        "文件名不是 ...-trace.csv；须与其 ...-dataset.json 放在一起"
    ),
    "{file}: not a dataset; must be {{start: {{input_tokens, output_tokens}}}}": (
        "{file}：不是数据集；须为 {{start: {{input_tokens, output_tokens}}}}"
    ),
    "law is {law!r}; must be Gamma, Weibull or Poisson": "分布是 {law!r}；须为 Gamma、Weibull 或 Poisson",
    "start is {start:g}; must be after the line before": "start 是 {start:g}；须在上一行之后",
    "{count} of {all} rows of the trace were left out ({faults}).": (
        "轨迹的 {all} 行中有 {count} 行未采用（{faults}）。"
    ),
    "{count} more": "另有 {count} 行",
    "{count} requests that had failed, or were to warm up, when they were recorded were left out.": (
        "记录时已失败或用于预热的 {count} 个请求未采用。"
    ),
    "Nothing is sent for {pause:.0f} of the trace's {span:.0f} hours: are its dates right? workload.start_s and "
    "end_s choose a part.": (
        "轨迹的 {span:.0f} 小时中有 {pause:.0f} 小时没有请求：日期是否正确？用 workload.start_s 和 end_s 选取其中一段。"
    ),
    "The columns were told by their names: times are seconds where those name no other unit.": (
        "各列由列名判定：列名未注明单位时，时间以秒计。"
    ),
    "The trace holds text: lengths are estimated at a token for every 4 characters.": (
        "轨迹中是文本：长度按每 4 个字符 1 个 token 估计。"
    ),
    "The trace's hash_ids stand for blocks of {size} tokens.": "轨迹的 hash_ids 表示 {size} token 的块。",
    "The trace's send times lie on a grid of {grid:g} s; requests were spread evenly within it "
    "(workload.dequantise=false sends them in bursts).": (
        "轨迹的发送时间落在 {grid:g} 秒的网格上；请求已在其中均匀散开（workload.dequantise=false 则成批发送）。"
    ),
    "parameters: {name!r} is none of the law's; allowed: {names}": "parameters：{name!r} 不是定律的参数；可用：{names}",
    "covariance: is not square; allowed: {count} rows of {count} numbers, as parameters": (
        "covariance：不是方阵；可用：{count} 行，每行 {count} 个数，与 parameters 一致"
    ),
    "{path}: not CSV ({error}); allowed: cells of at most {most} characters": (
        "{path}：不是 CSV（{error}）；可用：每格不超过 {most} 个字符"
    ),
}
