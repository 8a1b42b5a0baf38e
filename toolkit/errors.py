"""What a user did wrong, or what their data lacks. Each message says: what was asked, what was found, what to do."""


class ToolkitError(ValueError):
    """A mistake the user can mend; the command line prints it without a traceback."""


class ConfigError(ToolkitError):
    """A setting that is unknown, of the wrong type, missing, or contradicts another."""


class DataError(ToolkitError):
    """Shards, samples or files that are missing, empty, torn or of the wrong kind."""


class CheckpointError(ToolkitError):
    """A checkpoint that is torn, of another student or run, or of another world size."""


class ExportError(ToolkitError):
    """A student that a format cannot hold, an export that does not give back what the student gives, or a folder of one that is torn."""
