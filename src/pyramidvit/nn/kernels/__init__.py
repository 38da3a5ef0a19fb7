"""Kernels for GPUs in Triton, and the operators through which the modules reach them."""
