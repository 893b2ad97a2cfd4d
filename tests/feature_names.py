"""The array language by name: what must exist, and which file tests what the table of
`tests/api_table.py` does not hold."""

from __future__ import annotations

# Families of functions under `metaop`; names with a dot are in a module of it, `Var.x` is a method.
NAMES = {
    "meta-operators": """
        reindex reindex_reduce index broadcast kernel numpy_code Function""",
    "unary": """
        abs negative neg sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin
        cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv lgamma digamma
        sigmoid floor ceil round trunc isnan isinf isfinite logical_not bitwise_invert astype""",
    "binary": """
        add subtract multiply divide floor_divide remainder pow maximum minimum fmax fmin atan2
        hypot less less_equal greater greater_equal equal not_equal logical_and logical_or
        logical_xor bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift where
        clip lerp""",
    "reductions": """
        sum prod mean var std min max amax amin any all argmin argmax logsumexp norm count_nonzero
        cumsum cumprod cummax cummin""",
    "statistics": """
        median quantile percentile nanmedian nanquantile nanpercentile histogram
        histogram_bin_edges bincount cov corrcoef kthvalue""",
    "movement": """
        reshape transpose permute moveaxis squeeze unsqueeze expand_dims flip roll repeat tile pad
        concat stack split chunk unbind broadcast_to tril triu diag meshgrid""",
    "indexing": """
        gather scatter scatter_add take index_select masked_fill one_hot nonzero unique
        searchsorted sort argsort topk""",
    "linear": """
        matmul dot vecdot outer einsum tensordot kron bilinear conv1d conv2d conv3d
        conv_transpose1d conv_transpose2d conv_transpose3d unfold fold linalg.inv linalg.det
        linalg.slogdet linalg.solve linalg.cholesky linalg.qr linalg.svd linalg.eigh""",
    "control": "scan while_loop cond vmap",
    "autodiff": """
        gradcheck grad value_and_grad vjp jvp jacobian hessian hvp no_grad checkpoint jit
        Var.backward Var.grad Var.detach Var.register_hook""",
    "random": """
        seed Generator random.uniform random.normal randint random.permutation bernoulli
        multinomial random.exponential random.gamma""",
    "dtypes": """
        float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool""",
    "interchange": """
        Var.__array_namespace__ from_dlpack""",
}

# Which file tests what needs more than a line of the table.
TESTED_IN = {
    "tests/test_notation.py": "reindex reindex_reduce",
    "tests/test_creation.py": "index",
    "tests/test_movement.py": "broadcast_to",
    "tests/test_kernels.py": "kernel numpy_code",
    "tests/test_function.py": "Function",
    "tests/test_control.py": "scan while_loop cond",
    "tests/test_transforms.py": """
        gradcheck value_and_grad vjp jvp jacobian hessian hvp checkpoint vmap""",
    "tests/test_grad.py": "grad no_grad backward detach",
    "tests/test_hooks.py": "register_hook",
    "tests/test_jit.py": "jit",
    "tests/test_random.py": """
        seed Generator uniform normal randint permutation bernoulli multinomial exponential
        gamma""",
    "tests/test_dtype.py": """
        float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint32 uint64 bool""",
    "tests/test_operators.py": "uint16",
    "tests/test_interchange.py": "__array_namespace__ from_dlpack",
    "tests/test_jittor_programs.py": "broadcast",
}
