"""The two model families. `pvt_v1` and `pvt_v2` read in the same order: sizes, model, builders."""
