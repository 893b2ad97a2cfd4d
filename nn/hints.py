"""What to write for a name of torch.nn, torch.optim or torch.utils.data that is not here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from metaop import support

DEVICES = "metaop computes on the processors of one machine, with all their cores: leave it out"
SPARSE = "metaop has no sparse storage"
HALF = "there are no products of scaled or quantised numbers; write mo.matmul"
WORKERS = "a DataLoader's thread reads ahead: write prefetch=n"
PIPES = "write a Dataset, or a generator of batches"
INTERNAL = "torch uses it within itself: leave it out"
MEMORY = "values have no layout: leave it out"

# name -> what is written after "module 'metaop.nn' has no attribute 'X'; "
INSTEAD = {
    "Buffer": "write self.register_buffer(name, var)",
    "Container": "write nn.Module",
    "NLLLoss2d": "write nn.NLLLoss",
    "CrossMapLRN2d": "write nn.LocalResponseNorm",
    "SyncBatchNorm": "write nn.BatchNorm2d: there is one process",
    "DataParallel": DEVICES,
    "parallel": DEVICES,
    "AdaptiveLogSoftmaxWithLoss": "write nn.Linear and nn.CrossEntropyLoss",
    "FractionalMaxPool2d": "write nn.AdaptiveMaxPool2d",
    "FractionalMaxPool3d": "write nn.AdaptiveMaxPool3d",
    "LinearCrossEntropyLoss": "write nn.Linear and nn.CrossEntropyLoss",
    "LinearCrossEntropyOptions": "write nn.Linear and nn.CrossEntropyLoss",
    "RNNBase": "write nn.RNN, nn.LSTM or nn.GRU",
    "RNNCellBase": "write nn.RNNCell, nn.LSTMCell or nn.GRUCell",
    "factory_kwargs": "write dtype=",
    "UninitializedParameter": "write nn.LazyLinear and the like: what is not known is not there",
    "UninitializedBuffer": "write nn.LazyBatchNorm2d and the like: what is not known is not there",
    "Tensor": "write mo.Var",
    "multi_head_attention_forward": "write nn.MultiheadAttention",
    "linear_cross_entropy": "write F.cross_entropy(F.linear(x, w, b), y)",
    "conv_tbc": "write F.conv1d of x.permute((1, 2, 0))",
    "upsample_bilinear": "write F.interpolate(x, mode='bilinear', align_corners=True)",
    "upsample_nearest": "write F.interpolate(x)",
    "native_channel_shuffle": "write F.channel_shuffle",
    "prune": "multiply the weight by a mask in forward",
    "stateless": "write a function of the parameters",
    "rnn": "pad the sequences, and mask what is beyond their ends",
    "skip_init": "write the layer: making one takes no time until its values are read",
    "fuse_conv_bn_weights": "write nn.utils.fuse_conv_bn_eval(conv, bn)",
    "fuse_linear_bn_weights": "write nn.utils.fuse_linear_bn_eval(linear, bn)",
    "Adafactor": "write nn.optim.AdamW",
    "Muon": "write nn.optim.AdamW",
    "SparseAdam": SPARSE,
    "swap_in_optimizer_params_and_state": INTERNAL,
    "EPOCH_DEPRECATION_WARNING": INTERNAL,
    "ChainDataset": "write itertools.chain",
    "DistributedSampler": DEVICES,
    "get_worker_info": WORKERS,
    "default_collate": "leave it out: a DataLoader stacks arrays, numbers, tuples and dicts",
    "default_convert": "write mo.array",
}
GROUPS = {
    HALF: "grouped_mm scaled_mm scaled_grouped_mm ScalingType SwizzleType",
    PIPES: (
        "DFIterDataPipe DataChunk IterDataPipe MapDataPipe functional_datapipe "
        "guaranteed_datapipes_determinism non_deterministic runtime_validation "
        "runtime_validation_disabled argument_validation"
    ),
    INTERNAL: (
        "GRID_SAMPLE_INTERPOLATION_MODES GRID_SAMPLE_PADDING_MODES assert_int_or_pair "
        "boolean_dispatch handle_torch_function has_torch_function has_torch_function_unary "
        "has_torch_function_variadic BroadcastingList1 BroadcastingList2 BroadcastingList3 "
        "reproducibility_notes sparse_support_notes tf32_notes"
    ),
    MEMORY: "convert_conv2d_weight_memory_format convert_conv3d_weight_memory_format",
    "write F.adaptive_max_pool2d": (
        "fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d "
        "fractional_max_pool3d_with_indices"
    ),
    "write it with return_indices=True": (
        "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
        "adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices "
        "adaptive_max_pool3d_with_indices"
    ),
}  # fmt: skip
INSTEAD |= {name: text for text, names in GROUPS.items() for name in names.split()}


def refuse(module: str, known: Callable[[], list[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a module: an AttributeError that says what to write."""

    def missing(name: str) -> NoReturn:
        if name in INSTEAD:
            raise AttributeError(f"module {module!r} has no attribute {name!r}; {INSTEAD[name]}")
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        names = known()
        plain = name.rstrip("_")
        if plain != name and plain in names:  # relu_(x)
            text = f"write x.assign({plain}(x))"
        elif f"{name}_" in names:  # init.uniform(w)
            text = f"write {name}_"
        else:
            raise AttributeError(support.hint_for(f"module {module!r}", name, names))
        raise AttributeError(f"module {module!r} has no attribute {name!r}; {text}")

    return missing
