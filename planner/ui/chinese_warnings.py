"""The Chinese of warnings: template for template. Keys, names and values stay as they are."""

from __future__ import annotations

WARNINGS: dict[str, str] = {
    # --- warnings of profiles and deployments ---
    "deployment.link.cross_layer_blocks: simulated as asked for; vLLM 0.25.1 with FlashAttention took the "
    "option and posted every layer by itself all the same (measured), and vLLM 0.32 has none for NIXL": (
        "deployment.link.cross_layer_blocks：按所设的值模拟；使用 FlashAttention 的 vLLM 0.25.1 接受了该选项，"
        "却仍逐层提交（实测），vLLM 0.32 的 NIXL 连接器则没有这个选项"
    ),
    "profile {name}: {composed}": "性能档案 {name}：{composed}",
    "profile {name}: {what} reach {value}, measured only from {low} to {high}; this is an extrapolation": (
        "性能档案 {name}：{what}达到 {value}，只实测过 {low} 至 {high}；这是外推"
    ),
    "batch": "批大小",
    "context tokens of a sequence": "一条序列的上下文 token",
    "prompt tokens of a step": "一步的提示词 token",
    "profile {name} is for {what} {mine}, not {yours}: step times are the roofline's": (
        "性能档案 {name} 的{what}是 {mine}，不是 {yours}：步时间取自屋顶线"
    ),
    "profile {name} is for {what} {mine}, used for {yours}; times are not to be trusted": (
        "性能档案 {name} 的{what}是 {mine}，却用于 {yours}；时间不可信"
    ),
    "profile {name} is for {theirs}, used for {ours}; times are not to be trusted": (
        "性能档案 {name} 用于 {theirs}，却用在 {ours}；时间不可信"
    ),
    "{key}: step times here are the roofline's, though {name} is calibrated on this model and GPU (within {error:.1f} "
    "% of the steps measured at TP {tp}; the roofline's error stands with the answer): --set {key}={name} uses it, "
    "{key}=null is the roofline on purpose": (
        "{key}：这里的步时取自屋顶线，而 {name} 就是在此模型和 GPU 上校准的（与 TP {tp} 下实测的步时平均相差 "
        "{error:.1f} %；屋顶线的误差随答案给出）：--set {key}={name} 即可使用，{key}=null 表示有意使用屋顶线"
    ),
    "model": "模型",
    "hardware": "硬件",
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
    "profile {name} was measured with {theirs}; {ours} is scaled from it by the roofline": (
        "性能档案 {name} 在 {theirs} 下实测；{ours} 由屋顶线模型换算"
    ),
    "profile {name} was measured at TP {measured}; TP {tp} is scaled from it by the roofline": (
        "性能档案 {name} 在 TP {measured} 下实测；TP {tp} 由屋顶线模型换算"
    ),
    "profile {name}: also: {other} is not this engine at another TP; allowed: profiles of {model} on {hardware} with "
    "the same types": (
        "性能档案 {name}：also：{other} 不是同一引擎的其他 TP；允许：{model} 在 {hardware} 上、类型相同的性能档案"
    ),
    "profile {name} was measured with even experts; the imbalance of {imbalance:g} is an estimate": (
        "性能档案 {name} 实测时各专家负载均匀；不均衡 {imbalance:g} 是估计"
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
    "the host was busy before the load: a load average of {load:.1f} on {cpus} cores": (
        "加载之前主机已很忙：{cpus} 个核上的平均负载为 {load:.1f}"
    ),
    "{count} history tokens are made up: earlier answers were shorter than planned, or came without token ids": (
        "{count} 个历史 token 是编造的：之前的回答短于计划，或没有带 token id"
    ),
    "stopped early: {count} known requests were not sent, those in flight are errors": (
        "提前停止：{count} 个已知请求没有发送，未完成的计为错误"
    ),
    "{name} holds no weights: dummy weights are served": "{name} 没有权重：用的是虚设权重",
    "{name}: {reason}: {kind} weights are served, so timing holds and text means nothing": (
        "{name}：{reason}：用的是{kind}权重，因此时间有效而文本没有意义"
    ),
    "the folder has neither weights nor a tokenizer": "文件夹中既无权重也无分词器",
    "a config alone has no weights": "只有配置而没有权重",
    "random seeded": "按种子生成的随机",
    "dummy": "虚设",
    "{name} does not tokenise ({error}): texts are routed by an estimate of their length": (
        "{name} 不提供分词（{error}）：文本按估计的长度路由"
    ),
    "{url} refused some fields ({refusal}); used: {kind} with {prompt} prompts, extensions: {kept}": (
        "{url} 拒绝了某些字段（{refusal}）；使用：{kind}，提示词为 {prompt}，扩展：{kept}"
    ),
    "{url} reports no usage: lengths are those that were asked for or streamed": (
        "{url} 不报告用量：长度按所请求的或流中收到的计"
    ),
    "{url} made {count} tokens where {asked} were asked for: output lengths are not pinned": (
        "{url} 在请求 {asked} 个 token 时产生了 {count} 个：输出长度不固定"
    ),
    "{url} counts {count} tokens in a prompt of {ids} ids": "{url} 把 {ids} 个 id 的提示词计为 {count} 个 token",
    "{url} gets texts: {ratio:.2f} tokens a word, {overhead:.0f} added by the template; prompt lengths are "
    "approximate": ("发给 {url} 的是文本：每词 {ratio:.2f} 个 token，模板另加 {overhead:.0f} 个；提示词长度是近似的"),
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
