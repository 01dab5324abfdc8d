"""What a model gives out: the read-out in NumPy, the module and its loss in torch beside it."""
