"""简体中文 of how a question is put and how its answer begins: load, money, models, GPUs."""

from __future__ import annotations

ASKING: dict[str, str] = {
    # --- ask ---
    "What to find": "要找什么",
    "I have GPUs: use them best": "已有 GPU：怎样用得最好",
    "How few GPUs for this load?": "这个负载最少要几个 GPU？",
    "US dollars per GPU-hour": "每个 GPU 每小时美元",
    "not listed: type what you pay": "无标价：请填写实际价格",
    "{price:g} (list price)": "{price:g}（标价）",
    "List price of {date}: {source}": "{date} 的标价：{source}",
    "from the datasheet": "按规格推算",
    "not supported": "不支持",
    "My own model": "我的模型",
    "Its config.json, pasted": "粘贴它的 config.json",
    "Use this model": "使用这个模型",
    "A name of the list, a Hugging Face id such as Qwen/Qwen3-8B, or a folder with a config.json.": (
        "列表中的名称、Hugging Face 编号（如 Qwen/Qwen3-8B），或含 config.json 的文件夹。"
    ),
    "This model cannot run here: see its line above.": "这个模型在此无法运行：原因见上方。",
    "How much is sent": "负载怎样表示",
    "Users": "用户数",
    "Users at the same time": "同时在线的用户数",
    "Those who have a conversation open.": "正在对话的用户。",
    "Seconds between an answer and the next message": "从得到回答到发下一条消息的秒数",
    "Reading, thinking and typing.": "阅读、思考和输入的时间。",
    "= {rate} requests/s, when answers take what the targets allow": "= 每秒 {rate} 个请求（回答用时按目标计）",
    "{rate} requests/s": "每秒 {rate} 个请求",
    "{users} users ({load})": "{users} 位用户（{load}）",
    "How few {gpu} serve {model} at {load}?": "{load} 时运行 {model} 最少要几块 {gpu}？",
    "{gpus} x {gpu}, {model}, {load}": "{gpus} × {gpu}，{model}，{load}",
    # --- answer ---
    "Counting GPUs up": "正在逐个增加 GPU 数量",
    "A first look at the splits": "正在初步查看各种划分",
    "Running the best ones under your load": "正在你的负载下运行最好的几种",
    "time left: not known yet": "剩余时间：尚不清楚",
    "about {n} s left": "约剩 {n} 秒",
    "about {n} min left": "约剩 {n} 分钟",
    "Cancel": "取消",
    "Cancelled: this is the first look.": "已取消：这是初步结果。",
    "Cancelled before anything was known.": "已取消：尚无任何结果。",
    "Go on": "继续",
    "Comparing every split over {seeds} lists": "正在用 {seeds} 组请求比较所有划分",
    "Comparing every split": "正在比较所有划分",
    "First look: the best of {n} tried so far is {engines}, with {rate} requests/s within the targets.": (
        "初步结果：已试过的 {n} 种中最好的是 {engines}，在目标内每秒 {rate} 个请求。"
    ),
    "First look: none of {n} tried so far meets the targets.": "初步结果：已试过的 {n} 种都达不到目标。",
    "{rate} requests/s cannot be served within the targets: 1 GPU reaches {most}, as {engines}.": (
        "无法在目标内服务每秒 {rate} 个请求：1 个 GPU 最多每秒 {most} 个（{engines}）。"
    ),
    "{rate} requests/s cannot be served within the targets: all {gpus} GPUs reach {most}, as {engines}.": (
        "无法在目标内服务每秒 {rate} 个请求：全部 {gpus} 个 GPU 最多每秒 {most} 个（{engines}）。"
    ),
    ", ": "，",
    " ": "",
    "{rate} requests/s needs {count}: run {name}; {figures}.": (
        "每秒 {rate} 个请求需要 {count}：运行 {name}；{figures}。"
    ),
    "All {gpus} would reach {most} requests/s.": "全部 {gpus} 个可达每秒 {most} 个请求。",
    "{cost} per million tokens": "每百万 token {cost}",
    "Under your traffic of {rate} requests/s:": "在您每秒 {rate} 个请求的流量下：",
    "What it is best in": "长处",
    "cheapest": "最省",
    "fastest for a user": "对用户最快",
    "most room": "余量最大",
    "US dollars per million tokens": "每百万 token 美元",
    # --- why ---
    "GPUs that prefill": "做预填充的 GPU 数",
    "GPUs of a prefill + a decode worker": "一个预填充 + 一个解码工作进程的 GPU 数",
    "No split was compared.": "没有比较任何划分。",
    "Rate of every split against how many GPUs prefill": "各划分的速率与预填充 GPU 数",
    "Each point is a split of the answer: left, few GPUs prefill; right, few decode. At the peak the two pools "
    "are in balance. The dotted line is the best aggregated deployment.": (
        "每个点是结论中的一种划分：左边预填充的 GPU 少，右边解码的少；峰值处两池平衡。点线是最好的聚合部署。"
    ),
    "Follow a line to the right until it crosses the dashed target: that is how much load a deployment takes. "
    "The grey line is the chosen rate. The points are the runs that the answer is judged by, with its first "
    "list of requests.": (
        "沿一条线向右，直到越过虚线目标：那就是这个部署能承受的负载。灰线是所选的速率。各点就是评判结论所用的运行（第一组请求）。"
    ),
    # --- deploy ---
    "LLM capacity planner": "大模型容量规划",
    "Deploy": "部署",
    "The answer as files. Nothing is started from here.": "把结论写成文件。这里不会启动任何东西。",
    "All {gpus} GPUs: {name}": "全部 {gpus} 个 GPU：{name}",
    "Enough for your load: {name}": "足够您的负载：{name}",
    "The answer depends on: {flags}": "结论取决于：{flags}",
    "vLLM's own defaults": "vLLM 的默认值",
    "For": "用于",
    "One YAML, whole": "一个完整的 YAML",
    "Download all": "全部下载",
    "The rest is in the download.": "其余在下载文件中。",
    "Deploy it": "部署",
    "Up is cheaper, right is faster for each user. On a dashed frontier nothing of its kind beats a point in "
    "both: choose there. The star is the answer; right of the vertical line users see the target's pace. "
    "Click a point to compare its deployment below.": (
        "越高越便宜，越右对每个用户越快。虚线前沿上的点在同类中两方面都无可超越：在那里选择。星号是结论；竖线右侧达到目标的速度。"
        "点击一个点，即可在下方比较它的部署。"
    ),
    "Compared, two at most": "用于比较（最多两个）",
    "Stages of the same requests on each worker": "相同请求在各工作进程上的阶段",
    "The same {n} requests in each deployment, sent one after the other at {rate} requests/s. Each bar is a "
    "stage of one of them, on the worker that does it; others that these workers serve are left out.": (
        "每个部署中都是同样的 {n} 个请求，按每秒 {rate} 个依次发出。"
        "每一条是其中一个请求的一个阶段，画在处理它的工作进程上；这些进程同时处理的其他请求没有画出。"
    ),
    "Even nearly idle, at {rate} requests/s, **{name}** has:": "即使几乎空闲（每秒 {rate} 个请求），**{name}** 也有：",
    "A target below these needs a faster GPU, a smaller model or shorter prompts.": (
        "目标若低于这些数值，需要更快的 GPU、更小的模型或更短的提示词。"
    ),
    "This trace cannot be used: see its line above.": "这条轨迹无法使用：见上方说明。",
    "{n} requests at {rate} requests/s; on average {prompt} prompt and {output} answer tokens": (
        "{n} 个请求，每秒 {rate} 个；平均提示词 {prompt} token，回答 {output} token"
    ),
    "Request": "请求",
    "from": "从",
    "to": "到",
    "Measured steps": "实测步数",
    "Mean error, %": "平均误差，%",
    "Largest error, %": "最大误差，%",
    "From a file or a command": "来自文件或命令",
    "YAML of this planner, or what starts your servers: scripts and commands of vLLM, SGLang, "
    "TensorRT-LLM, Docker Compose, Kubernetes, KServe, Dynamo, llm-d, production-stack, Ray Serve.": (
        "本工具的 YAML，或启动您服务的文件：vLLM、SGLang、TensorRT-LLM 的脚本与命令，"
        "Docker Compose、Kubernetes、KServe、Dynamo、llm-d、production-stack、Ray Serve。"
    ),
    "Type the address of a server first.": "请先填写服务器地址。",
    "This is the edge: {share} of the requests meet the targets, {target} should.": (
        "这已是边缘：{share} 的请求达标，应为 {target}。"
    ),
    "Simulated. Rates may be off by {error}, as those that were served have been.": (
        "仿真结果。速率可能有 {error} 的误差，与已实际服务验证过的速率相当。"
    ),
    "Upload a file": "上传文件",
    "Or paste it": "或粘贴到这里",
    "Put it into the editor": "放入编辑框",
}
