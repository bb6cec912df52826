# What the stub generator does not see by itself: an exception class made by C, and names with underscores.
_core.__suffix__:
    __version__: str

    class FormatError(ValueError): ...
