"""What to write instead: hints for names that users of PyTorch, Jittor or NumPy try."""

from __future__ import annotations

from collections.abc import Iterable

CPU = "metaop computes on the CPU: leave it out"
MEMORY = "values have no strides, pointers or storage to share; x.numpy() copies one"
COMPLEX = "metaop has no complex numbers and no FFT"
SPARSE = "metaop has no sparse storage"
QUANTISED = "metaop has no quantised dtypes"
NOT_NEEDED = "metaop needs nothing of the kind: leave it out"
NUMPY = "compute it with NumPy from x.numpy(), or write it with metaop.kernel"

INSTEAD = {
    "clone": "x.detach() is a copy: values never change once recorded",
    "stop_grad": "x.detach()",
    "start_grad": "x.requires_grad = True",
    "is_stop_grad": "not x.requires_grad",
    "fetch_sync": "x.numpy()",
    "fetch": "x.numpy()",
    "ternary": "mo.where(x, a, b)",
    "share_with": "x.assign(y)",
    "swap": "x.assign(y)",
    "opt_grad": "w.grad",
    "fuse_transpose": "x.transpose(order)",
    "getdim": "x.ndim",
    "shape_as_list": "list(x.shape)",
    "ndimension": "x.ndim",
    "dim_order": "range(x.ndim)",
    "nelement": "x.numel()",
    "itemsize": "x.dtype.itemsize",
    "element_size": "x.dtype.itemsize",
    "is_floating_point": "x.dtype.is_float",
    "is_signed": "x.dtype.kind != 'u'",
    "is_same_size": "x.shape == y.shape",
    "expand_as": "x.expand(y.shape)",
    "view_as": "x.view(y.shape)",
    "resize_as": "x.reshape(y.shape)",
    "reshape_as": "x.reshape(y.shape)",
    "resize": "x.reshape(shape)",
    "resize_": "x = x.reshape(shape)",
    "char": "x.astype(mo.int8)",
    "byte": "x.astype(mo.uint8)",
    "short": "x.astype(mo.int16)",
    "bfloat16": "x.astype(mo.bfloat16)",
    "type": "x.astype(dtype)",
    "detach_": "x = x.detach()",
    "is_nonzero": "bool(x)",
    "narrow_copy": "x.narrow(axis, start, length)",
    "addr": "x + mo.outer(a, b)",
    "addmv": "x + a @ b",
    "addbmm": "x + (a @ b).sum(0)",
    "select_scatter": "x[i] = values",
    "slice_scatter": "x[start:stop] = values",
    "fill_diagonal_": "x = mo.where(mo.eye(n, dtype=bool), value, x)",
    "index_reduce": "x.reindex_reduce, or x.scatter_reduce",
    "new_zeros": "mo.zeros(shape, dtype=x.dtype)",
    "new_ones": "mo.ones(shape, dtype=x.dtype)",
    "new_empty": "mo.empty(shape, dtype=x.dtype)",
    "new_full": "mo.full(shape, value, dtype=x.dtype)",
    "new_tensor": "mo.array(data, dtype=x.dtype)",
    "zero_grad": "w.grad = None, or optimizer.zero_grad()",
    "retains_grad": "mo.grad(loss, x) gives the gradient of any Var",
    "retain_grad": "mo.grad(loss, x) gives the gradient of any Var",
    "grad_fn": "mo.grad(loss, x) gives the gradient of any Var",
    "register_post_accumulate_grad_hook": "x.register_hook(function)",
    "bitwise_not": "~x",
    "adjoint": "x.mT",
    "mH": "x.mT",
    "H": "x.T",
    "conj_physical": "x.conj()",
    "histc": "x.histogram(bins)",
    "split_with_sizes": "x.split(positions)",
    "unsafe_split": "x.split(positions)",
    "unsafe_split_with_sizes": "x.split(positions)",
    "unsafe_chunk": "x.chunk(count)",
    "sum_to_size": "x.sum(axes)",
    "apply_": "mo.kernel(function)(x)",
    "map_": "mo.kernel(function)(x, y)",
    "map2_": "mo.kernel(function)(x, y, z)",
    "random_": "x.assign(mo.random.randint(low, high, x.shape))",
    "put": "x[index] = values",
    "put_": "x[index] = values",
    "nonzero_static": "x.nonzero()",
    "unique_consecutive": "x.unique()",
    "tensor": "mo.array",
    "Tensor": "mo.Var",
    "from_numpy": "mo.array (it copies)",
    "autograd": "mo.grad",
}

TOPICS = {
    CPU: (
        "cuda device_id get_device ipu is_cpu is_cuda is_ipu is_maia is_meta is_mkldnn is_mps "
        "is_mtia is_vulkan is_xla is_xpu mtia record_stream to_mkldnn xpu"
    ),
    MEMORY: (
        "as_strided as_strided_ const_data_ptr data_ptr is_contiguous is_pinned is_set_to "
        "is_shared layout new_empty_strided pin_memory resize_as_ set_ share_memory_ storage "
        "storage_offset storage_type stride untyped_storage"
    ),
    COMPLEX: ("angle cdouble cfloat chalf fft is_complex is_conj is_neg isreal istft stft"),
    SPARSE: (
        "ccol_indices coalesce col_indices crow_indices dense_dim indices is_coalesced is_sparse "
        "is_sparse_csr resize_as_sparse_ row_indices smm sparse_dim sparse_mask sparse_resize_ "
        "sparse_resize_and_clear_ sspaddmm to_dense to_sparse to_sparse_bsc to_sparse_bsr "
        "to_sparse_coo to_sparse_csc to_sparse_csr values"
    ),
    QUANTISED: (
        "dequantize int_repr is_quantized q_per_channel_axis q_per_channel_scales "
        "q_per_channel_zero_points q_scale q_zero_point qscheme"
    ),
    NOT_NEEDED: (
        "as_subclass debug_msg grad_dtype hash_tensor is_distributed is_inference is_nested "
        "location module_load name new out_hint output_nr reinforce resolve_conj resolve_neg "
        "to_padded_tensor volatile"
    ),
    NUMPY: (
        "as_strided_scatter cauchy_ cholesky_inverse cholesky_solve diagonal_scatter eig frexp "
        "gcd gcd_ geometric_ geqrf i0 i0_ igamma igammac lcm lcm_ log_normal_ lu "
        "lu_solve matrix_exp mode mvlgamma orgqr ormqr polygamma renorm slice_inverse "
        "symeig triangular_solve"
    ),
}
INSTEAD |= {name: text for text, names in TOPICS.items() for name in names.split()}


def hint_for(owner: str, name: str, known: Iterable[str]) -> str:
    """The text of an AttributeError: what exists under a similar name, or what to write."""
    text = f"{owner} has no attribute {name!r}"
    if name in INSTEAD:
        separator = ":" if " " in INSTEAD[name] else "; write"
        return f"{text}{separator} {INSTEAD[name]}"
    plain = name.rstrip("_")
    if plain != name and plain in INSTEAD:  # in place
        return f"{text}: {INSTEAD[plain]}"
    place = None if name.startswith("_") else function_named(plain)
    if place is not None and plain != name:
        return f"{text}; write x.assign({place}(x))"
    if place is not None:
        return f"{text}; write {place}(x)"
    import difflib  # not at the start of every program

    close = difflib.get_close_matches(name, [k for k in known if not k.startswith("_")], 3, 0.7)
    return f"{text}; did you mean {', '.join(close)}?" if close else text


def function_named(name: str) -> str | None:
    """Where metaop has a function of that name: `mo.floor_divide`; None if nowhere."""
    import metaop as mo  # which is built on this module

    places = {
        "mo": vars(mo),
        "mo.linalg": vars(mo.linalg),
        "mo.random": vars(mo.random),
        "mo.nn.functional": vars(mo.nn.functional),
    }
    for place, functions in places.items():
        if callable(functions.get(name)) and not isinstance(functions[name], type):
            return f"{place}.{name}"
    return None
