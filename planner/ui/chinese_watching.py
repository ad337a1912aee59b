"""简体中文 of watching: its page, and the messages of planner.watching, template for template."""

from __future__ import annotations

WATCH_PAGE: dict[str, str] = {
    "Watch": "监看",
    "A running stack held against its plan, interval by interval, from its counters alone.": (
        "只凭运行中服务的计数器，逐个时段与计划对照。"
    ),
    "Upload a recording": "上传记录",
    "What was watched": "监看对象",
    "Watches of this machine come from the folder runs, and are brought up to date while they go on.": (
        "本机的监看来自 runs 文件夹，进行中的会自动更新。"
    ),
    "a true pair whose load changed and whose decode engine was held up": "真正的 P/D 对：负载变化，解码引擎被拖慢",
    "one engine for 20 minutes: a load that changes, and a throttle": "单个引擎 20 分钟：负载变化，并被限速",
    "a pair whose connector is off": "连接器关闭的一对",
    "a pair whose decode engine prefills": "解码引擎自己做预填充的一对",
    "a pair whose link is overloaded": "链路过载的一对",
    "one engine, started again with a small token budget": "单个引擎，改用很小的 token 预算后重启",
    "recorded, replayed now": "记录，现在重放",
    "live": "进行中",
    "ended": "已结束",
    "The same in a terminal, and for a stack of yours:": "终端里的同样操作，以及用于你自己的服务：",
    "Intervals": "时段数",
    "Over {minutes} minutes.": "共 {minutes} 分钟。",
    "Inside the 90 % intervals": "落在 90 % 区间内",
    "Of all that was judged so far.": "占目前所有已判断的值。",
    "Prompts take": "预填充耗时",
    "Decodes take": "解码耗时",
    "Times as long as the profile says, as fitted last.": "相对性能档案的倍数，按最近一次拟合。",
    "Predicted and measured over time": "随时间的预测与实测",
    "The band should hold nine points in ten. The dashed line is the prediction, grey lines are what is below.": (
        "色带应包住十个点中的九个。虚线是预测，灰线是下方列出的事件。"
    ),
    "What it noticed": "发现了什么",
    "Time, UTC": "时间，UTC",
    "{n} earlier": "更早的 {n} 条",
    "No change of the traffic or the engines so far.": "目前流量和引擎都没有变化。",
    "Is it P/D?": "是 P/D 吗？",
    "inside, or not judged yet": "区间内，或尚未判断",
    "outside": "区间外",
    "predicted": "预测",
    "low": "下限",
    "high": "上限",
}

WATCHING: dict[str, str] = {
    # --- lines ---
    "Refitted on the last {count} intervals: prompts {prompts}, decodes {decodes} times the profile's.": (
        "按最近 {count} 个时段重新拟合：预填充为档案的 {prompts} 倍，解码为 {decodes} 倍。"
    ),
    "The engines are slower than the plan since {clock}: {metric} {measured} ms, {predicted} predicted for this"
    " traffic.": "自 {clock} 起引擎比计划慢：{metric} {measured} ms，对此流量的预测为 {predicted}。",
    "The engines are faster than the plan since {clock}: {metric} {measured} ms, {predicted} predicted for this"
    " traffic.": "自 {clock} 起引擎比计划快：{metric} {measured} ms，对此流量的预测为 {predicted}。",
    "The traffic changed since {clock}: {value} {what}, it was {usual}.": (
        "自 {clock} 起流量改变：{what} {value}，此前为 {usual}。"
    ),
    "requests a second": "每秒请求数",
    "tokens of a prompt": "提示词 token 数",
    "tokens an answer": "回答 token 数",
    "Nothing judged yet: {count} intervals seen, 9 are needed after the first fit.": (
        "尚未判断：已见 {count} 个时段，首次拟合后还需 9 个。"
    ),
    "{metric} {inside}/{count}": "{metric} {inside}/{count}",
    "output": "输出",
    "The 90 % intervals held {share} of what was measured ({each}); refitted {count} times.": (
        "90 % 区间包住了实测值的 {share}（{each}）；重新拟合 {count} 次。"
    ),
    # --- is it P/D? ---
    "Not known yet whether it is P/D: {seen} requests seen, {fewest} are needed.": (
        "尚不知是否为 P/D：已见 {seen} 个请求，需要 {fewest} 个。"
    ),
    "It is not P/D: the connector is off. Every prompt is computed twice, on a prefill engine and again on a decode"
    " engine, and no KV moves.": (
        "这不是 P/D：连接器关闭。每个提示词算了两遍，预填充引擎一遍、解码引擎又一遍，没有 KV 传输。"
    ),
    "It is P/D in part: decode engines compute {computed} of the prompt tokens themselves, and {stalled} of the time"
    " between tokens is stalls.": (
        "只有一部分是 P/D：解码引擎自己计算了 {computed} 的提示词 token，token 间隔时间的 {stalled} 是停顿。"
    ),
    "It is P/D, held up by its link: a transfer takes {each} ms, {times} times as long as alone, and {waiting} of"
    " {inside} requests on the decode engines wait for their KV.": (
        "是 P/D，但被链路拖住：一次传输 {each} ms，是独占时的 {times} 倍，"
        "解码引擎上 {inside} 个请求中有 {waiting} 个在等 KV。"
    ),
    "It is P/D: decode engines compute {computed} of the prompt tokens, and {came} of the prompts' KV comes over the"
    " link.": "这是 P/D：解码引擎计算了 {computed} 的提示词 token，{came} 的提示词 KV 经链路传来。",
    "Prompt tokens on decode engines: {computed} computed, {transferred} transferred, of {prompts}; prefill engines"
    " computed {prefilled}.": (
        "解码引擎上的提示词 token：计算 {computed}，传入 {transferred}，共 {prompts}；预填充引擎计算了 {prefilled}。"
    ),
    "KV: {megabytes} MB moved, {share} of what the prompts have ({bytes} bytes a prompt token); a transfer takes"
    " {each} ms ({alone} by the plan's wire), {speed} each.": (
        "KV：传输 {megabytes} MB，为提示词所有 KV 的 {share}（每个提示词 token {bytes} 字节）；"
        "一次传输 {each} ms（按计划的链路为 {alone}），每次 {speed}。"
    ),
    "Posting: {post} ms a transfer of {descriptors} descriptors, {each} us each: {share} of the time.": (
        "提交：每次传输 {post} ms，{descriptors} 个描述符，每个 {each} us：占时间的 {share}。"
    ),
    "Gaps between tokens: mean {mean}, median {median}, p99 {p99} ms; a decode step of {batch} without prompts takes"
    " {plain} ms by the law. Stalls are {stalled} of the time.": (
        "token 间隔：平均 {mean}、中位数 {median}、p99 {p99} ms；"
        "按步长公式，批量 {batch} 且无提示词的解码步为 {plain} ms。停顿占时间的 {stalled}。"
    ),
    "{count} transfers failed or expired.": "{count} 次传输失败或过期。",
    "Nobody waits: neither for a prefill engine nor for a decode engine.": (
        "没有人在等：既不等预填充引擎，也不等解码引擎。"
    ),
    "Requests that wait, on average: {prefill} for a prefill engine, {room} for room on a decode engine, {kv} on a"
    " decode engine for their KV.": (
        "平均在等待的请求：{prefill} 个等预填充引擎，{room} 个等解码引擎的空位，{kv} 个在解码引擎上等 KV。"
    ),
    "(mean - median) / mean = {stalled} of the time between tokens is stalls; (mean - median) / p99: one in {count}"
    " gaps, if they last as p99.": (
        "（平均 - 中位数）/ 平均 = token 间隔时间的 {stalled} 是停顿；"
        "（平均 - 中位数）/ p99：若停顿与 p99 一样长，每 {count} 个间隔有一个。"
    ),
    "The p99 of {p99} ms is {times} times a usual step.": "p99 为 {p99} ms，是平常一步的 {times} 倍。",
    "Its decode engines stall: {stalled} of the time between tokens. Engines that only decode do not; they compute"
    " prompts, or post transfers, between tokens.": (
        "解码引擎有停顿：占 token 间隔时间的 {stalled}。只解码的引擎不会这样；它们在 token 之间计算提示词或提交传输。"
    ),
    "The gaps between tokens are those of engines that only decode.": "token 间隔与只解码的引擎一致。",
    # --- did a change help? ---
    "Changed at {clock}: {what}. Not judged yet: {before} intervals before and {after} after it, {fewest} are"
    " needed.": ("{clock} 的改动：{what}。尚未判断：之前 {before} 个时段、之后 {after} 个，需要 {fewest} 个。"),
    "Changed at {clock}: {what}. {told}. {verdict}": "{clock} 的改动：{what}。{told}。{verdict}",
    "{metric} {measured} measured, {predicted} predicted": "{metric} 实测 {measured}，预测 {predicted}",
    "It did what was predicted.": "效果与预测一致。",
    "Nothing of it is seen: do the engines run it?": "看不到任何效果：引擎用上这个改动了吗？",
    "It did not do what was predicted of {metrics}.": "{metrics} 的效果与预测不符。",
    "No rate of this traffic was within the targets before the change, so no gain can be given.": (
        "改动之前，此流量的任何速率都达不到目标，无法给出增益。"
    ),
    "Highest rate within the targets: {before} req/s before, {predicted} predicted, {measured} by the step times"
    " since.": "达标的最高速率：改动前每秒 {before} 个请求，预测 {predicted}，按此后的步长 {measured}。",
    # --- what one change buys ---
    "No rate of this traffic is within the targets on the watched stack, so no gain can be given.": (
        "在所监看的服务上，此流量的任何速率都达不到目标，无法给出增益。"
    ),
    "As watched it serves up to {rate} req/s within the targets; {tried} changes tried.": (
        "按监看所见，它最多每秒达标服务 {rate} 个请求；试了 {tried} 种改动。"
    ),
    "{what}{gpus}: {rate} req/s, {gain}.": "{what}{gpus}：每秒 {rate} 个请求，{gain}。",
    "None of them gains 2 %.": "没有一种能提升 2 %。",
    # --- faults ---
    "--changes: no request ended while it was watched; allowed: a stack with traffic": (
        "--changes：监看期间没有请求结束；可用：有流量的服务"
    ),
    "{path}: no such file; allowed: what planner watch --record wrote, or {there}": (
        "{path}：没有这个文件；可用：planner watch --record 写的文件，或 {there}"
    ),
    "{path}: is no recording; allowed: a file that planner watch --record wrote": (
        "{path}：不是记录；可用：planner watch --record 写的文件"
    ),
    "{path}:{number}: is no line of a recording; allowed: lines as they were written": (
        "{path}:{number}：不是记录的行；可用：写下时的原样"
    ),
    "{path}:{number}: role {role!r}; allowed: {roles}": "{path}:{number}：role {role!r}；可用：{roles}",
    "{path}:{fault}: is not JSON; allowed: lines as they were written": "{path}:{fault}：不是 JSON；可用：写下时的原样",
    "{path}: cannot be read ({error}); allowed: a file that planner watch wrote": (
        "{path}：无法读取（{error}）；可用：planner watch 写的文件"
    ),
    "{path}: is no watch ({error}); allowed: a folder of planner watch": (
        "{path}：不是监看（{error}）；可用：planner watch 的文件夹"
    ),
    "{path}: has no interval; allowed: a recording of at least two rounds": "{path}：没有时段；可用：至少两轮的记录",
    "{asked:.3g} requests in {count} intervals; allowed: up to {most}": (
        "{count} 个时段里有 {asked:.3g} 个请求；可用：不超过 {most}"
    ),
}
