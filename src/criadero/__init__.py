"""criadero: raise your own LLaMA, from text to a trained model that talks.

The functions for other programs are in `criadero.api`; importing this package costs nothing.
"""

__version__ = "0.1.0"
