"""TrainSeal: a training job runs only if what it runs carries the signatures a policy asks for."""

__version__ = "0.1.0"
