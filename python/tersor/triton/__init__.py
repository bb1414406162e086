"""GPU kernels, one module per family with the operators' own names. The rule: ``launcher(*inputs, *outputs, *scalars)``.

Importing this imports nothing else; a module here is imported when an operator first meets a tensor on a GPU.
"""
