"""Dense MLPs and mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass

from planner.engine.config_reader import Reader
from planner.engine.layers import Builder, Layer, Matrix


@dataclass(frozen=True)
class Mlp:
    """`matrices` of hidden times width: three with a gate, two without."""

    path: str = "mlp"
    keys: tuple[str, ...] = ("intermediate_size",)
    matrices: int = 3
    bias: bool = False
    bias_key: str | None = "mlp_bias"
    times_hidden: int = 0  # width in hidden sizes where the config has none

    def __call__(self, read: Reader, layer: int) -> Layer:
        hidden = read.hidden
        width = read.whole(*self.keys, default=self.times_hidden * hidden or None)
        names = ("gate_proj", "up_proj", "down_proj")[3 - self.matrices :]
        biased = self.bias or (self.bias_key is not None and read.flag(self.bias_key))
        bias = (width * (self.matrices - 1) + hidden) * biased
        found = [Matrix("mlp", f"{self.path}.{name}", hidden * width) for name in names]
        return Layer((*found, Matrix("norms", self.path, bias)))


GATED = Mlp()

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")
WIDTHS = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")


def sparse(read: Reader, layer: int) -> bool:
    """Whether a layer of a mixture has experts; each family says it in its own keys."""
    types = read.items("mlp_layer_types", read.layers)
    if types is not None:
        return bool(types[layer] != "dense")
    config = read.config
    if isinstance(config.get("moe_layer_freq"), list):
        return bool(read.per_layer("moe_layer_freq")[layer])
    if isinstance(listed := config.get("moe_layers_enum"), str):  # Step
        return str(layer) in [number.strip() for number in listed.split(",")]
    if isinstance(listed := config.get("moe_layers"), list):  # Llama 4
        return layer in listed
    if "moe_layer_start_index" in config:  # ERNIE
        first, last = read.count("moe_layer_start_index"), config.get("moe_layer_end_index")
        last = read.layers - 1 if last in (None, -1) else int(last)
        return first <= layer <= last and (layer + 1) % read.whole("moe_layer_interval", default=1) == 0
    if "expert_layer_period" in config:  # Jamba
        return layer % read.whole("expert_layer_period") == read.count("expert_layer_offset")
    first = read.count("first_k_dense_replace", "num_dense_layers")
    if layer < first or layer in (config.get("mlp_only_layers") or ()):
        return False
    step = read.whole("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", default=1)
    return (layer + 1) % step == 0 if "moe_layer_freq" not in config else layer % step == 0


@dataclass(frozen=True)
class Mixture:
    """Routed and shared experts in the layers that have them, `dense` in the others."""

    path: str = "mlp"
    dense: Builder = GATED
    width_keys: tuple[str, ...] = WIDTHS
    shared_keys: tuple[str, ...] = ()  # width of the shared expert
    shared_number: tuple[str, ...] = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    shared_path: str = "shared_experts"
    shared_gate: bool = False
    shared_default: int = 0  # shared experts where the config does not say
    matrices: int = 3
    correction: bool = False  # a bias of each expert's score
    biases: bool = False  # of experts and router, as gpt-oss has them
    router_norms: int = 0  # further vectors of hidden size
    always: bool = False  # all layers are mixtures
    beside: bool = False  # the dense MLP stands beside the experts

    def has_experts(self, read: Reader, layer: int) -> bool:
        return bool(read.count(*EXPERTS)) and (self.always or sparse(read, layer))

    def shared_width(self, read: Reader) -> int:
        if read.count(*self.shared_keys) if self.shared_keys else 0:
            return read.count(*self.shared_keys)
        given = any(key in read.config for key in self.shared_number)
        return (read.count(*self.shared_number) if given else self.shared_default) * self.width(read)

    def width(self, read: Reader) -> int:
        return read.whole(*self.width_keys)

    def __call__(self, read: Reader, layer: int) -> Layer:
        if not self.has_experts(read, layer):
            return self.dense(read, layer)
        hidden, experts, width = read.hidden, read.whole(*EXPERTS), self.width(read)
        inner = read.count("moe_latent_size", "routed_expert_hidden_size") or hidden
        shared, path = self.shared_width(read), self.path
        small = experts * self.correction + hidden * self.router_norms
        if self.biases:
            small += experts * (2 * width + hidden) + experts
        down = 2 * hidden * inner if inner != hidden else 0  # Nemotron 3: experts of a narrower stream
        found = (
            Matrix("router", f"{path}.gate", hidden * (experts + self.shared_gate)),
            Matrix("routed", f"{path}.experts.0.up_proj", self.matrices * inner * width * experts),
            Matrix("shared", f"{path}.{self.shared_path}.up_proj", self.matrices * hidden * shared),
            Matrix("shared", f"{path}.fc1_latent_proj", down),
            Matrix("norms", path, small),
        )
        return Layer(found + (self.dense(read, layer).matrices if self.beside else ()))
