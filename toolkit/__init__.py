"""DIME-FM toolkit: distil a large vision-language model on unpaired images and sentences."""

__version__ = "0.1.0"
