"""inverseflow: reproducible computational imaging with model-based deep learning."""

__version__ = "0.1.0"
