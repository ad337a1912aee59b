"""Patterns of the sentences that the product layer says with numbers in them, and their Chinese.

Each named part is translated in turn. A sentence that no pattern knows stays English.
"""

from __future__ import annotations

_ROLE = r"aggregated|prefill|decode"

SENTENCES: tuple[tuple[str, str], ...] = (
    # --- suggestion ---
    (
        r"(?P<best>The best split, )?(?P<name>\S+?),? serves (?P<rate>\S+) req/s within the targets, "
        r"(?P<v>\S+) % \((?P<low>\S+) to "
        r"(?P<high>\S+) %\) (?P<how>more than|less than) (?P<base>.+): (?P<word>worth it|not worth it|too "
        r"close to call)\.",
        "{best}{name} 在目标内每秒可服务 {rate} 个请求，比 {base}{how} {v} %（{low} 至 {high} %）：{word}。",
    ),
    (r"The best split, ", "最好的拆分 "),
    (r"more than", "多"),
    (r"less than", "少"),
    (r"(?P<n>\w+) aggregated engines? of TP (?P<tp>\d+)(?P<with>.*)", "{n} 个 TP {tp} 的聚合引擎{with}"),
    (r"(?P<n>\d+) agg(?P<rest>(?: TP\d+)?)", "{n} 聚合{rest}"),
    (r"(?P<n>\w+) aggregated engines?(?P<with>.*)", "{n} 个聚合引擎{with}"),
    *(
        (word, digit)
        for word, digit in zip(
            ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
            ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"),
            strict=True,
        )
    ),
    (r"No use of (?P<n>\d+) GPUs meets the targets at any rate\.", "{n} 个 GPU 的任何用法在任何速率下都达不到目标。"),
    (r"(?P<n>\d+) GPUs can only run aggregated: (?P<rest>.+)\.", "{n} 个 GPU 只能聚合部署：{rest}。"),
    (
        r"(?P<name>.+) serves? (?P<rate>\S+) req/s within the targets; no aggregated deployment meets "
        r"them at any rate\.",
        "{name} 在目标内每秒可服务 {rate} 个请求；聚合部署在任何速率下都达不到目标。",
    ),
    (
        r"(?P<name>.+) serves? (?P<rate>\S+) req/s within the targets; no split into prefill and decode meets them at "
        r"any rate\.",
        "{name} 在目标内每秒可服务 {rate} 个请求；任何 P/D 拆分在任何速率下都达不到目标。",
    ),
    (r"(?P<name>.+) serves? (?P<rate>\S+) req/s within the targets", "{name} 在目标内每秒可服务 {rate} 个请求"),
    (
        r"Both at (?P<rate>\S+) req/s: (?P<a>.+?) \(P/D\) and (?P<b>.+?) \(aggregated\) of the requests are within the "
        r"targets\.",
        "两者都在每秒 {rate} 个请求时：{a}（P/D）和 {b}（聚合）的请求达标。",
    ),
    (
        r"Worth it: the whole interval is above (?P<s>.+?); not worth it: below (?P<n>.+?)\. That is a margin of "
        r"(?P<a>.+?) \(run\.margin\), give or take the profile's own error of (?P<b>.+)\.",
        "值得：整个区间高于 {s}；不值得：低于 {n}。即判定余地 {a}（run.margin）加减性能档案自身误差 {b}。",
    ),
    (
        r"A link of (?P<a>.+?) instead of (?P<b>.+?) would be enough for (?P<rate>\S+) req/s\.",
        "{a} 的链路（现为 {b}）就足以支持每秒 {rate} 个请求。",
    ),
    (r"(?P<flip>.+?\.) (?P<rest>At (?:the rate asked for|a rate 20 % higher) .+|Both serve .+)", "{flip}{rest}"),
    (r"With (?P<what>.+) it would be: (?P<word>[a-z ]+) \(P/D (?P<v>.+)\)\.", "若{what}，则：{word}（P/D {v}）。"),
    (r"With (?P<what>.+) it would be: (?P<word>[A-Za-z/ ]+)\.", "若{what}，则：{word}。"),
    (
        r"No change of 20 % in prompts, outputs, targets or link flips this\.",
        "提示词、输出、目标或链路变化 20 % 都不会改变结论。",
    ),
    (r"At the rate asked for \((?P<r>.+)\) only (?P<who>.+) meets the targets\.", "在所问速率（{r}）下只有{who}达标。"),
    (
        r"At a rate 20 % higher \((?P<r>.+)\) only (?P<who>.+) meets the targets\.",
        "速率再高 20 %（{r}）时只有{who}达标。",
    ),
    (r"At the rate asked for \((?P<r>.+)\) neither meets the targets\.", "在所问速率（{r}）下两者都不达标。"),
    (r"Both serve the rate asked for \((?P<r>.+)\)\.", "两者都能满足所问速率（{r}）。"),
    (r"only P/D meets the targets", "只有 P/D 达标"),
    (r"only aggregated meets the targets", "只有聚合达标"),
    (r"neither meets the targets", "两者都不达标"),
    (r"(?P<what>.+) (?P<v>\d+ %) (?P<how>longer|shorter|looser|tighter|more|less)", "{what}{how} {v}"),
    (r"prompts", "提示词"),
    (r"outputs", "输出"),
    (r"link bandwidth", "链路带宽"),
    (r"TTFT target", "TTFT 目标"),
    (r"TPOT target", "TPOT 目标"),
    (r"longer", "变长"),
    (r"shorter", "变短"),
    (r"looser", "放宽"),
    (r"tighter", "收紧"),
    (r"more", "增加"),
    (r"less", "减少"),
    (r"Left out: (?P<what>.+)", "未考虑：{what}"),
    (r"GPUs left idle by (?P<who>.+); rates per GPU count them\.", "{who} 有闲置 GPU；每 GPU 速率已计入。"),
    (
        r"(?P<who>.+): profile (?P<p>\S+) was measured at TP (?P<a>\d+); TP (?P<b>\d+) is scaled from it "
        r"by the roofline",
        "{who}：性能档案 {p} 在 TP {a} 下实测；TP {b} 由屋顶线模型换算。",
    ),
    (
        r"profile (?P<p>\S+) was measured at TP (?P<a>\d+); TP (?P<b>\d+) is scaled from it by the roofline",
        "性能档案 {p} 在 TP {a} 下实测；TP {b} 由屋顶线模型换算。",
    ),
    (r"(?P<who>\d\S* ?\S*): uncalibrated: (?P<rest>.+)", "{who}：未校准：{rest}"),
    (r"datasheet peaks at assumed efficiencies, nothing measured", "数据手册峰值乘以假定效率，没有实测"),
    (r"calibrated: (?P<p>.+)", "已校准：{p}"),
    (r"simulated: uncalibrated roofline", "仿真：未校准的屋顶线模型"),
    (r"simulated: fitted to (?P<what>.+)", "仿真：按{what}拟合"),
    (r"the report's four numbers", "报告的四个数字"),
    # --- explanations ---
    (r"(?P<who>\d\w* ?\w*(?: TP\d+)?|\d+P\S*D\S*): (?P<rest>[A-Z].+\.)", "{who}：{rest}"),
    (
        rf"Prefill is the bottleneck: the (?P<role>{_ROLE}) workers are busy (?P<a>.+?) of the time, (?P<b>.+?) "
        r"of it in steps with prompt tokens\.",
        "瓶颈是预填充：{role}实例 {a} 的时间忙碌，其中 {b} 用于含提示词的步。",
    ),
    (
        rf"Prefill is the bottleneck: the (?P<role>{_ROLE}) workers are busy (?P<a>.+?) of the time\.",
        "瓶颈是预填充：{role}实例 {a} 的时间忙碌。",
    ),
    (r"Prefill is the bottleneck of the (?P<role>\w+) pool\.", "{role}池的瓶颈是预填充。"),
    (
        r"Prefill takes too long by itself: the prefill workers are busy only (?P<a>.+?) of the time, so more of them "
        r"would help little; a larger tp or a faster GPU would\.",
        "预填充本身太慢：预填充实例只有 {a} 的时间忙碌，增加实例帮助不大；更大的 tp 或更快的 GPU 才有用。",
    ),
    (
        r"Decoding is the bottleneck: every slot of the batch is taken \((?P<a>.+)\) while prompts wait\.",
        "瓶颈是解码：批次已满（{a}），提示词在等待。",
    ),
    (
        r"Decoding is the bottleneck: the (?P<role>\w+) workers hold (?P<a>.+) and take new ones slowly\.",
        "瓶颈是解码：{role}实例持有{a}，接收新请求很慢。",
    ),
    (r"Decoding is the bottleneck: (?P<speed>.+)\.", "瓶颈是解码：{speed}。"),
    (
        r"TPOT is (?P<a>.+?) at the median and (?P<b>.+?) at p99 \(target (?P<c>.+)\)",
        "TPOT 中位数 {a}，p99 {b}（目标 {c}）",
    ),
    (r"TPOT is (?P<a>.+?) at the median and (?P<b>.+?) at p99", "TPOT 中位数 {a}，p99 {b}"),
    (
        r"The (?P<role>\w+) workers decode (?P<a>.+?) on average, and (?P<b>.+?) of their time goes to steps that also "
        r"prefill prompts\.",
        "{role}实例平均解码{a}，其 {b} 的时间用于同时预填充的步。",
    ),
    (r"The (?P<role>\w+) workers decode (?P<a>.+?) on average\.", "{role}实例平均解码{a}。"),
    (r"(?P<n>\d+) sequences each", "每个 {n} 条序列"),
    (
        r"KV memory is the bottleneck: the cache of the (?P<role>\w+) workers is (?P<a>.+?) full on "
        r"average and (?P<b>.+?) "
        r"at most, with (?P<c>\S+) preemptions\.",
        "瓶颈是 KV 显存：{role}实例的缓存平均占用 {a}，最高 {b}，抢占 {c} 次。",
    ),
    (
        r"The KV link (?P<l>\S+) (?P<v>cannot keep up|is full): the traffic needs (?P<a>.+?) moved and it "
        r"carries (?P<b>.+?) "
        r"at most\.",
        "KV 链路 {l} {v}：流量需要传输 {a}，而它最多 {b}。",
    ),
    (r"cannot keep up", "跟不上"),
    (r"is full", "已满"),
    (
        r"A transfer takes (?P<a>.+?) on average; (?P<b>.+?) would be enough \((?P<c>.+) busy\)\.",
        "一次传输平均 {a}；{b} 就够（{c} 忙碌）。",
    ),
    (
        r"The KV link (?P<l>\S+) is slow rather than full \((?P<a>.+?) offered\): (?P<t>.+)\.",
        "KV 链路 {l} 是慢而不是满（需求 {a}）：{t}。",
    ),
    (
        r"About (?P<a>.+?) would bring TTFT within the (?P<b>\S+) ms target on average\.",
        "约 {a} 可使 TTFT 平均达到 {b} 毫秒的目标。",
    ),
    (
        r"Retrieval is the bottleneck: its workers \((?P<n>\d+)\) are busy (?P<a>.+?) of the time\.",
        "瓶颈是检索：其 {n} 个实例 {a} 的时间忙碌。",
    ),
    (
        r"Waiting and searching take (?P<a>.+?) of a mean TTFT of (?P<b>.+?); (?P<n>\d+) workers would be enough\.",
        "等待与检索占平均 TTFT {b} 中的 {a}；{n} 个实例就够。",
    ),
    (r"Retrieval makes first tokens late\.", "检索使首 token 变慢。"),
    (r"First tokens are late, and this run does not record why\.", "首 token 很慢，而此次运行没有记录原因。"),
    (r"This run records no engine steps to say more\.", "此次运行没有记录引擎步，无法进一步说明。"),
    (r"Nothing is a bottleneck: there is headroom\.", "没有瓶颈：尚有余量。"),
    (r"Closest to its limit: (?P<what>.+)\.", "最接近上限的是：{what}。"),
    (r"prefill workers, busy (?P<a>.+) of the time", "预填充实例，{a} 的时间忙碌"),
    (r"retrieval workers, busy (?P<a>.+) of the time", "检索实例，{a} 的时间忙碌"),
    (r"KV cache of the (?P<role>\w+) workers, (?P<a>.+) full at most", "{role}实例的 KV 缓存，最高占用 {a}"),
    (r"KV link (?P<l>\S+), (?P<a>.+) of its bandwidth", "KV 链路 {l}，带宽的 {a}"),
    (r"(?P<m>TTFT|TPOT) target, p99 at (?P<a>.+) of it", "{m} 目标，p99 为其 {a}"),
    (
        r"(?P<s>[A-Za-z ]+?) is (?P<a>.+?) of the time to first token \((?P<b>.+?)\)(?P<rest>[.;].*)?",
        "{s}占首 token 时间的 {a}（{b}）{rest}",
    ),
    (r"; the (?P<rest>line grows by .+)", "；{rest}"),
    (r"; (?P<n>\d+) requests are turned away\.", "；{n} 个请求被拒绝。"),
    (r"The (?P<rest>line grows by .+)", "{rest}"),
    (
        r"line grows by (?P<a>\S+) requests a second, most of it in (?P<s>[a-z ]+)\.",
        "队伍每秒增长 {a} 个请求，主要在：{s}。",
    ),
    (r"line grows by (?P<a>\S+) requests a second\.", "队伍每秒增长 {a} 个请求。"),
    (r"\.", "。"),
    (r"(?i:prefill)", "预填充"),
    (r"(?i:decode)", "解码"),
    (r"(?i:queue)", "排队"),
    (r"(?i:host)", "主机"),
    (r"(?i:transfer)", "传输"),
    (r"(?i:decode wait)", "等待解码"),
    (r"(?i:first decode)", "首次解码"),
    (r"retrieval", "检索"),
    # --- a run ---
    (
        r"(?P<m>.+) serves? (?P<r>\S+) req/s; (?P<a>.+?) meet (?P<t>.+?) \(target (?P<g>.+?)\): "
        r"(?P<v>meets the targets|misses "
        r"the targets; .+?)\.(?P<p> \[.+\])?",
        "{m} 每秒服务 {r} 个请求；{a} 满足 {t}（目标 {g}）：{v}。{p}",
    ),
    (r"(?P<m>.+) serves? (?P<r>\S+) req/s\.(?P<p> \[.+\])?", "{m} 每秒服务 {r} 个请求。{p}"),
    (
        r"Past saturation: (?P<m>.+) (?:is|are) offered (?P<a>\S+) req/s and serves? (?P<b>\S+); (?P<l>[^,]+?), and "
        r"(?P<s>.+?) meet (?P<t>.+?)\.(?P<p> \[.+\])?",
        "已过饱和：{m} 每秒收到 {a} 个请求，服务 {b} 个；{l}，{s} 满足 {t}。{p}",
    ),
    (
        r"Past saturation: (?P<m>.+) (?:is|are) offered (?P<a>\S+) req/s and serves? (?P<b>\S+); "
        r"(?P<l>.+?)\.(?P<p> \[.+\])?",
        "已过饱和：{m} 每秒收到 {a} 个请求，服务 {b} 个；{l}。{p}",
    ),
    (r"misses the targets; (?P<l>.+)", "未达目标；{l}"),
    (r"(?P<n>\d+) aggregated workers? on (?P<g>.+)", "{g} 上的 {n} 个聚合实例"),
    (r"(?P<n>\d+P\d+D) on (?P<g>.+)", "{g} 上的 {n}"),
    (r"(?P<a>TTFT <= \S+ ms) and (?P<b>TPOT <= \S+ ms)", "{a} 且 {b}"),
    (r"the KV link is the bottleneck", "瓶颈是 KV 链路"),
    (r"retrieval is the bottleneck", "瓶颈是检索"),
    (r"the KV memory of the (?P<role>\w+) workers is the bottleneck", "瓶颈是{role}实例的 KV 显存"),
    (r"the KV memory is the bottleneck", "瓶颈是 KV 显存"),
    (r"prefill is the bottleneck", "瓶颈是预填充"),
    (r"decoding is the bottleneck", "瓶颈是解码"),
    (r"no station is full", "没有环节已满"),
    (r"the cause was not recorded", "原因未记录"),
    (
        r"The run is too short to be steady: requests in the system still grew at its end\. Send more requests\.",
        "运行太短，未达稳态：结束时系统中的请求仍在增长。请发送更多请求。",
    ),
    (
        r"A \((?P<a>.+?)\) has a goodput of (?P<x>\S+) req/s per GPU and B \((?P<b>.+?)\) of (?P<y>\S+): "
        r"(?P<v>.+?)(?P<n> "
        r"\(.+ past saturation\))?\. A (?P<p>\[.+?\]), B (?P<q>\[.+?\])",
        "A（{a}）的有效吞吐为每 GPU {x} 请求/秒，B（{b}）为 {y}：{v}{n}。A {p}，B {q}",
    ),
    (r" \((?P<w>.+) past saturation\)", "（{w} 已过饱和）"),
    (r"A and B", "A 和 B"),
    (r"(?P<w>[AB]) is ahead by (?P<v>.+)", "{w} 领先 {v}"),
    (r"neither is ahead", "不分先后"),
    (r"they are within (?P<v>.+) of each other", "两者相差不到 {v}"),
    (r"only (?P<w>[AB]) serves requests within the targets", "只有 {w} 能在目标内服务"),
    (r" ?\[(?P<x>calibrated: .+|simulated: .+|measured)\]", "[{x}]"),
    # --- simulated against measured ---
    (
        r"Predicted against measured over (?P<n>\d+) requests: (?P<r>.+)\.",
        "{n} 个请求的预测相对实测：{r}。",
    ),
    (
        r"Fitted, not predicted, against measured over (?P<n>\d+) requests: (?P<r>.+)\.",
        "{n} 个请求的拟合（并非预测）相对实测：{r}。",
    ),
    (r"Not comparable: (?P<a>.+)\. (?P<b>(?:Predicted|Fitted).+)", "不可比：{a}。{b}"),
    (r"(?P<a>TTFT p50 \S+ %, TPOT p50 \S+ %), throughput (?P<b>\S+ %)", "{a}，吞吐 {b}"),
    (
        r"(?P<n>\d+) requests, prompt, cached and output tokens equal in both runs",
        "{n} 个请求，两次运行的提示词、缓存与输出 token 相同",
    ),
    (r"missing: (?P<m>.+)", "缺少：{m}"),
    (
        r"One H200, Llama-3\.1-8B shape with dummy weights, vLLM (?P<v>\S+), bf16, (?P<r>\S+) req/s, (?P<p>\d+) "
        r"prompt and (?P<o>\d+) output tokens, (?P<d>\S+)\. The profile was fitted on other requests "
        r"\((?P<a>\d+) to (?P<b>\d+)\) of the same run; these are (?P<e>\d+) to (?P<f>\d+)\.",
        "一块 H200，Llama-3.1-8B 结构、虚设权重，vLLM {v}，bf16，每秒 {r} 个请求，提示词 {p}、输出 {o} token，{d}。"
        "性能档案由同一次运行的另一些请求（{a} 至 {b}）拟合；这里是第 {e} 至 {f} 个。",
    ),
    # --- metrics ---
    (r"Mean of: (?P<x>.+)", "平均值：{x}"),
    (r"Longest: (?P<x>.+)", "最长：{x}"),
    (r"(?P<p>\d+)th percentile of: (?P<x>.+)", "第 {p} 百分位：{x}"),
    (r"(?P<m>.+) mean", "{m} 平均"),
    (r"(?P<m>.+) max", "{m} 最大"),
    (r"(?P<m>TTFT without retrieval|Retrieval) (?P<p>p\d+)", "{m} {p}"),
    (r"(?P<m>TTFT|TPOT|E2E) attainment", "{m} 达标率"),
    (r"Share of all requests within the (?P<m>\w+) target\.", "{m} 达标的请求比例。"),
    (r"(?P<s>.+) share of TTFT", "{s}占 TTFT 的比例"),
    (r"Share of all time to first token: (?P<x>.+)\.", "占全部首 token 时间的比例：{x}。"),
    (
        r"Share of the steady window that the (?P<role>\w+) workers spend in engine steps, averaged over them\.",
        "{role}实例在稳态窗口内处于引擎步的平均比例。",
    ),
    (
        r"KV cache in use on the (?P<role>\w+) workers, averaged over their steps in the steady window\.",
        "{role}实例在稳态窗口各步的平均 KV 缓存占用。",
    ),
    (r"(?P<r>Aggregated|Prefill|Decode) busy", "{r}忙碌"),
    (r"(?P<r>Aggregated|Prefill|Decode) KV used", "{r} KV 占用"),
)
