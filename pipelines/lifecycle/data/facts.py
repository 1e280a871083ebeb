"""What there is to know about Strata: one table.

A fact has names (a command, a term) that go into standing questions, or whole questions of its own, and one answer
in each language.
"""

from dataclasses import dataclass

DOES, MEANS, WHOLE = "does", "means", "whole"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing about Strata."""

    kind: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]
    answers: tuple[str, str]


def command(name: str, english: str, chinese: str) -> Fact:
    """A command, whose name is the same in both languages."""
    names = (name, f"`{name}`")
    return Fact(
        DOES,
        (*names, f"the command {name}", f"the {name} command"),
        (*names, f"命令 {name}", f"{name} 命令"),
        (english, chinese),
    )


def term(names: str, chinese_names: str, english: str, chinese: str) -> Fact:
    """A word of the trade; names parted by commas."""
    return Fact(MEANS, tuple(names.split(",")), tuple(chinese_names.split(",")), (english, chinese))


def whole(english: str, chinese: str, answer: str, chinese_answer: str) -> Fact:
    """A fact with whole questions of its own, parted by bars."""
    return Fact(WHOLE, tuple(english.split("|")), tuple(chinese.split("|")), (answer, chinese_answer))


FACTS: tuple[Fact, ...] = (
    command("strata up", "strata up starts Ray, Serve and the models in strata.yaml.",
            "strata up 启动 Ray、Serve 和 strata.yaml 中的模型。"),
    command("strata up --detach", "strata up --detach starts everything in the background.",
            "strata up --detach 在后台启动全部服务。"),
    command("strata status", "strata status shows the models, their replicas and whether they are ready.",
            "strata status 显示模型、副本以及是否就绪。"),
    command("strata chat", "strata chat opens a chat in the terminal.", "strata chat 在终端里打开聊天。"),
    command("strata models", "strata models lists the served models.", "strata models 列出正在服务的模型。"),
    command("strata deploy", "strata deploy puts the models of strata.yaml on a running cluster.",
            "strata deploy 把 strata.yaml 中的模型部署到运行中的集群。"),
    command("strata down", "strata down drains the requests and stops everything.",
            "strata down 处理完请求后停止全部服务。"),
    command("strata bench", "strata bench measures tokens per second and latency.",
            "strata bench 测量每秒 token 数和延迟。"),
    command("strata doctor", "strata doctor checks the machine and says how to fix each fault.",
            "strata doctor 检查机器，并说明如何修复每个问题。"),
    command("strata config explain", "strata config explain KEY says where a setting's value comes from.",
            "strata config explain KEY 说明某个设置的值来自哪里。"),
    command("make serve", "make serve installs everything, starts the stack and prints the URL and a key.",
            "make serve 安装依赖、启动服务，并打印网址和密钥。"),
    command("make test", "make test runs ruff, mypy and pytest.", "make test 运行 ruff、mypy 和 pytest。"),
    command("/health", "/health says that the process is alive; it needs no key.",
            "/health 表示进程还活着，不需要密钥。"),
    command("/ready", "/ready is true once a real token went through all ranks.",
            "/ready 在一个真实 token 通过所有分片后才为真。"),
    command("/metrics", "/metrics gives Prometheus metrics of requests, tokens and the KV cache.",
            "/metrics 提供请求、token 和 KV 缓存的 Prometheus 指标。"),
    command("/v1/models", "/v1/models lists the models that you can ask for.", "/v1/models 列出可以请求的模型。"),
    command("/v1/chat/completions", "/v1/chat/completions answers a chat, as a stream if you like.",
            "/v1/chat/completions 回答对话，可以流式输出。"),
    command("/v1/completions", "/v1/completions continues a text.", "/v1/completions 续写一段文本。"),
    term("strata.yaml,the settings file", "strata.yaml,设置文件",
         "strata.yaml is the one settings file: cluster, models and gateway.",
         "strata.yaml 是唯一的设置文件，包含集群、模型和网关。"),
    term("a shard,the shard,a rank", "分片,一个分片,rank",
         "A shard is one rank of a model: an actor that holds its slice of the weights.",
         "分片是模型的一个 rank：持有一部分权重的 actor。"),
    term("a replica,the replica", "副本,一个副本",
         "A replica is one gang of shards that together answer requests.",
         "副本是一组共同回答请求的分片。"),
    term("the gateway,a gateway", "网关,gateway",
         "The gateway takes HTTP requests, checks keys and limits, and streams the answers.",
         "网关接收 HTTP 请求，检查密钥和限额，并流式返回答案。"),
    term("the leader,a leader", "leader,领头进程",
         "The leader schedules each step and sends the plan to all shards.",
         "leader 安排每一步，并把计划发给所有分片。"),
    term("tensor parallelism,tensor_parallel_size", "张量并行,tensor_parallel_size",
         "Tensor parallelism splits every layer over several shards.",
         "张量并行把每一层拆到多个分片上。"),
    term("the KV cache,KV cache", "KV 缓存,键值缓存",
         "The KV cache keeps keys and values of past tokens in blocks.",
         "KV 缓存按块保存过去 token 的键和值。"),
    term("prefix reuse,prefix caching", "前缀复用,前缀缓存",
         "Prefix reuse takes the KV blocks of an equal beginning instead of computing them again.",
         "前缀复用直接使用相同开头的 KV 块，不再重复计算。"),
    term("continuous batching", "连续批处理",
         "Continuous batching lets requests join and leave between steps.",
         "连续批处理让请求在两步之间加入或离开。"),
    term("chunked prefill", "分块预填充",
         "Chunked prefill computes a long prompt in pieces, so that other streams do not stall.",
         "分块预填充把长提示分段计算，不让其他请求停顿。"),
    term("a placement group,placement group", "放置组,placement group",
         "A placement group reserves the machines of one replica together.",
         "放置组为一个副本一起预留机器资源。"),
    term("error 401,401,status 401", "401,错误 401,401 错误", "401 means that the API key is missing or wrong.",
         "401 表示 API 密钥缺失或错误。"),
    term("error 403,403,status 403", "403,错误 403,403 错误", "403 means that your key may not do this.",
         "403 表示你的密钥没有这个权限。"),
    term("error 400,400,status 400", "400,错误 400,400 错误",
         "400 means that a field of the request is wrong; it is named.",
         "400 表示请求的某个字段有误，错误会指出字段名。"),
    term("error 404,404,status 404", "404,错误 404,404 错误", "404 means that there is no such model or path.",
         "404 表示没有这个模型或路径。"),
    term("error 429,429,status 429", "429,错误 429,429 错误",
         "429 means that the queue is full; wait for Retry-After and try again.",
         "429 表示队列已满，请按 Retry-After 等待后重试。"),
    term("error 503,503,status 503", "503,错误 503,503 错误",
         "503 means that a replica is starting or was lost; try again soon.",
         "503 表示副本正在启动或已丢失，请稍后重试。"),
    term("error 504,504,status 504", "504,错误 504,504 错误", "504 means that the deadline has passed.",
         "504 表示超过了截止时间。"),
    term("Strata", "Strata,Strata 系统",
         "Strata is an enterprise generative-AI stack on Ray with an OpenAI-compatible gateway.",
         "Strata 是基于 Ray 的企业级生成式 AI 系统，网关兼容 OpenAI。"),
    term("Ray", "Ray", "Ray places, starts and watches the actors of Strata.",
         "Ray 负责放置、启动和监视 Strata 的 actor。"),
    term("DeepSpeed", "DeepSpeed", "DeepSpeed gives the process groups and the all-reduce between shards.",
         "DeepSpeed 提供进程组和分片之间的 all-reduce。"),
    term("the API key,an API key", "API 密钥,密钥",
         "The API key is printed once at the first start; send it as a Bearer token.",
         "API 密钥在首次启动时显示一次，请作为 Bearer 令牌发送。"),
    whole("How do I start Strata?|How can I start the server?|How to launch Strata?|Which command starts everything?|"
          "How do I run Strata?|How do I bring it up?|How do I begin?|How do I get started?",
          "怎么启动 Strata？|如何启动服务？|用什么命令启动？|Strata 怎么运行？|怎样开始使用？|如何开始？",
          "Run make serve, or strata up if it is installed.", "运行 make serve；已安装时运行 strata up。"),
    whole("How do I stop Strata?|How can I shut it down?|How to stop the server?|Which command stops everything?|"
          "How do I turn it off?|How do I quit?",
          "怎么停止 Strata？|如何关闭服务？|用什么命令停止？|怎样停掉服务？|如何退出？|怎么关掉？",
          "Press Ctrl-C, or run strata down.", "按 Ctrl-C，或运行 strata down。"),
    whole("How do I use the OpenAI client?|How can I connect with Python?|How do I call it from Python?|"
          "Does the OpenAI client work?|Which base URL do I use?|Can I use the openai package?",
          "怎么用 OpenAI 客户端？|如何用 Python 调用？|OpenAI 客户端能用吗？|base_url 填什么？|"
          "怎么从 Python 连接？|能用 openai 包吗？",
          "Set base_url to the printed URL plus /v1 and api_key to your key.",
          "把 base_url 设为打印的网址加 /v1，api_key 设为你的密钥。"),
    whole("How do I change a setting?|Where do I change settings?|How can I configure Strata?|Where are the settings?|"
          "How do I edit the configuration?|How do I set an option?",
          "怎么修改设置？|在哪里改设置？|如何配置 Strata？|设置在哪里？|怎么改配置？|如何设置选项？",
          "Edit strata.yaml; a flag beats the environment, which beats the file.",
          "编辑 strata.yaml；命令行参数优先于环境变量，环境变量优先于文件。"),
    whole("How do I add a model?|How can I serve my own model?|How do I use another model?|Can I load my model?|"
          "How do I deploy a new model?|How do I serve a Hugging Face folder?",
          "怎么添加模型？|如何部署我自己的模型？|怎么换一个模型？|能加载我的模型吗？|"
          "如何部署新模型？|怎么使用 Hugging Face 文件夹？",
          "Add its name and path to models in strata.yaml, then run strata deploy.",
          "在 strata.yaml 的 models 中加上名称和路径，然后运行 strata deploy。"),
    whole("What happens when a shard dies?|What if a rank crashes?|What if a GPU fails?|"
          "What happens when a process dies?|"
          "Is a dead shard replaced?|What if a shard is killed?",
          "分片挂了会怎样？|某个 rank 崩溃怎么办？|GPU 坏了怎么办？|进程死了会怎样？|"
          "分片死了会被替换吗？|分片被杀掉会怎样？",
          "The whole gang is stopped and Serve starts a new replica.", "整个副本会停止，Serve 会启动新的副本。"),
)  # fmt: skip
