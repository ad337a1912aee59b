"""简体中文 of what pages write, and with that of messages the one table of translations."""

from __future__ import annotations

from planner.ui.chinese_answers import ANSWERS
from planner.ui.chinese_asking import ASKING
from planner.ui.chinese_faults import FAULTS
from planner.ui.chinese_servers import SERVERS
from planner.ui.chinese_traffic import TRAFFIC
from planner.ui.chinese_warnings import WARNINGS
from planner.ui.chinese_watching import WATCH_PAGE

PAGES: dict[str, str] = {
    **ASKING,
    **WATCH_PAGE,
    # --- pages, navigation ---
    "Ask": "提问",
    "Answer": "结论",
    "Why": "原因",
    "Check for real": "实测验证",
    "Replay": "回放",
    "Workbench": "工作台",
    "Language": "语言",
    "Change the question": "修改问题",
    "See the curves": "查看曲线",
    # --- ask ---
    "How should your GPUs serve this model?": "这些 GPU 该怎样部署这个模型？",
    "All together, or split into prefill and decode? Everything is filled in: press Answer, or change it first.": (
        "合在一起（聚合），还是拆成预填充与解码（P/D 分离）？所有项都已填好：直接点“结论”，或先修改。"
    ),
    "Traffic": "流量",
    "Targets": "目标",
    "Of the address this cannot be used: {fault}": "网址中有无法使用的内容：{fault}",
    "GPUs": "GPU 数量",
    "How many GPUs there are to use, all alike.": "可用的同型号 GPU 数量。",
    "GPU": "GPU 型号",
    "Model": "模型",
    "Found here: {gpus}": "本机检测到：{gpus}",
    "No GPU was found on this machine. None is needed: the answer is simulated.": (
        "本机没有检测到 GPU。不需要 GPU：结论由仿真得出。"
    ),
    "Requests per second": "每秒请求数",
    "All users together, on average.": "所有用户合计的平均值。",
    "New tokens a turn, on average": "每轮新增 token（平均）",
    "Prompt tokens, on average": "提示词 token（平均）",
    "About 0.75 English words, or 1.5 Chinese characters, are one token.": (
        "一个 token 约为 0.75 个英文单词或 1.5 个汉字。"
    ),
    "Answer tokens, on average": "回答 token（平均）",
    "Lengths scatter around the mean as real ones do.": "长度像真实流量一样围绕均值分布。",
    "Upload a trace": "上传轨迹文件",
    "Trace": "轨迹",
    "CSV or JSON lines with a time, prompt_tokens and output_tokens, or {formats}; plain or gzip.": (
        "含时间、prompt_tokens 和 output_tokens 的 CSV 或 JSON lines，或 {formats} 的文件；可为 gzip 压缩。"
    ),
    "The GPU's own": "该 GPU 自带的链路",
    "First token within, ms (TTFT)": "首 token 不超过，毫秒（TTFT）",
    "From sending a request to its first token.": "从发出请求到收到第一个 token 的时间。",
    "Then a token every, ms (TPOT)": "之后每个 token，毫秒（TPOT）",
    "The pace after the first token, a request's mean.": "首 token 之后的节奏，单个请求的平均值。",
    "{pace} tokens a second for each user": "每位用户每秒 {pace} 个 token",
    "For this share of requests, %": "须达标的请求比例，%",
    "The others may be slower.": "其余请求可以更慢。",
    "More for experts": "专家选项",
    "More keys of the YAML, one key=value a line": "更多 YAML 键，每行一个 key=value",
    "This model was not measured on this GPU: step times are those of the roofline.": (
        "该模型未在此 GPU 上实测：步时来自数据手册的屋顶线模型，未经校准。"
    ),
    "My own trace": "我的轨迹",
    "Recorded traffic from a file": "来自文件的真实流量",
    "Link between GPUs": "GPU 之间的链路",
    "It carries the KV cache.": "KV 缓存经由它传输。",
    "Requests of each simulated list": "每份仿真列表的请求数",
    "More take longer and see rarer cases. 0: 400 a GPU, 2000 to 4000 in all.": (
        "越多越慢，但能看到更少见的情况。0：每 GPU 400 个，总数 2000 至 4000。"
    ),
    "Lists to search with (seeds)": "搜索所用列表数（随机种子）",
    "Several give the answer a range.": "多份列表可给出区间。",
    "Chat": "聊天",
    "Short questions, answers of a paragraph": "短问题，一段话的回答",
    "Document Q&A": "文档问答",
    "Retrieved passages and a question (RAG)": "检索到的段落加一个问题（RAG）",
    "Code": "代码",
    "Much context, a few lines back": "长上下文，返回几行",
    "Long writing": "长文写作",
    "A short request, pages of text": "短请求，多页文本",
    "Agents": "智能体",
    "Many turns that each repeat the history": "多轮对话，每轮重复历史",
    # --- answer ---
    "search": "搜索",
    "tune": "调优",
    "all seeds": "全部种子",
    "together": "合起来",
    "why": "原因分析",
    "what would change it": "什么会改变结论",
    "link": "链路",
    "estimate": "估算",
    "To run: **{name}**. Under your traffic of {rate} requests/s:": (
        "建议部署：**{name}**。在您每秒 {rate} 个请求的流量下："
    ),
    "target {limit} ms: {verdict}": "目标 {limit} 毫秒：{verdict}",
    "met": "达标",
    "missed": "未达标",
    "Room": "余量",
    "at most {rate} requests/s": "最高每秒 {rate} 个请求",
    "What is left of the highest rate.": "距最高速率还剩的比例。",
    "Bar chart of every split": "各种拆分的柱状图",
    "A longer bar serves more. Hollow bars are simulated; the thick line is the 95 % interval. The dotted line "
    "is the best aggregated deployment, the dashed line your traffic.": (
        "柱越长，能服务的越多。空心柱为仿真；粗线是 95 % 区间。点线是最好的聚合部署，虚线是您的流量。"
    ),
    "What would change it": "什么会改变结论",
    "P/D's advantage under changes of 20 %": "各项变化 20 % 时 P/D 的优势",
    "Worth it is right of the dashed line by more than its interval "
    "and the profile's error; nearer is too close to call.": (
        "值得：在虚线右侧，且超出其区间与性能档案的误差；更近则难分高下。"
    ),
    "Next": "下一步",
    "Check it for real": "实测验证",
    "Download the YAML": "下载 YAML",
    "Export a report": "导出报告",
    "Copy the command": "复制命令",
    "with this file as question.yaml:": "其中 question.yaml 为：",
    # --- why ---
    "What stands behind the answer, chart by chart. Simulated is hollow or dashed.": (
        "结论背后的依据，逐图说明。仿真为空心或虚线。"
    ),
    "Chart": "图表",
    "Load": "负载",
    "Ratio": "配比",
    "Trade-off": "权衡",
    "First token": "首 token",
    "Timeline": "时间线",
    "Simulating the load curves …": "正在仿真负载曲线……",
    "One GPU cannot be split.": "一个 GPU 无法拆分。",
    "Speed for a user against output of a GPU": "用户速度与每 GPU 产出",
    "Stages of the time to first token": "首 token 时间的各阶段",
    "The longest piece is where time goes; a long queue means too few prefill workers for this rate.": (
        "最长的一段就是时间的去处；排队很长说明在此速率下预填充实例太少。"
    ),
    "Workers over time": "各实例随时间的变化",
    "One row a worker, time to the right. Rows of one pool that differ in brightness are unevenly loaded.": (
        "每行一个实例，时间向右。同一池中亮度不同的行表示负载不均。"
    ),
    "Deployment": "部署",
    "Show": "显示",
    # --- check ---
    "The same file on real vLLM servers, the same requests, and the error of the simulation.": (
        "同一个文件、同样的请求，在真实的 vLLM 服务器上运行，并给出仿真的误差。"
    ),
    "What can run here": "本机能运行什么",
    "Check": "检查项",
    "Works": "可用",
    "What was found": "检测结果",
    "To make it work": "如何使其可用",
    "{cores} CPU cores, {memory} memory, {count} GPUs": "{cores} 个 CPU 核，{memory} 内存，{count} 个 GPU",
    "The plan": "计划",
    "Where": "在哪里运行",
    "Measure this machine's step times first": "先实测这台机器的步时",
    "Takes about {seconds} s. Without it the prediction is a guess from the datasheet, far off on a CPU.": (
        "约需 {seconds} 秒。不测则按数据手册估计，在 CPU 上误差很大。"
    ),
    "On the GPUs here": "在本机 GPU 上",
    "On the CPU, with a small model": "在 CPU 上，用小模型",
    "On servers that run already": "在已运行的服务器上",
    "{requests} requests in {load} s; with starting and stopping about {minutes} minutes.": (
        "{load} 秒内发送 {requests} 个请求；连同启动与停止约 {minutes} 分钟。"
    ),
    "The file": "文件",
    "A small model on the CPU checks the method with real servers and a real KV transfer, not your GPUs.": (
        "CPU 上的小模型用真实服务器和真实 KV 传输检验方法，而不是检验您的 GPU。"
    ),
    "Addresses, one a line": "地址，每行一个",
    "A token is read from the environment variable {name} and never stored.": (
        "令牌从环境变量 {name} 读取，不会保存。"
    ),
    "It is set.": "已设置。",
    "Address of a Ray cluster": "Ray 集群地址",
    "On a Ray cluster": "在 Ray 集群上",
    "Left empty: the cluster that this machine belongs to. vLLM must be installed on its nodes.": (
        "留空：本机所属的集群。其节点须已安装 vLLM。"
    ),
    "Servers cannot be started here yet; this installs vLLM for the CPU, with real P/D on a small model:": (
        "本机尚不能启动服务器；以下命令安装 CPU 版 vLLM，可用小模型运行真实的 P/D："
    ),
    "Requests": "请求数",
    "This page is served beyond this machine, so it starts nothing. {name}=1 allows it.": (
        "此页面对本机之外开放，因此不会启动任何运行。设置 {name}=1 可允许。"
    ),
    "Start the check": "开始验证",
    "A check is running. You may close or reload this page: it goes on.": (
        "验证正在运行。可以关闭或刷新本页：它会继续。"
    ),
    "Stopping: what was measured is kept. Servers take up to a minute to end; after it, Stop kills them.": (
        "正在停止：已测得的结果会保留。服务器最多一分钟内结束；之后再按“停止”会强制结束它们。"
    ),
    "Sends nothing more, ends the servers, and keeps what was measured.": (
        "不再发送请求，结束服务器，并保留已测得的结果。"
    ),
    "Stop": "停止",
    "Starting …": "正在启动……",
    "start servers": "启动服务器",
    "warm up": "预热",
    "calibrate": "校准",
    "load": "负载",
    "stop servers": "停止服务器",
    "Requests finished over time": "随时间完成的请求",
    "The dashed line is the simulation. Points below it: the servers are slower than predicted.": (
        "虚线为仿真。点在其下方：服务器比预测慢。"
    ),
    "Log": "日志",
    "The last check was stopped.": "上一次验证已被停止。",
    "The last check failed: {fault}": "上一次验证失败：{fault}",
    "This run has no simulation beside it.": "此次运行没有对应的仿真。",
    "Simulated against measured": "仿真与实测对比",
    "Each point is a request. On the dashed line simulation and measurement agree.": (
        "每个点是一个请求。在虚线上，仿真与实测一致。"
    ),
    "Errors with their intervals": "误差及其区间",
    "Metric": "指标",
    "simulated": "仿真",
    "error": "误差",
    "A recorded run": "已录制的运行",
    "Recorded run": "录制的运行",
    "recorded earlier on a GPU, not on this machine": "此前在 GPU 上录制，并非在本机运行",
    # --- replay ---
    "Recorded traffic, sent again to simulated deployments at the times it really came.": (
        "把真实流量按其真实到达时间重新发送给仿真的部署。"
    ),
    "Its shape": "流量形态",
    "Format: {form}": "格式：{form}",
    "Requests over the time they span.": "请求数除以其时间跨度。",
    "Burstiness": "突发性",
    "Standard deviation of the gaps over their mean: 1 is Poisson, above is burstier.": (
        "到达间隔的标准差除以均值：1 为泊松，更大则更突发。"
    ),
    "Prompt / answer tokens": "提示词 / 回答 token",
    "Means.": "均值。",
    "Reuse": "复用",
    "Share of prompt blocks that came before; a dash: the trace does not say.": (
        "此前出现过的提示词块的比例；短横线：轨迹未提供。"
    ),
    "Requests per second over time": "每秒请求数随时间的变化",
    "Prompt tokens": "提示词 token",
    "Answer tokens": "回答 token",
    "Peaks on the left need room; long prompts load prefill, long answers load decode.": (
        "左图的峰值需要余量；长提示词给预填充加压，长回答给解码加压。"
    ),
    "Two deployments": "两种部署",
    "Speed-up": "加速倍数",
    "Sends the trace this many times faster.": "以此倍数加快发送轨迹。",
    "Replaying …": "正在回放……",
    "TTFT of both": "两者的 TTFT",
    "The line further left and higher is faster; where it meets the target is the share within it.": (
        "越靠左上的曲线越快；与目标线相交处即达标比例。"
    ),
    "What these mean": "这些指标的含义",
    # --- workbench ---
    "Every key, every number. What is tried here changes nothing elsewhere.": (
        "每个键，每个数字。这里的尝试不会影响其他页面。"
    ),
    "Tool": "工具",
    "Edit and simulate": "编辑并仿真",
    "Sweep": "扫描",
    "Compare runs": "比较运行",
    "Calibration": "校准",
    "Start from": "起点",
    "the question asked": "当前的问题",
    "YAML": "YAML",
    "The file is valid.": "文件有效。",
    "Every metric": "全部指标",
    "Value": "数值",
    "Meaning": "含义",
    "Key": "键",
    "Values, with commas": "取值，用逗号分隔",
    "Simulating …": "正在仿真……",
    "A metric over a key": "指标随键的变化",
    "Each point is one simulated run with that value; everything else stays as in the YAML.": (
        "每个点是取该值的一次仿真；其余与 YAML 相同。"
    ),
    "Fewer than two runs are in the folder runs. `planner simulate` and the checks write them.": (
        "runs 文件夹中的运行少于两个。`planner simulate` 和实测验证会写入运行。"
    ),
    "B against A": "B 相对 A",
    "better": "更好",
    "Profile": "性能档案",
    "Residuals of the fit": "拟合残差",
    "Bars are the mean error of the fitted law, red ticks the largest. Short bars: it follows the engine.": (
        "柱为拟合规律的平均误差，红色短线为最大误差。柱短：与引擎吻合。"
    ),
    "Measured for batches of {batch}, contexts of {context} and steps of {prefill} prompt tokens; "
    "beyond that a prediction says that it extrapolates.": (
        "实测范围：批大小 {batch}，上下文 {context}，每步提示词 token {prefill}；超出时预测会注明为外推。"
    ),
    "Parameter": "参数",
    # --- charts ---
    "Aggregated": "聚合",
    "P/D": "P/D 分离",
    "Prefill": "预填充",
    "Decode": "解码",
    "Transfer": "传输",
    "Host": "主机",
    "Queue": "排队",
    "Wait for decode": "等待解码",
    "First decode": "首次解码",
    "Not told apart": "无法区分",
    "Highest rate within the targets, requests/s": "目标内的最高速率，请求/秒",
    "Best aggregated deployment": "最好的聚合部署",
    "Your traffic": "您的流量",
    "Split": "拆分",
    "requests/s": "请求/秒",
    "output tokens/s": "输出 token/秒",
    "95 % from": "95 % 区间下限",
    "95 % to": "95 % 区间上限",
    "seeds": "种子数",
    "requests/s per GPU": "每 GPU 请求/秒",
    "as it is": "现状",
    "P/D against aggregated, %": "P/D 相对聚合，%",
    "Margin that P/D must win by": "P/D 必须超过的余地",
    "Rate, requests/s": "速率，请求/秒",
    "Target": "目标",
    "Speed for a user, tokens/s": "每位用户的速度，token/秒",
    "Output per GPU, tokens/s": "每 GPU 产出，token/秒",
    "Mean time to first token, ms": "平均首 token 时间，毫秒",
    "Stage": "阶段",
    "ms": "毫秒",
    "Share": "占比",
    "Busy share": "忙碌比例",
    "Requests in the batch": "批中的请求",
    "Requests waiting": "等待的请求",
    "KV cache in use": "KV 缓存占用",
    "Time, s": "时间，秒",
    "Predicted against measured, %": "预测相对实测，%",
    "Time since the first request, s": "自首个请求起的时间，秒",
    "Requests finished": "已完成的请求",
    "requests": "请求数",
    "Share of the requests": "请求占比",
    "Error of the fit, % of the measured step": "拟合误差，占实测步时的 %",
    # --- metrics of the catalogue ---
    "Completed": "完成数",
    "Rejected": "被拒数",
    "Failed": "失败数",
    "Duration": "时长",
    "Steady window": "稳态窗口",
    "Offered rate": "到达速率",
    "Achieved rate": "达成速率",
    "Throughput": "吞吐",
    "Input throughput": "输入吞吐",
    "Output throughput": "输出吞吐",
    "Total throughput": "总吞吐",
    "Throughput per GPU": "每 GPU 吞吐",
    "Output per GPU": "每 GPU 输出",
    "Tokens per GPU": "每 GPU token",
    "Goodput": "有效吞吐",
    "Goodput per GPU": "每 GPU 有效吞吐",
    "Attainment": "达标率",
    "Speed per user": "每用户速度",
    "Cache hit rate": "缓存命中率",
    "Preemptions": "抢占次数",
    "Local prefill": "本地预填充",
    "Link busy": "链路忙碌",
    "Link offered": "链路需求",
    "KV moved": "KV 传输量",
    "Retrieval busy": "检索忙碌",
    "Growth of the line": "排队增长",
    "Growth of the backlog": "积压增长",
    "GPU utilisation": "GPU 利用率",
    "Power per worker": "每实例功耗",
    "Cost per million output tokens": "每百万输出 token 成本",
    "Cost per million tokens": "每百万 token 成本",
    "Requests sent, warm-up left out.": "发送的请求数，不含预热。",
    "Requests that ended with stop or length.": "以 stop 或 length 结束的请求数。",
    "Requests turned away by the router.": "被路由器拒绝的请求数。",
    "Requests that ended with an error or not at all.": "出错或未结束的请求数。",
    "Time base: first send to last finish.": "时间基准：从首次发送到最后完成。",
    "From 10 % of the sending time to the last send.": "从发送时间的 10 % 处到最后一次发送。",
    "Rate of sending: (requests - 1) / (last - first send).": "发送速率：(请求数 - 1) / (末次 - 首次发送)。",
    "Requests finished per second of the steady window.": "稳态窗口内每秒完成的请求数。",
    "Completed requests / duration.": "完成的请求数 / 时长。",
    "Prompt tokens / duration.": "提示词 token / 时长。",
    "Output tokens / duration.": "输出 token / 时长。",
    "Prompt and output tokens / duration.": "提示词与输出 token / 时长。",
    "Throughput / all GPUs of the deployment.": "吞吐 / 部署的全部 GPU。",
    "Output throughput / all GPUs of the deployment.": "输出吞吐 / 部署的全部 GPU。",
    "Total throughput / all GPUs of the deployment.": "总吞吐 / 部署的全部 GPU。",
    "Goodput / all GPUs of the deployment.": "有效吞吐 / 部署的全部 GPU。",
    "Requests that meet every target / duration.": "满足全部目标的请求数 / 时长。",
    "Share of all requests that meet every target; failed ones miss.": "满足全部目标的请求比例；失败的算未达标。",
    "Mean over requests of 1 / TPOT.": "各请求 1 / TPOT 的平均值。",
    "Cached prompt tokens / prompt tokens.": "命中缓存的提示词 token / 提示词 token。",
    "Times a request lost its KV cache and began again.": "请求丢失 KV 缓存并重新开始的次数。",
    "Share of requests prefilled by the decode worker itself.": "由解码实例自行预填充的请求比例。",
    "Bytes moved / (bandwidth x time from the first transfer to the end of the last); busiest link.": (
        "传输字节 / (带宽 x 从首次传输到最后结束的时间)；取最忙的链路。"
    ),
    "Bytes a second the traffic needs moved / bandwidth; busiest link. Above 1 it cannot keep up.": (
        "流量每秒需传输的字节 / 带宽；取最忙的链路。大于 1 则跟不上。"
    ),
    "Bytes of KV cache moved between workers.": "实例之间传输的 KV 缓存字节数。",
    "Share of the steady window that the retrieval workers are busy.": "检索实例在稳态窗口内忙碌的比例。",
    "Least-squares growth, in the steady window (of sessions: while they begin), of the number of requests without a "
    "first token.": ("稳态窗口（会话：陆续开始期间）内尚无首 token 的请求数的最小二乘增长率。"),
    "Least-squares growth, in the steady window (of sessions: while they begin), of the number of requests in the "
    "system.": ("稳态窗口（会话：陆续开始期间）内系统中请求数的最小二乘增长率。"),
    "Mean of the samples (live).": "采样均值（实测）。",
    "price_per_gpu_hour x all GPUs x duration / output tokens x 1e6.": (
        "price_per_gpu_hour x 全部 GPU x 时长 / 输出 token x 1e6。"
    ),
    "price_per_gpu_hour x all GPUs x duration / (prompt and output tokens) x 1e6.": (
        "price_per_gpu_hour x 全部 GPU x 时长 / (提示词与输出 token) x 1e6。"
    ),
}

CHINESE: dict[str, str] = PAGES | ANSWERS | FAULTS | TRAFFIC | WARNINGS | SERVERS
