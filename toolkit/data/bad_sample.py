"""The exception of every reader of samples, apart from what decodes pictures: that imports much more."""


class BadSample(Exception):
    """A sample that cannot be used; its first argument is the reason it is counted under."""
