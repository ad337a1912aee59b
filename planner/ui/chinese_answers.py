"""The Chinese of answers, explanations, comparisons and metrics: template for template."""

from __future__ import annotations

from planner.ui.chinese_watching import WATCHING

ANSWERS: dict[str, str] = {
    **WATCHING,
    # --- where numbers are from ---
    "[{origin}]": "[{origin}]",
    "{sentence} {provenance}": "{sentence}{provenance}",
    "measured": "实测",
    "mocked: routing and queueing are measured, step times are not": "模拟引擎：路由与排队为实测，步时不是",
    "calibrated: {profiles}": "已校准：{profiles}",
    "roofline: not measured, and no public rows are comparable": "屋顶线模型：未实测，也没有可比的公开数据",
    "roofline: not measured on your GPU; on {rows} public rows of {model} on {gpus} TPOT was off by {mean:.0f} % "
    "(90 %: {p90:.0f} %; its rates were fitted to them)": "屋顶线模型：未在你的 GPU 上实测；"
    "在 {gpus} 上 {model} 的 {rows} 条公开数据上，"
    "TPOT 误差为 {mean:.0f} %（90 %：{p90:.0f} %；其速率即拟合自这些数据）",
    "roofline: not measured on your GPU; on {rows} public rows of configurations that no fit had seen TPOT was "
    "off by {tpot:.0f} % (90 %: {tpot_p90:.0f} %), TTFT by {ttft:.0f} % (90 %: {ttft_p90:.0f} %)": "屋顶线模型："
    "未在你的 GPU 上实测；在拟合未见过的配置的 {rows} 条公开数据上，"
    "TPOT 误差为 {tpot:.0f} %（90 %：{tpot_p90:.0f} %），TTFT 误差为 {ttft:.0f} %（90 %：{ttft_p90:.0f} %）",
    "no TTFT or TPOT was measured": "没有实测 TTFT 或 TPOT",
    "no request can run there": "没有请求能在那里运行",
    "most requests wait for a place, and the row does not say how many there are": (
        "多数请求在排队，而该行没有给出并发上限"
    ),
    "rows": "数据行",
    "composed: {profiles}": "由算子表合成：{profiles}",
    "black box: {what}": "黑盒：{what}",
    "{rate:.0f} prompt tokens/s a worker and TPOT {base:.3g} + {more:.3g} ms a request": (
        "每个 worker 每秒 {rate:.0f} 个提示词元，TPOT 为 {base:.3g} 毫秒，每个请求再加 {more:.3g} 毫秒"
    ),
    "{law}, from {count} measured points": "{law}，由 {count} 个测量点得出",
    "its workers held {tokens} tokens, more than the memory gives under vLLM's rules": (
        "其 worker 保存过 {tokens} 个词元，多于按 vLLM 规则显存所能容纳的"
    ),
    "not calibrated: {profiles}, scaled by the roofline from what was measured": (
        "未校准：{profiles}，由实测值按屋顶线模型换算"
    ),
    "not calibrated: {profiles}, measured otherwise": "未校准：{profiles}，测量条件不同",
    "simulated: fitted to {what}": "仿真：按 {what} 拟合",
    # --- a run ---
    "The deployment behind {name}": ("{name} 所测的部署"),
    "1 aggregated worker": "1 个聚合实例",
    "{count} aggregated workers": "{count} 个聚合实例",
    "{workers} on {gpus}x {gpu}": "{gpus}x {gpu} 上的 {workers}",
    "{metric} <= {limit:g} ms": "{metric} <= {limit:g} ms",
    "serve": "每秒服务",
    "serves": "每秒服务",
    "is": "收到",
    "are": "收到",
    "finish": "完成",
    "finishes": "完成",
    "{who} {finishes} none of {count:.0f} requests": "{count:.0f} 个请求，{who} 一个也没有{finishes}",
    "{none}.": "{none}。",
    "{none}; {limit}.": "{none}；{limit}。",
    "{fault} What was measured beside that: {served}.": "{fault}除此之外的实测：{served}。",
    "{who} {serve} {rate} req/s": "{who} {serve} {rate} 个请求",
    "Past saturation: {who} {are} offered {asked} req/s and {serve} {rate}; {limit}": (
        "已过饱和：{who} 每秒{are} {asked} 个请求，{serve} {rate} 个；{limit}"
    ),
    "Past saturation: sessions ask {who} for {asked} req/s and get {rate}; {limit}": (
        "已过饱和：会话每秒向 {who} 要求 {asked} 个请求，得到 {rate} 个；{limit}"
    ),
    "{rate} of the {asked} wanted": "{rate}（要求 {asked}）",
    "sessions wait for their answers and pile up": "会话等待回答，越积越多",
    "{saturated}, and {share} meet {targets}.": "{saturated}，{share} 满足 {targets}。",
    "{saturated}.": "{saturated}。",
    "{who} {serve} {rate} req/s.": "{who} {serve} {rate} 个请求。",
    "{who} {serve} {rate} req/s; {share} meet {targets} (target {wanted}): {verdict}.": (
        "{who} {serve} {rate} 个请求；{share} 满足 {targets}（目标 {wanted}）：{verdict}。"
    ),
    "meets the targets": "达到目标",
    "misses the targets; {limit}": "未达目标；{limit}",
    "the KV link is the bottleneck": "瓶颈是 KV 链路",
    "retrieval is the bottleneck": "瓶颈是检索",
    "the KV memory of the {role} workers is the bottleneck": "瓶颈是{role}实例的 KV 显存",
    "the KV memory is the bottleneck": "瓶颈是 KV 显存",
    "posting hand-overs of the {role} workers is the bottleneck": "瓶颈是{role}实例发起 KV 移交",
    "posting hand-overs is the bottleneck": "瓶颈是发起 KV 移交",
    "prefill is the bottleneck": "瓶颈是预填充",
    "decoding is the bottleneck": "瓶颈是解码",
    "a server died": "有服务器中途退出",
    "requests failed": "有请求失败",
    "Times are those of the others.": "时间数据来自其余请求。",
    "a server stood still": "有服务器曾停顿",
    "no station is full": "没有环节已满",
    "the cause was not recorded": "原因未记录",
    "The run is too short to be steady: requests in the system still grew at its end. Send more requests.": (
        "运行太短，未达稳态：结束时系统中的请求仍在增长。请发送更多请求。"
    ),
    "Slow answers keep sessions from sending the {asked} req/s that are asked (sessions a second x turns): {sent} "
    "req/s are sent. The run is too short to tell whether they would pile up: more sessions tell "
    "(workload.sessions).": (
        "回答太慢，会话发不出所要求的每秒 {asked} 个请求（每秒会话数 × 轮数）：实际每秒 {sent} 个。"
        "运行太短，看不出会话是否会越积越多：增加会话数（workload.sessions）即可知道。"
    ),
    "Too few sessions for the {asked} req/s that are asked (sessions a second x turns): the last begins before their "
    "number has settled, and {sent} req/s are sent. More reach it (workload.sessions).": (
        "会话太少，达不到所要求的每秒 {asked} 个请求（每秒会话数 × 轮数）：会话数尚未稳定，最后一个会话就已开始，"
        "实际每秒 {sent} 个。增加会话数（workload.sessions）即可达到。"
    ),
    "Only {count:.0f} answered: percentiles and shares of so few say little.": (
        "仅 {count:.0f} 个请求得到回答：这么少的请求，百分位数与占比说明不了什么。"
    ),
    "workload.{key}: cut to its min and max, the mean is {cut} tokens instead of {mean}.": (
        "workload.{key}：按 min 与 max 截断后，均值为 {cut} 个 token，而非 {mean}。"
    ),
    "workload.{key}: the {count} drawn have a mean of {drawn} tokens, many would have {asked}. More requests come "
    "closer, another run.seed draws others.": (
        "workload.{key}：抽出的 {count} 个的均值为 {drawn} 个 token，数量足够多时应为 {asked}。"
        "请求越多越接近，另一个 run.seed 会抽出别的。"
    ),
    "{count:.0f} of {all:.0f} requests were rejected.": "{all:.0f} 个请求中有 {count:.0f} 个被拒绝。",
    "A ({a}) has a goodput of {rate} and B ({b}) of {y}: {verdict}. A {of_a}, B {of_b}": (
        "A（{a}）的有效吞吐为{rate}，B（{b}）为 {y}：{verdict}。A {of_a}，B {of_b}"
    ),
    "{rate} req/s per GPU": ("每 GPU 每秒 {rate} 个请求"),
    "{verdict}, but A was sent {x} req/s and B {z}": "{verdict}，但发给 A 的是 {x} req/s，发给 B 的是 {z}",
    "{verdict} ({which} past saturation)": "{verdict}（{which} 已过饱和）",
    "neither is ahead": "不分先后",
    "they are within {share} of each other": "两者相差不到 {share}",
    "only {ahead} serves requests within the targets": "只有 {ahead} 能在目标内服务",
    "{ahead} is ahead by {more:.1f} %": "{ahead} 领先 {more:.1f} %",
    "{name} died: {why}": "{name} 中途退出：{why}",
    "{name} was {state}": "{name} {state}",
    "{state} for {seconds:.1f} s": "{state}，持续 {seconds:.1f} 秒",
    "not answering": "不应答",
    "silent: connections are taken, polls are not answered": "无声：接受连接，但不回答轮询",
    "stalled: it has requests and makes no progress": "停滞：有请求但没有进展",
    "stopped by a signal": "被信号暂停",
    "{failed:.0f} of {sent:.0f} requests failed": "{sent:.0f} 个请求中有 {failed:.0f} 个失败",
    "{count} with {text!r}": "{count} 个的原因是 {text!r}",
    "{count} other kinds": "另有 {count} 种",
    "{failed}.": "{failed}。",
    "{failed}: {kinds}.": "{failed}：{kinds}。",
    "{refused} of {count:.0f} requests were refused: longer than {limits}": (
        "{count:.0f} 个请求中有 {refused} 个被拒绝：长于 {limits}"
    ),
    "the KV cache of {tokens} tokens": "{tokens} token 的 KV 缓存",
    "{one} / {two}": "{one} / {two}",
    "{refused}.": "{refused}。",
    "No request could be served.": "没有一个请求能得到服务。",
    "Of the others: {first}": "其余请求：{first}",
    # --- what limits it ---
    "aggregated": "聚合",
    "prefill": "预填充",
    "decode": "解码",
    "host": "主机",
    "retrieval": "检索",
    "queue": "排队",
    "transfer": "传输",
    "decode wait": "等待解码",
    "first decode": "首次解码",
    "unobserved": "未观测",
    "The KV link {link} {state}: the traffic needs {needed} moved and it carries {most} at most.": (
        "KV 链路 {link} {state}：流量需要传输 {needed}，而它最多 {most}。"
    ),
    "{link} {way} {worker}": "{link}（{worker} {way}）",
    "uplink {way} {node}": "上行链路（{node} {way}）",
    "out of": "流出",
    "into": "流入",
    "cannot keep up": "跟不上",
    "is full": "已满",
    "A transfer takes {time} on average; {enough} would be enough ({busy} busy).": (
        "一次传输平均 {time}；{enough} 就够（{busy} 忙碌）。"
    ),
    "The KV link {link} is slow rather than full ({offered} offered): {time}.": (
        "KV 链路 {link} 是慢而不是满（需求 {offered}）：{time}。"
    ),
    "a transfer moves {size:.0f} MB": "一次传输 {size:.0f} MB",
    "About {enough} would bring TTFT within the {limit:g} ms target on average.": (
        "约 {enough} 可使 TTFT 平均达到 {limit:g} 毫秒的目标。"
    ),
    "Retrieval is the bottleneck: its workers ({count}) are busy {busy} of the time.": (
        "瓶颈是检索：其 {count} 个实例 {busy} 的时间忙碌。"
    ),
    "Waiting and searching take {time} of a mean TTFT of {ttft}; {count} workers would be enough.": (
        "等待与检索占平均 TTFT {ttft} 中的 {time}；{count} 个实例就够。"
    ),
    "Retrieval makes first tokens late.": "检索使首 token 变慢。",
    "First tokens are late, and this run does not record why.": "首 token 很慢，而此次运行没有记录原因。",
    "This run records no engine steps to say more.": "此次运行没有记录引擎步，无法进一步说明。",
    "{stage} is {share} of the time to first token of requests that miss its target ({time})": (
        "在未达首 token 目标的请求中，{stage}占首 token 时间的 {share}（{time}）"
    ),
    "{stage} is {share} of the time to first token ({time})": "{stage}占首 token 时间的 {share}（{time}）",
    "{time}.": "{time}。",
    "{time}; {then}.": "{time}；{then}。",
    "{count:.0f} requests are turned away": "{count:.0f} 个请求被拒绝",
    "the line grows by {rate} requests a second": "队伍每秒增长 {rate} 个请求",
    "{growth}, most of it in {stage}": "{growth}，主要在{stage}",
    "Decoding is the bottleneck: every slot of the batch is taken ({batch}) while prompts wait.": (
        "瓶颈是解码：批次已满（{batch}），提示词在等待。"
    ),
    "Decoding is the bottleneck: the {role} workers hold {batch} and take new ones slowly.": (
        "瓶颈是解码：{role}实例持有{batch}，接收新请求很慢。"
    ),
    "Decoding is the bottleneck: {speed}.": "瓶颈是解码：{speed}。",
    "TPOT is {median} at the median and {high} at p99": "TPOT 中位数 {median}，p99 {high}",
    "{speed} (target {limit:g} ms)": "{speed}（目标 {limit:g} ms）",
    "1 sequence each": "每个 1 条序列",
    "Also, {speed}.": "此外，{speed}。",
    "{count:.0f} sequences each": "每个 {count:.0f} 条序列",
    "The {role} workers decode {batch} on average.": "{role}实例平均解码{batch}。",
    "The {role} workers decode {batch} on average, and {share} of their time goes to steps that also prefill "
    "prompts.": "{role}实例平均解码{batch}，其 {share} 的时间用于同时预填充的步。",
    "Prefill is the bottleneck of the {role} pool.": "{role}池的瓶颈是预填充。",
    "Prefill is the bottleneck: the prefill workers are busy {busy} of the time.": (
        "瓶颈是预填充：预填充实例 {busy} 的时间忙碌。"
    ),
    "Prefill is the bottleneck: the aggregated workers are busy {busy} of the time, {share} of it in steps with prompt "
    "tokens.": "瓶颈是预填充：聚合实例 {busy} 的时间忙碌，其中 {share} 用于含提示词的步。",
    "Prefill takes too long by itself: the aggregated workers spend only {share} of the time in steps with "
    "prompt tokens, so more of them would help little; a larger tp or a faster GPU would.": (
        "预填充本身太慢：聚合实例只有 {share} 的时间在处理提示词，增加实例帮助不大；更大的 tp 或更快的 GPU 才有用。"
    ),
    "Prompts come in bursts and wait for one another: the {role} workers spend only {share} of the time in "
    "steps with prompt tokens. More workers, a larger tp or a faster GPU make the wait shorter.": (
        "提示词成批到达、互相等待：{role}实例只有 {share} 的时间在处理提示词。"
        "增加实例、更大的 tp 或更快的 GPU 能缩短等待。"
    ),
    "Prefill takes too long by itself: the prefill workers are busy only {busy} of the time, so more of them "
    "would help little; a larger tp or a faster GPU would.": (
        "预填充本身太慢：预填充实例只有 {busy} 的时间忙碌，增加实例帮助不大；更大的 tp 或更快的 GPU 才有用。"
    ),
    "KV memory is the bottleneck: the cache of the {role} workers is {mean} full on average and {most} at most, "
    "with {count:.0f} preemptions.": (
        "瓶颈是 KV 显存：{role}实例的缓存平均占用 {mean}，最高 {most}，抢占 {count:.0f} 次。"
    ),
    "KV memory is the bottleneck: a request wants {wanted:,.0f} blocks and each of the {role} workers has "
    "{blocks:,}, {share} of them in use on average.": (
        "瓶颈是 KV 显存：一个请求需要 {wanted:,.0f} 个块，而每个{role}实例有 {blocks:,} 个，平均占用 {share}。"
    ),
    "Hand-overs are the bottleneck: the {role} workers spend {share} of their time posting {count:,.0f} descriptors a "
    "prompt": "瓶颈是 KV 移交：{role}实例 {share} 的时间用于为每个提示词发起 {count:,.0f} 个描述符",
    "{posting}, of {busy} that they are busy": "{posting}（忙碌共 {busy}）",
    "With engine.block_size {size}: {share}.": "engine.block_size 为 {size} 时：{share}。",
    "The other connector (link.connector) would free it.": ("另一种连接器（link.connector）可以释放它。"),
    "No station is short, single requests are late. {closest}": "没有哪一处不够，只是个别请求迟了。{closest}",
    "Nothing is a bottleneck: there is headroom.": "没有瓶颈：尚有余量。",
    "Closest to its limit: {what}.": "最接近上限的是：{what}。",
    "prefill workers, busy {busy} of the time": "预填充实例，{busy} 的时间忙碌",
    "retrieval workers, busy {busy} of the time": "检索实例，{busy} 的时间忙碌",
    "KV cache of the {role} workers, {full} full at most": "{role}实例的 KV 缓存，最高占用 {full}",
    "KV link {link}, {share} of its bandwidth": "KV 链路 {link}，带宽的 {share}",
    "{metric} target, p99 at {share} of it": "{metric} 目标，p99 为其 {share}",
    # --- the suggestion ---
    "On {gpus} run {engines}: up to {rate} req/s {bound}": (
        "用 {gpus} 时，建议运行 {engines}：{bound}每秒最多可服务 {rate} 个请求"
    ),
    "{value} % ({low} to {high} %) more": "多 {value} %（{low} 至 {high} %）",
    "{value} % ({low} to {high} %) less": "少 {value} %（{low} 至 {high} %）",
    "{run}, {more} than {engines}: P/D is worth it.": "{run}，比 {engines}{more}：值得采用 P/D。",
    "{run}; P/D with the best split, {name}, serves {more}: not worth it.": (
        "{run}；P/D 最好的拆分 {name} {more}：不值得。"
    ),
    "Too close to call on {gpus}, so run the simpler: {serves}; P/D with the best split, {name}, serves {more}.": (
        "用 {gpus} 难分高下，建议运行较简单的：{serves}；P/D 最好的拆分 {name} {more}。"
    ),
    "Not known yet on {gpus}, so run the simpler: {serves}; P/D with the best split, {name}, would serve {more} if "
    "{what} cost what is assumed: measure it with planner calibrate.": (
        "用 {gpus} 尚不确定，建议运行较简单的：{serves}；"
        "如果{what}与假定相符，P/D 最好的拆分 {name} {more}：请用 planner calibrate 实测。"
    ),
    "what a hand-over over {link} costs the workers": "经 {link} 移交 KV 对实例的开销",
    "hand-overs of cross-layer blocks": "跨层块的 KV 移交开销",
    "hand-overs at TP {sizes} (measured: {measured})": "TP {sizes} 下的 KV 移交（实测过：{measured}）",
    "hand-overs of block_size {sizes} (measured: {measured})": "block_size {sizes}（实测过：{measured}）的 KV 移交开销",
    "worth it": "值得",
    "not worth it": "不值得",
    "too close to call": "难分高下",
    "not known yet": "尚不确定",
    "1 aggregated engine": "1 个聚合引擎",
    "{n} aggregated engines": "{n} 个聚合引擎",
    "{engines} of {size}": "{size} 的 {engines}",
    "{origin}; ranks in lockstep are measured with one model only": "{origin}；步调一致的 rank 仅用一个模型实测过",
    "{count} agg {size}": "{count} 聚合 {size}",
    "{engines} of TP {tp}": "TP {tp} 的 {engines}",
    "{engines} with {router}": "使用 {router} 的 {engines}",
    "{count} agg": "{count} 聚合",
    "{count} agg TP{tp}": "{count} 聚合 TP{tp}",
    "within the targets": "在目标内",
    "without falling behind": "在不积压时",
    "{served}, the highest rate at which waiting requests do not pile up: no target is set (slo), so they may take "
    "any time": "{served}，即等待的请求不致越积越多的最高速率：未设任何目标（slo），时延不限",
    "One group of {gpus} GPUs was searched, and its rates multiplied by the {count} groups that there are": (
        "搜索的是一组 {gpus} 个 GPU，其速率再乘以组数 {count}"
    ),
    "{text}; {left} GPUs are left over.": "{text}；余下 {left} 个 GPU。",
    "Together, as {name}, {share} of the requests are within the targets at {rate} req/s": (
        "几组合在一起（{name}）时，{rate} req/s 下有 {share} 的请求达标"
    ),
    "{found}, and waiting requests pile up": "{found}，且等待的请求越积越多",
    "{found}: it holds.": "{found}：成立。",
    "{found}: it does not hold; run the groups behind routers of their own.": (
        "{found}：不成立；请让各组使用自己的路由器。"
    ),
    "Of a group: {what}": "一组之中：{what}",
    "{engines} serve {rate} req/s {bound}": "{engines} {bound}每秒可服务 {rate} 个请求",
    "{engines} serves {rate} req/s {bound}": "{engines} {bound}每秒可服务 {rate} 个请求",
    "With {gpus} no rate is held within the targets: only requests that hardly ever meet are, {rate} req/s on "
    "{engines}, {count} under way on average.": (
        "{gpus}在目标内撑不住任何速率：只有几乎从不相遇的请求能达标，"
        "即在 {engines} 上每秒 {rate} 个，平均 {count} 个正在处理。"
    ),
    "One GPU meets the targets at no rate.": "1 个 GPU 在任何速率下都达不到目标。",
    "No use of {gpus} GPUs meets the targets at any rate.": "{gpus} 个 GPU 的任何用法在任何速率下都达不到目标。",
    "One GPU can only run aggregated: {serves}.": "1 个 GPU 只能聚合部署：{serves}。",
    "{gpus} GPUs can only run aggregated: {serves}.": "{gpus} 个 GPU 只能聚合部署：{serves}。",
    "{run}; no aggregated deployment meets them at any rate.": "{run}；聚合部署在任何速率下都达不到目标。",
    "{run}; no split into prefill and decode meets them at any rate.": (
        "{run}；任何 P/D 拆分在任何速率下都达不到目标。"
    ),
    "{name}: {what}": "{name}：{what}",
    "{name}: {keys} kept as the file has it; left out, the best is searched.": (
        "{name}：{keys} 按文件所设；不设则搜索最好的取值。"
    ),
    "Left out: {what}": "未考虑：{what}",
    "TP {tp}: {fault}": "TP {tp}：{fault}",
    "GPUs left idle by {splits}; rates per GPU count them.": "{splits} 有闲置 GPU；每 GPU 速率已计入。",
    "A link of {enough} instead of {now} would be enough for {rate} req/s.": (
        "{enough} 的链路（现为 {now}）就足以支持每秒 {rate} 个请求。"
    ),
    "Both at {rate} req/s: {split} (P/D) and {together} (aggregated) of the requests are within the targets.": (
        "两者都在每秒 {rate} 个请求时：{split}（P/D）和 {together}（聚合）的请求达标。"
    ),
    "Worth it: the whole interval is above {above}; not worth it: below {below}. That is a margin of {margin} "
    "(run.margin), give or take the {error} that rates may be off by.": (
        "值得：整个区间高于 {above}；不值得：低于 {below}。"
        "即判定余地 {margin}（run.margin）加减速率可能的误差 {error}。"
    ),
    "To run: {workers}. Up to {rate}": "建议部署：{workers}。最高 {rate}",
    "To run (the simpler of the two): {workers}. Up to {rate}": "建议部署（两者中较简单的）：{workers}。最高 {rate}",
    "{served}, {share} of the requests have {targets}": "{served}，{share} 的请求满足 {targets}",
    "{text}.": "{text}。",
    "Within the noise of it: {splits}.": "误差之内同样好的：{splits}。",
    "The best split: {workers}, up to {rate}.": "最好的拆分：{workers}，最高 {rate}。",
    "{rate} req/s": "每秒 {rate} 个请求",
    "{rate} req/s ({low} to {high})": "每秒 {rate} 个请求（{low} 至 {high}）",
    "{workers} ({name})": "{workers}（{name}）",
    "{workers} with {options}": "{workers}，{options}",
    "{workers}{size}": "{workers}{size}",
    "{prefill} and {decode} of {gpus} each": "{prefill}和 {decode}，各 {gpus}",
    "{prefill}{size} and {decode}{other}": "{prefill}{size}和 {decode}{other}",
    "1 prefill worker": "1 个预填充实例",
    "{n} prefill workers": "{n} 个预填充实例",
    "1 decode worker": "1 个解码实例",
    "{n} decode workers": "{n} 个解码实例",
    "1 GPU": "1 个 GPU",
    "{n} GPUs": "{n} 个 GPU",
    " of {gpus}": "（{gpus}）",
    " of {gpus} each": "（各 {gpus}）",
    "1 list of requests": "1 份请求列表",
    "{n} lists of requests": "{n} 份请求列表",
    "{n} lists of requests ({more} others could hardly change the verdict)": (
        "{n} 份请求列表（另外 {more} 份几乎不会改变结论）"
    ),
    "Each candidate serves the whole workload at every rate; intervals (95 %) are over {lists}.": (
        "每个候选在每个速率下都服务全部流量；区间（95 %）来自{lists}。"
    ),
    "Each candidate is sent {time} s of traffic at every rate ({count} requests at {rate} req/s), the first {warmup} s "
    "not judged. Intervals (95 %) hold what {lists}, the length of the runs and the steps of the search leave open.": (
        "每个候选在每个速率下收到 {time} 秒的流量（每秒 {rate} 个请求时为 {count} 个请求），前 {warmup} 秒不计。"
        "区间（95 %）包含{lists}、运行长度与搜索步长带来的不确定。"
    ),
    "Up to {most} GPUs do not serve {rate} req/s {bound}; at the {each} req/s a GPU found above it would take "
    "about {count}.": (
        "最多 {most} 个 GPU {bound}也不能每秒服务 {rate} 个请求；按上文每个 GPU {each} req/s 计，约需 {count} 个。"
    ),
    "No number of these GPUs serves {rate} req/s {bound}: engines miss them even nearly idle.": (
        "这种 GPU 再多也不能{bound}每秒服务 {rate} 个请求：引擎几乎空闲时也达不到目标。"
    ),
    "Up to {most} GPUs do not serve {rate} req/s {bound}.": (
        "最多 {most} 个 GPU {bound}也不能每秒服务 {rate} 个请求。"
    ),
    "{name}: runs of {seconds} s are within the targets up to {more} req/s, runs of {long} s up to {rate}: that is its "
    "rate here.": (
        "{name}：{seconds} s 的运行在 {more} req/s 以内达标，{long} s 的运行在 {rate} 以内达标：这里取后者。"
    ),
    "Even nearly idle, at {rate} req/s, {engines} has at p99: {least}. Targets below these need a faster GPU, "
    "a smaller model or shorter prompts.": (
        "即使近乎空闲（{rate} req/s），{engines} 的 p99 为：{least}。"
        "低于此的目标需要更快的 GPU、更小的模型或更短的提示。"
    ),
    "{metric} {ms} ms": "{metric} {ms} ms",
    "{gpus} GPUs are the fewest that may serve {rate} req/s": "可能满足 {rate} req/s 的最少 GPU 数为 {gpus}",
    "{gpus} GPUs are the fewest that serve {rate} req/s": "每秒服务 {rate} 个请求最少需要 {gpus} 个 GPU",
    "1 GPU may be enough for {rate} req/s": "1 个 GPU 可能就能每秒服务 {rate} 个请求",
    "1 GPU is enough for {rate} req/s": "1 个 GPU 就能每秒服务 {rate} 个请求",
    "{enough}: {name} ({needs}); this is the edge, the highest rate found above is {highest}.": (
        "{enough}：{name}（{needs}）；这已是其边缘，上文找到的最高速率为 {highest}。"
    ),
    "{enough}: {name} ({needs}).": "{enough}：{name}（{needs}）。",
    "{count} {how}": "{count} 个{how}",
    "more than {most} {how}": "{how}多于 {most} 个",
    "split": "拆分",
    # --- what would change it ---
    "{what} {share} {how}": "{what}{how} {share}",
    "prompts": "提示词",
    "outputs": "输出",
    "link bandwidth": "链路带宽",
    "{metric} target": "{metric} 目标",
    "longer": "变长",
    "shorter": "变短",
    "looser": "放宽",
    "tighter": "收紧",
    "more": "增加",
    "less": "减少",
    "With {change} it would be: {word}.": "若{change}，则：{word}。",
    "With {change} it would be: {word} (P/D {share}).": "若{change}，则：{word}（P/D {share}）。",
    "No change of 20 % in prompts, outputs, targets or link flips this.": (
        "提示词、输出、目标或链路变化 20 % 都不会改变结论。"
    ),
    "{flip} {asked}": "{flip}{asked}",
    "At the rate asked for ({rate:.3g} req/s) only {which} meets the targets.": (
        "在所问速率（每秒 {rate:.3g} 个请求）下只有 {which} 达标。"
    ),
    "At a rate 20 % higher ({rate:.3g} req/s) only {which} meets the targets.": (
        "速率再高 20 %（每秒 {rate:.3g} 个请求）时只有 {which} 达标。"
    ),
    "At the rate asked for ({rate:.3g} req/s) neither meets the targets.": (
        "在所问速率（每秒 {rate:.3g} 个请求）下两者都不达标。"
    ),
    "Both serve the rate asked for ({rate:.3g} req/s).": "两者都能满足所问速率（每秒 {rate:.3g} 个请求）。",
    "only P/D meets the targets": "只有 P/D 达标",
    "only aggregated meets the targets": "只有聚合达标",
    "neither meets the targets": "两者都不达标",
    "Checked": "已检验",
    "Partly checked": "部分检验",
    "{how} on {machine} at {load:.0%} of the rates: {outcome}.": (
        "{how}：在 {machine}上以各速率的 {load:.0%} 运行，{outcome}。"
    ),
    "all met the targets": "全部达标",
    "missed the targets: {which}": "未达标：{which}",
    "{name} at {rate} req/s": "{name}，每秒 {rate} 个请求",
    "1 core": "1 个核",
    "{n} cores": "{n} 个核",
    "Not checked: no candidate fits the {machine} here.": "未检验：没有候选能放进这里的 {machine}。",
    "Not checked: the suggestion is for {wanted} and vLLM's {kind} build runs here.": (
        "未检验：建议针对 {wanted}，而这里运行的是 vLLM 的 {kind} 版本。"
    ),
    "Not checked: the suggestion is for {wanted}, here is {names}.": "未检验：建议针对 {wanted}，这里是 {names}。",
    "{name}: {gpus} GPUs needed": "{name}：需要 {gpus} 个 GPU",
    "{name}, predicted against measured: {errors}.": "{name}，预测相对实测：{errors}。",
    "Tested: {what}.": "已测：{what}。",
    "Not tested: {what}.": "未测：{what}。",
    "{split} whole": "完整的 {split}",
    "{count} of {all} engines at their rate": "{all} 个引擎中的 {count} 个，按各自的速率",
    "routing between engines": "引擎之间的路由",
    "routing between workers": "实例之间的路由",
    "many transfers sharing the links": "多个传输共用链路",
    "the KV transfer between two engines": "两个引擎之间的 KV 传输",
    "the {role} worker at its full load": "满负载的{role}实例",
    "the {role} worker beyond {share:.0%} of its load": "{role}实例超过其负载 {share:.0%} 的部分",
    # --- predicted against measured ---
    "Predicted against measured over {count} requests: {errors}.": "{count} 个请求的预测相对实测：{errors}。",
    "Fitted, not predicted, against measured over {count} requests: {errors}.": (
        "{count} 个请求的拟合（并非预测）相对实测：{errors}。"
    ),
    "Not comparable: {why}. {errors}": "不可比：{why}。{errors}",
    "{metric} {error:+z.1f} %": "{metric} {error:+z.1f} %",
    "throughput": "吞吐",
    "{count} requests, prompt, cached and output tokens equal in both runs": (
        "{count} 个请求，两次运行的提示词、缓存与输出 token 相同"
    ),
    "{count} requests in both runs; {faults}": "两次运行共有 {count} 个请求；{faults}",
    "in one run only": "只在一次运行中",
    "with other prompt tokens": "提示词 token 不同",
    "with other cached tokens": "缓存 token 不同",
    "with other output tokens": "输出 token 不同",
    "unfinished in one run": "在一次运行中未完成",
    "none to compare": "没有可比的",
    "One H200, Llama-3.1-8B shape with dummy weights, vLLM {version}, bf16, {load}, {day}.": (
        "一块 H200，Llama-3.1-8B 结构、虚设权重，vLLM {version}，bf16，{load}，{day}。"
    ),
    "{rate} req/s, {prompt} prompt and {output} output tokens": (
        "每秒 {rate} 个请求，提示词 {prompt}、输出 {output} token"
    ),
    "{rate} req/s, {prompt} prompt and {output} output tokens on average (lognormal)": (
        "每秒 {rate} 个请求，提示词平均 {prompt}、输出平均 {output} token（对数正态）"
    ),
    "The profile was fitted on other requests (0 to 79) of the same run; these are 80 to 159.": (
        "性能档案由同一次运行的另一些请求（0 至 79）拟合；这里是第 80 至 159 个。"
    ),
    "The profile was fitted on the calibration of the same server; no load was fitted.": (
        "性能档案由同一服务器的校准拟合；没有拟合任何负载。"
    ),
    # --- what can run here ---
    "simulate": "仿真",
    "UI (streamlit run app.py)": "界面（streamlit run app.py）",
    "load on a stack that runs (live --endpoint, watch)": "对运行中的服务加负载（live --endpoint、watch）",
    "live on CPU": "CPU 实测",
    "live on GPU": "GPU 实测",
    "P/D with real KV transfer": "带真实 KV 传输的 P/D",
    "needs nothing else": "不需要其他组件",
    "ready": "就绪",
    "missing: {modules}": "缺少：{modules}",
    "vllm is not installed": "未安装 vllm",
    "nixl is not installed": "未安装 nixl",
    "{nixl}; needs two GPUs, found one": "{nixl}；需要两个 GPU，只有一个",
    "no NVIDIA GPU found": "未发现 NVIDIA GPU",
    "run it on a machine with an NVIDIA GPU": "请在有 NVIDIA GPU 的机器上运行",
    "run it on a machine with two GPUs": "请在有两个 GPU 的机器上运行",
    # --- metrics ---
    "Mean of: {what}": "平均值：{what}",
    "Longest: {what}": "最长：{what}",
    "{percent}th percentile of: {what}": "第 {percent} 百分位：{what}",
    "{label} mean": "{label} 平均",
    "{label} max": "{label} 最大",
    "{label} p{percent}": "{label} p{percent}",
    "{metric} attainment": "{metric} 达标率",
    "Share of all requests within the {metric} target.": "{metric} 达标的请求比例。",
    "{stage} share of TTFT": "{stage}占 TTFT 的比例",
    "Share of all time to first token: {what}.": "占全部首 token 时间的比例：{what}。",
    "{times} x its highest rate": "其最高速率的 {times} 倍",
    "{times} x its rate within TPOT": "其 TPOT 目标内速率的 {times} 倍",
    "{role} load": "{role}负载",
    "Requests whose work the {role} workers do in a second of the steady window / the highest rate that they carry "
    "within the TPOT target, in closed form from the profile (simulated runs).": (
        "稳态窗口内{role}实例每秒完成其工作量的请求数 / 其在 TPOT 目标内所能承担的最高速率"
        "（由性能档案按闭式计算，仅仿真运行）。"
    ),
    "{role} busy": "{role}忙碌",
    "{role} KV used": "{role} KV 占用",
    "Share of the steady window that the {role} workers spend in engine steps, averaged over them.": (
        "{role}实例在稳态窗口内处于引擎步的平均比例。"
    ),
    "KV cache in use on the {role} workers, averaged over their steps in the steady window.": (
        "{role}实例在稳态窗口各步的平均 KV 缓存占用。"
    ),
    "client send to first token at the client.": "客户端发送到客户端收到首 token。",
    "client send to last token at the client.": "客户端发送到客户端收到最后一个 token。",
    "(E2E - TTFT) / (output tokens - 1), one value a request.": "(E2E - TTFT) / (输出 token - 1)，每个请求一个值。",
    "gaps between tokens, pooled over all requests.": "全部请求合并的 token 间隔。",
    "TTFT without retrieval": "不含检索的 TTFT",
    "TTFT less the wait for retrieval and the retrieval itself.": "TTFT 减去检索等待与检索本身。",
    "Retrieval": "检索",
    "service time of the document search.": "文档检索的服务时间。",
    "HTTP, tokenisation, routing and the way back to the client": "HTTP、分词、路由以及返回客户端",
    "waiting for and doing the document search": "等待并进行文档检索",
    "waiting for prefill, in a shared queue or a worker's own": "等待预填充，在共享队列或实例自己的队列中",
    "first to last prompt chunk": "从第一个到最后一个提示词分块",
    "moving the KV cache to the decode worker": "把 KV 缓存传到解码实例",
    "waiting for the decode worker: the hop, room for the KV cache, the next step": (
        "等待解码实例：跳转、KV 缓存空间、下一步"
    ),
    "the decode step that gives the first token, and its way to the client": "产生首 token 的解码步及其返回客户端",
    "stages that this run cannot tell apart": "此次运行无法区分的阶段",
    # --- charts ---
    "{name}: at {rate} requests/s a user reads {user} tokens/s, and a GPU writes {gpu} tokens/s": (
        "{name}：每秒 {rate} 个请求时，每位用户读到 {user} token/秒，每个 GPU 写出 {gpu} token/秒"
    ),
    "The answer: {name}": "结论：{name}",
    "Request {number}: {stage} on {worker}, {seconds} ms": "请求 {number}：{worker} 上的{stage}，{seconds} 毫秒",
}
