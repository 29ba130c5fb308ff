"""The tasks: one module or one small folder each, found by name through ``registry``."""
